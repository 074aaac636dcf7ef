"""How sure a count makes us: exact binomial bounds, and what a jury's majority is worth.

Clopper and Pearson ("The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26,
1934): the bounds are quantiles of beta distributions, found here by bisection on the regularised incomplete beta
function (continued fraction: DLMF 8.17.22, evaluated by Lentz's method). They hold for any true rate, also where
nothing was missed. Runs must be independent; several judgements of one run count once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from wire.errors import LocalError

CONFIDENCE = 0.95
_TINY = 1e-300
_TERMS_MAX = 10_000
_HALVINGS = 200


class Interval(NamedTuple):
    """Bounds on a rate."""

    low: float
    high: float


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b): P(X <= x) of a beta(a, b) variable; a, b > 0.

    Raises:
        LocalError: the continued fraction did not settle.
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """Lentz's evaluation of the continued fraction; converges fast for x < (a + 1) / (a + b + 2)."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _TERMS_MAX):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        factor = 1.0
        for term in (even, odd):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = 1.0 + term / c
            c = c if abs(c) > _TINY else _TINY
            factor = c * d
            value *= factor
        if abs(factor - 1.0) < 1e-15:
            return value
    raise LocalError(f"incomplete beta({a:g}, {b:g}) at {x:g} did not converge")


def beta_quantile(a: float, b: float, probability: float) -> float:
    """The x with I_x(a, b) = probability."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if incomplete_beta(a, b, middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def lower_bound(successes: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower bound on the rate behind `successes` of `runs`.

    Raises:
        LocalError: not 0 <= successes <= runs, or confidence outside 0..1.
    """
    _check(successes, runs, confidence)
    if successes == 0:
        return 0.0
    if successes == runs:
        return float((1 - confidence) ** (1 / runs))
    return beta_quantile(successes, runs - successes + 1, 1 - confidence)


def upper_bound(successes: int, runs: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper bound on the rate; raises as `lower_bound`."""
    _check(successes, runs, confidence)
    if runs == 0 or successes == runs:
        return 1.0
    if successes == 0:
        return -math.expm1(math.log(1 - confidence) / runs)
    return beta_quantile(successes + 1, runs - successes, confidence)


def clopper_pearson(successes: int, runs: int, confidence: float = CONFIDENCE) -> Interval:
    """The two-sided interval: each tail gets half of what confidence leaves; raises as `lower_bound`."""
    each = (1 + confidence) / 2
    return Interval(lower_bound(successes, runs, each), upper_bound(successes, runs, each))


def all_pairs(alike: Sequence[int], confidence: float = CONFIDENCE) -> Interval:
    """The rate at which two independent draws are alike, from all pairs of n draws, which are not independent.

    The share of alike pairs is a U-statistic: asymptotically normal (Hoeffding, "A class of statistics with
    asymptotically normal distribution", Annals of Mathematical Statistics 19, 1948), its variance here the jackknife's
    (Arvesen, Annals of Mathematical Statistics 40, 1969). Unlike the other bounds it is not exact, and where no pair is
    alike it says nothing.

    Args:
        alike: for each draw, to how many of the others it is alike.

    Raises:
        LocalError: fewer than three draws, or counts that no draws have.
    """
    n, total = len(alike), sum(alike)
    if n < 3 or not 0 <= min(alike) <= max(alike) < n:
        raise LocalError(f"{n} draws, alike to {min(alike, default=0)} to {max(alike, default=0)} of the others")
    rate = total / (n * (n - 1))
    without = [(total - 2 * each) / ((n - 1) * (n - 2)) for each in alike]
    mean = sum(without) / n
    error = math.sqrt((n - 1) / n * sum((each - mean) ** 2 for each in without))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Interval(max(0.0, rate - reach), min(1.0, rate + reach))


def rule_of_three(runs: int) -> float:
    """About the one-sided 95 % upper bound on a rate that showed itself in none of `runs`: 3 / runs."""
    return 1.0 if runs <= 3 else 3.0 / runs


def runs_needed(rate: float, confidence: float = CONFIDENCE) -> int:
    """Runs without a miss after which the lower end of `clopper_pearson` exceeds `rate`."""
    return math.floor(math.log((1 - confidence) / 2) / math.log(rate)) + 1


def majority(size: int, rate: float) -> float:
    """Probability that more than half of `size` independent jurors do what each does with probability `rate`."""
    return sum(math.comb(size, k) * rate**k * (1 - rate) ** (size - k) for k in range(size // 2 + 1, size + 1))


def capture(pool: int, colluders: int, size: int) -> float:
    """Probability that colluders are the majority of a jury of `size`, drawn evenly and without replacement.

    Raises:
        LocalError: the pool is smaller than the jury or the colluders.
    """
    if not 0 < size <= pool or not 0 <= colluders <= pool:
        raise LocalError(f"a jury of {size} with {colluders} colluders from {pool}")
    ways = sum(math.comb(colluders, k) * math.comb(pool - colluders, size - k) for k in range(size // 2 + 1, size + 1))
    return ways / math.comb(pool, size)


def capture_table(shares: tuple[float, ...], sizes: tuple[int, ...]) -> dict[float, dict[int, float]]:
    """`majority` for each share of colluding weight and each jury size: false accepts of jurors that never err."""
    return {share: {size: majority(size, share) for size in sizes} for share in shares}


def _check(successes: int, runs: int, confidence: float) -> None:
    if not (0 <= successes <= runs and 0 < confidence < 1):
        raise LocalError(f"{successes} of {runs} at confidence {confidence}")
