"""Pulls between two replicas, wired back to back without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.limits import HEADS_MAX, PAGE_BYTES_MAX, PAGE_OPS_MAX, PULL_PAGES_MAX
from crdt.op import MapSet, SignedOp
from crdt.replica import Replica
from crdt.sync import Cursor, Fetch, Page, PullSession, SyncServer, check, sift
from tests.crdt.helpers import NOW_MS, Key, replica, signed
from wire.errors import LocalError, RemoteError

ANN, BOB = Key("ann"), Key("bob")
LOG = b"L" * 16


def fill(at: Replica, key: Key, count: int, *, value: bytes = b"v") -> None:
    for index in range(count):
        at.write(MapSet(f"k{index}", value), key, NOW_MS)


def pull(at: Replica, server: SyncServer, cursor: Cursor | None = None) -> tuple[PullSession, list[Page]]:
    session, pages = PullSession(at, BOB.peer, cursor), []
    while (ask := session.request()) is not None:
        page = server.on_pull(ask)
        session.on_page(page)
        fresh, bad = sift(at, BOB.peer, page.ops)
        ops, forged = check(BOB.peer, fresh)
        assert bad == forged == []
        session.on_ingested(at.ingest(ops, sender=BOB.peer, now_ms=NOW_MS))
        pages.append(page)
    return session, pages


def handed(pages: list[Page]) -> int:
    return sum(len(page.ops) for page in pages)


def test_a_newcomer_gets_everything_in_bounded_pages() -> None:
    source, at = replica(), replica()
    fill(source, ANN, 2 * PAGE_OPS_MAX + 1)
    session, pages = pull(at, SyncServer(source, LOG))
    assert [len(page.ops) for page in pages] == [PAGE_OPS_MAX, PAGE_OPS_MAX, 1]
    assert at.digest() == source.digest()
    assert session.in_sync
    assert session.finish() == (Cursor(LOG, len(source)), None)


def test_pages_are_bounded_in_bytes() -> None:
    source, at = replica(), replica()
    fill(source, ANN, 30, value=bytes(60_000))
    _, pages = pull(at, SyncServer(source, LOG))
    assert len(pages) == 3
    assert all(sum(map(len, page.ops)) <= PAGE_BYTES_MAX for page in pages)
    assert at.digest() == source.digest()


def test_equal_replicas_exchange_one_empty_page() -> None:
    source, at = replica(), replica()
    fill(source, ANN, 50)
    pull(at, SyncServer(source, LOG))
    _, pages = pull(at, SyncServer(source, LOG))
    assert (len(pages), handed(pages)) == (1, 0)


def test_a_cursor_makes_the_next_pull_cost_what_is_new() -> None:
    source, at = replica(), replica()
    fill(source, ANN, 300)
    server = SyncServer(source, LOG)
    cursor, _ = pull(at, server)[0].finish()
    fill(source, ANN, 5)
    fill(at, BOB, 7)
    session, pages = pull(at, server, cursor)
    assert handed(pages) == 5
    assert session.in_sync


def test_after_a_restart_of_the_server_the_heads_spare_what_is_known() -> None:
    source, at = replica(), replica()
    fill(source, ANN, 300)
    cursor, _ = pull(at, SyncServer(source, LOG))[0].finish()
    fill(source, ANN, 5)
    session, pages = pull(at, SyncServer(source, b"M" * 16), cursor)
    assert handed(pages) == 5
    assert session.finish()[0] == Cursor(b"M" * 16, 305)


def test_a_cursor_means_nothing_in_the_log_of_another_run() -> None:
    """A server whose disk forgot the end of its log and that went on differently."""
    source, at, restored = replica(), replica(), replica()
    fill(source, ANN, 10)
    cursor, _ = pull(at, SyncServer(source, LOG))[0].finish()
    restored.restore(source.raw(position) for position in range(8))
    fill(restored, BOB, 3)
    session, pages = pull(at, SyncServer(restored, b"M" * 16), cursor)
    assert 3 <= handed(pages) <= 2 * 3
    assert session.in_sync


@given(links=st.lists(st.sets(st.integers(1, 8), max_size=2), min_size=1, max_size=12), data=st.data())
def test_covered_marks_the_named_and_their_ancestors(links: list[set[int]], data: st.DataObject) -> None:
    at, ops, ancestors = replica(), list[SignedOp](), list[set[int]]()
    for index, back in enumerate(links):
        parents = sorted({index - distance for distance in back if distance <= index})
        made = signed(Key(f"peer {index}"), MapSet("k", b""), parents=[ops[n] for n in parents], stamp=index + 1)
        ops.append(made)
        ancestors.append({index}.union(*(ancestors[n] for n in parents)))
    assert len(at.ingest(ops, sender=ANN.peer, now_ms=NOW_MS).added) == len(ops)
    named = data.draw(st.sets(st.integers(0, len(ops) - 1)))
    floor = data.draw(st.integers(0, len(ops)))
    expected = set[int]().union(*(ancestors[n] for n in named if n >= floor))
    marks = at.covered([bytes(32), *(ops[n].id for n in named)], floor=floor)
    assert {n + floor for n, mark in enumerate(marks) if mark} == {n for n in expected if n >= floor}


def test_after_long_separation_the_samples_bound_what_is_sent_twice() -> None:
    source, at = replica(), replica()
    fill(source, ANN, 2000)
    pull(at, SyncServer(source, LOG))
    fill(source, ANN, 100)
    fill(at, BOB, 100)
    session, pages = pull(at, SyncServer(source, LOG))
    assert session.in_sync
    assert handed(pages) <= 2 * (100 + 100)


def test_more_heads_than_a_message_names_still_converge() -> None:
    source, at = replica(), replica()
    ops = [signed(Key(f"peer {index}"), MapSet("k", b"")) for index in range(2 * HEADS_MAX + 9)]
    source.ingest(ops, sender=ANN.peer, now_ms=NOW_MS)
    at.ingest(ops[::3], sender=ANN.peer, now_ms=NOW_MS)
    pull(at, SyncServer(source, LOG))
    assert at.digest() == source.digest()


def test_operations_that_must_wait_keep_the_cursor_back() -> None:
    source, at = replica(), replica()
    early = signed(ANN, MapSet("k", b""), stamp=(NOW_MS + 90_000) << 16)
    source.ingest([early], sender=ANN.peer, now_ms=NOW_MS + 60_000)
    session, _ = pull(at, SyncServer(source, LOG))
    assert not session.in_sync
    assert session.finish() == (None, None)


def test_a_server_that_names_heads_and_keeps_them_back_is_at_fault() -> None:
    session = PullSession(replica(), BOB.peer, None)
    session.request()
    session.on_page(Page(LOG, bytes(32), [b"h" * 32], [], 1, False))
    cursor, fault = session.finish()
    assert cursor is None
    assert fault is not None
    assert fault.peer == BOB.peer


def test_a_server_that_promises_more_without_getting_further_is_at_fault() -> None:
    session = PullSession(replica(), BOB.peer, None)
    session.request()
    session.on_page(Page(LOG, bytes(32), [], [], 3, True))
    for after in (3, 2):
        with pytest.raises(RemoteError, match="nowhere"):
            session.on_page(Page(LOG, bytes(32), [], [], after, True))


def test_an_endless_server_is_left_after_a_bounded_number_of_pages() -> None:
    session = PullSession(replica(), BOB.peer, None)
    pages = 0
    while session.request() is not None:
        pages += 1
        session.on_page(Page(LOG, bytes(32), [], [], pages, True))
    assert pages == PULL_PAGES_MAX


def test_a_fetch_gives_known_operations_once_and_within_the_bounds() -> None:
    source = replica()
    fill(source, ANN, 3, value=bytes(60_000))
    (head,) = source.heads()
    server = SyncServer(source, LOG)
    rules = source.rules
    assert server.on_fetch(Fetch("notes", rules, [head, head, bytes(32)])).ops == [source.raw_of(head)]
    fill(source, ANN, 20, value=bytes(60_000))
    batch = server.on_fetch(Fetch("notes", rules, source.locator()))
    assert sum(map(len, batch.ops)) <= PAGE_BYTES_MAX


def test_other_rules_are_refused() -> None:
    with pytest.raises(LocalError, match="other rules"):
        SyncServer(replica(), LOG).admit_rules(Fetch("notes", replica(policy="author-keyed").rules, []))


def test_what_is_malformed_or_forged_is_charged_and_what_is_known_costs_no_check() -> None:
    at = replica()
    known, good = signed(ANN, MapSet("k", b"1")), signed(BOB, MapSet("k", b"2"))
    at.ingest([known], sender=ANN.peer, now_ms=NOW_MS)
    forged = good.raw[:-1] + bytes([good.raw[-1] ^ 1])
    fresh, bad = sift(at, BOB.peer, [b"", known.raw, b"\x94" + good.raw, forged, good.raw])
    assert (len(fresh), len(bad)) == (2, 2)
    ops, faults = check(BOB.peer, fresh)
    assert (ops, len(faults)) == ([good], 1)
    assert {fault.peer for fault in (*bad, *faults)} == {BOB.peer}
