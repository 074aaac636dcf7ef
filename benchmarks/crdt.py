"""Figures of `crdt`, one JSON object per line: `python -m benchmarks.crdt [--quick]`.

crdt.replicated_ops: signed operations that a replica receives in pages, decodes, verifies, admits and commits to
SQLite (WAL, FULL) per second, on one core; go-ds-crdt's published claim is the peer.
crdt.map_sets: sets of the unsigned map in memory, one per transaction; Loro and pycrdt run the same work.
crdt.join_s: seconds until a new replica holds 1,000 entries of another, durably; OrbitDB's published figure.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nacl.signing import SigningKey

from benchmarks.line import show
from benchmarks.peers import PeerMissing, ask, python_with
from crdt.lww_map import Entry, LwwMap
from crdt.namespace import Namespace
from crdt.op import MapSet
from crdt.replica import Replica
from crdt.store import OpStore
from crdt.sync import PullSession, SyncServer, check, sift
from wire.peer import PeerId

NOW_MS = 1_800_000_000_000

_LORO = """
import sys, time
import loro
doc = loro.LoroDoc()
made = doc.get_map("m")
count, names = int(sys.argv[1]), [f"key {index}" for index in range(1000)]
start = time.perf_counter()
for index in range(count):
    made.insert(names[index % 1000], "value")
    doc.commit()
print(count / (time.perf_counter() - start))
"""

_PYCRDT = """
import sys, time
import pycrdt
doc = pycrdt.Doc()
made = doc.get("m", type=pycrdt.Map)
count, names = int(sys.argv[1]), [f"key {index}" for index in range(1000)]
start = time.perf_counter()
for index in range(count):
    made[names[index % 1000]] = "value"
print(count / (time.perf_counter() - start))
"""


class _Key:
    def __init__(self) -> None:
        self._key = SigningKey(bytes(32))
        self.peer = PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


def replicate(count: int, folder: Path) -> float:
    """Seconds until a replica has pulled, checked and committed `count` operations."""
    key, namespace = _Key(), Namespace("bench", "map")
    source, at = Replica(namespace), Replica(namespace)
    for index in range(count):
        source.write(MapSet(f"key {index % 1000}", b"v" * 64), key, NOW_MS)
    server, session = SyncServer(source, bytes(16)), PullSession(at, key.peer, None)
    store = OpStore(folder / f"{count}.db")
    started = time.perf_counter()
    while (ask := session.request()) is not None:
        page = server.on_pull(ask)
        session.on_page(page)
        ops, faults = check(key.peer, sift(at, key.peer, page.ops)[0])
        result = at.ingest(ops, sender=key.peer, now_ms=NOW_MS)
        store.append([(at, result.added)])
        session.on_ingested(result)
        assert not faults
    seconds = time.perf_counter() - started
    assert at.digest() == source.digest()
    store.close()
    return seconds


def sets_per_s(count: int, one: Callable[[int], object]) -> float:
    """Calls of `one` per second."""
    started = time.perf_counter()
    for index in range(count):
        one(index)
    return count / (time.perf_counter() - started)


def own_sets(count: int) -> float:
    made, author = LwwMap(), PeerId(bytes(32))
    names = [f"key {index}" for index in range(1000)]
    return sets_per_s(count, lambda n: made.apply(names[n % 1000], Entry(n, b"%d" % n, b"value", author)))


def show_sets(count: int) -> None:
    """Our map beside each library, which runs in an environment of its own."""
    for name, requirement, program in (("loro", "loro==1.17.1", _LORO), ("pycrdt", "pycrdt==0.14.13", _PYCRDT)):
        value, error = None, None
        try:
            value = float(ask(python_with(name, requirement), program, str(count)))
        except PeerMissing as exc:
            error = str(exc)
        show("crdt.map_sets", own_sets(count), "sets/s", better="higher", peer=name, peer_value=value, error=error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    scale = 1 if parser.parse_args().quick else 10
    with tempfile.TemporaryDirectory() as name:
        count = 5_000 * scale
        rate = count / replicate(count, Path(name))
        show(
            "crdt.replicated_ops", rate, "ops/s", better="higher", peer="go-ds-crdt", peer_value=400, source="published"
        )
        seconds = replicate(1_000, Path(name))
        show("crdt.join_s", seconds, "s", better="lower", peer="OrbitDB 0.28", peer_value=20, source="published")
    show_sets(100_000 * scale)


if __name__ == "__main__":
    main()
