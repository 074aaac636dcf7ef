"""Figures of the DHT, as JSON lines: `python -m benchmarks.dht`.

The peers' figures are published or measured elsewhere on the same work: the subkey loss of Lattica 1.0.21
(125 concurrent stores acknowledged, 47 visible) and the provider adds per second of py-libp2p 0.8.1's
`kad_dht` with JSON persistence at 1,000 keys (it checks no signature and keeps no terms).
"""

from __future__ import annotations

import json
import tempfile
from math import log2
from pathlib import Path
from statistics import mean
from time import perf_counter

from dht.core import Core
from dht.messages import Request, Store
from dht.provider import RULES
from dht.record import SignedRecord
from dht.shelf import Shelf
from dht.store import RecordStore
from tests.dht.coreworld import START_MS, CoreWorld, identity, signed_ad
from wire import cid

KEYS = 1_000
AUTHORS = 10
FLUSH = 500
LATTICA_LOSS = 1 - 47 / 125
LIBP2P_ADDS = 87.0


def show(
    name: str,
    value: float,
    unit: str,
    *,
    better: str = "higher",
    peer: str | None = None,
    peer_value: float | None = None,
    source: str = "measured",
) -> None:
    """Print one figure; `ratio` is ours / peer's."""
    ratio = round(value / peer_value, 4) if peer_value else None
    row = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": ratio,
        "better": better,
        "source": source,
    }
    print(json.dumps(row), flush=True)


def concurrent_loss() -> None:
    """The share of acknowledged records that a reader misses: 125 writers at once under one key, 8 nodes."""
    world = CoreWorld(8, seed=1)
    world.join_all()
    kept: list[tuple[int, int]] = []
    for number in range(125):
        record = signed_ad(identity(number, "writer"), now_ms=world.now_ms)
        world.nodes[number % 8].provide(record, lambda stored, of: kept.append((stored, of)))
    world.settle()
    acknowledged = sum(stored > 0 for stored, _ in kept)
    seen = min(len(lookup.values()) for lookup in world.find_all(world.nodes))
    lost = 1 - seen / acknowledged
    show("dht.concurrent_loss", lost, "share", better="lower", peer="lattica 1.0.21", peer_value=LATTICA_LOSS)


def provider_adds() -> None:
    """Provider ads per second that one node decodes, checks, keeps and commits to disk, 1,000 keys."""
    models = [cid.of(number.to_bytes(4, "big")) for number in range(KEYS)]
    ads = [signed_ad(identity(number % AUTHORS, "adder"), model=model) for number, model in enumerate(models * 10)]
    for name, batch in (("dht.provider_adds", ads), ("dht.provider_adds_unsigned", ads)):
        with tempfile.TemporaryDirectory() as folder:
            store, shelf = RecordStore(Path(folder) / "dht.db"), Shelf(b"salt")
            seconds = _add_signed(batch, store, shelf) if name == "dht.provider_adds" else _add(batch, store, shelf)
            store.close()
        rate = len(batch) / seconds
        show(name, rate, "1/s", peer="py-libp2p 0.8.1 kad_dht (unsigned)", peer_value=LIBP2P_ADDS)


def _add_signed(ads: list[SignedRecord], store: RecordStore, shelf: Shelf) -> float:
    """Seconds through the core, with signature checks."""
    core = Core(identity(0).peer, shelf, RULES)
    began = perf_counter()
    for ad in ads:
        core.handle(ad.author, Request(Store([ad.envelope]), []), START_MS)
        if shelf.changed >= FLUSH:
            store.write(shelf.drain())
    store.write(shelf.drain())
    return perf_counter() - began


def _add(ads: list[SignedRecord], store: RecordStore, shelf: Shelf) -> float:
    """Seconds without signature checks, as the peer does it."""
    began = perf_counter()
    for ad in ads:
        shelf.put(ad)
        if shelf.changed >= FLUSH:
            store.write(shelf.drain())
    store.write(shelf.drain())
    return perf_counter() - began


def growth() -> None:
    """Requests per look-up, virtual latency and contacts against the number of nodes."""
    for nodes in (10, 30, 100, 300, 1000):
        world = CoreWorld(nodes, seed=nodes)
        world.join_all()
        world.nodes[0].provide(signed_ad(world.nodes[0].identity, now_ms=world.now_ms), lambda kept, of: None)
        world.settle()
        asks, waits, found = [], [], 0
        for node in world.random.sample(world.nodes[1:], min(40, nodes - 1)):
            began_ms = world.now_ms
            (lookup,) = world.find_all([node])
            asks.append(lookup.asks)
            waits.append(world.now_ms - began_ms)
            found += len(lookup.values())
        show(f"dht.growth.requests_per_lookup.n{nodes}", mean(asks), "requests", better="lower")
        show(f"dht.growth.requests_over_log2n.n{nodes}", mean(asks) / log2(nodes), "requests", better="lower")
        show(f"dht.growth.lookup_ms.n{nodes}", mean(waits), "virtual ms", better="lower")
        show(f"dht.growth.found.n{nodes}", found / len(asks), "share")
        show(f"dht.growth.contacts.n{nodes}", mean(len(node.core.table) for node in world.nodes), "contacts")


def main() -> None:
    """All figures."""
    concurrent_loss()
    provider_adds()
    growth()


if __name__ == "__main__":
    main()
