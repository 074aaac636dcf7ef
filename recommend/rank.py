"""Rankings with reasons, the choice of a worker, and the weights of a jury pool: all in the eyes of one ego.

Invariants: every number comes from the same seeded walks, so a view can be repeated; whoever the ego has no
path to is a newcomer, and all newcomers of one choice share a fixed part, so that a thousand fresh keys get no
more than one; whoever the view speaks against gets no work and the smallest weight.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recommend.cluster import cluster
from recommend.explain import excluded_because, why
from recommend.graph import LocalGraph
from recommend.meritrank import Merit, Settings, walk
from wire.peer import PeerId

NEWCOMER_SHARE = 0.1
"""Part of all work and of every jury pool that newcomers hold together (less where they are fewer than that)."""

WEIGHT_SUM = 1 << 24
"""What the weights of a pool add up to, to rounding; far below the 2**32 - 1 that one weight may be."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One peer in the eyes of the ego.

    Attributes:
        score: signed share, -1..1; 0 for a newcomer.
        rank: 1 is best.
        hits: walks that visited the peer, of `walks`; `neg_hits` ended by distrust of it.
        neck: share of those hits that passed one other peer before.
        interval: 95 % Wilson interval of hits / walks.
        why: the reasons, in plain counts.
        path: one shortest walk to it, the ego left out and the peer itself last; empty if none was walked.
    """

    peer: PeerId
    score: float
    rank: int
    hits: int
    neg_hits: int
    walks: int
    neck: float
    interval: tuple[float, float]
    newcomer: bool
    why: str
    path: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that offers to work: `load` is its queued jobs per worker slot, 0 when idle."""

    peer: PeerId
    price_micro: int
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate with its share of trust, its utility (share x cheapness / (1 + load)) and the reason in words."""

    peer: PeerId
    utility: float
    share: float
    reason: str


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Candidates in the order in which to ask them, and those who must not be asked."""

    order: tuple[Choice, ...]
    excluded: tuple[Choice, ...]


def wilson(hits: int, walks: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (J. Am. Stat. Assoc. 22, 1927); (0, 1) where nothing was tried."""
    if walks == 0:
        return 0.0, 1.0
    p, zz = hits / walks, z * z / walks
    middle = (p + zz / 2) / (1 + zz)
    half = z / (1 + zz) * math.sqrt(p * (1 - p) / walks + zz / (4 * walks))
    return max(0.0, middle - half), min(1.0, middle + half)


def shares(scores: Sequence[float], known: Sequence[bool], *, newcomer_share: float = NEWCOMER_SHARE) -> list[float]:
    """How a choice is divided among peers, given their scores; sums to 1 unless everybody is spoken against.

    Peers with a score below 0 get nothing. Newcomers (`known` is False) and those of the known who have earned less
    than one of them hold `newcomer_share` together in equal parts, or their share by headcount if that is less: a
    fresh key is never worth more than an old one, and neither many fresh keys nor many that are barely known weigh more
    than that. The rest is divided among the others in proportion to their scores.
    """
    alive = [at for at, score in enumerate(scores) if score >= 0]
    trusted = any(known[at] and scores[at] > 0 for at in alive)
    earned = {at: scores[at] if trusted else 1.0 for at in alive if known[at]}
    low = set(alive) - earned.keys()
    while True:
        rest = {at: value for at, value in earned.items() if at not in low}
        aside = min(newcomer_share, len(low) / len(alive)) if rest else 1.0
        each = aside / len(low) if low else 0.0
        total = sum(rest.values())
        weaker = {at for at, value in rest.items() if total == 0 or (1 - aside) * value / total < each}
        if not weaker:
            break
        low |= weaker
    return [each if at in low else (1 - aside) * rest[at] / total if at in rest else 0.0 for at in range(len(scores))]


class Recommender:
    """Answers questions about one graph; a view is calculated once per ego and version of the graph.

    Args:
        graph: read, never changed.
        settings: of the walks.
        newcomer_share: part that newcomers hold together, 0..1.
    """

    def __init__(
        self, graph: LocalGraph, settings: Settings | None = None, *, newcomer_share: float = NEWCOMER_SHARE
    ) -> None:
        assert 0 <= newcomer_share <= 1, "a share"
        self.graph = graph
        self.settings = settings or Settings()
        self.newcomer_share = newcomer_share
        self._views: dict[PeerId, tuple[int, Merit]] = {}

    def view(self, ego: PeerId) -> Merit:
        """The raw numbers."""
        known = self._views.get(ego)
        if known is None or known[0] != self.graph.version:
            known = self.graph.version, walk(self.graph.compiled(), ego, self.settings)
            self._views[ego] = known
        return known[1]

    def rank(self, ego: PeerId, peers: Collection[PeerId] = (), *, k: int | None = None) -> list[Ranked]:
        """Everyone that the ego's walks reached, by score, with `peers` added even where they are newcomers.

        Args:
            ego: in whose eyes; never ranked itself.
            peers: further peers to rank.
            k: only the first `k`.
        """
        merit = self.view(ego)
        touched = np.flatnonzero((merit.reach > 0) | (merit.against > 0))
        everyone = {merit.peers[at] for at in touched}.union(peers, self.graph.targets(ego)) - {ego}
        order = sorted(everyone, key=lambda peer: (-self._score(merit, peer), peer))
        return [self._ranked(merit, ego, peer, at) for at, peer in enumerate(order[:k], 1)]

    def choose_worker(self, ego: PeerId, candidates: Iterable[Candidate], *, seed: int | None = None) -> Shortlist:
        """Order candidates by trust share x cheapness / (1 + load).

        Args:
            ego: the payer; left out if it is a candidate.
            candidates: prices in micro-credits.
            seed: None puts the highest utility first (ties by peer). With a seed the order is drawn without
                replacement in proportion to utility, so that newcomers and the second-best get work too.
        """
        offers = sorted((c for c in candidates if c.peer != ego), key=lambda c: c.peer)
        merit = self.view(ego)
        order: list[Choice] = []
        excluded: list[Choice] = []
        cheapest = min((max(c.price_micro, 1) for c in offers), default=1)
        for offer, share in zip(offers, self._shares(ego, [c.peer for c in offers]), strict=True):
            against = excluded_because(self.graph, merit, ego, offer.peer)
            if against or share == 0:
                excluded.append(Choice(offer.peer, 0.0, 0.0, against or "no share is left for newcomers"))
                continue
            cheap = cheapest / max(offer.price_micro, 1)
            utility = share * cheap / (1 + max(offer.load, 0.0))
            reason = (
                f"{share:.0%} of trust, price factor {cheap:.2f} (1 is the cheapest), load {offer.load:g}: "
                f"{why(self.graph, merit, ego, offer.peer)}"
            )
            order.append(Choice(offer.peer, utility, share, reason))
        return Shortlist(_ordered(order, seed), tuple(excluded))

    def pool_weights(self, ego: PeerId, candidates: Collection[PeerId]) -> dict[PeerId, int]:
        """Integer weights of a jury pool, in 1..2**32 - 1 and in ascending order of peers.

        Newcomers together keep `newcomer_share` of the sum, or their share by headcount if that is less; whoever
        the view speaks against stays in the pool with weight 1. Who belongs to the worker leaves it: see `cluster`.
        """
        pool = sorted(set(candidates))
        return {
            peer: max(1, round(share * WEIGHT_SUM)) for peer, share in zip(pool, self._shares(ego, pool), strict=True)
        }

    def cluster(self, ego: PeerId, worker: PeerId, weights: Mapping[PeerId, int], *, keep: int) -> dict[PeerId, str]:
        """Those of a pool who are not to judge this worker, with reasons; see `recommend.cluster.cluster`.

        Args:
            ego: whose pool it is. worker: whose work is to be judged.
            weights: as `pool_weights` returns them. keep: peers that must be left.
        """
        return cluster(self.graph.compiled(), self.view(ego), ego, worker, weights, keep=keep)

    def _shares(self, ego: PeerId, pool: Sequence[PeerId]) -> list[float]:
        merit = self.view(ego)
        known = [self._known(merit, ego, peer) for peer in pool]
        scores = [-1.0 if self._shunned(ego, peer) else self._score(merit, peer) for peer in pool]
        return shares(scores, known, newcomer_share=self.newcomer_share)

    def _shunned(self, ego: PeerId, peer: PeerId) -> bool:
        return self.graph.trust(ego, peer) < self.graph.distrust(ego, peer)

    def _known(self, merit: Merit, ego: PeerId, peer: PeerId) -> bool:
        at = merit.index.get(peer)
        return peer == ego or (at is not None and bool(merit.reach[at] > 0 or merit.against[at] > 0))

    def _score(self, merit: Merit, peer: PeerId) -> float:
        at = merit.index.get(peer)
        return 0.0 if at is None else float(merit.score[at])

    def _ranked(self, merit: Merit, ego: PeerId, peer: PeerId, rank: int) -> Ranked:
        at = merit.index.get(peer)
        reach, against, neck = (
            (0.0, 0.0, 0.0) if at is None else (float(merit.reach[at]), float(merit.against[at]), float(merit.neck[at]))
        )
        hits = round(reach * merit.walks)
        return Ranked(
            peer=peer,
            score=self._score(merit, peer),
            rank=rank,
            hits=hits,
            neg_hits=round(against * merit.walks),
            walks=merit.walks,
            neck=neck,
            interval=wilson(hits, merit.walks),
            newcomer=not self._known(merit, ego, peer),
            why=why(self.graph, merit, ego, peer),
            path=shortest_path(merit, peer),
        )


def shortest_path(merit: Merit, peer: PeerId) -> tuple[PeerId, ...]:
    """The peers of the shortest walk that reached `peer`, itself last; the first such walk; empty if there is none."""
    seen = merit.visits
    arrivals = np.flatnonzero(seen.node == merit.index.get(peer, -1))
    if not len(arrivals):
        return ()
    last = arrivals[np.argmin(seen.step[arrivals])]
    first = np.searchsorted(seen.walk, seen.walk[last])
    return tuple(merit.peers[at] for at in seen.node[first : last + 1])


def _ordered(choices: list[Choice], seed: int | None) -> tuple[Choice, ...]:
    if seed is None:
        return tuple(sorted(choices, key=lambda c: (-c.utility, c.peer)))
    draw = np.random.Generator(np.random.Philox(seed)).exponential(size=len(choices))
    # Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: ascending exponential / weight.
    keys = {choice.peer: wait / choice.utility for choice, wait in zip(choices, draw, strict=True)}
    return tuple(sorted(choices, key=lambda c: (keys[c.peer], c.peer)))
