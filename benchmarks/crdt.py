"""Figures of `crdt`, one JSON object per line: `python -m benchmarks.crdt [--quick]`.

crdt.replicated_ops: signed operations that a replica receives in pages, decodes, verifies, admits and commits to
SQLite (WAL, FULL) per second, on one core; go-ds-crdt's published claim is the peer.
crdt.map_sets: sets of the unsigned map in memory, one at a time; pycrdt and Loro run the same work where they
are installed.
crdt.join_s: seconds until a new replica holds 1,000 entries of another, durably; OrbitDB's published figure.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nacl.signing import SigningKey

from crdt.lww_map import Entry, LwwMap
from crdt.namespace import Namespace
from crdt.op import MapSet
from crdt.replica import Replica
from crdt.store import OpStore
from crdt.sync import PullSession, SyncServer, check, sift
from wire.peer import PeerId

NOW_MS = 1_800_000_000_000
GO_DS_CRDT = ("go-ds-crdt", 400.0, "published")
ORBITDB = ("OrbitDB 0.28", 20.0, "published")


class _Key:
    def __init__(self) -> None:
        self._key = SigningKey(bytes(32))
        self.peer = PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


def report(name: str, value: float, unit: str, better: str, peer: tuple[str, float | None, str]) -> None:
    """Print one figure beside its peer's."""
    peer_name, peer_value, source = peer
    line = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "peer": peer_name,
        "peer_value": peer_value,
        "ratio": None if peer_value is None else round(value / peer_value, 4),
        "better": better,
        "source": source,
    }
    if peer_value is None:
        line["error"] = f"{peer_name} is not installed"
    print(json.dumps(line), flush=True)


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


def loro_sets(count: int) -> float | None:
    if importlib.util.find_spec("loro") is None:
        return None
    import loro

    doc = loro.LoroDoc()
    made = doc.get_map("m")
    names = [f"key {index}" for index in range(1000)]

    def one(n: int) -> None:
        made.insert(names[n % 1000], b"value")
        doc.commit()

    return sets_per_s(count, one)


def pycrdt_sets(count: int) -> float | None:
    if importlib.util.find_spec("pycrdt") is None:
        return None
    import pycrdt

    doc = pycrdt.Doc()
    made = doc.get("m", type=pycrdt.Map)
    names = [f"key {index}" for index in range(1000)]

    def one(n: int) -> None:
        made[names[n % 1000]] = "value"

    return sets_per_s(count, one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    scale = 1 if parser.parse_args().quick else 10
    with tempfile.TemporaryDirectory() as name:
        count = 5_000 * scale
        report("crdt.replicated_ops", count / replicate(count, Path(name)), "ops/s", "higher", GO_DS_CRDT)
        report("crdt.join_s", replicate(1_000, Path(name)), "s", "lower", ORBITDB)
    sets = 100_000 * scale
    own = own_sets(sets)
    report("crdt.map_sets", own, "sets/s", "higher", ("loro", loro_sets(sets // 10), "measured"))
    report("crdt.map_sets", own, "sets/s", "higher", ("pycrdt", pycrdt_sets(sets // 10), "measured"))


if __name__ == "__main__":
    main()
