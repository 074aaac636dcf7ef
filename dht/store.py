"""The shelf's file: SQLite, written in batches. Losing the last seconds is harmless, since records are republished."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import sqlite_utils

from dht.record import Record
from dht.shelf import Slot
from wire import codec
from wire.envelope import Envelope
from wire.errors import Malformed, StorageError
from wire.peer import PeerId

_UPSERT = "insert or replace into records (namespace, key, author, expires_ms, raw) values (?, ?, ?, ?, ?)"
_DELETE = "delete from records where namespace = ? and key = ? and author = ?"


class RecordFile:
    """All records on the shelf. Raises `StorageError` from every method where the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite_utils.Database(sqlite3.connect(str(path), isolation_level=None, check_same_thread=False))
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.execute(
                "create table if not exists records (namespace text, key blob, author blob, expires_ms integer,"
                " raw blob, primary key (namespace, key, author)) without rowid"
            )
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: Exception) -> StorageError:
        return StorageError(f"{self._path}: {exc}; the file may be removed, records come back from peers")

    def load(self) -> list[Envelope]:
        """Everything that was kept."""
        try:
            rows = self._db.execute("select raw from records").fetchall()
            return [codec.decode(Envelope, raw) for (raw,) in rows]
        except (sqlite3.Error, Malformed) as exc:
            raise self._failed(exc) from exc

    def write(self, kept: Iterable[tuple[Envelope, Record]], gone: Iterable[tuple[Slot, PeerId]]) -> None:
        """Keep and drop, in one transaction."""
        rows = [(r.namespace, r.key, e.author, r.expires_ms, codec.encode(e)) for e, r in kept]
        drops = [(slot[0], slot[1], author) for slot, author in gone]
        conn = self._db.conn
        try:
            conn.execute("begin")
            conn.executemany(_UPSERT, rows)
            conn.executemany(_DELETE, drops)
            conn.execute("commit")
        except sqlite3.Error as exc:
            if conn.in_transaction:
                conn.execute("rollback")
            raise self._failed(exc) from exc

    def close(self) -> None:
        """Close the file."""
        self._db.conn.close()
