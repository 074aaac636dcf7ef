"""Any mix of colluding, lazy, silent, withholding and always-rejecting jurors, in any order of delivery.

An escalation ends, once; an honest worker is convicted only by `needed` lying jurors of one jury, a cheat passes only
by as many, or where no honest juror voted; time and money stay within what was stated.
"""

from __future__ import annotations

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.verify.climb import COUNT, REQUESTER, STAKES, TIMING, WORKER, climb, jurors_of
from verify.escalation import AtLevel, InDispute, Outcome, Phase, seconds_max
from verify.ladder import Level
from verify.receipt import check
from verify.round import AskJuror
from wire.peer import PeerId

PEERS = 20
LEVELS = (Level(3, 3), Level(5, 4), Level(7, 5))
KINDS = ("honest", "honest", "honest", "colluding", "colluding", "lazy", "rejects", "silent", "withholds", "deserts")
PHASES = list(Phase)


class Escalations(RuleBasedStateMachine):
    """One escalation; actions are carried out, lost, or overtaken by deadlines in any order."""

    @initialize(
        kinds=st.lists(st.sampled_from(KINDS), min_size=PEERS, max_size=PEERS),
        honest=st.booleans(),
        disputable=st.booleans(),
        defends=st.sampled_from(["plays", "plays", "silent"]),
    )
    def begin(self, kinds: list[str], honest: bool, disputable: bool, defends: str) -> None:
        self.made = climb(
            dict(enumerate(kinds)), honest=honest, levels=LEVELS, peers=PEERS, disputable=disputable, defends=defends
        )
        self.lost = False
        self.phase = Phase.JUDGING
        self.made.take(self.made.escalation.start(0.0))

    @rule(picks=st.lists(st.integers(0, 30), min_size=1, max_size=8))
    def deliver(self, picks: list[int]) -> None:
        for pick in picks:
            if self.made.todo:
                self.made.advance(pick)

    @rule(pick=st.integers(0, 30))
    def lose(self, pick: int) -> None:
        """A message that never arrives, and somebody who notices."""
        if not self.made.todo:
            return
        step = self.made.todo.pop(pick % len(self.made.todo))
        machine, now = self.made.escalation, self.made.now
        if isinstance(step, AtLevel) and isinstance(step.action, AskJuror):
            self.made.take(machine.on_silent(now, step.level, step.action.peer))
        elif isinstance(step, InDispute):
            self.lost = True

    @rule(pick=st.integers(0, 30))
    def repeat(self, pick: int) -> None:
        """The same question answered twice."""
        if self.made.todo:
            step = self.made.todo[pick % len(self.made.todo)]
            self.made.carry_out(step)

    @rule(seconds=st.sampled_from([0.1, 0.5, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.made.now += seconds
        self.made.take(self.made.escalation.on_tick(self.made.now))

    @invariant()
    def never_back_and_final_once(self) -> None:
        if not hasattr(self, "made"):
            return
        machine = self.made.escalation
        assert PHASES.index(machine.phase) >= PHASES.index(self.phase)
        self.phase = machine.phase
        assert len(self.made.finals) == (machine.phase is Phase.FINAL) == (machine.outcome is not None)
        assert (machine.next_deadline() is None) == (machine.phase is Phase.FINAL)
        assert len(machine.rounds) <= len(LEVELS)

    def teardown(self) -> None:
        if not hasattr(self, "made"):
            return
        limit = seconds_max(LEVELS, TIMING, COUNT, 3, 7)
        for _ in range(2000):
            if self.made.finals:
                break
            self.made.advance()
        (outcome,) = self.made.finals
        assert self.made.now <= limit + 11.0 * 50, "deadlines bound the whole"
        event(f"{outcome.verdict} by {outcome.decided_by}")
        self.verdict_is_right(outcome)
        self.nobody_pays_too_much(outcome)

    def verdict_is_right(self, outcome: Outcome) -> None:
        made = self.made
        wrong = "reject" if made.honest else "accept"
        juries = [check(receipt).jury for receipt in outcome.receipts]
        seen = [juror.peer for jury in juries for juror in jury]
        assert len(set(seen)) == len(seen), "nobody sits twice"
        if outcome.verdict != wrong:
            return
        if isinstance(outcome.decided_by, int):
            jury = juries[outcome.decided_by]
            liars = [juror for juror in jury if juror.verdict == wrong and self.lies(juror.peer)]
            assert len(liars) >= LEVELS[outcome.decided_by].needed
        elif made.honest:
            assert made.defends == "silent" or self.lost, "an honest worker that answers wins every dispute"
        else:
            played = [ruling.challenger for ruling in outcome.rulings if made.how(ruling.challenger) == "honest"]
            assert not played or self.lost, "an honest juror convicts a cheat"

    def lies(self, peer: PeerId) -> bool:
        return self.made.how(peer) in ("colluding", "lazy", "rejects")

    def nobody_pays_too_much(self, outcome: Outcome) -> None:
        settled = outcome.settlement
        moved = settled.transfers
        assert sum(moved.values()) + settled.burned == 0
        assert moved.get(REQUESTER.peer, 0) >= -STAKES.reservation([level.size for level in LEVELS])
        assert moved.get(WORKER.peer, 0) in (STAKES.price, -STAKES.worker_bond, 0)
        for peer in jurors_of(PEERS):
            assert -STAKES.juror_bond <= moved.get(peer, 0) <= STAKES.fee
            if self.made.how(peer) == "honest" and outcome.verdict == ("accept" if self.made.honest else "reject"):
                assert moved.get(peer, 0) >= 0 or self.lost or self.withheld(outcome, peer)

    def withheld(self, outcome: Outcome, peer: PeerId) -> bool:
        """An honest juror whose opened vote came too late."""
        juries = [check(receipt).jury for receipt in outcome.receipts]
        return any(juror.peer == peer and juror.verdict == "silent" for jury in juries for juror in jury)


Escalations.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
TestEscalations = Escalations.TestCase
