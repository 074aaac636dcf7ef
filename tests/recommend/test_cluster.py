"""Who belongs to a worker: in Sybil worlds its friends lose their seats, in honest ones hardly anybody does."""

from __future__ import annotations

import pytest

from recommend.cluster import WEIGHT_SHARE_MAX
from recommend.graph import LocalGraph
from recommend.rank import Recommender
from tests.recommend.sybil import FIRST_SYBIL, Edges, attack_edges, clique_edges
from tests.recommend.worlds import graph, peer, scale_free
from wire.peer import PeerId

HONEST = scale_free(160, 3, 1)
PEERS = 160
SYBILS = 50
EGOS = (0, 110)
ENTRIES = {"weakly tied": [150, 120], "well tied": [4, 9]}
KEEP = 6


class Pool:
    """A pool of everybody, in the eyes of one ego, and what is left of it for one worker."""

    def __init__(self, edges: Edges, ego: int, worker: int, others: list[int], *, keep: int = KEEP) -> None:
        known: LocalGraph = graph(edges)
        recommender = Recommender(known)
        numbers = [*range(PEERS), *others]
        weights = recommender.pool_weights(peer(ego), [peer(at) for at in numbers if at not in (ego, worker)])
        self.weights = weights
        self.struck = recommender.cluster(peer(ego), peer(worker), weights, keep=keep)
        self.left = {each: weight for each, weight in weights.items() if each not in self.struck}

    def share(self, whom: list[int], weights: dict[PeerId, int] | None = None) -> float:
        """The part of the weight that these peers hold; by default of what is left."""
        held = self.left if weights is None else weights
        return sum(held.get(peer(at), 0) for at in whom) / sum(held.values())

    @property
    def struck_share(self) -> float:
        return 1 - sum(self.left.values()) / sum(self.weights.values())


def sybils(count: int = SYBILS) -> list[int]:
    return list(range(FIRST_SYBIL, FIRST_SYBIL + count))


@pytest.mark.parametrize("shape", ["cycle", "clique"])
@pytest.mark.parametrize("tied", ENTRIES)
@pytest.mark.parametrize("entries", [1, 2])
def test_whichever_of_a_circle_works_the_others_do_not_judge(shape: str, tied: str, entries: int) -> None:
    """Peers that deal with one another lose their seats, however many they are and however much they claim to deal."""
    attackers = ENTRIES[tied][:entries]
    forged = clique_edges(attackers, SYBILS) if shape == "clique" else attack_edges("cycle", attackers, SYBILS)
    for ego in EGOS:
        for worker in (FIRST_SYBIL, FIRST_SYBIL + SYBILS // 2):
            pool = Pool(HONEST + forged, ego, worker, sybils())
            friends = [*attackers, *sybils()]
            assert pool.share(friends, pool.weights) > 0.02
            assert pool.share(friends) < 0.001
            assert pool.struck_share <= WEIGHT_SHARE_MAX


@pytest.mark.parametrize("ego", EGOS)
def test_a_worker_that_vouches_for_puppets_is_not_judged_by_them(ego: int) -> None:
    """They say nothing and nobody else speaks for them: all that leads to them leads through the worker."""
    attacker = ENTRIES["well tied"][0]
    pool = Pool(HONEST + attack_edges("parallel", [attacker], 3), ego, attacker, sybils(3))
    assert {peer(at) for at in sybils(3)} <= pool.struck.keys()
    assert all(pool.struck[peer(at)] == "100% of the ways to it lead through the worker" for at in sybils(3))


@pytest.mark.parametrize(("peers", "links", "seed"), [(160, 3, 1), (160, 2, 7), (40, 3, 3)])
def test_in_an_honest_network_next_to_nobody_is_struck(peers: int, links: int, seed: int) -> None:
    """Measured: 0.3 %, 0.5 % and 0.6 % of the weight on average over workers and egos."""
    known = graph(scale_free(peers, links, seed))
    recommender = Recommender(known)
    lost = []
    for ego in range(0, peers, peers // 8):
        weights = recommender.pool_weights(peer(ego), [peer(at) for at in range(peers) if at != ego])
        for worker in range(0, peers, peers // 20):
            struck = recommender.cluster(peer(ego), peer(worker), weights, keep=KEEP)
            lost.append(sum(weights[each] for each in struck) / sum(weights.values()))
    assert sum(lost) / len(lost) < 0.01
    assert max(lost) <= WEIGHT_SHARE_MAX


def test_nobody_is_drawn_into_a_circle_by_what_others_say() -> None:
    """Sybils praise honest jurors as loudly as they can; these deal as before, and keep their seats."""
    victims = [20, 21, 22, 23]
    praise = [(sybil, victim, 20.0) for sybil in sybils() for victim in victims]
    forged = clique_edges([150], SYBILS) + praise
    for ego in EGOS:
        pool = Pool(HONEST + forged, ego, FIRST_SYBIL, sybils())
        assert not pool.struck.keys() & {peer(at) for at in victims}


def test_customers_of_a_popular_worker_are_no_circle() -> None:
    """Everybody hires it most; what it says of them in turn is no more than what it says of anybody."""
    popular = [(at, 7, 15.0) for at in range(PEERS) if at != 7]
    for ego in EGOS:
        pool = Pool(HONEST + popular, ego, 7, [])
        assert not [why for why in pool.struck.values() if "circle" in why]
        assert pool.struck_share <= WEIGHT_SHARE_MAX


def test_an_attacker_that_gathers_all_trust_strikes_no_more_than_the_bound() -> None:
    """The ego trusts the worker alone, so everybody hangs on it: a quarter of the weight goes at most."""
    edges = [(0, 7, 20.0), *((7, at, 1.0) for at in range(8, 60)), *((at, 7, 20.0) for at in range(8, 60))]
    pool = Pool(edges, 0, 7, [])
    assert 0 < pool.struck_share <= WEIGHT_SHARE_MAX


@pytest.mark.parametrize("keep", [0, 4, 5, 6, 100])
def test_as_many_as_the_jury_needs_stay(keep: int) -> None:
    edges = [(0, 1, 1.0), (1, 2, 20.0), (2, 1, 20.0), (0, 3, 20.0), (0, 4, 20.0), (0, 5, 20.0), (0, 6, 20.0)]
    recommender = Recommender(graph(edges))
    weights = recommender.pool_weights(peer(0), [peer(at) for at in range(1, 7)])
    struck = recommender.cluster(peer(0), peer(1), weights, keep=keep)
    assert set(struck) == ({peer(2)} if keep < 5 else set())


def test_strangers_and_the_unknown_belong_to_nobody() -> None:
    recommender = Recommender(graph([(0, 1, 1.0)]))
    weights = recommender.pool_weights(peer(0), [peer(at) for at in range(1, 9)])
    assert recommender.cluster(peer(0), peer(5), weights, keep=0) == {}
    assert recommender.cluster(peer(0), peer(1), weights, keep=0) == {}
    assert recommender.cluster(peer(8), peer(1), weights, keep=0) == {}
    assert Recommender(LocalGraph()).cluster(peer(0), peer(1), weights, keep=0) == {}
