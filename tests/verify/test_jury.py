"""The draw: the same everywhere, proportional to weight, and beyond the reach of requester and worker."""

from __future__ import annotations

import math
from collections import Counter
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verify.world import person, spec, weights
from verify.jury import WEIGHT_MAX, beacon, check_pool, check_secret, check_size, draw_order, log2_fixed, pool_of
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import PoolMember
from wire.peer import PeerId

NOBODY: frozenset[PeerId] = frozenset()


def peer(index: int) -> PeerId:
    return PeerId(digest("test.peer", index.to_bytes(4, "big")))


@given(st.integers(1, 2**64 - 1))
def test_log2_is_that_of_the_real_numbers(x: int) -> None:
    assert abs(log2_fixed(x) / 2**48 - math.log2(x)) < 1e-11


def test_log2_is_exact_on_powers_of_two() -> None:
    assert [log2_fixed(1 << n) for n in range(64)] == [n << 48 for n in range(64)]


@given(st.lists(st.integers(1, 2**64 - 1), min_size=2, max_size=20))
def test_log2_keeps_the_order(values: list[int]) -> None:
    assert [log2_fixed(x) for x in sorted(values)] == sorted(log2_fixed(x) for x in values)


def test_the_first_seat_is_proportional_to_weight() -> None:
    pool = pool_of({peer(i): w for i, w in enumerate((1, 2, 3, 10, 4))})
    draws = 4000
    first = Counter(draw_order(digest("test", i.to_bytes(4, "big")), pool, NOBODY)[0] for i in range(draws))
    total = sum(member.weight for member in pool)
    chi2 = sum((first[m.peer] - draws * m.weight / total) ** 2 / (draws * m.weight / total) for m in pool)
    assert chi2 < 18.47, "chi-square with 4 degrees of freedom, 0.1 %"


def test_later_seats_are_drawn_without_replacement_by_weight() -> None:
    """Given who is first, the second is proportional among the rest: P(b second | a first) = w_b / (W - w_a)."""
    pool = pool_of({peer(i): w for i, w in enumerate((5, 1, 3))})
    orders = [draw_order(digest("test2", i.to_bytes(4, "big")), pool, NOBODY) for i in range(3000)]
    after = [order[1] for order in orders if order[0] == peer(0)]
    share = sum(each == peer(2) for each in after) / len(after)
    assert abs(share - 3 / 4) < 4 * math.sqrt(3 / 16 / len(after))


def test_extreme_weights_do_not_break_the_arithmetic() -> None:
    pool = pool_of({peer(0): 1, peer(1): WEIGHT_MAX})
    first = Counter(draw_order(digest("test3", i.to_bytes(4, "big")), pool, NOBODY)[0] for i in range(500))
    assert first == {peer(1): 500}


def test_requester_and_worker_never_judge() -> None:
    pool = pool_of(weights(5))
    out = frozenset((person("requester").peer, person("worker").peer))
    order = draw_order(bytes(32), pool, out)
    assert len(order) == 5
    assert not out & set(order)


def test_the_draw_does_not_depend_on_the_order_of_arrival_of_the_pool() -> None:
    pool = pool_of(weights(6))
    assert draw_order(bytes(32), pool, NOBODY) == draw_order(bytes(32), pool[::-1], NOBODY)


def test_the_beacon_needs_the_root_and_the_secret() -> None:
    """Before the worker has committed there is no root, and before the requester reveals there is no secret."""
    base = beacon(b"j" * 32, b"r" * 32, b"s" * 32)
    assert len({base, beacon(b"k" * 32, b"r" * 32, b"s" * 32), beacon(b"j" * 32, b"q" * 32, b"s" * 32)}) == 3
    assert base != beacon(b"j" * 32, b"r" * 32, b"t" * 32)


def test_a_requester_cannot_swap_its_secret() -> None:
    job = spec()
    with pytest.raises(Malformed, match="secret"):
        check_secret(job, b"another secret of thirty-two by.")


@pytest.mark.parametrize(
    "bad",
    [
        [PoolMember(peer(0), 0)],
        [PoolMember(peer(0), WEIGHT_MAX + 1)],
        [PoolMember(PeerId(b"short"), 1)],
        [PoolMember(max(peer(0), peer(1)), 1), PoolMember(min(peer(0), peer(1)), 1)],
        [PoolMember(peer(0), 1), PoolMember(peer(0), 1)],
        [PoolMember(peer(i), 1) for i in range(65)],
    ],
    ids=["weight 0", "weight too large", "no peer id", "descending", "twice", "too many"],
)
def test_only_a_canonical_pool_is_accepted(bad: list[PoolMember]) -> None:
    from verify.jury import pool_hash

    with pytest.raises(Malformed):
        check_pool(spec(pool=pool_hash(bad)), bad)


def test_a_pool_that_the_spec_did_not_fix_is_refused() -> None:
    with pytest.raises(Malformed, match="fixed"):
        check_pool(spec(peers=7), pool_of(weights(6)))


@pytest.mark.parametrize("size", [-1, 2, 4, 22, 23])
def test_a_jury_that_can_tie_or_is_too_large_is_refused(size: int) -> None:
    with pytest.raises(Malformed):
        check_size(size)


@pytest.mark.parametrize(("share", "wrong"), [(0.0, 0.0), (0.1, 0.028), (0.2, 0.104), (0.3, 0.216), (0.5, 0.5)])
def test_what_a_majority_of_three_is_worth_against_colluders(share: float, wrong: float) -> None:
    """Documented in docs/explanation/verification.md: with 20 % of the weight colluding, 1 in 10 juries is theirs."""
    colluding = sum(comb(3, k) * share**k * (1 - share) ** (3 - k) for k in (2, 3))
    assert colluding == pytest.approx(wrong, abs=1e-9)


def test_the_share_of_captured_juries_is_what_the_formula_says() -> None:
    """40 equal peers, 8 colluding (hypergeometric, without replacement): measured against the exact value."""
    pool = pool_of({peer(i): 1 for i in range(40)})
    bad = {peer(i) for i in range(8)}
    draws = 3000
    captured = sum(
        len(bad & set(draw_order(digest("test4", i.to_bytes(4, "big")), pool, NOBODY)[:3])) >= 2 for i in range(draws)
    )
    exact = (comb(8, 2) * comb(32, 1) + comb(8, 3)) / comb(40, 3)
    assert abs(captured / draws - exact) < 4 * math.sqrt(exact * (1 - exact) / draws)
