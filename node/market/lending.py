"""Lending one's name to a canary: `canary.lend`, one call, both of its messages and the lender's side.

A canary needs a worker whose name stands on its commitment, one with a past like any other. The lender signs only for
jobs whose nonce is the hash of a mark over the very answer: that proves to it, and to whoever is shown the mark, that
the job was a canary before it was signed, so that its verdict says nothing about the lender. It lends to those only who
have paid it for work. Format: docs/spec/market.md.
"""

from __future__ import annotations

from ledger.entry import AUDITS_MAX, Entry, InvalidEntry, Offer, decode_entry
from node.market.context import Context
from node.market.refuse import DEADLINE_MS_MAX, Refuse
from node.market.taken import Taken
from verify.canary import CanaryMark, check_mark
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope, seal, unseal
from wire.errors import LocalError, Malformed, RemoteError
from wire.job import Commitment, JobSpec
from wire.peer import PeerId, short
from wire.rpc.seam import Method

LEAVES_MAX = 33


class LendJob(Wire, frozen=True):
    """A canary: its spec (domain "job"), the commitment to be signed, and the mark that its nonce is the hash of."""

    spec: Envelope
    commitment: Commitment
    mark: CanaryMark


class LendAsk(Wire, frozen=True):
    """Requester to lender: take this ledger offer, and sign these commitments."""

    entry: bytes
    jobs: list[LendJob]


class Lent(Wire, frozen=True):
    """Lender to requester: the ledger entry that accepts, and the commitments in envelopes, in order."""

    accept: bytes
    commitments: list[Envelope]


LEND = Method("canary.lend", LendAsk, Lent)


class Lender:
    """Answers `canary.lend`."""

    def __init__(self, context: Context, taken: Taken) -> None:
        self._context = context
        self._taken = taken

    async def lend(self, peer: PeerId, ask: LendAsk) -> Lent:
        """Sign for canaries of a peer that has paid us.

        Raises:
            LocalError: we do not lend to it.
            RemoteError: a job is no canary, or the offer is not for these.
        """
        context, me = self._context, self._context.identity.peer
        context.slots.check()
        if not context.settings.lend or not self._paid_by(peer):
            raise LocalError("this node lends its name to those only who have paid it for work")
        try:
            specs = [_canary(peer, job, context.now_ms()) for job in ask.jobs]
            entry = _offer(peer, me, ask, [spec.id for spec in specs])
        except (Malformed, InvalidEntry) as exc:
            raise RemoteError(peer, f"lend: {exc}", penalty=0.3) from exc
        models = {model.cid for model in context.models}
        if any(spec.model not in models for spec in specs):
            raise LocalError("this node does not serve the model")
        try:
            with self._taken.hold([entry.body.job, *(spec.id for spec in specs)], specs[0].deadline_ms):
                accept = await context.ledger.accept(entry)
        except Refuse as exc:
            raise LocalError(str(exc)) from exc
        context.log.info("name_lent", requester=short(peer), canaries=len(specs))
        return Lent(codec.encode(accept), [seal(context.identity, "commitment", job.commitment) for job in ask.jobs])

    def _paid_by(self, peer: PeerId) -> bool:
        me = self._context.identity.peer
        edges = self._context.ledger.trust_edges()
        return any(edge.payer == peer and edge.payee == me and edge.kind == "work" for edge in edges)


def _canary(peer: PeerId, job: LendJob, now_ms: int) -> JobSpec:
    """The spec of a job that was a canary from the start.

    Raises:
        Malformed: it was not, or the commitment is not to this job.
    """
    spec = unseal(job.spec, "job", JobSpec, author=peer)
    if spec.requester != peer or not 0 < spec.deadline_ms - now_ms <= DEADLINE_MS_MAX:
        raise Malformed("a job of another requester, or with an odd deadline")
    if job.commitment.job != spec.id or not 1 <= job.commitment.leaves <= LEAVES_MAX:
        raise Malformed("a commitment to another job")
    check_mark(spec, job.commitment.root, job.mark)
    return spec


def _offer(peer: PeerId, me: PeerId, ask: LendAsk, jobs: list[bytes]) -> Entry:
    """The batch that the canaries hide in.

    Raises:
        Malformed: it is not offered to us by this peer, does not name the jobs, or could earn us something.
        InvalidEntry: it is no entry.
    """
    if not 1 <= len(jobs) <= AUDITS_MAX or len(set(jobs)) != len(jobs):
        raise Malformed(f"{len(jobs)} canaries")
    entry = decode_entry(ask.entry)
    body = entry.body
    if not isinstance(body, Offer) or entry.header.author != peer or body.payee != me:
        raise Malformed("not an offer of this peer to us")
    if body.rule != "batch" or body.audits != len(jobs) or not set(jobs) <= {jury.job for jury in body.juries}:
        raise Malformed("the offer is not for these canaries")
    if all(job.mark.expected == "accept" for job in ask.jobs):
        raise Malformed("a canary batch has one answer at least that must be rejected")
    return entry
