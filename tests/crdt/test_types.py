"""The two data types on their own: merging in any order, grouping and repetition gives one result."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.hlc import Clock, stamp_at, wall_ms
from crdt.lww_map import Entry, LwwMap
from crdt.or_set import OrSet
from wire.peer import PeerId

PEERS = [PeerId(bytes([index]) * 32) for index in range(3)]

writes = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.builds(
            Entry,
            stamp=st.integers(0, 3),
            op=st.binary(min_size=1, max_size=1),
            value=st.none() | st.just(b"v"),
            author=st.sampled_from(PEERS),
        ),
    ),
    unique_by=lambda write: write[1].op,
    max_size=8,
)


@dataclass(frozen=True)
class Add:
    element: bytes
    dot: bytes
    author: PeerId


@dataclass(frozen=True)
class Remove:
    element: bytes
    dots: tuple[bytes, ...]
    author: PeerId


elements, dots, authors = st.sampled_from([b"x", b"y"]), st.sampled_from([b"1", b"2", b"3"]), st.sampled_from(PEERS)
adds = st.lists(st.builds(Add, elements, dots, authors), unique_by=lambda add: add.dot, max_size=3)
removes = st.lists(st.builds(Remove, elements, st.lists(dots, min_size=1, max_size=2).map(tuple), authors), max_size=4)
set_changes = st.tuples(adds, removes).map(lambda pair: [*pair[0], *pair[1]])


def map_of(entries: list[tuple[str, Entry]]) -> LwwMap:
    made = LwwMap()
    for key, entry in entries:
        made.apply(key, entry)
    return made


def set_of(changes: list[Add | Remove], *, own_only: bool) -> OrSet:
    made = OrSet(own_only=own_only)
    for change in changes:
        if isinstance(change, Add):
            made.add(change.element, change.dot, change.author)
        else:
            made.remove(change.element, change.dots, change.author)
    return made


@given(entries=writes, data=st.data())
def test_a_map_does_not_depend_on_order_or_repetition(entries: list[tuple[str, Entry]], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(entries + entries[:3]))
    assert list(map_of(entries).entries()) == list(map_of(shuffled).entries())


@given(entries=writes, cuts=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_merging_maps_is_associative_commutative_and_idempotent(
    entries: list[tuple[str, Entry]], cuts: tuple[int, int]
) -> None:
    low, high = sorted(cuts)
    one, two, three = entries[:low], entries[low:high], entries[high:]
    left, right, backwards = map_of(one), map_of(two), map_of(three)
    left.merge(map_of(two))
    left.merge(map_of(three))
    right.merge(map_of(three))
    whole = map_of(one)
    whole.merge(right)
    backwards.merge(map_of(two))
    backwards.merge(map_of(one))
    backwards.merge(backwards)
    assert list(left.entries()) == list(whole.entries()) == list(backwards.entries()) == list(map_of(entries).entries())


def test_the_later_stamp_stands_and_the_operation_id_breaks_ties() -> None:
    made = map_of([("k", Entry(2, b"a", b"late", PEERS[0])), ("k", Entry(1, b"z", b"early", PEERS[1]))])
    assert made.get("k") == b"late"
    made.apply("k", Entry(2, b"b", None, PEERS[1]))
    assert made.get("k") is None
    assert list(made.items()) == []
    assert not made.apply("k", Entry(2, b"a", b"late", PEERS[0]))


@given(changes=set_changes, own_only=st.booleans(), data=st.data())
def test_a_set_does_not_depend_on_order_or_repetition(
    changes: list[Add | Remove], own_only: bool, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(changes + changes[:3]))
    expected = list(set_of(changes, own_only=own_only).entries())
    assert list(set_of(shuffled, own_only=own_only).entries()) == expected


@given(changes=set_changes, own_only=st.booleans(), cut=st.integers(0, 7))
def test_merging_sets_is_commutative_and_idempotent(changes: list[Add | Remove], own_only: bool, cut: int) -> None:
    one, two = set_of(changes[:cut], own_only=own_only), set_of(changes[cut:], own_only=own_only)
    two.merge(one)
    one.merge(set_of(changes[cut:], own_only=own_only))
    one.merge(one)
    assert list(one.entries()) == list(two.entries()) == list(set_of(changes, own_only=own_only).entries())


def test_an_add_that_the_remover_had_not_seen_survives() -> None:
    made = set_of([Add(b"x", b"1", PEERS[0]), Remove(b"x", (b"1",), PEERS[1])], own_only=False)
    assert b"x" not in made
    made.add(b"x", b"2", PEERS[0])
    assert made.members() == [b"x"]


def test_where_adds_are_owned_nobody_else_removes_them() -> None:
    made = set_of([Add(b"x", b"1", PEERS[0]), Remove(b"x", (b"1",), PEERS[1])], own_only=True)
    assert b"x" in made
    made.remove(b"x", [b"1"], PEERS[0])
    assert b"x" not in made


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 40)), max_size=20))
def test_every_tick_is_later_than_everything_before_it(steps: list[tuple[bool, int]]) -> None:
    clock, last = Clock(), -1
    for ticks, value in steps:
        if ticks:
            stamp = clock.tick(value)
            assert stamp > last
            assert stamp >= stamp_at(value)
            last = stamp
        else:
            clock.observe(value << 16)
            last = max(last, value << 16)


@pytest.mark.parametrize(("ahead_ms", "allowed"), [(-1000, True), (0, True), (500, True), (501, False)])
def test_a_stamp_may_lie_only_so_far_ahead(ahead_ms: int, allowed: bool) -> None:
    clock = Clock(ahead_max_ms=500)
    assert clock.allows(stamp_at(10_000 + ahead_ms) + 7, 10_000) is allowed


def test_a_counter_that_overflows_carries_into_the_milliseconds() -> None:
    clock = Clock()
    clock.observe(stamp_at(5) + 0xFFFF)
    assert wall_ms(clock.tick(5)) == 6
