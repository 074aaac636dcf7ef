"""What juries are worth: exact probabilities under collusion, and what it gains to throw the dice again.

Each juror colludes with probability `f` (a share of the requester's trust; votes for the wrong verdict, always) and
errs otherwise with probability `beta`. Draws are independent (Binomial), or without replacement from a pool of which
exactly some collude, each level from what the levels below left over (hypergeometric; equal weights). Everything is
a finite sum, computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from verify.ladder import Level


def at_least(size: int, needed: int, p: float) -> float:
    """P(Binomial(size, p) >= needed)."""
    return math.fsum(math.comb(size, i) * p**i * (1 - p) ** (size - i) for i in range(max(0, needed), size + 1))


def hypergeometric(size: int, pool: int, marked: int, found: int) -> float:
    """P(`found` of `size` drawn from `pool`, of which `marked`, are marked)."""
    if not (0 <= found <= marked and 0 <= size - found <= pool - marked):
        return 0.0
    return math.comb(marked, found) * math.comb(pool - marked, size - found) / math.comb(pool, size)


@dataclass(frozen=True)
class Finite:
    """A pool of `size` peers of equal weight, `colluders` of which collude."""

    size: int
    colluders: int


def majority_wrong(size: int, f: float, beta: float, pool: Finite | None = None) -> float:
    """The probability that a single jury of `size` certifies the wrong verdict by majority.

    Args:
        f: colluding share; not used with a `pool`. beta: an honest juror's chance to err.
    """
    needed = size // 2 + 1
    if pool is None:
        return at_least(size, needed, f + (1 - f) * beta)
    return math.fsum(
        hypergeometric(size, pool.size, pool.colluders, c) * at_least(size - c, needed - c, beta)
        for c in range(min(size, pool.colluders) + 1)
    )


@dataclass(frozen=True)
class Odds:
    """How a ladder ends.

    Attributes:
        wrong, right: that some level decides for the wrong or the right verdict. undecided: that none does; single
            steps are then disputed, which ends right as long as an honest juror sat.
        reached: per level, that it sits. jurors: expected number of jurors that vote.
    """

    wrong: float
    right: float
    undecided: float
    reached: tuple[float, ...]
    jurors: float


def ladder_odds(levels: Sequence[Level], f: float, beta: float, pool: Finite | None = None) -> Odds:
    """The exact odds of a ladder in which everybody answers.

    Raises:
        ValueError: the pool is smaller than all juries together.
    """
    if pool is not None and pool.size < sum(level.size for level in levels):
        raise ValueError(f"a pool of {pool.size} for {[level.size for level in levels]} jurors")
    here = {0: 1.0}  # by how many colluders have sat, that this level is reached
    seated, wrong, right, jurors, reached = 0, 0.0, 0.0, 0.0, []
    for level in levels:
        reached.append(math.fsum(here.values()))
        jurors += level.size * reached[-1]
        above: dict[int, float] = {}
        for sat, chance in here.items():
            for c, share in _colluders(level.size, f, pool, seated, sat):
                bad: float = at_least(level.size - c, level.needed - c, beta)
                good = at_least(level.size - c, level.needed, 1 - beta)
                wrong += chance * share * bad
                right += chance * share * good
                above[sat + c] = above.get(sat + c, 0.0) + chance * share * max(0.0, 1 - bad - good)
        here, seated = above, seated + level.size
    return Odds(wrong, right, math.fsum(here.values()), tuple(reached), jurors)


def _colluders(size: int, f: float, pool: Finite | None, seated: int, sat: int) -> list[tuple[int, float]]:
    """How many of a jury collude, with probabilities, when `sat` of `seated` jurors before them did."""
    if pool is None:
        return [(c, math.comb(size, c) * f**c * (1 - f) ** (size - c)) for c in range(size + 1)]
    left, marked = pool.size - seated, pool.colluders - sat
    return [(c, hypergeometric(size, left, marked, c)) for c in range(size + 1)]


def undecided_if_withheld(levels: Sequence[Level], pool: Finite) -> float:
    """The probability that no level decides if colluders seal votes and never open them, and all others agree."""
    here = {0: 1.0}
    seated = 0
    for level in levels:
        above: dict[int, float] = {}
        for sat, chance in here.items():
            for c, share in _colluders(level.size, 0.0, pool, seated, sat):
                if level.size - c < level.needed:
                    above[sat + c] = above.get(sat + c, 0.0) + chance * share
        here, seated = above, seated + level.size
    return math.fsum(here.values())


def best_of(draws: float, share: float) -> float:
    """The probability that at least one of `draws` independent draws is one that has probability `share`."""
    return float(1.0 - (1.0 - share) ** draws)


@dataclass(frozen=True)
class Withholding:
    """What somebody gains who abandons each draw that it does not like and has another.

    Attributes:
        chance: that it gets one it likes. abandoned: expected number of draws thrown away.
        locked: micro-credits tied up in abandoned draws, expected, until their deadlines.
    """

    chance: float
    abandoned: float
    locked: float


def withholding(share: float, balance: int, reservation: int) -> Withholding:
    """The gain of a requester that reserves `reservation` micro-credits per draw and owns `balance`.

    It may hold `balance // reservation` draws at once; each abandoned one keeps its reservation until its deadline and
    stays visible as an offer without a receipt. `share` is the probability of a jury it likes (`at_least`).
    """
    assert reservation > 0, "every draw reserves something"
    attempts = balance // reservation
    chance = best_of(attempts, share)
    # of `attempts` draws all before the first liked one are thrown away: sum over i >= 1 of P(the first i are disliked)
    abandoned = math.fsum((1 - share) ** i for i in range(1, attempts + 1))
    return Withholding(chance, abandoned, abandoned * reservation)


def picked_replaced(size: int, share: float) -> float:
    """Expected `replaced` in the receipt of a requester that passes over everyone but its friends.

    Args:
        size: of the jury. share: of the pool that are friends.
    """
    return size * (1 - share) / share


def replaced_odds(size: int, replaced: int, silent: float) -> float:
    """The chance that `replaced` peers or more are passed over before `size` answer, each silent with chance `silent`.

    What a reader compares with its own limit: below it, the requester picked, or knows very little about its pool.
    """
    fewer = (math.comb(size - 1 + i, i) * (1 - silent) ** size * silent**i for i in range(replaced))
    return max(0.0, 1.0 - math.fsum(fewer))
