"""Who belongs to a worker, in the eyes of one ego, and is therefore left out of the juries that judge its work.

Two kinds of peers belong to a worker:

- its *dependants*: most of the ego's walks that reached them had passed the worker before, so that what the ego knows
  of them it knows from the worker;
- its *circle*: the neighbourhood of the worker, in the graph of *mutual* dealings, that hardly deals with anybody else.
  It is the set with the least conductance in a sweep over a random walk with restarts from the worker (Andersen, Chung,
  Lang, "Local graph partitioning using PageRank vectors", FOCS 2006).

Invariants. An edge of mutual dealings weighs what the *less* trusting side stated, so nobody is drawn into a circle by
what others say of it alone; and a walk can be made to pass a worker only by trust that starts at the ego. What can
still be gamed has a bound: see `cluster`. Rule: docs/spec/recommend.md, "A worker's cluster".
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recommend.graph import Compiled, Floats, Ints
from recommend.meritrank import Merit
from wire.peer import PeerId

DEPENDENT = 0.5
"""A dependant is reached through the worker in more than this share of the walks that reached it."""

WALKS_MIN = 5
"""Fewer walks than this say nothing of a peer; it then weighs next to nothing anyway."""

CUT_MAX = 0.1
"""Largest share of a circle's mutual dealings that may be with others."""

CIRCLE_MAX = 256
"""Peers that are looked at for a circle, the nearest first."""

RESTART = 0.15
STEPS = 40
"""Of the walk with restarts; what is left after so many steps is 0.85**40, a thousandth."""

WEIGHT_SHARE_MAX = 0.25
"""Most of a pool's weight that may be struck from it."""


def cluster(
    graph: Compiled, merit: Merit, ego: PeerId, worker: PeerId, weights: Mapping[PeerId, int], *, keep: int
) -> dict[PeerId, str]:
    """Those of a pool who belong to a worker and are to be left out, with the reason in words, the closest first.

    However an attacker arranges it that honest peers belong to a worker, they lose at most `WEIGHT_SHARE_MAX` of the
    pool's weight, so whoever held a share f of it holds at most f / (1 - WEIGHT_SHARE_MAX) afterwards.

    Args:
        graph: all edges that the ego knows.
        merit: the ego's view of that graph, from walks.
        ego, worker: two peers; where the graph does not name the worker, nobody belongs to it.
        weights: of the whole pool in the eyes of the ego; see `Recommender.pool_weights`. Ego and worker do not count.
        keep: peers that must be left.
    """
    pool = {peer: weight for peer, weight in weights.items() if peer not in (ego, worker)}
    if worker not in graph.index:
        return {}
    room, spare = WEIGHT_SHARE_MAX * sum(pool.values()), len(pool) - keep
    struck: dict[PeerId, str] = {}
    for peer, why in [*_dependants(merit, worker), *_circle(graph, ego, worker, pool, room)]:
        if peer in pool and peer not in struck and pool[peer] <= room and len(struck) < spare:
            struck[peer] = why
            room -= pool[peer]
    return struck


def _dependants(merit: Merit, worker: PeerId) -> list[tuple[PeerId, str]]:
    share = _through(merit, merit.index[worker])
    found = sorted((-float(share[at]), merit.peers[at]) for at in np.flatnonzero(share > DEPENDENT))
    return [(peer, f"{-less:.0%} of the ways to it lead through the worker") for less, peer in found]


def _through(merit: Merit, worker: int) -> Floats:
    """Per peer the share of the walks that reached it which had passed the worker before; [n]."""
    seen, n = merit.visits, len(merit.peers)
    passed = np.full(int(seen.walk.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    at_worker = seen.node == worker
    passed[seen.walk[at_worker]] = seen.step[at_worker]
    later = passed[seen.walk] < seen.step
    hits = np.bincount(seen.node, minlength=n)
    through = np.bincount(seen.node[later], minlength=n)
    return np.divide(through, hits, out=np.zeros(n), where=hits >= WALKS_MIN)


def _mutual(graph: Compiled) -> tuple[Ints, Ints, Floats]:
    """Pairs of peers that state trust in each other, in both directions, with the smaller of the two weights."""
    n, positive = len(graph.peers), graph.weight > 0
    source, target, weight = graph.source[positive], graph.target[positive], graph.weight[positive]
    there, back = source * n + target, target * n + source
    order = np.argsort(there)
    found = np.minimum(np.searchsorted(there, back, sorter=order), max(len(there) - 1, 0))
    if not len(there):
        return source, target, weight
    answer = order[found]
    both = there[answer] == back
    return source[both], target[both], np.minimum(weight, weight[answer])[both]


def _circle(
    graph: Compiled, ego: PeerId, worker: PeerId, pool: Mapping[PeerId, int], room: float
) -> list[tuple[PeerId, str]]:
    """The worker's circle, nearest first: of the sets that weigh no more than `room` in the pool, the most closed one.

    The weights are the ego's own. A limit on how much a circle *deals* would be none: Sybils deal with one another as
    much as they please.
    """
    source, target, weight = _mutual(graph)
    n, at = len(graph.peers), graph.index[worker]
    degree = np.bincount(source, weights=weight, minlength=n).astype(np.float64)
    if degree[at] == 0:
        return []
    near = np.divide(_near(source, target, weight, degree, at), degree, out=np.zeros(n), where=degree > 0)
    near[at] = np.inf
    if ego in graph.index:
        near[graph.index[ego]] = 0.0
    order = np.lexsort((np.arange(n), -near))[: min(CIRCLE_MAX, int(np.count_nonzero(near)))]
    rank = np.full(n, n)
    rank[order] = np.arange(len(order))
    later = np.maximum(rank[source], rank[target])
    inside = np.cumsum(np.bincount(later, weights=weight, minlength=n + 1)[: len(order)])
    cut = 1 - inside / np.cumsum(degree[order])
    held = np.cumsum([float(pool.get(graph.peers[each], 0)) for each in order])
    allowed = (held <= room) & (np.arange(len(order)) > 0)
    best = int(np.argmin(np.where(allowed, cut, 2.0)))
    if not allowed[best] or cut[best] > CUT_MAX:
        return []
    why = f"deals within the worker's circle: {best + 1} peers, {cut[best]:.0%} of what they deal is with others"
    return [(graph.peers[each], why) for each in order[1 : best + 1]]


def _near(source: Ints, target: Ints, weight: Floats, degree: Floats, worker: int) -> Floats:
    """Where a lazy walk with restarts from the worker is found; [n]."""
    n = len(degree)
    start = np.zeros(n)
    start[worker] = 1.0
    at = start
    step = np.divide(weight, degree[source], out=np.zeros(len(weight)), where=degree[source] > 0)
    for _ in range(STEPS):
        moved = np.bincount(target, weights=at[source] * step, minlength=n)
        at = RESTART * start + (1 - RESTART) * (at + moved) / 2
    return at
