"""Entries and fork proofs in one SQLite file: committed with WAL and synchronous=FULL before anyone sees them.

Invariant: an entry that was released is on the disk. A signature that left this node while its entry could still be
lost would make an honest peer a forker after the next power cut. One connection holds the file exclusively for its
whole life, so neither a second writer nor SQLite's WAL-reset bug (fixed in 3.51.3, needs two connections) can hit it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlite_utils

from ledger.entry import Entry, Offer, Receipt, Relayed, Settle, decode_entry
from ledger.fork import ForkProof
from wire import codec
from wire.errors import LocalError, Malformed, StorageError
from wire.peer import PeerId

SCHEMA = 1
PAGE_ENTRIES = 1_000
_INSERT = "insert into entries (author, height, id, kind, job, counterparty, certified, raw) values (?,?,?,?,?,?,?,?)"
_WAY_OUT = "restore a backup, or move the file away and recover the chain from peers"


class Store:
    """The ledger's file. Every method is safe to call from any thread; each write is one durable transaction."""

    def __init__(self, db: sqlite_utils.Database, path: Path) -> None:
        self._db = db
        self._path = path
        self._lock = threading.Lock()

    @contextmanager
    def _guard(self) -> Iterator[sqlite3.Connection]:
        """The connection, under the lock; SQLite's errors become `StorageError`."""
        with self._lock:
            try:
                yield self._db.conn
            except (sqlite3.Error, Malformed) as exc:
                raise StorageError(f"ledger file {self._path}: {exc}") from exc

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard() as conn:
            conn.execute("begin immediate")
            try:
                yield conn
                conn.execute("commit")
            except BaseException:
                if conn.in_transaction:
                    conn.execute("rollback")
                raise

    def close(self, *, clean: bool = True) -> None:
        """Close the file; `clean` records that nothing was in flight."""
        if clean:
            self.set_meta("clean", b"1")
        with self._guard() as conn:
            conn.close()

    def meta(self, key: str) -> bytes | None:
        """A value kept beside the entries."""
        with self._guard() as conn:
            row = conn.execute("select value from meta where key = ?", [key]).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, key: str, value: bytes) -> None:
        """Set a value kept beside the entries."""
        with self._transaction() as conn:
            conn.execute("insert or replace into meta (key, value) values (?, ?)", [key, value])

    def append(self, entries: Iterable[Entry], certified: Collection[bytes] = (), linked: Iterable[Entry] = ()) -> None:
        """Commit checked entries, all or none; on return they survive a power cut.

        Args:
            entries: next entries of their chains, in order.
            certified: ids of receipts among them whose certificate was found valid.
            linked: single signed entries of other chains that these link to, kept as evidence.

        Raises:
            StorageError: nothing was kept.
        """
        rows = [_row(entry, certified) for entry in entries]
        evidence = [(entry.id, codec.encode(entry)) for entry in linked]
        with self._transaction() as conn:
            conn.executemany(_INSERT, rows)
            conn.executemany("insert or ignore into linked (id, raw) values (?,?)", evidence)

    def entries(self, author: PeerId, from_height: int, limit: int) -> list[Entry]:
        """At most `limit` entries of a chain, from `from_height` up."""
        sql = "select raw from entries where author = ? and height >= ? order by height limit ?"
        with self._guard() as conn:
            return [decode_entry(raw) for (raw,) in conn.execute(sql, [author, from_height, limit])]

    def replay(self, author: PeerId, from_height: int = 0) -> Iterator[Entry]:
        """A whole chain in order, in constant memory."""
        while page := self.entries(author, from_height, PAGE_ENTRIES):
            yield from page
            from_height = page[-1].header.height + 1

    def get(self, entry_id: bytes) -> Entry | None:
        """The entry of any chain with this id, or the evidence kept under it."""
        sql = "select raw from entries where id = ?1 union all select raw from linked where id = ?1 limit 1"
        with self._guard() as conn:
            row = conn.execute(sql, [entry_id]).fetchone()
            return None if row is None else decode_entry(row[0])

    def heights(self) -> dict[PeerId, int]:
        """How many entries of each author are kept."""
        with self._guard() as conn:
            rows = conn.execute("select author, max(height) + 1 from entries group by author").fetchall()
        return {PeerId(author): height for author, height in rows}

    def receipts(self, *, certified: bool) -> Iterator[Entry]:
        """All authors' receipts whose certificate was found valid (or is not needed), or those where it is not yet."""
        sql = "select rowid, raw from entries where kind = 'receipt' and certified = ? and rowid > ? order by 1 limit ?"
        after = 0
        while True:
            with self._guard() as conn:
                rows = conn.execute(sql, [int(certified), after, PAGE_ENTRIES]).fetchall()
                page = [decode_entry(raw) for _, raw in rows]
            yield from page
            if not rows:
                return
            after = rows[-1][0]

    def relayed_by(self, relay: PeerId) -> list[Entry]:
        """All authors' acknowledgements of bytes that `relay` passed, as they were kept."""
        sql = "select raw from entries where kind = 'relayed' and counterparty = ? order by rowid"
        with self._guard() as conn:
            return [decode_entry(raw) for (raw,) in conn.execute(sql, [relay])]

    def is_certified(self, entry_id: bytes) -> bool:
        """Whether the receipt with this id is kept and its certificate, if it needs one, was found valid."""
        with self._guard() as conn:
            row = conn.execute("select certified from entries where id = ?", [entry_id]).fetchone()
        return row is not None and bool(row[0])

    def mark_certified(self, entry_ids: Iterable[bytes]) -> None:
        """Record that these receipts' certificates were found valid."""
        with self._transaction() as conn:
            conn.executemany("update entries set certified = 1 where id = ?", [(entry_id,) for entry_id in entry_ids])

    def add_fork(self, proof: ForkProof) -> bool:
        """Keep a checked fork proof for ever; False if it was known."""
        header = proof.first.header
        row = [header.author, header.height, codec.encode(proof)]
        with self._transaction() as conn:
            return conn.execute("insert or ignore into forks (author, height, raw) values (?,?,?)", row).rowcount > 0

    def forks(self, author: PeerId | None = None) -> list[ForkProof]:
        """The fork proofs against one author, or all, lowest height first."""
        sql = "select raw from forks where ?1 is null or author = ?1 order by author, height"
        with self._guard() as conn:
            return [codec.decode(ForkProof, raw) for (raw,) in conn.execute(sql, [author])]


def _row(entry: Entry, certified: Collection[bytes]) -> tuple[Any, ...]:
    header, body, entry_id = entry.header, entry.body, entry.id
    if isinstance(body, Offer):
        counterparty: bytes = body.payee
    elif isinstance(body, Relayed):
        counterparty = body.relay
    elif isinstance(body, Receipt | Settle):
        counterparty = body.offer if isinstance(body, Receipt) else body.payer
    else:
        counterparty = body.offer
    kind = type(body).__name__.lower()
    sure = entry_id in certified or isinstance(body, Relayed)
    sure = sure or (isinstance(body, Receipt) and body.verdict == "unaudited")
    return (header.author, header.height, entry_id, kind, body.job, counterparty, sure, codec.encode(entry))


def open_store(path: Path, owner: PeerId, *, pages_max: int | None = None) -> tuple[Store, bool]:
    """Open or create the file at `path`.

    Args:
        path: the file; its folder must exist.
        owner: whose own chain it holds.
        pages_max: most 4 KiB pages that the file may take, if bounded.

    Returns:
        The store, and whether the last user closed it cleanly (False for a new file: its owner may have had another).

    Raises:
        StorageError: unreadable, corrupted, in use, or of a newer schema.
        LocalError: it belongs to another owner.
    """
    try:
        conn = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as exc:
        raise StorageError(f"ledger file {path}: {exc}") from exc
    try:
        _prepare(conn, pages_max)
        store = Store(sqlite_utils.Database(conn), path)
        return store, _claim(store, owner)
    except sqlite3.Error as exc:
        conn.close()
        way_out = "another process has it open" if "locked" in str(exc) else _WAY_OUT
        raise StorageError(f"ledger file {path}: {exc}; {way_out}") from exc
    except LocalError:
        conn.close()
        raise


def _prepare(conn: sqlite3.Connection, pages_max: int | None) -> None:
    conn.execute("pragma locking_mode = exclusive")
    conn.execute("pragma journal_mode = wal")
    conn.execute("pragma synchronous = full")
    if pages_max is not None:
        conn.execute(f"pragma max_page_count = {pages_max:d}")
    found = conn.execute("pragma quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(str(found))
    (version,) = conn.execute("pragma user_version").fetchone()
    if version > SCHEMA:
        raise sqlite3.DatabaseError(f"schema {version}, this program knows {SCHEMA}")
    if version == 0:
        _create(conn)


def _create(conn: sqlite3.Connection) -> None:
    db = sqlite_utils.Database(conn)
    conn.execute("begin immediate")
    db.table("meta").create({"key": str, "value": bytes}, pk="key")
    db.table("entries").create(
        {
            "author": bytes,
            "height": int,
            "id": bytes,
            "kind": str,
            "job": bytes,
            "counterparty": bytes,
            "certified": int,
            "raw": bytes,
        },
        not_null=["author", "height", "id", "kind", "job", "counterparty", "certified", "raw"],
    )
    db.table("entries").create_index(["author", "height"], unique=True)
    db.table("entries").create_index(["id"], unique=True)
    conn.execute("create index receipts on entries (certified) where kind = 'receipt'")
    conn.execute("create index relayed on entries (counterparty) where kind = 'relayed'")
    db.table("linked").create({"id": bytes, "raw": bytes}, pk="id", not_null=["raw"])
    db.table("forks").create({"author": bytes, "height": int, "raw": bytes}, pk=["author", "height"])
    conn.execute(f"pragma user_version = {SCHEMA:d}")
    conn.execute("commit")


def _claim(store: Store, owner: PeerId) -> bool:
    """Write the owner into a new file, compare it in an old one, and mark the file as in use."""
    found = store.meta("owner")
    if found is not None and found != owner:
        raise LocalError("the ledger file belongs to another identity")
    clean = store.meta("clean") == b"1"
    store.set_meta("owner", owner)
    store.set_meta("clean", b"0")
    return clean
