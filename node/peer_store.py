"""The address book on disk (`peers.db`): a thin shell around `node.address_book`, written in batches.

    async with open_peer_store(home / "peers.db", on_fault=log) as book:
        ...

Invariant: nothing here stops the node. What is lost in a crash is what changed since the last batch (`FLUSH_S` at
most), and a disk that refuses costs what was learned, not the network: addresses are found again. Everything read back
is checked as if a stranger had told it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import sqlite_utils
import trio

from node.address_book import AddressBook, Known
from wire.errors import StorageError
from wire.peer import PeerId

FLUSH_S = 2.0
"""How often what has changed is written."""

_COLUMNS = {
    "peer": bytes,
    "place": int,
    "address": str,
    "learned_ms": int,
    "worked_ms": int,
    "failed_ms": int,
    "failures": int,
}


def _create_addresses(db: sqlite_utils.Database) -> None:
    db.table("addresses").create(_COLUMNS, pk=("peer", "place"), not_null=set(_COLUMNS))


MIGRATIONS: Sequence[Callable[[sqlite_utils.Database], None]] = (_create_addresses,)
"""Step n leads from schema n to n + 1; a file of any earlier schema is brought forward, one of a later is refused."""


class PeerStore:
    """One SQLite file; every method may raise `StorageError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # one call at a time, from any thread
            self._db = sqlite_utils.Database(sqlite3.connect(path, check_same_thread=False))
            self._db.enable_wal()
            self._db.execute("pragma synchronous = normal")
            self._migrate()
        except (sqlite3.Error, OSError) as exc:
            raise StorageError(f"{path}: {exc}; move the file away to start without it") from exc

    def _migrate(self) -> None:
        version = int(self._db.execute("pragma user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise StorageError(f"{self._path}: written by a later version (schema {version})")
        for step, migrate in enumerate(MIGRATIONS[version:], version + 1):
            with self._db.atomic():
                migrate(self._db)
                self._db.execute(f"pragma user_version = {step}")

    def load(self) -> AddressBook:
        """A book with everything that was stored and is still allowed, in the order in which it was learned."""
        book = AddressBook()
        sql = (
            "select peer, address, learned_ms, worked_ms, failed_ms, failures from addresses"
            " order by max(max(learned_ms, worked_ms)) over (partition by peer), peer, place"
        )
        found: dict[PeerId, list[Known]] = {}
        try:
            for row in self._db.execute(sql):
                peer, known = _row(row)
                found.setdefault(peer, []).append(known)
        except (sqlite3.Error, TypeError, ValueError) as exc:
            raise StorageError(f"{self._path}: {exc}; move the file away to start without it") from exc
        for peer, addresses in found.items():
            book.recall(peer, addresses)
        book.changes()
        return book

    def write(self, changes: Mapping[PeerId, Sequence[Known]]) -> None:
        """Follow the book: all changes in one transaction."""
        rows = [
            (peer, place, each.address, each.learned_ms, each.worked_ms, each.failed_ms, each.failures)
            for peer, known in changes.items()
            for place, each in enumerate(known)
        ]
        try:
            with self._db.conn as connection:
                connection.executemany("delete from addresses where peer = ?", [(peer,) for peer in changes])
                connection.executemany("insert into addresses values (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as exc:
            raise StorageError(f"{self._path}: {exc}") from exc

    def close(self) -> None:
        """Close the file."""
        self._db.conn.close()


def _row(row: Sequence[object]) -> tuple[PeerId, Known]:
    """A row as written by `write`.

    Raises:
        TypeError: it is not.
    """
    peer, address, *numbers = row
    if not (isinstance(peer, bytes) and len(peer) == 32 and isinstance(address, str)):
        raise TypeError("a damaged row")
    learned, worked, failed, failures = (number for number in numbers if isinstance(number, int))
    return PeerId(peer), Known(address, max(learned, 0), max(worked, 0), max(failed, 0), max(failures, 0))


@asynccontextmanager
async def open_peer_store(path: Path, *, on_fault: Callable[[StorageError], None]) -> AsyncIterator[AddressBook]:
    """The book of this node, kept on disk for as long as the scope lasts.

    Args:
        on_fault: told when the disk refuses; the book goes on in memory.
    """
    try:
        store = PeerStore(path)
    except StorageError as exc:
        on_fault(exc)
        yield AddressBook()
        return
    try:
        book = store.load()
    except StorageError as exc:
        on_fault(exc)
        book = AddressBook()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep, store, book, on_fault)
        try:
            yield book
        finally:
            nursery.cancel_scope.cancel()
            _flush(store, book, on_fault)
            store.close()


async def _keep(store: PeerStore, book: AddressBook, on_fault: Callable[[StorageError], None]) -> None:
    while True:
        await trio.sleep(FLUSH_S)
        if changes := book.changes():
            with trio.CancelScope(shield=True):  # an abandoned thread would write beside the last batch
                try:
                    await trio.to_thread.run_sync(store.write, changes)
                except StorageError as exc:
                    book.touch(changes)  # again with the next batch
                    on_fault(exc)


def _flush(store: PeerStore, book: AddressBook, on_fault: Callable[[StorageError], None]) -> None:
    try:
        store.write(book.changes())
    except StorageError as exc:
        on_fault(exc)
