"""Walks against the solved numbers, and the properties that hold for every graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recommend import exact
from recommend.graph import LocalGraph
from recommend.meritrank import Merit, Settings, walk
from tests.recommend.worlds import edge, graph, peer, scale_free, signed

EGO = peer(0)
SIX_SIGMA = 6.0

seeds = st.integers(0, 2**32 - 1)
small_worlds = st.builds(signed, st.integers(4, 12), st.integers(4, 40), seeds, negative=st.sampled_from([0.0, 0.3]))
parameters = st.builds(Settings, alpha=st.sampled_from([0.15, 0.4, 0.8]), beta=st.sampled_from([0.0, 0.5, 1.0]))


def by_hand(edges: list[tuple[int, int, float]], alpha: float, **more: float) -> Merit:
    return exact.solve(graph(edges).compiled(), EGO, Settings(alpha=alpha, **more))  # type: ignore[arg-type] # beta only


@pytest.mark.parametrize("alpha", [0.15, 0.4])
@pytest.mark.parametrize("world", [scale_free(60, 3, 7), signed(40, 200, 8)], ids=["scale free", "signed"])
def test_walks_agree_with_the_solution(world: list[tuple[int, int, float]], alpha: float) -> None:
    """Each share of 40,000 walks lies within six standard deviations of its probability."""
    compiled = graph(world).compiled()
    options = Settings(alpha=alpha, walks=40_000, seed=1)
    seen, solved = walk(compiled, EGO, options), exact.solve(compiled, EGO, options)
    for sampled, true in ((seen.reach, solved.reach), (seen.against, solved.against)):
        bound = SIX_SIGMA * np.sqrt(true * (1 - true) / options.walks) + 1e-12
        assert (np.abs(sampled - true) <= bound).all()
    often = solved.reach > 0.02
    assert often.sum() > 5
    hits = options.walks * solved.reach[often]
    assert (np.abs(seen.neck - solved.neck)[often] <= SIX_SIGMA * 0.5 / np.sqrt(hits) + 1e-9).all()
    assert np.abs(seen.score - solved.score).max() < 0.01


def test_two_sums_of_the_power_series_agree() -> None:
    """Expected visits by the series are those of the matrix, and hits are visits over returns."""
    compiled = graph(scale_free(50, 2, 3)).compiled()
    series = exact.visits(compiled, EGO, Settings(alpha=0.15))
    assert series.sum() == pytest.approx(1 / 0.15)
    transition = np.zeros((50, 50))
    transition[compiled.source, compiled.target] = exact.step_shares(compiled)
    dense = np.linalg.inv(np.eye(50) - 0.85 * transition)
    assert series == pytest.approx(dense[0], abs=1e-9)
    solved = exact.solve(compiled, EGO, Settings(alpha=0.15))
    assert solved.reach[1:] == pytest.approx(series[1:] / np.diag(dense)[1:], abs=1e-9)


def test_a_triangle_by_hand() -> None:
    """0 -> {1, 2}, 1 -> 2: half of the continuing walks go either way."""
    merit = by_hand([(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0)], 0.5, beta=1.0)
    assert merit.reach == pytest.approx([0, 0.25, 0.375])
    assert merit.neck == pytest.approx([0, 0, 0.125 / 0.375])
    assert merit.score == pytest.approx([0, 0.5, 0.5])


def test_a_chain_decays_by_alpha_and_has_its_first_peer_as_neck() -> None:
    merit = by_hand([(at, at + 1, 1.0) for at in range(5)], 0.25)
    assert merit.reach[1:] == pytest.approx([0.75**step for step in range(1, 6)])
    assert merit.neck == pytest.approx([0, 0, 1, 1, 1, 1])


def test_a_loop_counts_each_peer_once_per_walk() -> None:
    merit = walk(graph([(0, 1, 1.0), (1, 2, 1.0), (2, 1, 1.0)]).compiled(), EGO, Settings(alpha=0.05, walks=2_000))
    assert merit.reach.max() <= 1.0
    assert len(merit.visits.walk) == len(set(zip(merit.visits.walk.tolist(), merit.visits.node.tolist(), strict=True)))


@settings(max_examples=60)
@given(small_worlds, parameters)
def test_scores_are_signed_shares(world: list[tuple[int, int, float]], options: Settings) -> None:
    for merit in (
        walk(graph(world).compiled(), EGO, options),
        exact.solve(graph(world).compiled(), EGO, options),
    ):
        assert np.abs(merit.score).sum() <= 1 + 1e-9
        assert ((merit.reach >= 0) & (merit.reach <= 1) & (merit.neck >= 0) & (merit.neck <= 1)).all()
        assert ((merit.through >= 0) == (merit.neck > 0)).all()
        assert merit.score[merit.index[EGO]] == 0
        if not merit.against.any() and options.beta < 1:
            assert merit.score.sum() == pytest.approx(1.0 if merit.reach.any() else 0.0)


@settings(max_examples=40)
@given(small_worlds, st.randoms(use_true_random=False), seeds)
def test_the_order_of_insertion_changes_nothing(world: list[tuple[int, int, float]], random: object, seed: int) -> None:
    mixed = list(world)
    random.shuffle(mixed)  # type: ignore[attr-defined] # hypothesis gives a random.Random that it can shrink
    options = Settings(walks=200, seed=seed)
    one, other = (walk(graph(edges).compiled(), EGO, options) for edges in (world, mixed))
    assert one.peers == other.peers
    assert one.score.tolist() == other.score.tolist()


@settings(max_examples=60)
@given(small_worlds, st.integers(1, 3), st.sampled_from([0.5, 4.0]))
def test_more_trust_of_the_ego_never_lowers_the_reach(
    world: list[tuple[int, int, float]], target: int, more: float
) -> None:
    """The walk that jumps to a peer at once hits it for certain, so a heavier edge from the ego cannot hurt it."""
    before, after = graph([*world, (0, target, 0.0)]), graph(world)
    after.put([edge(0, target, after.trust(EGO, peer(target)) + more, seq=1)])
    if before.distrust(EGO, peer(target)) > 0:
        return
    reach = [float(exact.solve(g.compiled(), EGO, Settings()).reach[g.compiled().index[peer(target)]])
             for g in (before, after)]  # fmt: skip
    assert reach[1] >= reach[0] - 1e-9


@settings(max_examples=60)
@given(small_worlds, st.integers(1, 3), st.integers(1, 3))
def test_distrust_never_raises_the_reach_of_its_target(
    world: list[tuple[int, int, float]], source: int, target: int
) -> None:
    if source == target:
        return
    before, after = graph(world), graph(world)
    after.put([edge(source, target, -6.0, seq=1)])
    reach = []
    for g in (before, after):
        at = g.compiled().index.get(peer(target))
        solved = exact.solve(g.compiled(), EGO, Settings())
        reach.append(0.0 if at is None else float(solved.reach[at] - solved.against[at]))
    assert reach[1] <= reach[0] + 1e-9


def test_repeated_calculation_does_not_drift() -> None:
    """A view is a function of graph and seed, also where there is distrust."""
    compiled = graph([(0, 1, 1.0), (1, 2, 1.0), (0, 2, 1.0), (2, 1, -1.0)]).compiled()
    views = {tuple(walk(compiled, EGO, Settings(walks=500)).score.tolist()) for _ in range(4)}
    assert len(views) == 1


def test_distrust_counts_against_its_target_and_not_against_whom_the_target_trusts() -> None:
    """A rejected peer cannot drag others down by trusting them."""
    merit = by_hand([(0, 1, 1.0), (1, 2, -1.0), (0, 3, 1.0), (2, 3, 5.0)], 0.4)
    assert merit.score[2] < 0 < merit.score[3]
    assert merit.against[3] == 0


def test_own_experience_outweighs_hearsay() -> None:
    """Nobody's word leads an ego to a peer that cheated it, however many praise that peer."""
    praise = [(0, friend, 20.0) for friend in range(2, 9)] + [(friend, 1, 20.0) for friend in range(2, 9)]
    merit = by_hand([*praise, (0, 1, -1.0)], 0.4)
    assert merit.reach[1] == 0
    assert merit.score[1] < 0


def test_a_positive_balance_of_own_experience_forgives() -> None:
    edges = [(0, 1, 12.0), (0, 2, 1.0)]
    assert by_hand([*edges, (0, 1, -10.0)], 0.4).score[1] > 0


def test_strangers_and_dead_ends_have_no_view() -> None:
    compiled = graph([(1, 2, 1.0)]).compiled()
    for ego in (peer(9), peer(2)):
        merit = walk(compiled, ego, Settings(walks=50))
        assert not merit.score.any()
    assert walk(LocalGraph().compiled(), EGO, Settings(walks=50)).peers == ()


def test_dense_solutions_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        exact.solve(graph([(0, at, 1.0) for at in range(1, 2_002)]).compiled(), EGO, Settings())
