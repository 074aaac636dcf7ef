"""Rankings, the choice of a worker and the weights of a jury pool."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommend.graph import LocalGraph, evidence
from recommend.meritrank import Settings
from recommend.rank import NEWCOMER_SHARE, WEIGHT_SUM, Candidate, Recommender, shares, wilson
from tests.recommend.worlds import edge, graph, peer
from wire.peer import short

EGO = peer(0)
scored = st.lists(st.tuples(st.sampled_from([-0.4, 0.0, 0.01, 0.3, 0.9]), st.booleans()), max_size=20).map(
    lambda pairs: [(score, known or score != 0) for score, known in pairs]
)


def market() -> LocalGraph:
    """The ego paid 1 for three jobs and 2 for one; 1 trusts 3; 4 cheated the ego; 5 is unknown."""
    made = LocalGraph()
    made.put([
        evidence(EGO, peer(1), "work", count=3, seq=1),
        evidence(EGO, peer(2), "work", count=1, seq=1),
        evidence(EGO, peer(2), "jury", count=2, seq=1),
        evidence(EGO, peer(4), "rejected", count=1, seq=1),
        evidence(peer(1), peer(3), "work", count=2, seq=1),
        evidence(peer(1), peer(4), "work", count=9, seq=1),
    ])  # fmt: skip
    return made


def test_a_ranking_names_its_reasons() -> None:
    ranking = Recommender(market()).rank(EGO, [peer(5)])
    assert [r.peer for r in ranking] == [peer(1), peer(2), peer(3), peer(5), peer(4)]
    assert [r.rank for r in ranking] == [1, 2, 3, 4, 5]
    why = {r.peer: r.why for r in ranking}
    assert why[peer(1)].startswith("you paid it for 3 accepted jobs; reached in ")
    assert why[peer(2)].startswith("it checked 2 jobs for you; you paid it for 1 accepted job; reached in ")
    assert f", through {short(peer(1))} in 100% of them" in why[peer(3)]
    assert why[peer(4)].startswith("a jury rejected 1 of its answers to you; so nobody else's word for it counts; ")
    assert why[peer(5)] == "newcomer: no trust of yours leads to it yet"
    assert [r.newcomer for r in ranking] == [False, False, False, True, False]
    assert ranking[2].path == (peer(1), peer(3))


def test_hits_lie_in_their_interval_and_the_interval_narrows() -> None:
    few, many = (Recommender(market(), Settings(walks=w)).rank(EGO)[0] for w in (100, 10_000))
    for ranked in (few, many):
        assert ranked.interval[0] <= ranked.hits / ranked.walks <= ranked.interval[1]
    assert many.interval[1] - many.interval[0] < (few.interval[1] - few.interval[0]) / 5
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_a_view_follows_the_graph_and_repeats_with_its_seed() -> None:
    known = market()
    eyes = Recommender(known)
    before = eyes.rank(EGO)
    assert Recommender(market()).rank(EGO) == before
    known.put([edge(0, 5, 9.0, seq=2)])
    assert peer(5) in {r.peer for r in eyes.rank(EGO)}
    assert eyes.rank(EGO, k=2) == eyes.rank(EGO)[:2]


def test_a_worker_is_chosen_by_trust_price_and_load() -> None:
    eyes = Recommender(market())
    offers = [Candidate(peer(at), 1_000) for at in (1, 2, 3, 4, 5)]
    short_list = eyes.choose_worker(EGO, offers)
    assert [c.peer for c in short_list.order] == [peer(1), peer(2), peer(3), peer(5)]
    assert [c.peer for c in short_list.excluded] == [peer(4)]
    assert "a jury rejected 1 of its answers" in short_list.excluded[0].reason
    assert "you paid it for 3 accepted jobs" in short_list.order[0].reason
    dear = [Candidate(peer(1), 9_000), *offers[1:]]
    busy = [Candidate(peer(1), 1_000, load=8.0), *offers[1:]]
    for changed in (dear, busy):
        order = eyes.choose_worker(EGO, changed).order
        assert order[0].peer == peer(2)
        assert order[-1].peer == peer(5) or order[-1].peer == peer(1)


def test_the_payer_is_no_candidate_and_nobody_is_no_error() -> None:
    eyes = Recommender(market())
    assert eyes.choose_worker(EGO, [Candidate(EGO, 1)]).order == ()
    assert eyes.choose_worker(EGO, []).order == ()
    free = eyes.choose_worker(EGO, [Candidate(peer(1), 0), Candidate(peer(2), 0)]).order
    assert [c.peer for c in free] == [peer(1), peer(2)]


def test_a_seed_spreads_the_work_in_proportion() -> None:
    """2,000 draws between a known peer and a newcomer: the newcomer gets its share, within six deviations."""
    eyes = Recommender(graph([(0, 1, 1.0)]), newcomer_share=0.2)
    offers = [Candidate(peer(1), 10), Candidate(peer(2), 10)]
    won = sum(eyes.choose_worker(EGO, offers, seed=seed).order[0].peer == peer(2) for seed in range(2_000))
    assert abs(won / 2_000 - 0.2) < 6 * (0.2 * 0.8 / 2_000) ** 0.5


def test_a_thousand_fresh_keys_weigh_no_more_than_one() -> None:
    eyes = Recommender(graph([(0, 1, 1.0), (0, 2, 1.0), *[(0, at, 1.0) for at in range(3, 23)]]))
    for fresh in (5, 50, 1_000):
        weights = eyes.pool_weights(EGO, [peer(at) for at in range(1, 23 + fresh)])
        newcomers = sum(weight for who, weight in weights.items() if who >= peer(23))
        assert newcomers / sum(weights.values()) == pytest.approx(NEWCOMER_SHARE, abs=1e-4)


def test_a_hundred_peers_that_are_barely_known_weigh_no_more_than_newcomers() -> None:
    """A friend of a friend vouches for a hundred puppets: known by name, but not by merit."""
    edges = [(0, at, 20.0) for at in range(1, 9)]
    puppets = [(1, at, 1.0) for at in range(100, 200)]
    eyes = Recommender(graph(edges + puppets))
    weights = eyes.pool_weights(EGO, [peer(at) for at in [*range(1, 9), *range(100, 200), 300]])
    total = sum(weights.values())
    assert sum(weights[peer(at)] for at in range(100, 200)) / total < NEWCOMER_SHARE + 0.01
    assert weights[peer(300)] <= min(weights[peer(at)] for at in range(100, 200))
    assert weights[peer(2)] / total > 0.08


def test_one_newcomer_does_not_make_all_weights_equal() -> None:
    eyes = Recommender(graph([(0, 1, 20.0), (0, 2, 1.0), *[(0, at, 0.2) for at in range(3, 40)]]))
    weights = eyes.pool_weights(EGO, [peer(at) for at in [*range(1, 40), 99]])
    assert weights[peer(1)] > 10 * weights[peer(2)] > 10 * weights[peer(99)]


def test_in_a_network_of_strangers_all_weigh_the_same() -> None:
    weights = Recommender(LocalGraph()).pool_weights(EGO, [peer(at) for at in range(1, 6)])
    assert set(weights.values()) == {round(WEIGHT_SUM / 5)}
    assert list(weights) == sorted(weights)


def test_whoever_is_spoken_against_keeps_the_smallest_weight() -> None:
    weights = Recommender(market()).pool_weights(EGO, [peer(at) for at in range(1, 6)])
    assert weights[peer(4)] == 1
    assert weights[peer(1)] > weights[peer(2)] > weights[peer(3)] >= weights[peer(5)] > 1
    assert set(Recommender(graph([(0, 4, -1.0)])).pool_weights(EGO, [peer(4)]).values()) == {1}


@given(scored, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_shares_divide_one_whole(pairs: list[tuple[float, bool]], part: float) -> None:
    scores, known = [p[0] for p in pairs], [p[1] for p in pairs]
    divided = shares(scores, known, newcomer_share=part)
    alive = [at for at, score in enumerate(scores) if score >= 0]
    assert all(0 <= share <= 1 + 1e-12 for share in divided)
    assert sum(divided) == pytest.approx(1.0 if alive else 0.0)
    assert all(divided[at] == 0 for at in range(len(scores)) if at not in alive)
    fresh = [divided[at] for at in alive if not known[at]]
    old = [divided[at] for at in alive if known[at]]
    if old and fresh:
        together = min(part, len(fresh) / len(alive))
        assert sum(fresh) <= together + 1e-9
        if min(old) > max(fresh) + 1e-9:
            assert sum(fresh) == pytest.approx(together)
    if old and fresh:
        assert min(old) >= max(fresh) - 1e-9


@given(scored)
def test_a_better_score_never_gets_a_smaller_share(pairs: list[tuple[float, bool]]) -> None:
    scores = [p[0] for p in pairs]
    divided = shares(scores, [True] * len(pairs))
    ranked = sorted(zip(scores, divided, strict=True))
    assert all(a[1] <= b[1] + 1e-12 for a, b in pairwise(ranked))
