"""Records and contacts in SQLite, written in batches of one transaction each.

What is lost in a crash is what was accepted since the last batch (a second at most): records are soft state,
held by 20 nodes and signed anew by their authors before they expire, so WAL with `synchronous=NORMAL` is
enough. Everything read back is checked again as if it came from the network.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlite_utils import Database

from dht.record import Rules, SignedRecord, from_bytes, to_bytes
from dht.shelf import Changes
from dht.table import Contact
from wire import codec
from wire.errors import Malformed, StorageError
from wire.peer import PeerId

P = ParamSpec("P")
R = TypeVar("R")
_RECORDS = {"namespace": str, "key": bytes, "author": bytes, "seq": int, "expires_ms": int, "envelope": bytes}
_CONTACTS = {"peer": bytes, "addresses": bytes, "answered_ms": int}


def _damaged(exc: sqlite3.Error) -> bool:
    return getattr(exc, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def _our_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        hint = "; move dht.db away to start without it: peers are found again" if _damaged(exc) else ""
        raise StorageError(f"the DHT's database: {exc}{hint}") from exc


def _guarded(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    def guarded(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with _our_disk():
            return method(self, *args, **kwargs)

    return guarded


class RecordStore:
    """One SQLite file; every method may raise `StorageError`."""

    def __init__(self, path: Path) -> None:
        with _our_disk():
            self._connection = sqlite3.connect(path, check_same_thread=False)  # one call at a time, from any thread
            self._db = Database(self._connection)
            self._db.enable_wal()
            self._connection.execute("pragma synchronous=normal")
            self._db["records"].create(_RECORDS, pk=("namespace", "key", "author"), if_not_exists=True)  # type: ignore[union-attr]  # no view
            self._db["records"].create_index(["expires_ms"], if_not_exists=True)  # type: ignore[union-attr]  # no view
            self._db["contacts"].create(_CONTACTS, pk="peer", if_not_exists=True)  # type: ignore[union-attr]  # no view

    @_guarded
    def write(self, changes: Changes) -> None:
        """Follow the shelf: all changes in one transaction."""
        rows = (
            (slot.namespace, slot.key, slot.author, put.record.seq, put.record.expires_ms, to_bytes(put))
            for slot, put in changes.puts.items()
        )
        with self._connection:
            self._connection.executemany(
                "delete from records where namespace = ? and key = ? and author = ?",
                ((slot.namespace, slot.key, slot.author) for slot in changes.drops),
            )
            self._connection.executemany("insert or replace into records values (?, ?, ?, ?, ?, ?)", rows)

    def load(self, rules: Rules, now_ms: int) -> Iterable[SignedRecord]:
        """The unexpired records that still pass every check."""
        for (raw,) in self._rows("select envelope from records where expires_ms > ? order by rowid", (now_ms,)):
            try:
                yield from_bytes(raw, rules, now_ms)
            except Malformed:
                continue  # damaged, or kept under a rule of an older version

    @_guarded
    def sweep(self, now_ms: int) -> int:
        """Delete what has expired; returns how many."""
        with self._connection:
            return self._connection.execute("delete from records where expires_ms <= ?", (now_ms,)).rowcount

    @_guarded
    def save_contacts(self, contacts: Iterable[Contact]) -> None:
        """Replace the saved contacts."""
        rows = [(c.peer, codec.encode(list(c.addresses)), c.answered_ms) for c in contacts]
        with self._connection:
            self._connection.execute("delete from contacts")
            self._connection.executemany("insert into contacts values (?, ?, ?)", rows)

    def load_contacts(self) -> list[Contact]:
        """The saved contacts, most recently heard first."""
        rows = self._rows("select peer, addresses, answered_ms from contacts order by answered_ms desc, peer", ())
        try:
            return [Contact(PeerId(peer), tuple(codec.decode(list[str], raw)), at_ms) for peer, raw, at_ms in rows]
        except Malformed as exc:
            raise StorageError(f"the DHT's saved contacts: {exc}") from exc

    @_guarded
    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @_guarded
    def _rows(self, query: str, arguments: tuple[object, ...]) -> list[Any]:
        return self._connection.execute(query, arguments).fetchall()
