"""The requester's side of a round: from an opened commitment to a verdict, a certificate and a receipt.

Theory of operation. A round is COLLECTING, then REVEALING, then DECIDED, and never goes back.

    COLLECTING  Jurors are asked in draw order. Whoever is silent past its deadline, refuses, cheats or openly says
                that it has no vote is passed over, and the next in order is asked. A late sealed vote still counts
                while the jury is not full. When `jury_size` votes are sealed, they are the jury, and its hash is
                fixed.
    REVEALING   Every juror is shown all sealed votes and asked to open its own. Nobody is replaced any more: whoever
                were asked now could know what others said. A vote that is not what was sealed counts as silence. Once
                a majority agrees, the others get a short grace, so that they can earn their fee.
    DECIDED     A majority of `jury_size` equal votes makes a certificate; anything else is "unaudited".

Nouns come in with the authenticated peer that sent them and with `now` in seconds; actions go out. A round always
ends: every juror has a deadline, the pool is finite, and the round has a deadline of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from verify.case import (
    VOTES,
    check_seal,
    check_vote,
    open_answer,
    open_commit,
    open_commitment,
    open_draw,
    open_key,
    open_reveal,
    open_spec,
)
from verify.faults import Fault, demand
from verify.messages import JuryAnswer, JuryAsk, RevealAsk
from verify.receipt import JurorSummary, JurorWord, OutcomeWord, build
from verify.verdict import INABILITIES
from wire.certificate import assemble
from wire.envelope import Envelope
from wire.job import Certificate, JurorCommit, JurorReveal, Receipt, VerdictWord
from wire.peer import PeerId


@dataclass(frozen=True)
class Timing:
    """Seconds: for one juror to seal a vote, for the jury to open its votes, for stragglers once a majority
    agrees, and for the whole round."""

    answer_s: float = 15.0
    reveal_s: float = 5.0
    grace_s: float = 0.5
    round_s: float = 60.0


@dataclass(frozen=True)
class AskJuror:
    """Send `Round.ask` to this peer; feed the reply to `on_answer`, a failure to `on_silent`."""

    peer: PeerId


@dataclass(frozen=True)
class AskReveal:
    """Send this to the juror; feed the reply to `on_reveal`, a failure to `on_silent`."""

    peer: PeerId
    ask: RevealAsk


@dataclass(frozen=True)
class PassedOver:
    """This peer will not be in the jury unless it still answers in time; the next in order is asked."""

    peer: PeerId
    reason: str


@dataclass(frozen=True)
class Blame:
    """This peer broke a rule; `penalty` as in `wire.errors.RemoteError`."""

    peer: PeerId
    reason: str
    penalty: float


@dataclass(frozen=True)
class Outcome:
    """How a round ended.

    Attributes:
        verdict: of the majority, or "unaudited". receipt: holds under `verify.receipt.check`.
        jury: those who sealed a vote, in draw order, and what they revealed.
        paid: jurors whose vote counted (on either side); empty if unaudited.
        passed_over: peers that were asked and are not in the jury, with the reason.
    """

    verdict: OutcomeWord
    receipt: Receipt
    jury: tuple[JurorSummary, ...]
    paid: tuple[PeerId, ...]
    passed_over: Mapping[PeerId, str]


@dataclass(frozen=True)
class Decide:
    """The round is over."""

    outcome: Outcome


Action = AskJuror | AskReveal | PassedOver | Blame | Decide


class Phase(enum.Enum):
    """See the module."""

    COLLECTING = "collecting"
    REVEALING = "revealing"
    DECIDED = "decided"


@dataclass
class _Seat:
    """A peer that was asked; `passed` says why we no longer wait for it, `closed` that its reveal is settled."""

    rank: int
    deadline: float
    passed: str = ""
    commit: Envelope | None = None
    sealed: JurorCommit | None = None
    key: Envelope | None = None
    bls: bytes = b""
    reveal: Envelope | None = None
    opened: JurorReveal | None = None
    closed: bool = False
    seen: list[bytes] = field(default_factory=list)


class Round:
    """One round over one committed answer.

    Args:
        ask: what every juror is shown; checked here as a juror would.
        timing: deadlines.
        exclude: peers that are not asked although they were drawn: those who sat in an earlier jury over this answer.

    Raises:
        Fault: the material is not in order (`opening`: output, trace and salt do not open the commitment); the caller
            knows whether it is its own or the worker's fault.
    """

    def __init__(self, ask: JuryAsk, *, timing: Timing | None = None, exclude: frozenset[PeerId] = frozenset()) -> None:
        spec = open_spec(ask.spec)
        open_commitment(ask.commitment, spec)
        self.ask = ask
        self.case = open_draw(spec, ask.commitment, ask.secret, ask.pool)
        open_answer(self.case, ask.output, ask.trace, ask.salt)
        self.phase = Phase.COLLECTING
        self.outcome: Outcome | None = None
        self._timing = timing or Timing()
        self._askable = [(rank, peer) for rank, peer in enumerate(self.case.order) if peer not in exclude]
        self._seats: dict[PeerId, _Seat] = {}
        self._jury: tuple[PeerId, ...] = ()
        self._ends = 0.0
        self._started = False

    @property
    def jury(self) -> tuple[PeerId, ...]:
        """The jury in draw order; empty before it is full."""
        return self._jury

    def next_deadline(self) -> float | None:
        """When `on_tick` has something to do; None once decided."""
        if self.phase is Phase.DECIDED or not self._started:
            return None
        waiting = [seat.deadline for seat in self._seats.values() if seat.commit is None and not seat.passed]
        return min([self._ends, *(waiting if self.phase is Phase.COLLECTING else [])])

    def start(self, now: float) -> list[Action]:
        """Ask the first jurors."""
        assert not self._started, "a round starts once"
        self._started = True
        self._ends = now + self._timing.round_s
        if self.case.spec.jury_size == 0:
            return self._decide()
        return self._fill(now)

    def on_answer(self, now: float, peer: PeerId, answer: JuryAnswer) -> list[Action]:
        """A juror's sealed vote, or its open word that it has none."""
        seat = self._seats.get(peer)
        if seat is None:
            return [Blame(peer, "an answer that nobody asked for", 0.1)]
        if seat.seen:
            return self._again(seat, peer, answer)
        seat.seen.append(answer.said.id)
        if self.phase is not Phase.COLLECTING:
            return []
        try:
            reason = self._read_answer(seat, peer, answer)
        except Fault as exc:
            return [Blame(peer, str(exc), 0.3), *self._pass_over(now, peer, str(exc))]
        if reason:
            return self._pass_over(now, peer, reason)
        return self._reveal_if_full(now)

    def _again(self, seat: _Seat, peer: PeerId, answer: JuryAnswer) -> list[Action]:
        if answer.said.id in seat.seen or len(seat.seen) > 1:
            return []
        seat.seen.append(answer.said.id)
        return [Blame(peer, "two different answers for one case", 0.5)]

    def _read_answer(self, seat: _Seat, peer: PeerId, answer: JuryAnswer) -> str:
        """Why this answer is no vote; empty if it is one."""
        if answer.said.domain == "juror.reveal":
            reveal = open_reveal(self.case, answer.said, author=peer)
            demand(reveal.verdict not in VOTES, "early", "a vote opened before the jury was full")
            return _why_no_vote(reveal)
        sealed = open_commit(self.case, answer.said, author=peer)
        key = open_key(answer.key, peer)
        seat.commit, seat.sealed, seat.key, seat.bls = answer.said, sealed, answer.key, key
        seat.passed = ""
        return ""

    def on_reveal(self, now: float, peer: PeerId, envelope: Envelope) -> list[Action]:
        """A juror's opened vote."""
        seat = self._seats.get(peer)
        if seat is None:
            return [Blame(peer, "a reveal that nobody asked for", 0.1)]
        if self.phase is Phase.COLLECTING:
            return [Blame(peer, "a vote opened before the jury was full", 0.3)]
        if self.phase is Phase.DECIDED or peer not in self._jury:
            return []
        if seat.closed:
            same = seat.reveal is None or seat.reveal.body == envelope.body
            return [] if same else [Blame(peer, "two different reveals", 0.5)]
        seat.closed = True
        try:
            seat.opened = self._read_reveal(seat, peer, envelope)
            seat.reveal = envelope
        except Fault as exc:
            return [Blame(peer, str(exc), 0.5), *self._decide_if_done(now)]
        return self._decide_if_done(now)

    def _read_reveal(self, seat: _Seat, peer: PeerId, envelope: Envelope) -> JurorReveal:
        assert seat.sealed is not None, "jurors have sealed votes"
        reveal = open_reveal(self.case, envelope, author=peer)
        check_seal(peer, seat.sealed, reveal)
        check_vote(self.case, self._jury, reveal, seat.bls)
        taken = any(other.opened is not None and other.bls == seat.bls for other in self._seats.values())
        demand(not taken, "reveal.vote", "signed with another juror's BLS key")
        return reveal

    def on_silent(self, now: float, peer: PeerId, reason: str = "unreachable") -> list[Action]:
        """The peer cannot be reached or refused; no need to wait for its deadline."""
        seat = self._seats.get(peer)
        if seat is None or self.phase is Phase.DECIDED:
            return []
        if self.phase is Phase.COLLECTING:
            return self._pass_over(now, peer, reason)
        if peer not in self._jury or seat.closed:
            return []
        seat.closed = True
        return self._decide_if_done(now)

    def on_tick(self, now: float) -> list[Action]:
        """Let deadlines pass; call at or after `next_deadline`."""
        if self.phase is Phase.DECIDED or not self._started:
            return []
        if now >= self._ends:
            return self._decide()
        actions: list[Action] = []
        if self.phase is Phase.COLLECTING:
            late = [peer for peer, seat in self._seats.items() if _waiting(seat) and now >= seat.deadline]
            for peer in late:
                actions += self._pass_over(now, peer, "silent")
        return actions

    def _fill(self, now: float) -> list[Action]:
        """Ask as many more peers as the jury lacks; give up when the pool is exhausted."""
        size = self.case.spec.jury_size
        actions: list[Action] = []
        while len(self._seats) < len(self._askable) and self._live() < size:
            rank, peer = self._askable[len(self._seats)]
            self._seats[peer] = _Seat(rank=rank, deadline=now + self._timing.answer_s)
            actions.append(AskJuror(peer))
        return actions if self._live() >= size else [*actions, *self._decide()]

    def _live(self) -> int:
        return sum(not seat.passed for seat in self._seats.values())

    def _pass_over(self, now: float, peer: PeerId, reason: str) -> list[Action]:
        seat = self._seats[peer]
        if self.phase is not Phase.COLLECTING or not _waiting(seat):
            return []
        seat.passed = reason
        return [PassedOver(peer, reason), *self._fill(now)]

    def _reveal_if_full(self, now: float) -> list[Action]:
        sealed = [peer for peer in self.case.order if peer in self._seats and self._seats[peer].commit is not None]
        if len(sealed) < self.case.spec.jury_size:
            return []
        self.phase = Phase.REVEALING
        self._jury = tuple(sealed)
        self._ends = min(self._ends, now + self._timing.reveal_s)
        ask = RevealAsk(self.case.job, self.case.root, self._commits())
        return [AskReveal(peer, ask) for peer in self._jury]

    def _commits(self) -> list[Envelope]:
        return [seat.commit for seat in map(self._seats.__getitem__, self._jury) if seat.commit is not None]

    def _decide_if_done(self, now: float) -> list[Action]:
        if all(self._seats[peer].closed for peer in self._jury):
            return self._decide()
        if self._majority() is not None:
            self._ends = min(self._ends, now + self._timing.grace_s)
        return []

    def _votes(self) -> dict[PeerId, JurorReveal]:
        opened = {peer: self._seats[peer].opened for peer in self._jury}
        return {peer: reveal for peer, reveal in opened.items() if reveal is not None and reveal.verdict in VOTES}

    def _majority(self) -> VerdictWord | None:
        said = [reveal.verdict for reveal in self._votes().values()]
        return next((vote for vote in VOTES if 2 * said.count(vote) > self.case.spec.jury_size), None)

    def _decide(self) -> list[Action]:
        verdict = self._majority()
        self.phase = Phase.DECIDED
        if not self._jury:
            self._jury = self._sealed_so_far()
        certificate = None if verdict is None else self._certify(verdict)
        receipt = build(
            self.ask,
            keys=[seat.key for seat in map(self._seats.__getitem__, self._jury) if seat.key is not None],
            commits=self._commits(),
            reveals=[seat.reveal for seat in map(self._seats.__getitem__, self._jury) if seat.reveal is not None],
            certificate=certificate,
        )
        word: OutcomeWord = "unaudited" if verdict is None else "accept" if verdict == "accept" else "reject"
        paid = tuple(self._votes()) if certificate is not None else ()
        passed = {peer: seat.passed or "late" for peer, seat in self._seats.items() if peer not in self._jury}
        self.outcome = Outcome(word, receipt, tuple(map(self._summary, self._jury)), paid, passed)
        return [Decide(self.outcome)]

    def _sealed_so_far(self) -> tuple[PeerId, ...]:
        return tuple(peer for peer in self.case.order if peer in self._seats and self._seats[peer].commit is not None)

    def _certify(self, verdict: VerdictWord) -> Certificate:
        votes = {peer: each.signature for peer, each in self._votes().items() if each.verdict == verdict}
        return assemble(self.case.statement(verdict, self._jury), votes)

    def _summary(self, peer: PeerId) -> JurorSummary:
        seat = self._seats[peer]
        word: JurorWord = "silent" if seat.opened is None else seat.opened.verdict
        return JurorSummary(peer, seat.rank, word, seat.opened.distances if seat.opened else {})


def _why_no_vote(reveal: JurorReveal) -> str:
    """The verdict, with the reason if the juror abstains and gives one that we know: `abstain.calibration.unknown`."""
    given = [f"abstain.{code}" for code in INABILITIES if f"abstain.{code}" in reveal.distances]
    return given[0] if given and reveal.verdict == "abstain" else reveal.verdict


def _waiting(seat: _Seat) -> bool:
    return seat.commit is None and not seat.passed
