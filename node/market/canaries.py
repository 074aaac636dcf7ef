"""Canaries in the market: batches whose right verdicts are known, so that jurors who do not look give themselves away.

After a batch was credited, with a chance that makes `canary_share` of all asks canaries to be rejected (and as many to
be accepted), this node builds one more "batch" from jobs that nobody picked, so that no juror has seen their answers.
It runs them itself, which tells it what is right; nudges one answer at least; and has the worker of those jobs, who
could not be their juror anyway, lend its name. On the ledger the batch looks like the one before: as many juries, as
many audits, the same price. At least one answer is wrong, so the verdict is `reject`, and a canary costs the fees of
those who were right. What a juror could still notice: docs/explanation/sampling.md, "Jurors who do not look".
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import trio

from ledger.entry import Accept, Entry, InvalidEntry, Jury, check_entry, decode_entry
from node.jobs import Request
from node.market.auditor import audit
from node.market.batch_plan import BatchPlan
from node.market.context import Context
from node.market.finder import Finder, NotEnough
from node.market.lending import LEND, LendAsk, LendJob
from node.market.payer import Payer
from node.market.requester import RELEASE_S
from verify import jury
from verify.canary import CanaryMark, Claim, mark_for, marks_hash, nudged, score
from verify.commitment import SALT_BYTES, commit
from verify.messages import JuryAsk
from verify.round import Outcome
from wire import codec
from wire.envelope import Envelope, seal, unseal
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.job import Commitment, JobSpec, PoolMember
from wire.peer import PeerId, short
from workloads.executor import ExecutorCrashed

SOURCES_MAX = 256
"""Unpicked jobs kept to make canaries from; the oldest go first."""

DELAY_S = 30.0
"""A canary is offered up to so many seconds after the batch that it looks like."""

ASKS_AT_ONCE = 4
GIVEN_UP = (
    LocalError,
    Malformed,
    InvalidEntry,
    RemoteError,
    TransportError,
    Busy,
    NotEnough,
    ExecutorCrashed,
    trio.TooSlowError,
)
"""Why a canary is not sent, or not finished: it is no loss."""


@dataclass(frozen=True)
class Source:
    """A job that its worker did and nobody picked, with the request that it was part of."""

    spec: JobSpec
    worker: PeerId
    request: Request


@dataclass(frozen=True)
class Shape:
    """How the batch looked that a canary imitates."""

    jobs: int
    audits: int
    price_micro: int
    fee_micro: int
    seconds: float


@dataclass(frozen=True)
class Canary:
    """One answer whose verdict is known, with what opens it."""

    spec: JobSpec
    sealed: Envelope
    secret: bytes
    claim: Claim
    salt: bytes
    mark: CanaryMark


class Canaries:
    """Sends canaries now and then.

    Args:
        context, finder, payer: of the node.
        nursery: lives as long as the node; canaries are sent in it.
    """

    def __init__(self, context: Context, finder: Finder, payer: Payer, nursery: trio.Nursery) -> None:
        self._context = context
        self._finder = finder
        self._payer = payer
        self._nursery = nursery
        self._sources: deque[Source] = deque(maxlen=SOURCES_MAX)

    def after(self, request: Request, plan: BatchPlan, picked: Sequence[int]) -> None:
        """A batch was credited: keep what nobody picked, and perhaps send a canary that looks like it."""
        unpicked = [spec for index, spec in enumerate(plan.specs) if index not in picked]
        self._sources.extend(Source(spec, plan.worker, request) for spec in unpicked)
        share = self._context.settings.canary_share
        if secrets.randbelow(1 << 32) >= 2 * share / (1 - 2 * share) * (1 << 32):
            return
        first = plan.specs[0]
        shape = Shape(
            jobs=len(plan.specs),
            audits=len(picked),
            price_micro=sum(spec.price_micro for spec in plan.specs),
            fee_micro=first.fee_micro,
            seconds=(first.deadline_ms - first.created_ms) / 1000,
        )
        fitting = [each for each in self._sources if (each.worker, each.spec.model) == (plan.worker, first.model)]
        if fitting := [each for each in fitting if (each.spec.lane, each.spec.jury_size) == (first.lane, 3)]:
            self._nursery.start_soon(self._try, fitting, shape)

    async def _try(self, sources: list[Source], shape: Shape) -> None:
        with trio.move_on_after(DELAY_S + shape.seconds):
            try:
                await trio.sleep(DELAY_S * secrets.randbelow(1000) / 1000)
                await self._send(sources, shape)
            except* GIVEN_UP as group:
                self._context.log.info("no_canary", reason=str(group.exceptions[0]))

    async def _send(self, sources: list[Source], shape: Shape) -> None:
        """Build as many canaries as the batch had audits, and have them judged."""
        context = self._context
        chosen = [sources.pop(secrets.randbelow(len(sources))) for _ in range(min(shape.audits, len(sources)))]
        if len(chosen) < shape.audits:
            raise LocalError("too few unpicked jobs to look like a batch")
        for each in chosen:
            self._sources.remove(each)  # each is used once: from now on jurors have seen it
        lender, request = chosen[0].worker, chosen[0].request
        pool = self._finder.pool(await self._finder.enough(request, set()), lender, request.jury_size).members
        started = trio.current_time()
        bad = {secrets.randbelow(len(chosen)), *(at for at in range(len(chosen)) if secrets.randbits(1))}
        canaries = [await self._build(each, pool, shape, bad=at in bad) for at, each in enumerate(chosen)]
        took_s = trio.current_time() - started
        offer = await self._offer(canaries, lender, shape)
        settled = False
        try:
            accept, commitments = await self._borrow(offer, canaries, lender)
            await trio.sleep(took_s / shape.audits * shape.jobs)  # as long as a worker takes for all of the batch
            outcomes = await self._judge(canaries, commitments, pool)
            with trio.CancelScope(shield=True):
                settled = await self._settle(offer, accept, canaries, outcomes)
        finally:
            if not settled:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_S):
                    await context.ledger.release(offer.id, "unaudited")

    async def _build(self, source: Source, pool: list[PoolMember], shape: Shape, *, bad: bool) -> Canary:
        """Run the job, so that the right answer is known, and spoil it if it is to be rejected."""
        context = self._context
        async with context.slots.turn():
            right = Claim(*await context.pool.run(source.spec, lambda _: None))
        claim = nudged(source.spec.kind, right, secrets.token_bytes(32)) if bad else right
        salt, secret = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(jury.SECRET_BYTES)
        mark = mark_for(claim, "reject" if bad else "accept", salt, secrets.token_bytes(32))
        now_ms = context.now_ms()
        spec = msgspec.structs.replace(
            source.spec,
            fee_micro=shape.fee_micro,
            pool=jury.pool_hash(pool),
            beacon_hash=jury.beacon_hash(secret),
            nonce=mark.nonce,
            created_ms=now_ms,
            deadline_ms=now_ms + int(shape.seconds * 1000),
        )
        return Canary(spec, seal(context.identity, "job", spec), secret, claim, salt, mark)

    async def _offer(self, canaries: Sequence[Canary], lender: PeerId, shape: Shape) -> Entry:
        """A batch of as many jobs as the real one; those that are not canaries exist by name only."""
        size = canaries[0].spec.jury_size
        jobs = [secrets.token_bytes(32) for _ in range(shape.jobs)]
        places = list(range(shape.jobs))
        for canary in canaries:
            jobs[places.pop(secrets.randbelow(len(places)))] = canary.spec.id
        return await self._context.ledger.offer(
            job=secrets.token_bytes(32),
            payee=lender,
            price_micro=shape.price_micro,
            fee_micro=shape.fee_micro,
            juries=[Jury(job, size, size // 2 + 1) for job in jobs],
            expires_ms=canaries[0].spec.deadline_ms,
            rule="batch",
            audits=len(canaries),
        )

    async def _borrow(self, offer: Entry, canaries: Sequence[Canary], lender: PeerId) -> tuple[Entry, list[Envelope]]:
        """The lender's signatures.

        Raises:
            RemoteError, Malformed, InvalidEntry: it refused, or signed something else.
        """
        promises = [commit(each.spec.id, each.claim.output, each.claim.trace, each.salt) for each in canaries]
        jobs = [LendJob(each.sealed, promise, each.mark) for each, promise in zip(canaries, promises, strict=True)]
        ask = LendAsk(codec.encode(offer), jobs)
        lent = await self._context.rpc.call(lender, LEND, ask, timeout_s=self._context.settings.accept_s)
        signed = [unseal(each, "commitment", Commitment, author=lender) for each in lent.commitments]
        accept = decode_entry(lent.accept)
        check_entry(accept)
        body = accept.body
        if (
            signed != promises
            or not isinstance(body, Accept)
            or (accept.header.author, body.offer) != (lender, offer.id)
        ):
            raise RemoteError(lender, "signed something else than it was asked to lend", penalty=0.2)
        return accept, lent.commitments

    async def _judge(
        self, canaries: Sequence[Canary], commitments: Sequence[Envelope], pool: list[PoolMember]
    ) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = {}
        limit = trio.CapacityLimiter(ASKS_AT_ONCE)

        async def one(at: int, ask: JuryAsk) -> None:
            async with limit:
                outcomes[at] = await audit(self._context, ask, lambda _: None)

        async with trio.open_nursery() as nursery:
            for at, (canary, commitment) in enumerate(zip(canaries, commitments, strict=True)):
                ask = JuryAsk(
                    spec=canary.sealed,
                    commitment=commitment,
                    secret=canary.secret,
                    salt=canary.salt,
                    pool=pool,
                    output=canary.claim.output,
                    trace=canary.claim.trace,
                )
                nursery.start_soon(partial(one, at, ask))
        return outcomes

    async def _settle(
        self, offer: Entry, accept: Entry, canaries: Sequence[Canary], outcomes: dict[int, Outcome]
    ) -> bool:
        """Score the jurors, and pay those who signed what is right; False if there is nobody to pay."""
        context, signed = self._context, []
        places = {jury_.job: at for at, jury_ in enumerate(offer.body.juries)}  # type: ignore[union-attr]  # an offer
        for at in sorted(outcomes, key=lambda at: places[canaries[at].spec.id]):
            outcome, canary = outcomes[at], canaries[at]
            for juror, failed in score(outcome.receipt, canary.mark).items():
                standing = context.records.observe("juror", juror, canary.spec.model, failed=failed)
                context.log.info("juror_scored", juror=short(juror), failed=failed, record=str(standing))
            if outcome.verdict == canary.mark.expected and outcome.receipt.certificate is not None:
                signed.append(outcome.receipt.certificate)
        if not any(certificate.statement.verdict == "reject" for certificate in signed):
            return False
        marks = marks_hash([canary.mark for canary in canaries])
        cost = await self._payer.pay_canary(offer, accept, signed, outcomes, marks)
        context.log.info("canary_ended", cost_micro=cost)
        return True
