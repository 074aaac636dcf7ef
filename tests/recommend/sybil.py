"""Attacks by one peer with many identities, and what they gain (solved exactly, so the figures carry no noise).

The three attacks and the gain are those of the MeritRank paper's own experiments (arXiv 2207.09950): *path* (the
attacker and its Sybils form one chain), *cycle* (attacker and each Sybil trust each other) and *parallel* (the
attacker trusts each Sybil), each edge with weight 20. `gain` is the Sybils' score over the attacker's; `total` is
the score of attacker and Sybils together over what the attacker had without any, which also shows what an
attacker gains for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from recommend import exact
from recommend.graph import LocalGraph
from recommend.meritrank import Merit, Settings
from tests.recommend.worlds import graph, peer

Attack = Literal["path", "cycle", "parallel"]
ATTACKS: tuple[Attack, ...] = get_args(Attack)
Edges = list[tuple[int, int, float]]

FIRST_SYBIL = 100_000


@dataclass(frozen=True)
class Outcome:
    gain: float
    total: float


def attack_edges(attack: Attack, attackers: list[int], sybils: int, weight: float = 20.0) -> Edges:
    """Edges that the attackers add; each of several attackers leads to the same Sybils."""
    names = [FIRST_SYBIL + at for at in range(sybils)]
    edges: Edges = []
    for attacker in attackers:
        if attack == "path":
            edges += [(attacker, names[0], weight)]
        else:
            edges += [(attacker, name, weight) for name in names]
        if attack == "cycle":
            edges += [(name, attacker, weight) for name in names]
    if attack == "path":
        edges += [(a, b, weight) for a, b in pairwise(names)]
    return edges


def measure(honest: Edges, ego: int, attackers: list[int], attack: Attack, sybils: int, settings: Settings) -> Outcome:
    """What an attack gains in the eyes of `ego`."""
    before = exact.solve(graph(honest).compiled(), peer(ego), settings)
    forged: LocalGraph = graph(honest + attack_edges(attack, attackers, sybils))
    after = exact.solve(forged.compiled(), peer(ego), settings)
    own, fake = _sum(after, attackers), _sum(after, range(FIRST_SYBIL, FIRST_SYBIL + sybils))
    return Outcome(gain=fake / own, total=(fake + own) / _sum(before, attackers))


def _sum(merit: Merit, numbers: list[int] | range) -> float:
    return sum(float(merit.score[merit.index[peer(number)]]) for number in numbers)


def clique_edges(attackers: list[int], sybils: int, weight: float = 20.0) -> Edges:
    """Attackers and Sybils all deal with one another."""
    names = [*attackers, *range(FIRST_SYBIL, FIRST_SYBIL + sybils)]
    return [(a, b, weight) for a in names for b in names if a != b]
