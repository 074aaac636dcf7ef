"""MeritRank for one ego: reach of random walks, weakened where all trust squeezes through one peer.

Nasrulin, Ishmaev, Pouwelse, "MeritRank: Sybil Tolerant Reputation for Merit-based Tokenomics" (arXiv
2207.09950): *transitivity decay* `alpha` ends a walk with that probability at each step; *connectivity decay*
`beta` lowers the merit of a peer by the share of its walks that pass one other peer (its neck).

Choices made here, each explained in docs/explanation/reputation.md:

- a walk counts a peer once (unique hits), so a ring of Sybils gains nothing by handing walks around;
- the connectivity decay is soft, merit * (1 - beta * neck): a second entry point does not switch it off;
- a walk picks an edge by absolute weight; a step along distrust ends it and counts against its target only;
- whom the ego itself distrusts, nobody can walk to: one's own experience outweighs hearsay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recommend.graph import Compiled, Floats, Ints
from wire.peer import PeerId

STEPS_MAX = 512
"""Longest walk; at the smallest `alpha` allowed fewer than 1 walk in 10**11 is cut."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a view is calculated.

    Attributes:
        alpha: probability that a walk ends at each step, 0.05..1.
        beta: weight of the connectivity decay, 0..1.
        walks: walks per ego.
        seed: of the Philox generator; one seed, one view.
    """

    alpha: float = 0.4
    beta: float = 0.8
    walks: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        assert 0.05 <= self.alpha <= 1, "alpha is a probability of at least 0.05"
        assert 0 <= self.beta <= 1, "beta is a share"
        assert self.walks > 0, "there is at least one walk"


@dataclass(frozen=True)
class Merit:
    """What an ego's walks say of each peer; all arrays are [n] in the order of `peers`.

    Attributes:
        walks: how many walks were made; 0 for the exact solution.
        reach: share of the walks that visited the peer, 0..1.
        against: share of the walks that ended by distrust of the peer, 0..1.
        neck: largest share, of the walks that reached the peer, that passed one other peer before; `through` is
            the index of that other peer, -1 if there is none.
        score: trust share less distrust share; see `scores`.
    """

    peers: tuple[PeerId, ...]
    index: dict[PeerId, int]
    walks: int
    reach: Floats
    against: Floats
    neck: Floats
    through: Ints
    score: Floats
    visits: Visits


@dataclass(frozen=True)
class Visits:
    """First visits of walks to peers other than the ego, in order of (walk, step); all arrays are [k]."""

    walk: Ints
    step: Ints
    node: Ints


NO_VISITS = Visits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


def scores(reach: Floats, against: Floats, neck: Floats, beta: float) -> Floats:
    """Signed shares: (merit - against) / (sum of merit + sum of against), where merit = reach * (1 - beta * neck).

    They sum to 1 where there is no distrust, and never leave -1..1.
    """
    merit = reach * (1 - beta * neck)
    total = merit.sum() + against.sum()
    return (merit - against) / total if total > 0 else np.zeros_like(merit)


def personal(graph: Compiled, ego: PeerId) -> Compiled:
    """The graph as this ego walks it.

    Trust in those whom the ego's own experience speaks against is left out, and so is distrust of the ego itself.
    """
    at = graph.index[ego]
    row = slice(int(graph.start[at]), int(graph.start[at + 1]))
    net = np.bincount(graph.target[row], weights=graph.weight[row], minlength=len(graph.peers))
    trusts = graph.weight > 0
    return graph.only(np.where(trusts, net[graph.target] >= 0, graph.target != at))


def walk(graph: Compiled, ego: PeerId, settings: Settings) -> Merit:
    """The view of `ego`, from seeded random walks.

    An ego that no edge names has an empty view: every score is 0.
    """
    n = len(graph.peers)
    if ego not in graph.index:
        return _merit(graph, settings, np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, -1), NO_VISITS)
    graph = personal(graph, ego)
    visits, against = _walks(graph, graph.index[ego], settings)
    hits = np.bincount(visits.node, minlength=n)
    passed, through = _necks(visits, n)
    neck = np.divide(passed, hits, out=np.zeros(n), where=hits > 0)
    return _merit(graph, settings, hits / settings.walks, against / settings.walks, neck, through, visits)


def _merit(
    graph: Compiled, settings: Settings, reach: Floats, against: Floats, neck: Floats, through: Ints, visits: Visits
) -> Merit:
    score = scores(reach, against, neck, settings.beta)
    return Merit(graph.peers, graph.index, settings.walks, reach, against, neck, through, score, visits)


def _walks(graph: Compiled, ego: int, settings: Settings) -> tuple[Visits, Ints]:
    """All walks in lockstep: their first visits, and per peer how many walks ended by distrust of it ([n])."""
    n = len(graph.peers)
    random = np.random.Generator(np.random.Philox(settings.seed))
    upto = np.concatenate([[0.0], np.cumsum(np.abs(graph.weight))])
    low, high = upto[graph.start[:-1]], upto[graph.start[1:]]
    against = np.zeros(n, np.int64)
    walker = np.arange(settings.walks)
    at = np.full(settings.walks, ego)
    steps: list[tuple[Ints, Ints, Ints]] = []
    for step in range(1, STEPS_MAX):
        goes = (random.random(len(at)) >= settings.alpha) & (high[at] > low[at])
        walker, at = walker[goes], at[goes]
        if not len(at):
            break
        pick = low[at] + random.random(len(at)) * (high[at] - low[at])
        edge = np.searchsorted(upto, pick, side="right") - 1
        edge = np.clip(edge, graph.start[at], graph.start[at + 1] - 1)
        ends = graph.weight[edge] < 0
        against += np.bincount(graph.target[edge[ends]], minlength=n)
        walker, at = walker[~ends], graph.target[edge[~ends]]
        steps.append((walker, np.full(len(at), step), at))
    return _first_visits(steps, ego, n), against


def _first_visits(steps: list[tuple[Ints, Ints, Ints]], ego: int, n: int) -> Visits:
    if not steps:
        return NO_VISITS
    walker, step, node = (np.concatenate(column) for column in zip(*steps, strict=True))
    away = node != ego
    walker, step, node = walker[away], step[away], node[away]
    _, first = np.unique(walker * n + node, return_index=True)  # steps ascend, so the first index is the first visit
    first = first[np.lexsort((step[first], walker[first]))]
    return Visits(walker[first], step[first], node[first])


def _necks(visits: Visits, n: int) -> tuple[Ints, Ints]:
    """Per peer: of its walks, how many passed the one other peer that most of them passed; and which peer that is."""
    pairs = [np.empty(0, np.int64)]
    lag = 1
    while len(same := np.flatnonzero(visits.walk[lag:] == visits.walk[:-lag])):
        pairs.append(visits.node[same + lag] * n + visits.node[same])
        lag += 1
    pair, count = np.unique(np.concatenate(pairs), return_counts=True)
    late, early = np.divmod(pair, max(n, 1))
    best = np.lexsort((-early, count))  # ascending count, and of equal counts the lowest peer last
    passed, through = np.zeros(n, np.int64), np.full(n, -1)
    passed[late[best]], through[late[best]] = count[best], early[best]
    return passed, through
