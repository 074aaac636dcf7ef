"""`python -m benchmarks.recommend [--quick]`: MeritRank's speed, and what Sybils gain, as JSON lines.

The peer is meritrank-python, installed apart and run in a process of its own on the same graph: 10,000 peers with
about ten weighted edges each, targets drawn with a bias to the popular ones. It walks with the same length (it goes on
with probability 0.85, so alpha is 0.15) and calculates no connectivity decay; ours does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.line import show
from benchmarks.peers import PeerMissing, ask, python_with
from recommend.graph import LocalGraph, TrustEdge
from recommend.meritrank import Settings, walk
from recommend.rank import Candidate, Recommender
from tests.recommend.sybil import ATTACKS, measure
from tests.recommend.worlds import peer, scale_free

PEERS = 10_000
EGO = 5
LIKE_THE_PEER = Settings(alpha=0.15)

_PROGRAM = """
import json, sys, time
from meritrank_python.rank import IncrementalMeritRank
graph = IncrementalMeritRank()
for source, target, weight in json.load(open(sys.argv[1])):
    graph.add_edge(source, target, weight)
start = time.perf_counter()
graph.calculate(int(sys.argv[2]), 10_000)
calculated = time.perf_counter()
ranks = graph.get_ranks(int(sys.argv[2]))
top = sorted(ranks, key=ranks.get)[-100:]
done = time.perf_counter()
print(json.dumps({"calculate_ms": 1e3 * (calculated - start), "top100_ms": 1e3 * (done - calculated)}))
"""


def popular(peers: int, edges: int, seed: int) -> list[tuple[int, int, float]]:
    """A directed graph in which low numbers are popular."""
    random = np.random.Generator(np.random.Philox(seed))
    targets = (peers * random.random((peers, edges)) ** 2).astype(int)
    weights = random.integers(1, 9, size=(peers, edges))
    found = {(at, int(t)): float(w) for at in range(peers) for t, w in zip(targets[at], weights[at], strict=True)}
    return [(source, target, weight) for (source, target), weight in found.items() if source != target]


def best_ms(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call in milliseconds, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def peer_times(edges: list[tuple[int, int, float]]) -> tuple[dict[str, float], str | None]:
    """What meritrank-python takes, or why it cannot be measured."""
    try:
        interpreter = python_with("meritrank", "meritrank-python==0.2.10")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "edges.json"
            file.write_text(json.dumps(edges))
            return ask(interpreter, _PROGRAM, str(file), str(EGO)), None
    except PeerMissing as exc:
        return {}, str(exc)


def speed(repeats: int) -> None:
    """The lines that FIGURES calls `recommend.calculate_ms` and `recommend.top100_ms`, and two of our own."""
    edges = popular(PEERS, 10, 1)
    graph = LocalGraph()
    graph.put(TrustEdge(peer(s), peer(t), "work", w, 1, 0) for s, t, w in edges)
    compiled, ego = graph.compiled(), peer(EGO)
    theirs, error = peer_times(edges)
    them = {"peer": "meritrank-python 0.2.10", "error": error}
    ours = best_ms(lambda: walk(compiled, ego, LIKE_THE_PEER), repeats)
    _line("recommend.calculate_ms.10k", ours, them, theirs.get("calculate_ms"))
    _line("recommend.calculate_default_ms.10k", best_ms(lambda: walk(compiled, ego, Settings()), repeats), {}, None)
    eyes = Recommender(graph, LIKE_THE_PEER)
    _line("recommend.top100_ms.10k", best_ms(lambda: eyes.rank(ego, k=100), repeats), them, theirs.get("top100_ms"))
    offers = [Candidate(peer(at), 1_000) for at in range(64)]
    _line("recommend.choose_ms.64", best_ms(lambda: eyes.choose_worker(ego, offers), repeats), {}, None)


def _line(name: str, value: float, them: dict[str, str | None], peer_value: float | None) -> None:
    show(name, value, "ms", better="lower", peer=them.get("peer"), peer_value=peer_value, error=them.get("error"))


def sybils(peers: int) -> None:
    """The worst total over four attackers and eight egos, 50 Sybils, with the node's settings; solved, not sampled."""
    honest = scale_free(peers, 3, 1)
    for attack in ATTACKS:
        for entries in (1, 2):
            pairs = ([peers - 10, peers - 40], [4, 9])
            worst = max(
                measure(honest, ego, attackers[:entries], attack, 50, Settings()).total
                for attackers in pairs
                for ego in range(0, peers, peers // 8)
                if ego not in attackers
            )
            show(f"recommend.sybil.{attack}.{entries}", worst, "total", better="lower")


def main() -> None:
    """Print the lines; `--quick` ends within a minute."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    speed(repeats=5 if quick else 25)
    sybils(160 if quick else 300)


if __name__ == "__main__":
    main()
