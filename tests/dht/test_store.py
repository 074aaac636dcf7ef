"""Records and contacts on disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dht.provider import RULES
from dht.shelf import Shelf
from dht.store import RecordStore
from dht.table import Contact
from tests.dht.coreworld import START_MS, identity, signed_ad
from wire.errors import StorageError

ADS = [signed_ad(identity(number), life_ms=1000 * (number + 1)) for number in range(5)]


def written(path: Path) -> None:
    shelf, store = Shelf(b"salt"), RecordStore(path)
    for ad in ADS:
        shelf.put(ad)
    store.write(shelf.drain())
    shelf.sweep(START_MS + 1000)
    store.write(shelf.drain())
    store.close()


def test_what_was_written_is_read_back_without_what_was_dropped_or_has_expired(tmp_path: Path) -> None:
    written(tmp_path / "dht.db")
    store = RecordStore(tmp_path / "dht.db")
    assert {record.id for record in store.load(RULES, START_MS)} == {ad.id for ad in ADS[1:]}
    assert {record.id for record in store.load(RULES, START_MS + 2000)} == {ad.id for ad in ADS[2:]}
    assert [store.sweep(START_MS + 3000), store.sweep(START_MS + 3000)] == [2, 0]
    assert {record.id for record in store.load(RULES, START_MS)} == {ad.id for ad in ADS[3:]}
    store.close()


def test_a_damaged_row_is_left_out(tmp_path: Path) -> None:
    written(tmp_path / "dht.db")
    with sqlite3.connect(tmp_path / "dht.db") as connection:
        connection.execute("update records set envelope = x'00' where author = ?", (ADS[2].author,))
    connection.close()
    store = RecordStore(tmp_path / "dht.db")
    assert {record.id for record in store.load(RULES, START_MS)} == {ad.id for ad in (ADS[1], *ADS[3:])}
    store.close()


def test_contacts_come_back_most_recent_first(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "dht.db")
    contacts = [Contact(ad.author, ("/a", "/b"), at_ms) for at_ms, ad in enumerate(ADS, 1)]
    store.save_contacts(contacts[:2])
    store.save_contacts(contacts)
    assert store.load_contacts() == contacts[::-1]
    store.close()


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "dht.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="DHT"):
        RecordStore(tmp_path / "dht.db")
