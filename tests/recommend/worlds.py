"""Small trust graphs that the tests of `recommend` share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from recommend.graph import EdgeKind, LocalGraph, TrustEdge
from wire.peer import PeerId


def peer(number: int) -> PeerId:
    """A peer with a recognisable key; numbers order as their keys do."""
    return PeerId(number.to_bytes(32, "big"))


def edge(source: int, target: int, weight: float = 1.0, seq: int = 0) -> TrustEdge:
    """One statement of trust (or distrust)."""
    kind: EdgeKind = "work" if weight >= 0 else "rejected"
    return TrustEdge(peer(source), peer(target), kind, float(weight), 1, seq)


def graph(edges: Iterable[tuple[int, int, float]]) -> LocalGraph:
    """A graph of (source, target, weight) triples."""
    made = LocalGraph()
    made.put(edge(source, target, weight) for source, target, weight in edges)
    return made


def scale_free(peers: int, links: int, seed: int) -> list[tuple[int, int, float]]:
    """A Barabasi-Albert graph, each link in both directions with weight 1 (Science 286, 1999)."""
    random = np.random.Generator(np.random.Philox(seed))
    ends = list(range(links))
    edges: list[tuple[int, int, float]] = []
    for newcomer in range(links, peers):
        chosen = {ends[int(at)] for at in random.integers(len(ends), size=links)}
        for old in sorted(chosen):
            edges += [(newcomer, old, 1.0), (old, newcomer, 1.0)]
            ends += [newcomer, old]
    return edges


def signed(peers: int, edges: int, seed: int, *, negative: float = 0.1) -> list[tuple[int, int, float]]:
    """A random signed graph whose first peer has edges."""
    random = np.random.Generator(np.random.Philox(seed))
    pairs = {(int(a), int(b)) for a, b in random.integers(peers, size=(edges, 2)) if a != b} | {(0, 1), (0, 2)}
    sign = {pair: -1.0 if random.random() < negative else 1.0 for pair in sorted(pairs)}
    return [(a, b, s * float(random.integers(1, 6))) for (a, b), s in sign.items()]
