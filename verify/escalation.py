"""The policy `escalate`: three jurors; unless they are of one mind seven others, then twenty-one, then single steps.

Theory of operation. One committed answer climbs a ladder (`verify.ladder`) whose levels were all fixed before its
first jury. An escalation is JUDGING (a `Round` per level), then perhaps DISPUTING, then FINAL, and never goes back.

    JUDGING     A level decides if `needed` of its jury revealed the same vote: all of three, six of seven, fourteen of
                twenty-one. Dissent, a vote that was sealed and withheld, and a jury that could not be filled all lead
                to the next level, whose jurors have not sat before.
    DISPUTING   Every juror who rejected, at any level, may prove its case against the worker over single steps
                (`verify.bisection`), one after another in the order in which they were drawn. One proof convicts. If
                all fail, the answer stands.
    FINAL       accept or reject, exactly once; "unaudited" if nobody rejected, the pool ran out, a referee failed, or
                the workload has no steps.

So an honest worker is convicted only where `needed` of one jury are against it: it stands while each jury holds
more than `size - needed` honest jurors. A cheat passes only where `needed` of one jury are for it; once single steps
are disputed, one honest juror in any jury that sat is enough. Every round and dispute ends by its own deadline, and
there are at most `len(levels)` rounds and as many disputes as votes to reject (`seconds_max`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from verify import bisection
from verify.bisection import Dispute, Entry, Opening, Ruling, Shown, Terms
from verify.ladder import LEVELS, Level, open_ladder
from verify.messages import JuryAnswer, JuryAsk
from verify.receipt import JurorWord, OutcomeWord
from verify.round import AskJuror, AskReveal, Blame, Decide, PassedOver, Round, Timing
from verify.round import Outcome as RoundOutcome
from verify.settlement import Matter, Settlement, Stakes, settle
from wire.envelope import Envelope
from wire.job import Receipt, VerdictWord
from wire.peer import PeerId
from wire.tensor import Tensor

DisputeTerms = Callable[[PeerId], Terms]
"""The terms of a dispute that this challenger brings."""


@dataclass(frozen=True)
class AtLevel:
    """An action of the round at `level`; its reply goes back with the same level."""

    level: int
    action: AskJuror | AskReveal | PassedOver | Blame


@dataclass(frozen=True)
class Escalated:
    """The level could not decide; `why` is "dissent", "withheld" or "no jury". The next level or disputes follow."""

    level: int
    why: str


@dataclass(frozen=True)
class InDispute:
    """An action of the dispute that `challenger` brings; its reply goes back with the same challenger."""

    challenger: PeerId
    action: bisection.Action


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    Attributes:
        verdict: the final one, whatever the receipts of single levels say.
        decided_by: the level that decided, or "dispute", or "nobody".
        receipts: of the levels that sat, in order. rulings: of the disputes, in order.
        settlement: who pays.
    """

    verdict: OutcomeWord
    decided_by: int | str
    receipts: tuple[Receipt, ...]
    rulings: tuple[Ruling, ...]
    settlement: Settlement


@dataclass(frozen=True)
class Final:
    """The escalation is over."""

    outcome: Outcome


Action = AtLevel | Escalated | InDispute | Final


class Phase(enum.Enum):
    """See the module."""

    JUDGING = "judging"
    DISPUTING = "disputing"
    FINAL = "final"


def level_verdict(level: Level, outcome: RoundOutcome) -> VerdictWord | None:
    """What a round decides under the rule of its level."""
    said = [juror.verdict for juror in outcome.jury]
    votes: tuple[VerdictWord, ...] = ("accept", "reject")
    return next((vote for vote in votes if said.count(vote) >= level.needed), None)


def seconds_max(levels: Sequence[Level], timing: Timing, count: int, answer_s: float, referee_s: float) -> float:
    """Longest time from start to final verdict, whatever anybody does; `count` is the number of states in dispute."""
    dispute_s = (bisection.rounds_max(count) + 2) * answer_s + referee_s
    return len(levels) * timing.round_s + sum(level.size for level in levels) * dispute_s


def _why(level: Level, outcome: RoundOutcome) -> str:
    if len(outcome.jury) < level.size:
        return "no jury"
    return "withheld" if any(juror.verdict == "silent" for juror in outcome.jury) else "dissent"


class Escalation:
    """One answer on its way up, as the requester sees it.

    Args:
        asks: what the jurors of each level are shown.
        nonce: the random bytes of the first spec (`verify.ladder.build_ladder`).
        levels: their sizes and rules.
        terms: of disputes; None where the workload has no steps: then the levels decide alone.
        stakes: what is paid; by default the price and fee of the spec, without bonds.
        timing: of each round. answer_s, referee_s: of each dispute.
        referee: who recomputes steps, if paid.

    Raises:
        Fault: the ladder or the answer is not in order.
    """

    def __init__(
        self,
        asks: Sequence[JuryAsk],
        nonce: bytes,
        *,
        levels: Sequence[Level] = LEVELS,
        terms: DisputeTerms | None = None,
        stakes: Stakes | None = None,
        timing: Timing | None = None,
        answer_s: float = 10.0,
        referee_s: float = 60.0,
        referee: PeerId | None = None,
    ) -> None:
        cases = open_ladder(asks, levels, nonce)
        spec = cases[0].spec
        self.levels, self.phase = tuple(levels), Phase.JUDGING
        self.stakes = stakes or Stakes(spec.price_micro, spec.fee_micro)
        self.outcome: Outcome | None = None
        self.dispute: Dispute | None = None
        self.rounds: list[Round] = []
        self._asks, self._terms, self._referee = tuple(asks), terms, referee
        self._requester, self._worker = spec.requester, cases[0].worker
        self._timing, self._answer_s, self._referee_s = timing or Timing(), answer_s, referee_s
        self._votes: dict[PeerId, JurorWord] = {}
        self._challengers: list[PeerId] = []
        self._rulings: list[Ruling] = []

    @property
    def level(self) -> int:
        """The level that sits, or sat last."""
        return len(self.rounds) - 1

    @property
    def votes(self) -> Mapping[PeerId, JurorWord]:
        """What the jurors of decided levels said."""
        return dict(self._votes)

    def next_deadline(self) -> float | None:
        """When `on_tick` has something to do; None before the start and once final."""
        if self.phase is Phase.FINAL or not self.rounds:
            return None
        if self.dispute is not None:
            return self.dispute.next_deadline()
        return self.rounds[-1].next_deadline()

    def start(self, now: float) -> list[Action]:
        """Ask the first jury."""
        assert not self.rounds, "an escalation starts once"
        return self._sit(now)

    def _sit(self, now: float) -> list[Action]:
        round_ = Round(self._asks[len(self.rounds)], timing=self._timing, exclude=frozenset(self._votes))
        self.rounds.append(round_)
        return self._relay(now, round_.start(now))

    def _relay(self, now: float, actions: Sequence[object]) -> list[Action]:
        """Pass on what a round does; when it decides, decide or climb."""
        passed: list[Action] = []
        for action in actions:
            if isinstance(action, Decide):
                passed += self._climb(now, action.outcome)
            elif isinstance(action, AskJuror | AskReveal | PassedOver | Blame):
                passed.append(AtLevel(self.level, action))
        return passed

    def _climb(self, now: float, outcome: RoundOutcome) -> list[Action]:
        level = self.levels[self.level]
        for juror in outcome.jury:
            self._votes[juror.peer] = juror.verdict
            if juror.verdict == "reject":
                self._challengers.append(juror.peer)
        verdict = level_verdict(level, outcome)
        if verdict is not None:
            return self._end("accept" if verdict == "accept" else "reject", self.level)
        escalated = Escalated(self.level, _why(level, outcome))
        if len(self.rounds) < len(self.levels):
            return [escalated, *self._sit(now)]
        return [escalated, *self._next_dispute(now)]

    def _next_dispute(self, now: float) -> list[Action]:
        if self._terms is None or not self._challengers:
            return self._end("unaudited", "nobody")
        if len(self._rulings) == len(self._challengers):
            failed = any(ruling.loser is None for ruling in self._rulings)
            return self._end("unaudited", "nobody") if failed else self._end("accept", "dispute")
        self.phase = Phase.DISPUTING
        challenger = self._challengers[len(self._rulings)]
        self.dispute = Dispute(self._terms(challenger), answer_s=self._answer_s, referee_s=self._referee_s)
        return self._argue(now, challenger, self.dispute.start(now))

    def _argue(self, now: float, challenger: PeerId, actions: Sequence[bisection.Action]) -> list[Action]:
        passed: list[Action] = [InDispute(challenger, action) for action in actions]
        ruling = next((action for action in actions if isinstance(action, Ruling)), None)
        if ruling is None:
            return passed
        self._rulings.append(ruling)
        self.dispute = None
        if ruling.loser == self._worker:
            return [*passed, *self._end("reject", "dispute")]
        return [*passed, *self._next_dispute(now)]

    def _end(self, verdict: OutcomeWord, decided_by: int | str) -> list[Action]:
        assert self.phase is not Phase.FINAL, "there is one final verdict"
        self.phase = Phase.FINAL
        losers = tuple(ruling.loser for ruling in self._rulings)
        matter = Matter(self._requester, self._worker, verdict, self._votes, losers, self._referee)
        decided = [each.outcome for each in self.rounds if each.outcome is not None]
        self.outcome = Outcome(
            verdict,
            decided_by,
            tuple(outcome.receipt for outcome in decided),
            tuple(self._rulings),
            settle(self.stakes, matter),
        )
        return [Final(self.outcome)]

    def on_answer(self, now: float, level: int, peer: PeerId, answer: JuryAnswer) -> list[Action]:
        """A juror's reply to `AskJuror` of this level."""
        round_ = self._sitting(level)
        return self._relay(now, round_.on_answer(now, peer, answer)) if round_ else []

    def on_reveal(self, now: float, level: int, peer: PeerId, envelope: Envelope) -> list[Action]:
        """A juror's reply to `AskReveal` of this level."""
        round_ = self._sitting(level)
        return self._relay(now, round_.on_reveal(now, peer, envelope)) if round_ else []

    def on_silent(self, now: float, level: int, peer: PeerId, reason: str = "unreachable") -> list[Action]:
        """A juror of this level cannot be reached or refused."""
        round_ = self._sitting(level)
        return self._relay(now, round_.on_silent(now, peer, reason)) if round_ else []

    def _sitting(self, level: int) -> Round | None:
        """The round of this level while it sits; what comes later is late."""
        return self.rounds[-1] if self.phase is Phase.JUDGING and level == self.level >= 0 else None

    def _argued(self, challenger: PeerId) -> Dispute | None:
        return self.dispute if self.dispute is not None and self.dispute.terms.challenger == challenger else None

    def on_entry(self, now: float, challenger: PeerId, peer: PeerId, entry: Entry) -> list[Action]:
        """A side's reply to `AskEntry` in this challenger's dispute."""
        dispute = self._argued(challenger)
        return self._argue(now, challenger, dispute.on_entry(now, peer, entry)) if dispute else []

    def on_opening(self, now: float, challenger: PeerId, peer: PeerId, opening: Opening) -> list[Action]:
        """A side's reply to `AskOpening`."""
        dispute = self._argued(challenger)
        return self._argue(now, challenger, dispute.on_opening(now, peer, opening)) if dispute else []

    def on_shown(self, now: float, challenger: PeerId, peer: PeerId, shown: Shown) -> list[Action]:
        """The worker's reply to `AskShown`."""
        dispute = self._argued(challenger)
        return self._argue(now, challenger, dispute.on_shown(now, peer, shown)) if dispute else []

    def on_recomputed(self, now: float, challenger: PeerId, own: Tensor | None) -> list[Action]:
        """The referee's reply to `Recompute`; None if it failed."""
        dispute = self._argued(challenger)
        return self._argue(now, challenger, dispute.on_recomputed(now, own)) if dispute else []

    def on_side_silent(self, now: float, challenger: PeerId, peer: PeerId) -> list[Action]:
        """A side of this challenger's dispute cannot be reached or refused."""
        dispute = self._argued(challenger)
        return self._argue(now, challenger, dispute.on_silent(now, peer)) if dispute else []

    def on_tick(self, now: float) -> list[Action]:
        """Let deadlines pass; call at or after `next_deadline`."""
        if self.phase is Phase.FINAL or not self.rounds:
            return []
        if self.dispute is not None:
            return self._argue(now, self.dispute.terms.challenger, self.dispute.on_tick(now))
        return self._relay(now, self.rounds[-1].on_tick(now))
