"""Any interleaving of any behaviour: rounds end, nobody is paid without a certificate, lies need a lying majority.

The requester of this machine is itself careless or malicious: it runs two rounds over one committed answer with the
same jurors, in any order of delivery, with duplicates, strangers and lost messages.
"""

from __future__ import annotations

import msgspec
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.verify.world import ACCEPTED, DEADLINE_MS, REJECTED, ask_for, juror_name, jurors, names, person, spec
from verify.juror import AskRefused
from verify.messages import JuryAnswer
from verify.receipt import check
from verify.round import Action, AskJuror, AskReveal, Decide, Outcome, Phase, Round, Timing
from verify.verdict import Finding, abstain
from wire.envelope import Envelope, seal, unseal
from wire.hashing import digest
from wire.job import JurorCommit, JurorReveal
from wire.peer import PeerId

PEERS = 6
BEHAVIOURS = (*["honest"] * 6, "liar", "liar", "silent", "abstains", "equivocates", "mismatches", "forges", "hasty")
NAMES = names(PEERS)
PHASES = list(Phase)
REQUESTER = person("requester").peer


class Rounds(RuleBasedStateMachine):
    """Two rounds over one answer; the truth is `accept`."""

    @initialize(behaviour=st.lists(st.sampled_from(BEHAVIOURS), min_size=PEERS, max_size=PEERS))
    def begin(self, behaviour: list[str]) -> None:
        self.behaviour = {person(juror_name(i)).peer: how for i, how in enumerate(behaviour)}
        self.cast = jurors(PEERS)
        ask = ask_for(spec(peers=PEERS), peers=PEERS)
        self.rounds = [Round(ask, timing=Timing(answer_s=10, reveal_s=5, grace_s=1, round_s=40)) for _ in range(2)]
        self.todo: list[list[AskJuror | AskReveal]] = [[], []]
        self.sent: list[list[tuple[PeerId, JuryAnswer | Envelope]]] = [[], []]
        self.phases = [Phase.COLLECTING, Phase.COLLECTING]
        self.decided = [0, 0]
        self.now = 0.0
        for which, round_ in enumerate(self.rounds):
            self.take(which, round_.start(0.0))

    def take(self, which: int, actions: list[Action]) -> None:
        self.todo[which] += [action for action in actions if isinstance(action, AskJuror | AskReveal)]
        self.decided[which] += sum(isinstance(action, Decide) for action in actions)

    @rule(which=st.integers(0, 1), picks=st.lists(st.integers(0, 20), min_size=1, max_size=4))
    def deliver(self, which: int, picks: list[int]) -> None:
        for pick in picks:
            self.deliver_one(which, pick)

    def deliver_one(self, which: int, pick: int) -> None:
        if self.todo[which]:
            action = self.todo[which].pop(pick % len(self.todo[which]))
            if isinstance(action, AskJuror):
                self.answer(which, action.peer)
            else:
                self.open(which, action)

    @rule(which=st.integers(0, 1), pick=st.integers(0, 20))
    def lose(self, which: int, pick: int) -> None:
        if self.todo[which]:
            action = self.todo[which].pop(pick % len(self.todo[which]))
            self.take(which, self.rounds[which].on_silent(self.now, action.peer))

    @rule(which=st.integers(0, 1), to=st.integers(0, 1), pick=st.integers(0, 40))
    def repeat(self, which: int, to: int, pick: int) -> None:
        """An old message again, perhaps in the other round."""
        if self.sent[which]:
            peer, message = self.sent[which][pick % len(self.sent[which])]
            self.feed(to, peer, message)

    @rule(which=st.integers(0, 1), seconds=st.sampled_from([0.1, 0.1, 0.5, 6.0]))
    def wait(self, which: int, seconds: float) -> None:
        self.now += seconds
        self.take(which, self.rounds[which].on_tick(self.now))

    @rule(which=st.integers(0, 1), pick=st.integers(0, PEERS - 1))
    def speak_unasked(self, which: int, pick: int) -> None:
        peer = person(juror_name(pick)).peer
        self.answer(which, peer)

    def feed(self, which: int, peer: PeerId, message: JuryAnswer | Envelope) -> None:
        round_ = self.rounds[which]
        if isinstance(message, JuryAnswer):
            self.take(which, round_.on_answer(self.now, peer, message))
        else:
            self.take(which, round_.on_reveal(self.now, peer, message))
        self.sent[which].append((peer, message))

    def answer(self, which: int, peer: PeerId) -> None:
        how, round_, who = self.behaviour[peer], self.rounds[which], person(NAMES[peer])
        findings: dict[str, Finding] = {"liar": REJECTED, "abstains": abstain("model", "no model")}
        if how == "silent":
            return
        hearing = self.cast[peer].consider(REQUESTER, round_.ask, now_ms=DEADLINE_MS - 1)
        answer = self.cast[peer].rule(hearing, findings.get(how, ACCEPTED))
        other = JurorCommit(round_.case.job, round_.case.root, digest("test", bytes([which])))
        if how == "forges":
            victim = person(NAMES[round_.case.order[0]])
            answer = JuryAnswer(msgspec.structs.replace(answer.said, author=victim.peer), victim.key_record())
        if how == "hasty":
            reveal = JurorReveal(round_.case.job, round_.case.root, "reject", {}, bytes(32), bytes(32), bytes(96))
            answer = JuryAnswer(seal(who, "juror.reveal", reveal), answer.key)
        self.feed(which, peer, answer)
        if how == "equivocates":
            self.feed(which, peer, JuryAnswer(seal(who, "juror.commit", other), answer.key))

    def open(self, which: int, action: AskReveal) -> None:
        peer = action.peer
        try:
            envelope = self.cast[peer].reveal(REQUESTER, action.ask)
        except AskRefused:
            self.take(which, self.rounds[which].on_silent(self.now, peer, "refused"))
            return
        if self.behaviour[peer] == "mismatches":
            reveal = msgspec.structs.replace(unseal(envelope, "juror.reveal", JurorReveal), verdict="reject")
            envelope = seal(person(NAMES[peer]), "juror.reveal", reveal)
        self.feed(which, peer, envelope)

    @invariant()
    def phases_never_go_back(self) -> None:
        now = [round_.phase for round_ in getattr(self, "rounds", [])]
        assert all(PHASES.index(b) >= PHASES.index(a) for a, b in zip(getattr(self, "phases", []), now, strict=True))
        self.phases = now

    @invariant()
    def decided_once(self) -> None:
        for round_, count in zip(getattr(self, "rounds", []), getattr(self, "decided", []), strict=True):
            assert count == (round_.phase is Phase.DECIDED)
            assert (round_.outcome is not None) == (round_.phase is Phase.DECIDED)
            assert (round_.next_deadline() is None) == (round_.phase is Phase.DECIDED)

    def teardown(self) -> None:
        if not hasattr(self, "rounds"):
            return
        for which, round_ in enumerate(self.rounds):
            while self.todo[which]:
                self.deliver_one(which, 0)
            for _ in range(4 * PEERS):
                if (deadline := round_.next_deadline()) is not None:
                    self.now = max(self.now, deadline)
                    self.take(which, round_.on_tick(self.now))
            assert round_.outcome is not None, "a round ends"
            self.judge(round_.outcome)
        self.no_two_verdicts()

    def judge(self, outcome: Outcome) -> None:
        summary = check(outcome.receipt)
        assert (summary.verdict, summary.jury) == (outcome.verdict, outcome.jury)
        assert bool(outcome.paid) == (outcome.receipt.certificate is not None) == (outcome.verdict != "unaudited")
        voted = {juror.peer for juror in outcome.jury if juror.verdict in ("accept", "reject")}
        assert set(outcome.paid) <= voted
        if outcome.verdict == "reject":
            assert 2 * sum(self.behaviour[juror.peer] == "liar" for juror in outcome.jury) > len(outcome.jury)

    def no_two_verdicts(self) -> None:
        """One honest juror signs for one jury only, so two juries can differ only where liars are a majority of one."""
        outcomes = [round_.outcome for round_ in self.rounds]
        words = {outcome.verdict for outcome in outcomes if outcome is not None} - {"unaudited"}
        event("/".join(outcome.verdict for outcome in outcomes if outcome is not None))
        if len(words) == 2:
            assert sum(how == "liar" for how in self.behaviour.values()) >= 2
        both = [outcome.jury for outcome in outcomes if outcome is not None and outcome.verdict != "unaudited"]
        if len(both) == 2 and [juror.peer for juror in both[0]] != [juror.peer for juror in both[1]]:
            signers = [{j.peer for j in jury if j.verdict != "silent"} for jury in both]
            assert not signers[0] & signers[1]


Rounds.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestRounds = Rounds.TestCase
