"""Where honesty is said to pay best, no strategy of a grid does better in the repeated game; where not, one does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.verify_audits import ALPHA0, NEVER, Gamblers
from verify import incentive
from verify.incentive import (
    Terms,
    audit_rate_max,
    audit_rate_needed,
    batch_gain,
    detection_needed,
    franchise,
    franchise_at_risk,
    honest_batch_is_best,
    stake_max,
    stake_needed,
)
from wire.errors import LocalError

AMOUNTS = st.integers(0, 10**12)
CHANCES = st.floats(0, 1)


@st.composite
def terms_of(draw: st.DrawFn) -> Terms:
    cost = draw(AMOUNTS)
    detection = draw(st.floats(1e-6, 1))
    return Terms(
        reward=draw(AMOUNTS),
        cost=cost,
        saving=draw(st.integers(0, cost)),
        audit_rate=draw(CHANCES),
        detection=detection,
        false_reject=detection * draw(st.floats(0, 0.99)),
        stake=draw(AMOUNTS),
    )


def solved(solve: object, terms: Terms) -> float | None:
    try:
        return solve(terms)  # type: ignore[operator, no-any-return]  # one of the functions below
    except LocalError:
        return None


@given(terms=terms_of())
def test_the_needed_audit_rate_is_the_least(terms: Terms) -> None:
    rate = solved(audit_rate_needed, terms)
    if rate is None:
        assert not replace(terms, audit_rate=1.0).honest_is_best
        return
    assert replace(terms, audit_rate=rate).honest_is_best
    assert rate == 0 or not replace(terms, audit_rate=math.nextafter(rate, 0) * (1 - 1e-15)).honest_is_best


@given(terms=terms_of())
def test_the_needed_stake_is_the_least(terms: Terms) -> None:
    stake = solved(stake_needed, terms)
    if stake is None:
        assert not replace(terms, stake=incentive.AMOUNT_MAX - 1).honest_is_best
        return
    assert replace(terms, stake=int(stake)).honest_is_best
    assert stake == 0 or not replace(terms, stake=int(stake) - 1).honest_is_best


@given(terms=terms_of())
def test_the_needed_detection_is_the_least(terms: Terms) -> None:
    needed = solved(detection_needed, terms)
    if needed is None:
        assert not replace(terms, detection=1.0).honest_is_best
        return
    assume(needed > terms.false_reject)
    assert replace(terms, detection=needed).honest_is_best
    less = needed * (1 - 1e-12)
    assert less <= terms.false_reject or not replace(terms, detection=less).honest_is_best


@given(terms=terms_of())
def test_the_largest_stake_and_rate_leave_work_worth_it(terms: Terms) -> None:
    stake, rate = solved(stake_max, terms), solved(audit_rate_max, terms)
    assert (stake is not None) == replace(terms, stake=0).worth_it
    assert (rate is not None) == replace(terms, audit_rate=0.0).worth_it
    if stake is not None:
        assert replace(terms, stake=int(stake)).worth_it
        assert stake == incentive.AMOUNT_MAX or not replace(terms, stake=int(stake) + 1).worth_it
    if rate is not None:
        assert replace(terms, audit_rate=rate).worth_it
        assert rate == 1 or not replace(terms, audit_rate=min(1.0, rate * (1 + 1e-12) + 1e-300)).worth_it


@given(terms=terms_of())
def test_the_condition_is_the_comparison_of_the_two_gains(terms: Terms) -> None:
    difference = terms.honest_micro - terms.cheat_micro
    assume(abs(difference) > 1e-9 * (terms.reward + terms.cost + terms.stake))
    assert terms.honest_is_best == (difference > 0)


def test_the_published_example() -> None:
    """45 % of the reward is saved: without a stake 45 % must be audited, with five rewards 7.5 %, with twenty 2.1 %."""
    rates = [
        audit_rate_needed(Terms(reward=1000, cost=450, saving=450, audit_rate=0, stake=stake))
        for stake in (0, 5_000, 20_000)
    ]
    assert rates == pytest.approx([0.45, 0.075, 450 / 21_000])


@pytest.mark.parametrize(
    "wrong",
    [
        {"reward": -1},
        {"saving": 11},
        {"audit_rate": 1.1},
        {"audit_rate": math.nan},
        {"detection": 0.0},
        {"false_reject": 1.0},
        {"stake": 1 << 63},
    ],
)
def test_absurd_terms_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LocalError):
        replace(Terms(reward=10, cost=10, saving=10, audit_rate=0.1), **wrong)  # type: ignore[arg-type]  # on purpose


@given(
    terms=terms_of(),
    jobs=st.integers(1, 200),
    wrong=st.integers(0, 200),
)
def test_a_batch_that_is_safe_against_all_wrong_is_safe_against_some(terms: Terms, jobs: int, wrong: int) -> None:
    assume(wrong <= jobs and honest_batch_is_best(terms, jobs))
    slack = 1e-9 * jobs * (terms.reward + terms.cost + terms.stake + 1)
    assert batch_gain(terms, jobs, wrong) <= batch_gain(terms, jobs, 0) + slack


def test_a_batch_lets_fewer_audits_deter() -> None:
    """Half of the reward is saved: one job needs an audit rate of 1/2, a batch of a hundred less than 1/100."""
    terms = Terms(reward=1000, cost=500, saving=500, audit_rate=0.01)
    assert [honest_batch_is_best(terms, jobs) for jobs in (1, 10, 100)] == [False, False, True]
    with pytest.raises(LocalError):
        batch_gain(terms, 3, 4)


def test_a_franchise_is_the_sum_of_what_is_to_come() -> None:
    assert franchise(1000.0, 0.75) == round(sum(1000 * 0.75**n for n in range(1, 200)))
    assert franchise(-5.0, 0.9) == 0
    with pytest.raises(LocalError):
        franchise(10.0, 1.0)


def test_a_franchise_deters_only_who_is_ejected() -> None:
    assert franchise_at_risk(10**6, ALPHA0) == 0
    assert 0 < franchise_at_risk(10**6, 0.2) < franchise_at_risk(10**6, 0.5) < franchise_at_risk(10**6, 1.0) < 10**6


# The repeated game. Work comes in lots of 1/q jobs of which one is audited; a cheater cheats in each job with its
# own rate. A condemned answer earns nothing and costs the deposit; an ejected peer earns nothing any more. A job from
# now is worth `PATIENCE` of one now for each lot in between.

PEERS = 3_000
LOTS = 400
PATIENCE = 0.985
RATES = (0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
FALSE_REJECT, DETECTION = 0.002, 0.98


@dataclass(frozen=True)
class Strategy:
    """Cheat with probability `rate` in lots `first` to `last`."""

    rate: float
    first: int = 0
    last: int = LOTS


GRID = [
    *(Strategy(rate) for rate in RATES),
    Strategy(1.0, first=100),
    Strategy(0.5, first=100),
    Strategy(1.0, last=2),
    Strategy(1.0, first=50, last=52),
]


def play(terms: Terms, strategy: Strategy, *, seed: int = 1) -> NDArray[np.float64]:
    """Discounted gain of each of `PEERS` over what is earned by an honest twin with the same luck."""
    chance = np.random.Generator(np.random.Philox(seed))
    size = round(1 / terms.audit_rate)
    records = {False: Gamblers(PEERS), True: Gamblers(PEERS)}
    total = np.zeros(PEERS)
    for lot in range(LOTS):
        luck, seen = chance.random(PEERS), chance.random(PEERS)
        wrongs = chance.binomial(size, strategy.rate, PEERS) * (strategy.first <= lot < strategy.last)
        for cheats in (False, True):
            wrong = wrongs if cheats else np.zeros(PEERS, dtype=np.int64)
            audited_wrong = luck < wrong / size
            failed = seen < np.where(audited_wrong, terms.detection, terms.false_reject)
            alive = records[cheats].rejected_at == NEVER
            earned = size * (terms.reward - terms.cost) + wrong * terms.saving - failed * (terms.reward + terms.stake)
            total += (1 if cheats else -1) * alive * earned * PATIENCE**lot
            records[cheats].observe(failed)
    return total


def interval(gains: NDArray[np.float64]) -> tuple[float, float]:
    """Mean minus and plus four standard errors."""
    error = 4 * float(gains.std()) / math.sqrt(len(gains))
    return float(gains.mean()) - error, float(gains.mean()) + error


def game(stake: int, *, audit_rate: float = 0.1) -> Terms:
    return Terms(1000, 600, 500, audit_rate, DETECTION, FALSE_REJECT, stake)


DETERRENT = stake_needed(game(0))


@pytest.mark.parametrize("strategy", GRID, ids=str)
def test_no_strategy_gains_where_the_deposit_deters(strategy: Strategy) -> None:
    """The deposit alone satisfies the condition, with a tenth to spare: ejection is not even needed."""
    terms = game(math.ceil(1.1 * DETERRENT) + 100)
    assert terms.honest_is_best
    assert terms.worth_it
    assert interval(play(terms, strategy))[1] < 0


@pytest.mark.parametrize("strategy", [Strategy(0.01), Strategy(0.03), Strategy(1.0, last=2)], ids=str)
def test_some_strategies_gain_where_the_deposit_does_not_deter(strategy: Strategy) -> None:
    """Half of what is needed: who cheats within the tolerance, or stops before it is ejected, gains."""
    terms = game(DETERRENT // 2)
    assert not terms.honest_is_best
    assert interval(play(terms, strategy))[0] > 0


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_a_franchise_deters_in_place_of_a_deposit(rate: float) -> None:
    """No deposit: the earnings to come, spread over the failures until ejection, satisfy the condition and deter."""
    terms = game(0)
    earnings = franchise(terms.honest_micro / terms.audit_rate, PATIENCE)
    failing = rate * DETECTION + (1 - rate) * FALSE_REJECT
    at_risk = replace(terms, stake=franchise_at_risk(earnings, failing))
    assert (terms.honest_is_best, at_risk.honest_is_best) == (False, True)
    assert interval(play(terms, Strategy(rate)))[1] < 0


def test_without_ejection_and_deposit_cheating_pays() -> None:
    """The same game of a peer that cares for nothing beyond the first lots: there is no franchise to lose."""
    assert interval(play(game(0), Strategy(1.0, last=2)))[0] > 0
