"""Exact odds of juries, checked against counting; what grinding and withholding gain, and how both show."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from pathlib import Path

import pytest

from tests.verify.climb import NONCE, asks_for, jurors_of
from tests.verify.world import ACCEPTED, DEADLINE_MS, calibration, person
from verify.juror import Juror
from verify.jury import beacon, draw_order, pool_of
from verify.ladder import LEVELS, LEVELS_STRICT, Level, open_ladder
from verify.odds import (
    Finite,
    at_least,
    best_of,
    hypergeometric,
    ladder_odds,
    majority_wrong,
    picked_replaced,
    replaced_odds,
    withholding,
)
from verify.receipt import check
from verify.round import AskJuror, AskReveal, Outcome, Round
from verify.statistics import clopper_pearson
from wire.hashing import digest

SHARES = (0.0, 0.1, 0.2, 0.3)


@pytest.mark.parametrize("f", SHARES)
@pytest.mark.parametrize("size", [3, 7])
def test_a_majority_is_wrong_as_often_as_counting_all_outcomes_says(size: int, f: float) -> None:
    p = f + (1 - f) * 0.01
    outcomes = itertools.product((True, False), repeat=size)
    counted = sum(math.prod(p if bad else 1 - p for bad in each) for each in outcomes if 2 * sum(each) > size)
    assert majority_wrong(size, f, 0.01) == pytest.approx(counted, rel=1e-12)


def test_a_finite_pool_is_counted_exactly() -> None:
    """5 of 12 collude: count all juries of 3, honest jurors err with 1/100."""
    total, wrong = Fraction(0), Fraction(0)
    err = Fraction(1, 100)
    for jury in itertools.combinations(range(12), 3):
        bad = sum(member < 5 for member in jury)
        honest = 3 - bad
        tail = sum(math.comb(honest, i) * err**i * (1 - err) ** (honest - i) for i in range(honest + 1) if bad + i >= 2)
        total, wrong = total + 1, wrong + tail
    assert majority_wrong(3, 0.0, 0.01, Finite(12, 5)) == pytest.approx(float(wrong / total), rel=1e-12)
    assert sum(hypergeometric(3, 12, 5, c) for c in range(4)) == pytest.approx(1.0)
    assert hypergeometric(3, 12, 5, 4) == hypergeometric(3, 4, 4, 2) == 0.0


@pytest.mark.parametrize("f", SHARES)
@pytest.mark.parametrize("levels", [LEVELS, LEVELS_STRICT])
def test_the_odds_of_a_ladder_are_whole(f: float, levels: tuple[Level, ...]) -> None:
    for pool in (None, Finite(60, round(60 * f))):
        found = ladder_odds(levels, f, 0.01, pool)
        assert found.wrong + found.right + found.undecided == pytest.approx(1.0)
        assert found.reached[0] == pytest.approx(1.0)
        assert list(found.reached) == sorted(found.reached, reverse=True)
        size = sum(level.size for level in levels)
        assert levels[0].size - 1e-9 <= found.jurors <= size


def test_one_level_by_majority_is_a_majority() -> None:
    for pool in (None, Finite(30, 6)):
        odds = ladder_odds((Level(7, 4),), 0.2, 0.01, pool)
        assert odds.wrong == pytest.approx(majority_wrong(7, 0.2, 0.01, pool))
        assert odds.undecided == pytest.approx(0.0, abs=1e-12)


def test_a_pool_must_hold_all_juries() -> None:
    with pytest.raises(ValueError, match="pool of 20"):
        ladder_odds(LEVELS, 0.1, 0.01, Finite(20, 2))


def test_what_the_documentation_says_a_ladder_is_worth() -> None:
    """Unanimity of three ends it, so a false accept is no rarer than f**3; five clear the goal at 20 % collusion."""
    assert ladder_odds(LEVELS, 0.2, 0.0).wrong > 0.2**3
    assert ladder_odds(LEVELS, 0.2, 0.01).wrong == pytest.approx(9.2e-3, rel=0.02)
    assert ladder_odds(LEVELS, 0.2, 0.01).wrong < majority_wrong(3, 0.2, 0.01) / 10
    assert 1 - ladder_odds(LEVELS_STRICT, 0.2, 0.01).wrong > 0.9989
    assert 1 - ladder_odds(LEVELS, 0.1, 0.01).wrong < 0.9989


def test_exact_bounds_are_those_of_the_tables() -> None:
    """Clopper and Pearson, and the rule of three: 0 of n is at most about 3.7 / n (two-sided 95 %)."""
    table = {(0, 100): (0.0, 0.036217), (5, 100): (0.016432, 0.112835), (100, 100): (0.963783, 1.0)}
    for (hits, runs), bounds in {**table, (9, 10): (0.554984, 0.997471)}.items():
        assert list(clopper_pearson(hits, runs)) == pytest.approx(list(bounds), abs=1e-6)


def friendly(draw: int, friends: frozenset[bytes], needed: int, size: int) -> bool:
    order = draw_order(
        beacon(digest("j", draw.to_bytes(4, "big")), bytes(32), bytes(32)),
        pool_of(dict.fromkeys(jurors_of(30), 1)),
        frozenset(),
    )
    return sum(peer in friends for peer in order[:size]) >= needed


def test_throwing_away_draws_gains_what_is_stated_and_locks_what_is_stated() -> None:
    """A requester that abandons every jury it does not like, with the real draw, against its balance."""
    friends = frozenset(jurors_of(30)[:9])
    share = sum(hypergeometric(3, 30, 9, c) for c in (2, 3))
    reservation, balance, runs = 4_400, 22_500, 150
    stated = withholding(share, balance, reservation)
    assert stated.chance == pytest.approx(best_of(5, share))
    got, abandoned, draw = 0, 0, 0
    for _ in range(runs):
        left = balance
        while left >= reservation:
            left -= reservation  # reserved until the deadline, liked or not
            draw += 1
            if friendly(draw, friends, 2, 3):
                got += 1
                break
            abandoned += 1
    low, high = clopper_pearson(got, runs, 0.999)
    assert low <= stated.chance <= high
    assert abandoned / runs == pytest.approx(stated.abandoned, rel=0.2)
    assert stated.locked == pytest.approx(stated.abandoned * reservation)
    assert withholding(share, reservation - 1, reservation).chance == 0.0


def held(friends: frozenset[bytes], seed: bytes) -> Outcome:
    """A round of a requester that calls everybody silent who is not its friend."""
    ask = asks_for((Level(3, 2),), seed=seed)[0]
    round_ = Round(ask)
    jurors: dict[bytes, Juror] = {}
    todo = list(round_.start(0.0))
    while round_.outcome is None:
        action = todo.pop(0)
        if isinstance(action, AskJuror) and action.peer not in friends:
            todo += round_.on_silent(0.0, action.peer)
        elif isinstance(action, AskJuror):
            who = person(f"peer-{jurors_of(40).index(action.peer)}")
            jurors[action.peer] = juror = Juror(who, {calibration().hash: calibration()})
            hearing = juror.consider(person("requester").peer, ask, now_ms=DEADLINE_MS - 1)
            todo += round_.on_answer(0.0, action.peer, juror.rule(hearing, ACCEPTED))
        elif isinstance(action, AskReveal):
            reveal = jurors[action.peer].reveal(person("requester").peer, action.ask)
            todo += round_.on_reveal(0.0, action.peer, reveal)
    return round_.outcome


def test_passing_over_all_but_friends_shows_in_the_receipt() -> None:
    """`replaced` counts every honest peer that was passed over: nothing that the requester does can lower it."""
    friends = frozenset(jurors_of(40)[:8])
    counts = []
    for seed in range(12):
        outcome = held(friends, bytes([seed]))
        (case,) = open_ladder(asks_for((Level(3, 2),), seed=bytes([seed])), (Level(3, 2),), NONCE)
        ranks = [rank for rank, peer in enumerate(case.order) if peer in friends][:3]
        assert check(outcome.receipt).replaced == ranks[-1] + 1 - 3
        counts.append(check(outcome.receipt).replaced)
    mean = sum(counts) / len(counts)
    assert mean == pytest.approx(3 * (40 - 8) / (8 + 1), rel=0.5)  # without replacement: k (N - K) / (K + 1)
    assert picked_replaced(3, 0.2) == pytest.approx(12.0)
    assert replaced_odds(3, round(mean), silent=0.1) < 1e-5
    assert replaced_odds(3, 0, silent=0.1) == 1.0


def test_the_odds_of_replacements_are_those_of_counting() -> None:
    chance = random.Random(3)
    runs, over = 4000, 0
    for _ in range(runs):
        answered = passed = 0
        while answered < 3:
            silent = chance.random() < 0.3
            passed, answered = passed + silent, answered + (not silent)
        over += passed >= 3
    low, high = clopper_pearson(over, runs, 0.999)
    assert low <= replaced_odds(3, 3, 0.3) <= high


def test_were_a_draw_to_depend_on_votes_below_each_dissenter_would_double_the_draws() -> None:
    """Why no outcome enters a beacon: three colluders in the first jury would choose among eight juries of seven."""
    capture = at_least(7, 6, 0.2)
    assert best_of(2**3, capture) == pytest.approx(8 * capture, rel=0.01)
    assert best_of(1, capture) == pytest.approx(capture)


def test_the_documentation_states_the_exact_odds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "escalation.md").read_text()
    juries = (Level(3, 2),), (Level(7, 4),), (Level(21, 11),), LEVELS, LEVELS_STRICT
    for f in SHARES:
        cells = " | ".join(f"{ladder_odds(levels, f, 0.01).wrong:.1e}" for levels in juries)
        assert f"| {f:.1f} | exact | {cells} |" in page
