"""The log of operations and the values they make, in one SQLite file.

Invariant: what `append` returned from is on disk (WAL, `synchronous=FULL`): an operation that others may have
seen is never lost and written again differently, which would fork our own chain. Operations and the tables made
from them change in one transaction. The log is the truth; `map_entries` and `set_members` serve other readers of
the file and can be rebuilt from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlite_utils
from sqlite_utils.db import Table

from crdt.op import MapDelete, MapSet, SignedOp
from crdt.replica import Replica
from wire.errors import StorageError
from wire.peer import to_text

SCHEMA_VERSION = 1


class OpStore:
    """One file, one connection, one caller at a time.

    Args:
        path: the file; created where there is none.

    Raises:
        StorageError: it cannot be opened, is in use, is not a database, or is of a later version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._guard():
            connection = sqlite3.connect(path, timeout=0.5, check_same_thread=False, isolation_level=None)
            try:
                self._db = sqlite_utils.Database(connection)
                self._prepare()
            except (sqlite3.Error, StorageError):
                connection.close()
                raise

    def close(self) -> None:
        """Release the file."""
        with self._guard():
            self._db.close()

    def load(self, namespace: str) -> Iterator[bytes]:
        """The operations of a namespace as they travel, in the order in which they were appended.

        Raises:
            StorageError: the file cannot be read.
        """
        with self._guard():
            rows = self._db.execute("select raw from ops where namespace = ? order by position", [namespace])
            for (raw,) in rows:
                yield raw

    def append(self, added: Iterable[tuple[Replica, list[SignedOp]]]) -> None:
        """Write admitted operations, and the values that they changed, in one durable transaction.

        Args:
            added: replicas, which already hold the operations, and the operations in the order of the log.

        Raises:
            StorageError: nothing was written.
        """
        with self._guard(), self._db.atomic():
            for replica, ops in added:
                name = replica.namespace.name
                self._table("ops").insert_all({"namespace": name, "id": one.id, "raw": one.raw} for one in ops)
                if replica.namespace.kind == "map":
                    self._write_map(replica, ops)
                else:
                    self._write_set(replica, ops)

    def rebuild_values(self, replica: Replica) -> None:
        """Write the value tables of a namespace anew from its replica.

        Raises:
            StorageError: nothing was changed.
        """
        name = replica.namespace.name
        with self._guard(), self._db.atomic():
            for table in ("map_entries", "set_members"):
                self._table(table).delete_where("namespace = ?", [name])
            keys = [key for key, _ in replica.map.entries()]
            self._table("map_entries").insert_all(_map_row(replica, key) for key in keys)
            self._table("set_members").insert_all(
                {"namespace": name, "element": element, "dot": dot} for element, dot in replica.set.entries()
            )

    def _write_map(self, replica: Replica, ops: list[SignedOp]) -> None:
        keys = {one.op.change.key for one in ops if isinstance(one.op.change, MapSet | MapDelete)}
        rows = (_map_row(replica, key) for key in sorted(keys))
        self._table("map_entries").insert_all(rows, replace=True)

    def _write_set(self, replica: Replica, ops: list[SignedOp]) -> None:
        name = replica.namespace.name
        changes = (one.op.change for one in ops)
        elements = sorted({change.element for change in changes if not isinstance(change, MapSet | MapDelete)})
        table = self._table("set_members")
        for element in elements:
            table.delete_where("namespace = ? and element = ?", [name, element])
        table.insert_all(
            {"namespace": name, "element": element, "dot": dot}
            for element in elements
            for dot in replica.set.dots(element)
        )

    def _table(self, name: str) -> Table:
        return self._db.table(name)

    def _prepare(self) -> None:
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
            self._db.execute(f"pragma {pragma}").fetchall()
        version = int(self._db.execute("pragma user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise StorageError(f"{self._path}: written by a later version (schema {version})")
        if version == 0:
            self._create()

    def _create(self) -> None:
        with self._db.atomic():
            self._table("ops").create(
                {"position": int, "namespace": str, "id": bytes, "raw": bytes},
                pk="position",
                not_null={"namespace", "id", "raw"},
            )
            self._table("ops").create_index(["namespace", "id"], unique=True)
            self._table("map_entries").create(
                {"namespace": str, "key": str, "value": bytes, "stamp": int, "op": bytes, "author": str},
                pk=("namespace", "key"),
            )
            self._table("set_members").create(
                {"namespace": str, "element": bytes, "dot": bytes}, pk=("namespace", "element", "dot")
            )
            self._db.execute(f"pragma user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise StorageError(f"{self._path}: {exc}") from exc


def _map_row(replica: Replica, key: str) -> dict[str, object]:
    entry = replica.map.entry(key)
    assert entry is not None, "only keys that the replica holds"
    return {
        "namespace": replica.namespace.name,
        "key": key,
        "value": entry.value,
        "stamp": entry.stamp,
        "op": entry.op,
        "author": to_text(entry.author),
    }
