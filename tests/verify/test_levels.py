"""Which juries a pool of a given size can fill, one after another."""

from __future__ import annotations

import pytest

from verify.ladder import (
    LEVELS,
    LEVELS_STRICT,
    LEVELS_STRICT_WITHOUT_DISPUTE,
    LEVELS_WITHOUT_DISPUTE,
    levels_for,
    with_spots,
)

SHAPES = {
    0: [],
    2: [],
    3: [(3, 3)],
    4: [(3, 3)],
    5: [(5, 5)],
    9: [(5, 5)],
    10: [(3, 3), (7, 6)],
    11: [(3, 3), (7, 6)],
    12: [(5, 5), (7, 6)],
    30: [(5, 5), (7, 6)],
    31: [(3, 3), (7, 6), (21, 14)],
    33: [(5, 5), (7, 6), (21, 14)],
    64: [(5, 5), (7, 6), (21, 14)],
}


@pytest.mark.parametrize("jurors", SHAPES)
def test_the_levels_that_a_pool_can_fill(jurors: int) -> None:
    found = levels_for(jurors, disputes=True)
    assert [(level.size, level.needed) for level in found] == SHAPES[jurors]
    assert sum(level.size for level in found) <= jurors


@pytest.mark.parametrize("jurors", SHAPES)
def test_without_disputes_the_last_level_decides_by_majority(jurors: int) -> None:
    found = levels_for(jurors, disputes=False)
    assert [level.size for level in found] == [size for size, _ in SHAPES[jurors]]
    if found:
        assert found[-1].needed == found[-1].size // 2 + 1
        assert found[:-1] == levels_for(jurors, disputes=True)[:-1]


def test_whole_ladders_are_the_named_ones() -> None:
    assert levels_for(64, disputes=True) == LEVELS_STRICT
    assert levels_for(31, disputes=True) == LEVELS
    assert levels_for(31, disputes=False) == LEVELS_WITHOUT_DISPUTE
    assert levels_for(33, disputes=False) == LEVELS_STRICT_WITHOUT_DISPUTE


@pytest.mark.parametrize(
    ("spots", "steps", "drawn"),
    [(1, 30, [1, 9, 0]), (1, 4, [1, 4, 0]), (12, 30, [12, 12, 0]), (0, 30, [0, 0, 0])],
)
def test_each_level_looks_at_more_steps(spots: int, steps: int, drawn: list[int]) -> None:
    assert [level.spots for level in with_spots(LEVELS, spots, steps)] == drawn
