"""Three, seven, twenty-one, single steps: what decides, who pays, and what nobody can aim at."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import msgspec
import pytest

from tests.verify.climb import (
    BAD_STEP,
    NONCE,
    REQUESTER,
    STAKES,
    WORKER,
    Climb,
    asks_for,
    climb,
    jurors_of,
    specs_of,
)
from tests.verify.world import SALT, answer, person
from verify.commitment import commit
from verify.escalation import Escalation, Outcome, Phase
from verify.faults import Fault
from verify.jury import beacon_hash
from verify.ladder import (
    LEVELS,
    LEVELS_WITHOUT_DISPUTE,
    Level,
    build_ladder,
    check_commitments,
    check_ladder,
    level_secret,
    open_ladder,
)
from verify.receipt import check
from verify.settlement import Matter, Settlement, Stakes, settle
from wire.envelope import seal
from wire.peer import PeerId


def everybody(how: str, peers: int = 40) -> dict[int, str]:
    return dict.fromkeys(range(peers), how)


def place(peer: PeerId, peers: int = 40) -> int:
    return jurors_of(peers).index(peer)


@cache
def order(level: int = 0, peers: int = 40) -> list[PeerId]:
    return list(open_ladder(asks_for(peers=peers), LEVELS, NONCE)[level].order)


@cache
def seat(level: int, index: int) -> int:
    """The place of the juror that sits at `index` of a level if everybody answers."""
    sat: list[PeerId] = []
    for above, rule in enumerate(LEVELS[: level + 1]):
        drawn = [peer for peer in order(above) if peer not in sat][: rule.size]
        if above == level:
            return place(drawn[index])
        sat += drawn
    raise AssertionError(level)


def balanced(outcome: Outcome) -> Settlement:
    settled = outcome.settlement
    assert sum(settled.transfers.values()) + settled.burned == 0
    return settled


def test_three_of_one_mind_end_it() -> None:
    for honest in (True, False):
        outcome = climb({}, honest=honest).run()
        assert (outcome.verdict, outcome.decided_by) == ("accept" if honest else "reject", 0)
        assert len(outcome.receipts) == 1
        settled = balanced(outcome)
        assert settled.transfers.get(REQUESTER.peer, 0) == (-1300 if honest else 0)
        assert settled.transfers.get(WORKER.peer) == (1000 if honest else -3000)


def test_one_dissenter_calls_seven_fresh_jurors_and_pays_for_them() -> None:
    liar = seat(0, 1)
    made = climb({liar: "rejects"})
    outcome = made.run()
    assert (outcome.verdict, outcome.decided_by, made.escalated) == ("accept", 1, ["dissent"])
    first, second = (check(receipt) for receipt in outcome.receipts)
    assert (first.verdict, second.verdict) == ("accept", "accept")
    assert not {juror.peer for juror in first.jury} & {juror.peer for juror in second.jury}
    settled = balanced(outcome)
    assert settled.transfers[jurors_of(40)[liar]] == -STAKES.juror_bond
    assert settled.transfers[REQUESTER.peer] == -(STAKES.price + 9 * STAKES.fee - STAKES.juror_bond)


def test_a_majority_of_three_does_not_decide() -> None:
    """Two colluders in the first jury: its receipt says accept, the final verdict does not."""
    made = climb({seat(0, 0): "lazy", seat(0, 2): "lazy"}, honest=False)
    outcome = made.run()
    assert check(outcome.receipts[0]).verdict == "accept"
    assert (outcome.verdict, outcome.decided_by) == ("reject", 1)


def test_a_withheld_vote_escalates_and_forfeits() -> None:
    made = climb({seat(0, 0): "withholds"})
    outcome = made.run()
    assert (outcome.verdict, outcome.decided_by, made.escalated) == ("accept", 1, ["withheld"])
    assert balanced(outcome).transfers[jurors_of(40)[seat(0, 0)]] == -STAKES.juror_bond


def test_silent_peers_are_replaced_and_pay_nothing() -> None:
    outcome = climb({seat(0, 0): "silent", seat(0, 1): "silent"}).run()
    assert (outcome.verdict, outcome.decided_by) == ("accept", 0)
    assert check(outcome.receipts[0]).replaced == 2
    assert set(balanced(outcome).transfers) == {
        REQUESTER.peer,
        WORKER.peer,
        *(juror.peer for juror in check(outcome.receipts[0]).jury),
    }


def split(level: int, wrong: int) -> dict[int, str]:
    return {seat(level, index): "colluding" for index in range(wrong)}


@pytest.mark.parametrize("honest", [True, False])
def test_twenty_one_decide_what_seven_could_not(honest: bool) -> None:
    made = climb(split(0, 1) | split(1, 2) | split(2, 7), honest=honest)
    outcome = made.run()
    assert (outcome.verdict, outcome.decided_by) == ("accept" if honest else "reject", 2)
    assert [len(check(receipt).jury) for receipt in outcome.receipts] == [3, 7, 21]
    balanced(outcome)


def test_a_single_step_convicts_where_twenty_one_are_split() -> None:
    made = climb(split(0, 2) | split(1, 5) | split(2, 13), honest=False)
    outcome = made.run()
    assert (outcome.verdict, outcome.decided_by, made.escalated) == ("reject", "dispute", ["dissent"] * 3)
    (ruling,) = outcome.rulings
    assert (ruling.loser, ruling.step) == (WORKER.peer, BAD_STEP)
    assert ruling.proof is not None
    balanced(outcome)


def test_the_honest_worker_wins_every_dispute() -> None:
    outcome = climb(split(0, 2) | split(1, 5) | split(2, 13)).run()
    assert (outcome.verdict, outcome.decided_by) == ("accept", "dispute")
    assert len(outcome.rulings) == 20
    assert all(ruling.loser == ruling.challenger for ruling in outcome.rulings)
    settled = balanced(outcome)
    assert settled.transfers[WORKER.peer] == STAKES.price
    assert settled.transfers[REQUESTER.peer] >= -STAKES.reservation([3, 7, 21])


def test_one_honest_juror_convicts_after_false_friends_have_thrown_the_case() -> None:
    """Colluding jurors reject so as to challenge and lose on purpose; they only delay."""
    behaviour = split(0, 1) | split(1, 2) | split(2, 10)
    deserters = {index: "deserts" for level in (0, 1) for index in [seat(level, LEVELS[level].size - 1)]}
    outcome = climb(behaviour | deserters, honest=False).run()
    assert (outcome.verdict, outcome.decided_by) == ("reject", "dispute")
    assert 1 <= len(outcome.rulings) <= 31


def test_a_worker_that_does_not_defend_itself_loses() -> None:
    outcome = climb(split(0, 2) | split(1, 5) | split(2, 13), defends="silent").run()
    assert (outcome.verdict, [ruling.fault for ruling in outcome.rulings]) == ("reject", ["dispute.silent"])


def test_without_steps_to_dispute_a_split_jury_ends_unaudited() -> None:
    outcome = climb(split(0, 2) | split(1, 5) | split(2, 13), disputable=False).run()
    assert (outcome.verdict, outcome.decided_by) == ("unaudited", "nobody")
    assert outcome.settlement == Settlement({}, 0)
    majority = climb(split(0, 1) | split(1, 2) | split(2, 10), disputable=False, levels=LEVELS_WITHOUT_DISPUTE).run()
    assert (majority.verdict, majority.decided_by) == ("accept", 2)


def test_a_pool_that_runs_out_ends_unaudited() -> None:
    made = climb(everybody("silent", 5), peers=5)
    outcome = made.run()
    assert (outcome.verdict, made.escalated) == ("unaudited", ["no jury"] * 3)


def test_what_is_late_or_of_another_level_changes_nothing() -> None:
    made = climb({seat(0, 1): "rejects"})
    asks = made.escalation.start(0.0)
    made.take(asks)
    peer = order()[0]
    before = made.escalation.phase
    assert made.escalation.on_silent(0.0, 1, peer) == made.escalation.on_silent(0.0, -1, peer) == []
    assert made.escalation.on_recomputed(0.0, peer, None) == made.escalation.on_side_silent(0.0, peer, peer) == []
    assert made.escalation.phase is before is Phase.JUDGING
    while not made.finals:
        made.advance()
    assert made.escalation.on_silent(0.0, 1, peer) == made.escalation.on_tick(1e9) == []
    assert made.escalation.next_deadline() is None


def test_no_vote_and_no_silence_below_moves_a_draw_above() -> None:
    """Fresh beacons that were fixed before the first jury: dissenters choose that there is a next jury, never which."""
    above = [order(1), order(2)]
    for behaviour in (
        {seat(0, 0): "rejects"},
        {seat(0, 2): "withholds"},
        {seat(0, 0): "silent", seat(0, 1): "rejects"},
    ):
        made: Climb = climb(behaviour)
        made.run()
        assert list(made.escalation.rounds[1].case.order) == above[0]
        sat = (
            {juror.peer for juror in check(made.escalation.outcome.receipts[0]).jury}
            if made.escalation.outcome
            else set()
        )
        jury = [juror.peer for juror in check(made.finals[0].receipts[1]).jury]
        assert jury == [peer for peer in above[0] if peer not in sat][:7]
    assert order(0) != above[0] != above[1]


def test_a_juror_cannot_know_the_next_jury_from_what_it_was_shown() -> None:
    """Another secret above, another draw, and nothing in the first level's material tells them apart but a hash."""
    one, other = (asks_for(seed=seed) for seed in (b"1", b"2"))
    secrets = [ask.secret for ask in (*one, *other)]
    assert len(set(secrets)) == 6
    assert all(beacon_hash(ask.secret) == spec.beacon_hash for ask, spec in zip(one, specs_of(one), strict=True))


def fault(call: Any) -> str:
    with pytest.raises(Fault) as caught:
        call()
    return caught.value.code


def test_each_way_to_bend_a_ladder_has_its_name() -> None:
    asks = asks_for()
    specs = specs_of(asks)

    def changed(level: int, **changes: Any) -> list[Any]:
        return [msgspec.structs.replace(each, **changes) if i == level else each for i, each in enumerate(specs)]

    assert fault(lambda: check_ladder(specs[:2], LEVELS, NONCE)) == "ladder.levels"
    assert fault(lambda: check_ladder(changed(1, jury_size=5), LEVELS, NONCE)) == "ladder.levels"
    assert fault(lambda: check_ladder(specs, LEVELS, bytes(16))) == "ladder.nonce"
    assert fault(lambda: check_ladder(specs, LEVELS, NONCE + b"0")) == "ladder.nonce"
    assert fault(lambda: check_ladder(changed(2, beacon_hash=bytes(32)), LEVELS, NONCE)) == "ladder.nonce"
    for change in ({"price_micro": 0}, {"nonce": bytes(16)}, {"pool": bytes(32)}, {"calibration": bytes(32)}):
        assert fault(lambda change=change: check_ladder(changed(1, **change), LEVELS, NONCE)) == "ladder.spec"
    output, trace = answer()
    commitments = [commit(spec.id, output, trace, SALT) for spec in specs]
    check_commitments(commitments, specs)
    assert fault(lambda: check_commitments(commitments[:2], specs)) == "ladder.root"
    other = commit(specs[2].id, output, trace, bytes(32))
    assert fault(lambda: check_commitments([*commitments[:2], other], specs)) == "ladder.root"
    assert fault(lambda: check_commitments([commitments[0]] * 3, specs)) == "ladder.root"


def test_an_escalation_opens_only_one_workers_one_answer() -> None:
    asks = asks_for()
    specs = specs_of(asks)
    stranger = seal(person("peer-1"), "commitment", commit(specs[1].id, *answer(), SALT))
    swapped = [asks[0], msgspec.structs.replace(asks[1], commitment=stranger), asks[2]]
    assert fault(lambda: Escalation(swapped, NONCE)) == "ladder.worker"
    other = msgspec.structs.replace(asks[2], salt=bytes(32))
    assert fault(lambda: Escalation([*asks[:2], other], NONCE)) == "ladder.answer"
    early = msgspec.structs.replace(asks[2], secret=asks[1].secret)
    assert fault(lambda: Escalation([*asks[:2], early], NONCE)) == "beacon"


def test_ladders_are_of_odd_juries_with_majorities() -> None:
    for size, needed in ((4, 3), (3, 1), (3, 4)):
        with pytest.raises(AssertionError):
            Level(size, needed)
    specs = specs_of(asks_for())
    again = build_ladder(msgspec.structs.replace(specs[0], nonce=NONCE), LEVELS, [ask.secret for ask in asks_for()])
    assert again == specs
    assert level_secret(bytes(32), 0) != level_secret(bytes(32), 1)


def test_money_is_conserved_and_nobody_loses_more_than_it_put_up() -> None:
    chance = random.Random(5)
    for _ in range(300):
        stakes = Stakes(*(chance.randrange(0, 2000) for _ in range(5)))
        jury = jurors_of(chance.randrange(1, 31))
        words = ["accept", "reject", "silent", "abstain", "inconclusive"]
        votes: Any = {peer: chance.choice(words) for peer in jury}
        verdict: Any = chance.choice(["accept", "reject", "unaudited"])
        disputes = [peer for peer, word in votes.items() if word == "reject"][: chance.randrange(0, 5)]
        referee = chance.choice([None, person("referee").peer])
        matter = Matter(REQUESTER.peer, WORKER.peer, verdict, votes, disputes, referee)
        settled = settle(stakes, matter)
        assert sum(settled.transfers.values()) + settled.burned == 0
        assert settled.burned >= 0
        assert -stakes.reservation([len(jury)]) <= settled.transfers.get(REQUESTER.peer, 0) <= 0
        assert settled.transfers.get(WORKER.peer, 0) >= -stakes.worker_bond
        assert all(settled.transfers.get(peer, 0) >= -stakes.juror_bond for peer in jury)
        assert all(settled.transfers.get(peer, 0) <= stakes.fee for peer in jury)
        if verdict == "unaudited":
            assert settled == Settlement({}, 0)
