"""The requester's side: who is asked, who is passed over, when votes are opened, and what is decided."""

from __future__ import annotations

import msgspec
import pytest

from tests.verify.world import (
    ACCEPTED,
    HONEST,
    REJECTED,
    ask_for,
    juror_name,
    jurors,
    names,
    person,
    ruled,
    spec,
    started,
)
from verify.case import seal_of
from verify.faults import Fault
from verify.juror import Juror
from verify.messages import JuryAnswer, JuryAsk, RevealAsk
from verify.receipt import check
from verify.round import Action, AskJuror, AskReveal, Blame, Decide, Outcome, PassedOver, Phase, Round, Timing
from verify.verdict import Finding, abstain, inconclusive
from wire.envelope import Envelope, seal
from wire.job import JurorCommit, JurorReveal
from wire.peer import PeerId

REQUESTER = person("requester").peer


class Play:
    """A round with real jurors, step by step."""

    def __init__(self, *, jury_size: int = 3, peers: int = 7, timing: Timing | None = None) -> None:
        self.round, self.order = started(jury_size=jury_size, peers=peers, timing=timing)
        self.cast: dict[PeerId, Juror] = jurors(peers)
        self.now = 0.0

    def answer(self, index: int, finding: Finding = ACCEPTED) -> JuryAnswer:
        return ruled(self.cast[self.order[index]], self.round.ask, finding)

    def seal(self, index: int, finding: Finding = ACCEPTED) -> list[Action]:
        return self.round.on_answer(self.now, self.order[index], self.answer(index, finding))

    def opened(self, index: int) -> Envelope:
        commits = self.round._commits()
        ask = RevealAsk(self.round.case.job, self.round.case.root, commits)
        return self.cast[self.order[index]].reveal(REQUESTER, ask)

    def reveal(self, index: int) -> list[Action]:
        return self.round.on_reveal(self.now, self.order[index], self.opened(index))

    def finish(self) -> Outcome:
        while (deadline := self.round.next_deadline()) is not None:
            self.now = max(self.now, deadline)
            self.round.on_tick(self.now)
        assert self.round.outcome is not None
        return self.round.outcome


def asked(actions: list[Action]) -> list[PeerId]:
    return [action.peer for action in actions if isinstance(action, AskJuror)]


def blamed(actions: list[Action]) -> list[PeerId]:
    return [action.peer for action in actions if isinstance(action, Blame)]


def test_three_agreeing_jurors_make_a_certificate_that_holds_offline() -> None:
    play = Play()
    for index in range(3):
        actions = play.seal(index)
    assert [action.peer for action in actions if isinstance(action, AskReveal)] == play.order[:3]
    for index in range(3):
        actions = play.reveal(index)
    (decide,) = actions
    assert isinstance(decide, Decide)
    outcome = decide.outcome
    assert (outcome.verdict, outcome.paid) == ("accept", tuple(play.order[:3]))
    summary = check(outcome.receipt)
    assert (summary.verdict, summary.replaced) == ("accept", 0)
    assert summary.jury == outcome.jury


def test_the_first_jurors_are_asked_in_draw_order() -> None:
    round_ = Round(ask_for(spec()))
    assert asked(round_.start(0.0)) == list(round_.case.order[:3])


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([ACCEPTED, ACCEPTED, REJECTED], "accept"),
        ([REJECTED, ACCEPTED, REJECTED], "reject"),
        ([REJECTED, REJECTED, REJECTED], "reject"),
    ],
)
def test_the_majority_decides_and_dissenters_are_paid_too(findings: list[Finding], verdict: str) -> None:
    play = Play()
    for index, finding in enumerate(findings):
        play.seal(index, finding)
    for index in range(3):
        play.reveal(index)
    outcome = play.finish()
    assert (outcome.verdict, len(outcome.paid)) == (verdict, 3)
    assert check(outcome.receipt).verdict == verdict


@pytest.mark.parametrize(
    ("finding", "reason"),
    [
        (abstain("model", "no model"), "abstain.model"),
        (Finding("abstain", {"abstain.because": 1.0}), "abstain"),
        (inconclusive("failed"), "inconclusive"),
    ],
)
def test_a_juror_without_a_vote_is_replaced_by_the_next_in_order(finding: Finding, reason: str) -> None:
    play = Play()
    actions = play.seal(1, finding)
    assert actions == [PassedOver(play.order[1], reason), AskJuror(play.order[3])]
    for index in (0, 2, 3):
        play.seal(index)
    for index in (0, 2, 3):
        play.reveal(index)
    outcome = play.finish()
    summary = check(outcome.receipt)
    assert [juror.rank for juror in summary.jury] == [0, 2, 3]
    assert (summary.replaced, outcome.passed_over) == (1, {play.order[1]: reason})


def test_a_silent_juror_is_replaced_at_its_deadline() -> None:
    play = Play(timing=Timing(answer_s=10))
    play.seal(0)
    play.seal(1)
    assert play.round.on_tick(9.9) == []
    assert play.round.on_tick(10.0) == [PassedOver(play.order[2], "silent"), AskJuror(play.order[3])]
    assert play.round.on_tick(10.0) == []


def test_an_unreachable_juror_is_replaced_at_once() -> None:
    play = Play()
    assert asked(play.round.on_silent(0.0, play.order[0])) == [play.order[3]]
    assert play.round.on_silent(0.0, play.order[0]) == []


def test_a_late_vote_counts_while_the_jury_is_not_full_and_not_after() -> None:
    play = Play()
    play.round.on_silent(0.0, play.order[0], "silent")
    play.seal(0)
    play.seal(1)
    play.seal(2)
    assert play.round.jury == tuple(play.order[:3])
    assert play.seal(3) == []
    for index in range(3):
        play.reveal(index)
    assert play.finish().passed_over == {play.order[3]: "late"}


def test_without_enough_spares_nobody_is_paid() -> None:
    play = Play(peers=3)
    actions = play.round.on_silent(0.0, play.order[1])
    assert isinstance(actions[-1], Decide)
    outcome = actions[-1].outcome
    assert (outcome.verdict, outcome.paid, outcome.receipt.certificate) == ("unaudited", (), None)
    assert check(outcome.receipt).verdict == "unaudited"


def test_a_pool_smaller_than_the_jury_is_unaudited_at_once() -> None:
    round_ = Round(ask_for(spec(peers=2), peers=2))
    assert isinstance(round_.start(0.0)[-1], Decide)


def test_a_job_that_asks_for_no_jury_is_unaudited() -> None:
    round_ = Round(ask_for(spec(jury_size=0)))
    (decide,) = round_.start(0.0)
    assert isinstance(decide, Decide)
    assert check(decide.outcome.receipt).verdict == "unaudited"


def test_a_juror_that_falls_silent_after_sealing_costs_only_its_own_fee() -> None:
    play = Play()
    for index in range(3):
        play.seal(index)
    play.reveal(0)
    play.reveal(2)
    outcome = play.finish()
    assert (outcome.verdict, outcome.paid) == ("accept", (play.order[0], play.order[2]))
    assert [juror.verdict for juror in check(outcome.receipt).jury] == ["accept", "silent", "accept"]


def test_a_majority_shortens_the_wait_for_stragglers() -> None:
    play = Play(timing=Timing(reveal_s=5.0, grace_s=0.5))
    for index in range(3):
        play.seal(index)
    assert play.round.next_deadline() == 5.0
    play.reveal(0)
    assert play.round.next_deadline() == 5.0
    play.reveal(1)
    assert play.round.next_deadline() == 0.5


def test_a_split_with_a_silent_third_is_unaudited_and_nobody_is_replaced_after_a_reveal() -> None:
    """A juror asked now could know what the others said."""
    play = Play()
    for index, finding in enumerate((ACCEPTED, REJECTED, ACCEPTED)):
        play.seal(index, finding)
    play.reveal(0)
    actions = play.reveal(1)
    assert asked(actions) == []
    outcome = play.finish()
    assert (outcome.verdict, outcome.paid) == ("unaudited", ())


def reseal(play: Play, index: int, **changes: object) -> Envelope:
    """A reveal by the right juror, otherwise than it was sealed."""
    from wire.envelope import unseal

    opened = unseal(play.opened(index), "juror.reveal", JurorReveal)
    signer = person(names(7)[play.order[index]])
    return seal(signer, "juror.reveal", msgspec.structs.replace(opened, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "reject"},
        {"salt": bytes(32)},
        {"distances": {"cosine": 0.5}},
        {"distances": {"cosine": float("nan")}},
        {"distances": {str(i): 0.0 for i in range(17)}},
        {"root": bytes(32)},
        {"job": bytes(32)},
        {"signature": bytes(96)},
        {"signature": b""},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_reveal_that_was_not_sealed_is_blamed_and_counts_as_silence(changes: dict[str, object]) -> None:
    play = Play()
    for index in range(3):
        play.seal(index)
    bad = reseal(play, 0, **changes)
    assert blamed(play.round.on_reveal(0.0, play.order[0], bad)) == [play.order[0]]
    assert play.reveal(0) == [], "a second try does not count"
    play.reveal(1)
    play.reveal(2)
    outcome = play.finish()
    assert (outcome.verdict, outcome.paid) == ("accept", tuple(play.order[1:3]))
    assert check(outcome.receipt).jury[0].verdict == "silent"


def test_an_equivocating_juror_is_blamed_and_its_first_word_stands() -> None:
    play = Play()
    first = play.answer(0)
    other = seal(
        person(names(7)[play.order[0]]),
        "juror.commit",
        JurorCommit(play.round.case.job, play.round.case.root, bytes(32)),
    )
    assert play.round.on_answer(0.0, play.order[0], first) == []
    assert play.round.on_answer(0.0, play.order[0], first) == [], "a duplicate is harmless"
    assert blamed(play.round.on_answer(0.0, play.order[0], JuryAnswer(other, first.key))) == [play.order[0]]
    assert play.round._commits() == []
    play.seal(1)
    play.seal(2)
    assert play.round._commits()[0] == first.said


def test_two_different_reveals_are_blamed() -> None:
    play = Play()
    for index in range(3):
        play.seal(index)
    play.reveal(0)
    assert play.reveal(0) == [], "a duplicate is harmless"
    assert blamed(play.round.on_reveal(0.0, play.order[0], reseal(play, 0, verdict="reject"))) == [play.order[0]]


def test_a_vote_opened_before_the_jury_is_full_is_blamed_and_not_counted() -> None:
    play = Play()
    reveal = JurorReveal(play.round.case.job, play.round.case.root, "accept", {}, bytes(32), bytes(32), bytes(96))
    envelope = seal(person(names(7)[play.order[0]]), "juror.reveal", reveal)
    assert blamed(play.round.on_reveal(0.0, play.order[0], envelope)) == [play.order[0]]
    actions = play.round.on_answer(0.0, play.order[0], JuryAnswer(envelope, play.answer(0).key))
    assert blamed(actions) == [play.order[0]]
    assert asked(actions) == [play.order[3]]


def test_a_copying_juror_is_caught_when_it_opens() -> None:
    """It repeats another's seal, then that juror's whole reveal under its own name."""
    from wire.envelope import unseal

    play = Play()
    play.seal(0)
    copier = person(names(7)[play.order[1]])
    sealed = unseal(play.answer(0).said, "juror.commit", JurorCommit)
    copied = JuryAnswer(seal(copier, "juror.commit", sealed), copier.key_record())
    play.round.on_answer(0.0, copier.peer, copied)
    play.seal(2)
    assert play.round.phase is Phase.REVEALING
    opened = unseal(play.opened(0), "juror.reveal", JurorReveal)
    play.reveal(0)
    assert blamed(play.round.on_reveal(0.0, copier.peer, seal(copier, "juror.reveal", opened))) == [copier.peer]


def test_a_juror_that_claims_anothers_key_is_blamed_and_replaced() -> None:
    """A proof of possession names the peer, so another's key cannot be announced as one's own."""
    from wire.envelope import unseal
    from wire.job import KeyRecord

    play = Play()
    thief = person(names(7)[play.order[1]])
    victim_record = unseal(person(names(7)[play.order[0]]).key_record(), "keys", KeyRecord)
    play.seal(0)
    claim = JuryAnswer(play.answer(1).said, seal(thief, "keys", victim_record))
    actions = play.round.on_answer(0.0, thief.peer, claim)
    assert blamed(actions) == [thief.peer]
    assert AskJuror(play.order[3]) in actions
    assert any(isinstance(each, PassedOver) and each.reason.startswith("key.possession") for each in actions)


def test_a_juror_that_votes_with_anothers_signature_is_caught() -> None:
    from wire.envelope import unseal

    play = Play()
    thief = person(names(7)[play.order[1]])
    for index in range(3):
        play.seal(index)
    stolen = unseal(play.opened(0), "juror.reveal", JurorReveal).signature
    play.reveal(0)
    own = unseal(play.opened(1), "juror.reveal", JurorReveal)
    actions = play.round.on_reveal(
        0.0, thief.peer, seal(thief, "juror.reveal", msgspec.structs.replace(own, signature=stolen))
    )
    assert blamed(actions) == [thief.peer]
    play.reveal(2)
    assert check(play.finish().receipt).verdict == "accept"


@pytest.mark.parametrize("what", ["other job", "other root", "forged author", "wrong signature", "wrong domain"])
def test_a_bad_seal_is_blamed_on_its_sender_who_is_replaced(what: str) -> None:
    play = Play()
    signer, case = person(names(7)[play.order[0]]), play.round.case
    good = JurorCommit(case.job, case.root, bytes(32))
    said = {
        "other job": seal(signer, "juror.commit", JurorCommit(bytes(32), case.root, bytes(32))),
        "other root": seal(signer, "juror.commit", JurorCommit(case.job, bytes(32), bytes(32))),
        "forged author": seal(person("stranger"), "juror.commit", good),
        "wrong signature": Envelope("juror.commit", signer.peer, seal(signer, "juror.commit", good).body, bytes(64)),
        "wrong domain": seal(signer, "commitment", good),
    }[what]
    actions = play.round.on_answer(0.0, signer.peer, JuryAnswer(said, signer.key_record()))
    assert (blamed(actions), asked(actions)) == ([signer.peer], [play.order[3]])


def test_another_ones_key_record_is_refused() -> None:
    play = Play()
    actions = play.round.on_answer(0.0, play.order[0], JuryAnswer(play.answer(0).said, person("stranger").key_record()))
    assert blamed(actions) == [play.order[0]]


def test_strangers_and_the_not_yet_asked_are_blamed_and_ignored() -> None:
    play = Play()
    early = play.order[5]
    answer = ruled(play.cast[early], play.round.ask, ACCEPTED)
    assert blamed(play.round.on_answer(0.0, early, answer)) == [early]
    stranger = person("stranger").peer
    assert blamed(play.round.on_reveal(0.0, stranger, answer.said)) == [stranger]
    assert play.round.on_silent(0.0, stranger) == []


@pytest.mark.parametrize(("round_s", "ends_at"), [(60.0, 20.0), (15.0, 15.0)])
def test_the_round_ends_by_itself(round_s: float, ends_at: float) -> None:
    """Seven silent peers, three at a time: after two deadlines too few are left; or the round itself ends first."""
    play = Play(timing=Timing(answer_s=10, round_s=round_s))
    outcome = play.finish()
    assert (outcome.verdict, play.now) == ("unaudited", ends_at)


def test_nothing_changes_a_decided_round() -> None:
    play = Play()
    for index in range(3):
        play.seal(index)
    for index in range(3):
        play.reveal(index)
    assert play.round.phase is Phase.DECIDED
    outcome = play.round.outcome
    for actions in (play.reveal(0), play.seal(3), play.round.on_tick(99.0), play.round.on_silent(1.0, play.order[0])):
        assert [action for action in actions if not isinstance(action, Blame)] == []
    assert play.round.outcome is outcome


def test_material_that_does_not_open_is_refused_before_anybody_is_asked() -> None:
    ask = ask_for(spec())
    with pytest.raises(Fault) as caught:
        Round(JuryAsk(ask.spec, ask.commitment, ask.secret, bytes(32), ask.pool, ask.output, ask.trace))
    assert caught.value.code == "opening"


@pytest.mark.parametrize("size", [1, 5, 7])
def test_other_jury_sizes(size: int) -> None:
    play = Play(jury_size=size, peers=9)
    for index in range(size):
        play.seal(index, REJECTED if index < size // 2 else ACCEPTED)
    for index in range(size):
        play.reveal(index)
    outcome = play.finish()
    assert check(outcome.receipt).verdict == outcome.verdict == "accept"


def test_honest_distances_reach_the_receipt() -> None:
    play = Play()
    for index in range(3):
        play.round.on_answer(0.0, play.order[index], ruled(play.cast[play.order[index]], play.round.ask, HONEST))
    for index in range(3):
        play.reveal(index)
    assert {tuple(sorted(juror.distances)) for juror in play.finish().jury} == {("cosine", "relative")}


def test_seals_hide_the_verdict() -> None:
    """The same juror's accept and reject have seals that differ and say nothing without the salt."""
    reveals = [JurorReveal(bytes(32), bytes(32), word, {}, bytes(32), bytes(32), b"") for word in ("accept", "reject")]
    assert len({seal_of(person(juror_name(0)).peer, reveal) for reveal in reveals}) == 2
