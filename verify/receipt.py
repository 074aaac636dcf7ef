"""Receipts: proof of what was asked, answered and judged that anyone can check offline, years later.

`check` runs the checks of docs/spec/receipt.md in that document's order and names the first that fails. It needs
nothing but the receipt: no network, no clock, no trust in whoever handed it over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from verify.case import (
    VERSION,
    VOTES,
    Case,
    check_reveal,
    check_seal,
    check_vote,
    check_vote_form,
    open_commitment,
    open_commits,
    open_draw,
    open_key,
    open_spec,
)
from verify.commitment import check_output_leaf, output_digest, prove_output
from verify.faults import Fault, demand, unseal_as
from verify.messages import JuryAsk
from wire import bls, codec
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.job import Certificate, JobSpec, JurorCommit, JurorReveal, Receipt, Statement, VerdictWord
from wire.limits import RECEIPT_BYTES_MAX
from wire.peer import PeerId

OutcomeWord = Literal["accept", "reject", "unaudited"]
JurorWord = Literal["accept", "reject", "abstain", "inconclusive", "silent"]


@dataclass(frozen=True)
class JurorSummary:
    """One juror: its rank in the draw (0 is first), what it said, and the distances it measured."""

    peer: PeerId
    rank: int
    verdict: JurorWord
    distances: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """What a receipt that holds says.

    Attributes:
        verdict: of the majority; "unaudited" if none was reached or none was asked for.
        job, root, output: 32-byte hashes of the spec, the commitment and the output.
        spec: the whole spec (kind, model, lane, numeric class, fingerprint, calibration, price, fee, requester).
        worker: who committed the answer.
        jury: the jurors in draw order. replaced: how many peers before the last of them were passed over.
    """

    verdict: OutcomeWord
    job: bytes
    root: bytes
    output: bytes
    spec: JobSpec
    worker: PeerId
    jury: tuple[JurorSummary, ...]
    replaced: int


def build(
    ask: JuryAsk,
    *,
    keys: Sequence[Envelope] = (),
    commits: Sequence[Envelope] = (),
    reveals: Sequence[Envelope] = (),
    certificate: Certificate | None = None,
) -> Receipt:
    """A receipt of a round.

    Args:
        ask: what the jurors were shown.
        keys, commits: of the jurors, in draw order. reveals: of those who revealed, in the same order.
        certificate: None if no quorum was reached.
    """
    return Receipt(
        version=VERSION,
        spec=ask.spec,
        commitment=ask.commitment,
        secret=ask.secret,
        salt=ask.salt,
        output=output_digest(ask.output),
        proof=prove_output(ask.output, ask.trace, ask.salt),
        pool=list(ask.pool),
        keys=list(keys),
        commits=list(commits),
        reveals=list(reveals),
        certificate=certificate,
    )


def decode(raw: bytes) -> Receipt:
    """Raises: Fault encoding."""
    try:
        return codec.decode(Receipt, raw, bytes_max=RECEIPT_BYTES_MAX)
    except Malformed as exc:
        raise Fault("encoding", str(exc)) from exc


def check(receipt: Receipt) -> Summary:
    """Check everything.

    Raises:
        Fault: a `Malformed` whose `code` names the first check of docs/spec/receipt.md that fails.
    """
    demand(receipt.version == VERSION, "version", f"version {receipt.version}")
    case = _check_case(receipt)
    commits = open_commits(case, receipt.commits)
    jury = tuple(commits)
    keys = _check_keys(receipt.keys, jury)
    reveals = _check_reveals(case, receipt.reveals, commits)
    _check_votes(case, receipt.certificate, jury, keys, reveals)
    if receipt.certificate is None:
        _check_absence(case, len(jury), reveals)
    else:
        _check_certificate(case, receipt.certificate, jury, keys, reveals)
    return _summary(case, receipt, jury, reveals)


def _check_case(receipt: Receipt) -> Case:
    spec = open_spec(receipt.spec)
    commitment = open_commitment(receipt.commitment, spec)
    included = check_output_leaf(commitment, receipt.output, receipt.salt, receipt.proof)
    demand(included, "output", "not leaf 0 of the commitment")
    return open_draw(spec, receipt.commitment, receipt.secret, receipt.pool)


def _check_keys(envelopes: Sequence[Envelope], jury: Sequence[PeerId]) -> dict[PeerId, bytes]:
    demand(len(envelopes) == len(jury), "key", f"{len(envelopes)} keys for {len(jury)} jurors")
    return {juror: open_key(envelope, juror) for envelope, juror in zip(envelopes, jury, strict=True)}


def _check_reveals(
    case: Case, envelopes: Sequence[Envelope], commits: Mapping[PeerId, JurorCommit]
) -> dict[PeerId, JurorReveal]:
    reveals: dict[PeerId, JurorReveal] = {}
    rank = {juror: index for index, juror in enumerate(commits)}
    last = -1
    for envelope in envelopes:
        reveal = unseal_as("reveal", envelope, "juror.reveal", JurorReveal)
        demand(rank.get(envelope.author, -1) > last, "reveal.juror", "no juror, or out of jury order")
        last = rank[envelope.author]
        check_reveal(case, reveal)
        check_seal(envelope.author, commits[envelope.author], reveal)
        reveals[envelope.author] = reveal
    return reveals


def _check_votes(
    case: Case,
    certificate: Certificate | None,
    jury: Sequence[PeerId],
    keys: Mapping[PeerId, bytes],
    reveals: Mapping[PeerId, JurorReveal],
) -> None:
    for juror, reveal in reveals.items():
        if certificate is not None and reveal.verdict == certificate.statement.verdict:
            check_vote_form(reveal)
        else:
            check_vote(case, jury, reveal, keys[juror])


def _check_absence(case: Case, jurors: int, reveals: Mapping[PeerId, JurorReveal]) -> None:
    said = [reveal.verdict for reveal in reveals.values()]
    quorate = any(2 * said.count(vote) > case.spec.jury_size for vote in VOTES)
    full = case.spec.jury_size > 0 and jurors == case.spec.jury_size
    demand(not (full and quorate), "certificate.missing", "a majority revealed the same vote")


def _check_certificate(
    case: Case,
    certificate: Certificate,
    jury: Sequence[PeerId],
    keys: Mapping[PeerId, bytes],
    reveals: Mapping[PeerId, JurorReveal],
) -> None:
    verdict: VerdictWord = certificate.statement.verdict
    stated: Statement = case.statement(verdict, jury)
    demand(verdict in VOTES and certificate.statement == stated, "certificate.statement", "about something else")
    demand(0 < len(jury) == case.spec.jury_size, "certificate.jury", f"{len(jury)} jurors")
    agreeing = sorted(juror for juror, reveal in reveals.items() if reveal.verdict == verdict)
    demand(certificate.signers == agreeing, "certificate.signers", "not the jurors who revealed this verdict")
    demand(2 * len(agreeing) > case.spec.jury_size, "certificate.quorum", f"{len(agreeing)} votes")
    publics = [keys[juror] for juror in agreeing]
    demand(len(set(publics)) == len(publics), "certificate.signers", "two signers with one BLS key")
    signed = bls.fast_aggregate_verify(publics, stated.message, certificate.signature)
    demand(signed, "certificate.signature", "the aggregate does not verify")


def _summary(case: Case, receipt: Receipt, jury: Sequence[PeerId], reveals: Mapping[PeerId, JurorReveal]) -> Summary:
    verdict: OutcomeWord = "unaudited"
    if receipt.certificate is not None:
        verdict = "accept" if receipt.certificate.statement.verdict == "accept" else "reject"
    jurors = []
    for juror in jury:
        reveal = reveals.get(juror)
        word: JurorWord = "silent" if reveal is None else reveal.verdict
        jurors.append(JurorSummary(juror, case.order.index(juror), word, reveal.distances if reveal else {}))
    replaced = jurors[-1].rank + 1 - len(jurors) if jurors else 0
    return Summary(verdict, case.job, case.root, receipt.output, case.spec, case.worker, tuple(jurors), replaced)
