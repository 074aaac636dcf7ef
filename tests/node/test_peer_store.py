"""The address book on disk: it survives a restart and a killed process, and its disk never stops the node."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from node.address_book import AddressBook, Known
from node.peer_store import MIGRATIONS, PeerStore, open_peer_store
from wire.errors import StorageError
from wire.peer import PeerId

NOW = 1_700_000_000_000
ONE, TWO = PeerId(bytes(31) + b"\1"), PeerId(bytes(31) + b"\2")
HERE, THERE = "/ip4/203.0.113.1/tcp/4001", "/ip4/203.0.113.2/tcp/4001"


def never(exc: StorageError) -> None:
    """No disk fails here."""
    raise AssertionError(str(exc))


def filled() -> AddressBook:
    """Two peers, one of them reached."""
    book = AddressBook()
    book.learn(ONE, [HERE, THERE], NOW)
    book.failed(ONE, THERE, NOW + 1)
    book.worked(TWO, THERE, NOW + 2)
    return book


async def test_everything_comes_back(tmp_path: Path) -> None:
    async with open_peer_store(tmp_path / "peers.db", on_fault=never) as book:
        book.learn(ONE, [HERE, THERE], NOW)
        book.failed(ONE, THERE, NOW + 1)
        book.worked(TWO, THERE, NOW + 2)
    async with open_peer_store(tmp_path / "peers.db", on_fault=never) as book:
        assert book.known(ONE) == [Known(HERE, NOW), Known(THERE, NOW, failed_ms=NOW + 1, failures=1)]
        assert book.reached(9) == [TWO]


async def test_a_batch_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    killed = PeerStore(tmp_path / "peers.db")
    killed.write(filled().changes())  # and never closed
    assert PeerStore(tmp_path / "peers.db").load().reached(9) == [TWO]
    killed.close()


async def test_a_peer_that_was_forgotten_leaves_the_disk(tmp_path: Path) -> None:
    store = PeerStore(tmp_path / "peers.db")
    store.write(filled().changes())
    store.write({ONE: []})
    assert store.load().figures() == {"known": 1, "reached": 1}
    store.close()


async def test_a_full_disk_is_told_of_and_what_was_learned_is_kept_for_later(tmp_path: Path) -> None:
    store = PeerStore(tmp_path / "peers.db")
    pages = store._db.execute("pragma page_count").fetchone()[0]
    store._db.execute(f"pragma max_page_count = {pages}")
    full = {PeerId(n.to_bytes(32, "big")): [Known(HERE, NOW)] for n in range(1000)}
    try:
        store.write(full)
        failed = False
    except StorageError:
        failed = True
    assert failed
    store._db.execute("pragma max_page_count = 100000")
    store.write(full)
    assert len(store.load()) == 1000
    store.close()


async def test_a_damaged_file_is_told_of_and_the_book_begins_empty(tmp_path: Path) -> None:
    (tmp_path / "peers.db").write_bytes(b"no database" * 1000)
    faults: list[StorageError] = []
    async with open_peer_store(tmp_path / "peers.db", on_fault=faults.append) as book:
        book.learn(ONE, [HERE], NOW)
        assert book.addresses(ONE, NOW) == [HERE]
    assert len(faults) == 1
    assert "move the file away" in str(faults[0])


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    PeerStore(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    raw.close()
    faults: list[StorageError] = []
    async with open_peer_store(path, on_fault=faults.append) as book:
        assert len(book) == 0
    assert "later version" in str(faults[0])


async def test_rows_are_checked_like_what_strangers_tell(tmp_path: Path) -> None:
    store = PeerStore(tmp_path / "peers.db")
    store.write({ONE: [Known("/ip4/203.0.113.1/udp/1", NOW), Known("nonsense", NOW), Known(HERE, NOW)]})
    assert store.load().addresses(ONE, NOW) == [HERE]
    store.close()
