"""Figures of the DHT, as JSON lines: `python -m benchmarks.dht [--quick]`.

The peers are not run here: their values are earlier measurements of Lattica 1.0.21 (of 30 concurrent sub-key
stores, all acknowledged, 11 were visible) and of py-libp2p 0.8.1's `kad_dht` with JSON persistence at 1,000
keys (which checks no signature). Every line with such a value says so; read its ratio as an order of magnitude.
`concurrent_loss` and `growth` run the cores on a simulated network, `provider_adds` runs on this machine's disk.
"""

from __future__ import annotations

import sys
import tempfile
from math import log2
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

from benchmarks.line import show
from dht.core import Core
from dht.messages import Request, Store
from dht.provider import RULES
from dht.record import SignedRecord
from dht.shelf import Shelf
from dht.store import RecordStore
from tests.dht.coreworld import START_MS, CoreWorld, identity, signed_ad
from wire import cid

KEYS = 1_000
ADS_PER_AUTHOR = 200
FLUSH = 500
LATTICA_LOSS = 1 - 11 / 30
WRITERS = 30
EARLIER = "peer not run here; its value is an earlier measurement"
LIBP2P_ADDS = 87.0


def earlier(peer: str, value: float) -> dict[str, Any]:
    """The fields of a line whose peer was measured before and is not run here."""
    return {"peer": peer, "peer_value": value, "source": "published", "error": EARLIER}


def concurrent_loss() -> None:
    """The share of acknowledged records that a reader misses: 30 writers at once under one key, 8 nodes."""
    world = CoreWorld(8, seed=1)
    world.join_all()
    kept: list[tuple[int, int]] = []
    for number in range(WRITERS):
        record = signed_ad(identity(number, "writer"), now_ms=world.now_ms)
        world.nodes[number % 8].provide(record, lambda stored, of: kept.append((stored, of)))
    world.settle()
    acknowledged = sum(stored > 0 for stored, _ in kept)
    seen = min(len(lookup.values()) for lookup in world.find_all(world.nodes))
    lost = 1 - seen / acknowledged
    show("dht.concurrent_loss", lost, "share", better="lower", **earlier("lattica 1.0.21", LATTICA_LOSS))


def provider_adds() -> None:
    """Provider ads per second that one node decodes, checks, keeps and commits to disk, 1,000 keys."""
    models = [cid.of(number.to_bytes(4, "big")) for number in range(KEYS)]
    ads = [
        signed_ad(identity(number // ADS_PER_AUTHOR, "adder"), model=models[number % KEYS])
        for number in range(10 * KEYS)
    ]
    for name, add in (("dht.provider_adds", _add_signed), ("dht.provider_adds_unsigned", _add)):
        with tempfile.TemporaryDirectory() as folder:
            store, shelf = RecordStore(Path(folder) / "dht.db"), Shelf(b"salt")
            seconds = add(ads, store, shelf)
            on_disk = sum(1 for _ in store.load(RULES, START_MS))
            store.close()
        assert on_disk == len(shelf) == len(ads), "every ad is another record, and all of them are on disk"
        show(
            name,
            len(ads) / seconds,
            "1/s",
            better="higher",
            **earlier("py-libp2p 0.8.1 kad_dht (unsigned)", LIBP2P_ADDS),
        )


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


def growth(sizes: tuple[int, ...]) -> None:
    """Requests per look-up, virtual latency and contacts against the number of nodes."""
    for nodes in sizes:
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
        show(f"dht.growth.found.n{nodes}", found / len(asks), "share", better="higher")
        show(
            f"dht.growth.contacts.n{nodes}",
            mean(len(node.core.table) for node in world.nodes),
            "contacts",
            better="lower",
        )


def main() -> None:
    """All figures."""
    concurrent_loss()
    provider_adds()
    growth((10, 100, 300) if "--quick" in sys.argv[1:] else (10, 30, 100, 300, 1000, 3000))


if __name__ == "__main__":
    main()
