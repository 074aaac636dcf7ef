"""The file: what was appended is there again, whatever happened to the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdt.namespace import Namespace
from crdt.op import Change, MapDelete, MapSet, SetAdd, SignedOp
from crdt.replica import Replica
from crdt.store import OpStore
from tests.crdt.helpers import NOW_MS, Key, replica
from wire.errors import Malformed, StorageError

ANN, BOB = Key("ann"), Key("bob")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shared.db"


@pytest.fixture
def store(path: Path) -> Iterator[OpStore]:
    store = OpStore(path)
    yield store
    store.close()


def reload(path: Path, namespace: Namespace) -> Replica:
    store, again = OpStore(path), Replica(namespace)
    again.restore(store.load(namespace.name))
    store.close()
    return again


def some_ops(at: Replica) -> list[SignedOp]:
    if at.namespace.kind == "map":
        changes: list[Change] = [MapSet("a", b"1"), MapSet("b", b"2"), MapSet("a", b"3"), MapDelete("b")]
        return [at.write(change, ANN if index % 2 else BOB, NOW_MS) for index, change in enumerate(changes)]
    ops = [at.write(SetAdd(element), ANN, NOW_MS) for element in (b"x", b"y", b"x")]
    return ops + [at.write(change, BOB, NOW_MS) for change in at.removals(b"y", BOB.peer)]


@pytest.mark.parametrize("kind", ["map", "set"])
def test_a_reloaded_replica_is_the_same(kind: str, path: Path, store: OpStore) -> None:
    at = replica(kind)
    store.append([(at, some_ops(at))])
    store.close()
    again = reload(path, at.namespace)
    assert (again.digest(), again.state_digest()) == (at.digest(), at.state_digest())


def test_the_value_tables_hold_what_the_replicas_hold(path: Path, store: OpStore) -> None:
    notes, tags = replica("map"), Replica(Namespace("tags", "set"))
    for one in some_ops(notes):
        store.append([(notes, [one])])
    store.append([(tags, some_ops(tags))])

    def check() -> None:
        db = store._db
        assert {row["key"]: row["value"] for row in db.query("select * from map_entries")} == {"a": b"3", "b": None}
        rows = db.query("select element, dot from set_members order by element, dot")
        assert [(row["element"], row["dot"]) for row in rows] == list(tags.set.entries())
        assert {element for element, _ in tags.set.entries()} == {b"x"}

    check()
    store._db.execute("delete from map_entries")
    store._db.execute("update set_members set element = x'00'")
    store.rebuild_values(notes)
    store.rebuild_values(tags)
    check()


def test_a_failed_append_writes_nothing(path: Path, store: OpStore) -> None:
    at = replica()
    store.append([(at, [at.write(MapSet("a", b"1"), ANN, NOW_MS)])])
    before = at.digest()
    store._db.execute("pragma max_page_count = 1").fetchall()
    more = [at.write(MapSet(f"k{index}", bytes(60_000)), ANN, NOW_MS) for index in range(3)]
    with pytest.raises(StorageError, match="full"):
        store.append([(at, more)])
    assert [row["key"] for row in store._db.query("select key from map_entries")] == ["a"]
    store.close()
    assert reload(path, at.namespace).digest() == before


def test_the_log_and_the_values_change_together_or_not_at_all(path: Path, store: OpStore) -> None:
    at = replica()
    empty = at.digest()
    store._db.execute("create trigger fails before insert on map_entries begin select raise(abort, 'bad sector'); end")
    with pytest.raises(StorageError, match="bad sector"):
        store.append([(at, some_ops(at))])
    store.close()
    assert reload(path, at.namespace).digest() == empty


def test_a_file_in_use_is_refused(path: Path, store: OpStore) -> None:
    with pytest.raises(StorageError, match="locked"):
        OpStore(path)


def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"my holiday notes\n" * 100)
    with pytest.raises(StorageError, match="not a database"):
        OpStore(path)
    assert path.read_bytes().startswith(b"my holiday notes")
    with pytest.raises(StorageError):
        OpStore(path.parent / "absent" / "shared.db")


def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="later version"):
        OpStore(path)


CHILD = """
import sys
from pathlib import Path
from crdt.op import MapSet
from crdt.store import OpStore
from tests.crdt.helpers import NOW_MS, Key, replica
store, at, key = OpStore(Path(sys.argv[1])), replica(), Key("ann")
for batch in range(10_000):
    ops = [at.write(MapSet(f"{batch} {index}", b"v"), key, NOW_MS) for index in range(3)]
    store.append([(at, ops)])
    print(len(at), at.digest().hex(), flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 4, 9])
def test_what_was_acknowledged_survives_a_kill(acknowledged: int, path: Path) -> None:
    """SIGKILL while it writes: whole batches only, and every one that was acknowledged."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], cwd=root, env=os.environ | {"PYTHONPATH": "."}, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    with child, child.stdout:
        said = [child.stdout.readline().split() for _ in range(acknowledged)]
        child.send_signal(signal.SIGKILL)
        said += [line.split() for line in child.stdout]
    count, digest = said[-1]
    again = reload(path, replica().namespace)
    assert len(again) >= int(count)
    assert len(again) % 3 == 0
    assert again.write(MapSet("next", b""), ANN, 0).op.seq == len(again)
    assert again.forks() == []
    prefix = replica()
    prefix.restore(again.raw(position) for position in range(int(count)))
    assert prefix.digest().hex() == digest.decode()


def test_a_damaged_operation_is_found_on_reload(path: Path, store: OpStore) -> None:
    at = replica()
    store.append([(at, some_ops(at))])
    store._db.execute("update ops set raw = substr(raw, 1, length(raw) - 100) where position = 2")
    store.close()
    with pytest.raises(Malformed):
        reload(path, at.namespace)
