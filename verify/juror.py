"""A juror's side of a round: check the case, seal a vote, and open it only before a full jury of sealed votes.

Theory of operation. For each (job, root) a juror goes through

    consider -> (the node re-runs the work) -> rule -> sealed vote -> reveal -> opened vote

and never back: one finding, one seal, one jury, one signature. Asking again yields the same bytes. Its salt is
derived from its own signature over (job, root), so it is secret, and a juror that lost its memory in a crash seals
the same finding the same way. A juror without a vote says so openly at once, because then it can be replaced before
anyone has revealed anything. No clock, random source or socket: `now_ms` and messages come in, messages go out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from verify.calibration import Calibration
from verify.case import VOTES, Case, open_answer, open_commitment, open_commits, open_draw, open_spec, seal_of
from verify.faults import Fault, Refused
from verify.fingerprints.base import Fingerprint
from verify.fingerprints.registry import FINGERPRINTS
from verify.messages import JuryAnswer, JuryAsk, RevealAsk
from verify.verdict import Finding, abstain, judge, refused
from wire.envelope import Envelope, Signer, seal
from wire.errors import Busy, Malformed, RemoteError
from wire.hashing import digest
from wire.job import Expected, JobSpec, JurorCommit, JurorReveal, Output, Trace, VerdictWord
from wire.peer import PeerId

CLOCK_SKEW_MS = 60_000
"""How far a requester's clock may be from ours."""

CASES_MAX = 256
CASES_PER_REQUESTER_MAX = 32
"""Open cases: those in which we have not voted yet."""

CLOSED_MAX = 8192
CLOSED_PER_REQUESTER_MAX = 1024
"""Cases in which we have, kept without their material until their deadline so that nobody gets a second vote."""


class JurorSigner(Signer, Protocol):
    """What a juror's identity offers; `wire.identity.Identity` is one."""

    def bls_sign(self, message: bytes) -> bytes:
        """The 96-byte BLS signature of `message`."""
        ...

    def key_record(self) -> Envelope:
        """Our BLS key with its proof of possession, domain "keys"."""
        ...


class AskRefused(RemoteError):
    """A requester's message that breaks a rule; `code` is the fault's stable name."""

    def __init__(self, peer: PeerId, code: str, detail: str, *, penalty: float = 0.1) -> None:
        super().__init__(peer, f"{code}: {detail}", penalty=penalty)
        self.code = code


@dataclass
class Hearing:
    """A case before this juror.

    Attributes:
        case, requester, ask: what is judged, for whom, and the material.
        finding: set if it can be ruled without running anything (abstain, or a claim that cannot be compared).
        answer: set once ruled; send it again if asked again.
        fingerprint, thresholds: how to compare; None where the finding is set already.
    """

    case: Case
    requester: PeerId
    ask: JuryAsk
    finding: Finding | None = None
    answer: JuryAnswer | None = None
    fingerprint: Fingerprint | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    sealed: JurorReveal | None = None
    jury: tuple[PeerId, ...] = ()
    revealed: Envelope | None = None

    @property
    def needs_run(self) -> bool:
        """Whether our executor must re-check before `Juror.rule`."""
        return self.answer is None and self.finding is None


class Juror:
    """All cases before one juror.

    Args:
        signer: our identity.
        calibrations: the records that we accept, by hash.
    """

    def __init__(self, signer: JurorSigner, calibrations: Mapping[bytes, Calibration]) -> None:
        self._signer = signer
        self._calibrations = calibrations
        self._key = signer.key_record()
        self._hearings: dict[tuple[bytes, bytes], Hearing] = {}

    def consider(self, sender: PeerId, ask: JuryAsk, *, now_ms: int) -> Hearing:
        """Check what a requester sent and open the case, or find it again.

        Args:
            sender: the authenticated peer that asks.
            ask: the material.
            now_ms: Unix time.

        Raises:
            AskRefused: the material breaks a rule; nothing was opened.
            Busy: too many open cases.
        """
        case = self._open(sender, ask, now_ms)
        known = self._hearings.get((case.job, case.root))
        if known is not None:
            return known
        self._make_room(sender, now_ms)
        hearing = Hearing(case, sender, ask)
        self._prepare(hearing)
        self._hearings[case.job, case.root] = hearing
        return hearing

    def _open(self, sender: PeerId, ask: JuryAsk, now_ms: int) -> Case:
        try:
            spec = open_spec(ask.spec)
            if spec.requester != sender:
                raise Fault("sender", "not the requester of this job")
            if now_ms > spec.deadline_ms + CLOCK_SKEW_MS:
                raise Fault("stale", "past the job's deadline")
            open_commitment(ask.commitment, spec)
            case = open_draw(spec, ask.commitment, ask.secret, ask.pool)
            if spec.jury_size == 0 or self._signer.peer not in case.order:
                raise Fault("jury", "we cannot be drawn for this job")
            open_answer(case, ask.output, ask.trace, ask.salt)
        except Fault as exc:
            raise AskRefused(sender, exc.code, exc.detail) from exc
        return case

    def _make_room(self, requester: PeerId, now_ms: int) -> None:
        expired = [key for key, each in self._hearings.items() if now_ms > each.case.spec.deadline_ms + CLOCK_SKEW_MS]
        for key in expired:
            del self._hearings[key]
        closed = [each.requester for each in self._hearings.values() if each.revealed is not None]
        opened = [each.requester for each in self._hearings.values() if each.revealed is None]
        full = len(opened) >= CASES_MAX or opened.count(requester) >= CASES_PER_REQUESTER_MAX
        if full or len(closed) >= CLOSED_MAX or closed.count(requester) >= CLOSED_PER_REQUESTER_MAX:
            raise Busy(5.0, "too many cases before this juror")

    def _prepare(self, hearing: Hearing) -> None:
        spec, ask = hearing.case.spec, hearing.ask
        fingerprint = FINGERPRINTS.get((spec.kind, spec.lane))
        calibration = self._calibrations.get(spec.calibration)
        unable = why_unable(spec, calibration)
        if unable is not None or fingerprint is None or calibration is None:
            hearing.finding = unable
            return
        hearing.fingerprint, hearing.thresholds = fingerprint, calibration.thresholds
        try:
            fingerprint.admit(spec.input(), ask.output, ask.trace)
        except Refused as exc:
            hearing.finding = refused(exc)
        except Malformed as exc:
            hearing.finding = abstain("input", f"the input cannot be read: {exc}")

    def rule(self, hearing: Hearing, result: Expected | Finding | None = None) -> JuryAnswer:
        """Turn what the re-run gave into an answer to the requester; the first call decides.

        Args:
            hearing: from `consider`.
            result: what our executor computed; or a finding of our own (`verdict.abstain`, `verdict.inconclusive`,
                `verdict.refused`); not needed if `hearing.finding` is set.
        """
        if hearing.answer is not None:
            return hearing.answer
        finding = hearing.finding if hearing.finding is not None else self._find(hearing, result)
        hearing.finding = finding
        reveal = JurorReveal(
            job=hearing.case.job,
            root=hearing.case.root,
            verdict=finding.verdict,
            distances=dict(finding.distances),
            sketch=finding.sketch,
            salt=self._salt(hearing.case),
            signature=b"",
        )
        hearing.answer = JuryAnswer(self._say(hearing, reveal), self._key)
        return hearing.answer

    def _find(self, hearing: Hearing, result: Expected | Finding | None) -> Finding:
        assert result is not None, "this case needs a re-run"
        if isinstance(result, Finding):
            return result
        assert hearing.fingerprint is not None, "a case without a fingerprint has a finding"
        ask, drawn = hearing.ask, hearing.case.drawn
        return judge(hearing.fingerprint, hearing.thresholds, ask.output, ask.trace, result, drawn)

    def _salt(self, case: Case) -> bytes:
        return digest("juror.salt", self._signer.sign(digest("juror.salt.seed", case.job, case.root)))

    def _say(self, hearing: Hearing, reveal: JurorReveal) -> Envelope:
        if reveal.verdict not in VOTES:
            return seal(self._signer, "juror.reveal", reveal)
        hearing.sealed = reveal
        commit = JurorCommit(reveal.job, reveal.root, seal_of(self._signer.peer, reveal))
        return seal(self._signer, "juror.commit", commit)

    def reveal(self, sender: PeerId, ask: RevealAsk) -> Envelope:
        """Open our vote to a full jury of sealed votes that includes ours.

        Raises:
            AskRefused: no such vote, another requester, not a full jury of this case, or a second jury.
        """
        hearing = self._hearings.get((ask.job, ask.root))
        if hearing is None or hearing.sealed is None or hearing.answer is None:
            raise AskRefused(sender, "reveal", "we sealed no vote for this", penalty=0.0)
        if hearing.requester != sender:
            raise AskRefused(sender, "sender", "not the requester of this job")
        jury = self._check_jury(hearing, sender, ask)
        if hearing.revealed is None:
            hearing.jury, hearing.revealed = jury, self._sign(hearing.case, jury, hearing.sealed)
            hearing.ask = msgspec.structs.replace(hearing.ask, output=Output({}), trace=Trace({}))
        if hearing.jury != jury:
            raise AskRefused(sender, "jury", "we have voted in another jury for this answer", penalty=0.5)
        return hearing.revealed

    def _check_jury(self, hearing: Hearing, sender: PeerId, ask: RevealAsk) -> tuple[PeerId, ...]:
        try:
            jury = tuple(open_commits(hearing.case, ask.commits))
        except Fault as exc:
            raise AskRefused(sender, exc.code, exc.detail) from exc
        size = hearing.case.spec.jury_size
        if len(jury) != size:
            raise AskRefused(
                sender, "jury", f"{len(jury)} sealed votes, {size} needed before we open ours", penalty=0.3
            )
        if hearing.answer is None or hearing.answer.said not in ask.commits:
            raise AskRefused(sender, "jury", "our sealed vote is not among them", penalty=0.3)
        return jury

    def _sign(self, case: Case, jury: tuple[PeerId, ...], sealed: JurorReveal) -> Envelope:
        verdict: VerdictWord = sealed.verdict
        signature = self._signer.bls_sign(case.statement(verdict, jury).message)
        opened = JurorReveal(sealed.job, sealed.root, verdict, sealed.distances, sealed.sketch, sealed.salt, signature)
        return seal(self._signer, "juror.reveal", opened)


def why_unable(spec: JobSpec, calibration: Calibration | None) -> Finding | None:
    """Why nobody with this calibration can judge such a job: an abstention with its code; None if one can.

    Args:
        spec: of the job.
        calibration: our record of the hash that the spec names, if we have one.
    """
    fingerprint = FINGERPRINTS.get((spec.kind, spec.lane))
    if fingerprint is None or fingerprint.id != spec.fingerprint:
        return abstain("fingerprint", f"fingerprint {spec.fingerprint!r} is not ours")
    if calibration is None:
        return abstain("calibration.unknown", f"calibration {spec.calibration.hex()[:12]} is not known here")
    subject = (calibration.kind, calibration.model, calibration.lane, calibration.numeric, calibration.fingerprint)
    if subject != (spec.kind, spec.model, spec.lane, spec.numeric, spec.fingerprint):
        return abstain("calibration.subject", "the calibration is for something else")
    if not calibration.certified:
        return abstain("calibration.uncertified", "the calibration does not separate honest work from named cheats")
    return None
