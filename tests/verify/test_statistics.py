"""Bounds against SciPy, against published values, and against their own definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc
from scipy.stats import beta, hypergeom

from verify import statistics
from wire.errors import LocalError


@pytest.mark.parametrize(
    ("successes", "runs", "low", "high"),
    [
        (0, 10, 0.0, 0.3084971),
        (10, 10, 0.6915029, 1.0),
        (1, 20, 0.0012651, 0.2487328),
        (4, 20, 0.0573340, 0.4366140),
        (81, 263, 0.2526911, 0.3676451),
    ],
)
def test_known_two_sided_intervals(successes: int, runs: int, low: float, high: float) -> None:
    """The last is the worked example of Newcombe (Statistics in Medicine 17, 1998), to the digits that he prints."""
    found = statistics.clopper_pearson(successes, runs)
    assert found == pytest.approx((low, high), abs=2e-4 if runs == 263 else 1e-6)


@given(runs=st.integers(1, 100_000), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.999]))
def test_bounds_equal_scipys_beta_quantiles(runs: int, share: float, confidence: float) -> None:
    successes = round(share * runs)
    low, high = statistics.lower_bound(successes, runs, confidence), statistics.upper_bound(successes, runs, confidence)
    if successes:
        assert low == pytest.approx(beta.ppf(1 - confidence, successes, runs - successes + 1), rel=1e-7)
    if successes < runs:
        assert high == pytest.approx(beta.ppf(confidence, successes + 1, runs - successes), rel=1e-7)
    assert 0 <= low <= successes / runs <= high <= 1


@given(a=st.floats(0.5, 5000), b=st.floats(0.5, 5000), x=st.floats(0, 1))
def test_incomplete_beta_equals_scipys(a: float, b: float, x: float) -> None:
    assert statistics.incomplete_beta(a, b, x) == pytest.approx(float(betainc(a, b, x)), rel=1e-8, abs=1e-12)


@given(runs=st.integers(1, 60), share=st.floats(0, 1))
def test_the_upper_bound_is_the_rate_at_which_so_few_are_rare(runs: int, share: float) -> None:
    """By definition: at the bound, `successes` or fewer come up with probability 5 %."""
    successes = min(round(share * runs), runs - 1)
    rate = statistics.upper_bound(successes, runs)
    tail = sum(math.comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(successes + 1))
    assert tail == pytest.approx(0.05, rel=1e-6)


def test_the_rule_of_three_is_close_to_the_exact_bound() -> None:
    for runs in (100, 1000, 100_000):
        assert statistics.rule_of_three(runs) == pytest.approx(statistics.upper_bound(0, runs), rel=0.02)
    assert statistics.rule_of_three(2) == 1.0


@pytest.mark.parametrize("rate", [0.9, 0.9989, 0.9999])
def test_runs_needed_is_the_smallest_number_that_suffices(rate: float) -> None:
    runs = statistics.runs_needed(rate)
    assert statistics.clopper_pearson(runs, runs).low > rate >= statistics.clopper_pearson(runs - 1, runs - 1).low


def test_a_majority_of_three() -> None:
    assert statistics.majority(3, 0.1) == pytest.approx(3 * 0.1**2 - 2 * 0.1**3)
    assert [statistics.majority(size, 0.5) for size in (1, 3, 7, 21)] == pytest.approx([0.5] * 4)
    table = statistics.capture_table((0.1, 0.2), (3, 7))
    assert {share: [round(p, 4) for p in row.values()] for share, row in table.items()} == {
        0.1: [0.028, 0.0027],
        0.2: [0.104, 0.0333],
    }


@given(pool=st.integers(3, 60), data=st.data())
def test_capture_is_the_hypergeometric_tail(pool: int, data: st.DataObject) -> None:
    colluders = data.draw(st.integers(0, pool))
    assert statistics.capture(pool, colluders, 3) == pytest.approx(
        float(hypergeom.sf(1, pool, colluders, 3)), abs=1e-12
    )


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(LocalError):
        statistics.clopper_pearson(*counts)
    with pytest.raises(LocalError):
        statistics.capture(2, 0, 3)


def test_the_share_of_all_pairs_is_covered_as_often_as_said() -> None:
    """Draws from 40 unequal kinds; two are alike if of one kind. Of 400 intervals 95 % should hold the true rate."""
    weights = np.arange(1, 41) / np.arange(1, 41).sum()
    true, random, held = float((weights**2).sum()), np.random.default_rng(5), 0
    for _ in range(400):
        kinds = random.choice(40, size=120, p=weights)
        low, high = statistics.all_pairs((np.bincount(kinds, minlength=40)[kinds] - 1).tolist())
        held += low <= true <= high
    assert statistics.clopper_pearson(held, 400, 0.999).high > 0.93
    assert held > 350


def test_pairs_of_equal_draws_are_certain_and_impossible_counts_are_refused() -> None:
    assert statistics.all_pairs([4] * 5) == (1.0, 1.0)
    assert statistics.all_pairs([0] * 5) == (0.0, 0.0)
    for alike in ([0, 0], [5] * 5, [-1, 0, 0]):
        with pytest.raises(LocalError):
            statistics.all_pairs(alike)
