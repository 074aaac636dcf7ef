"""The trust graph: who may say what, and which statement stands."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recommend.graph import TARGETS_MAX, LocalGraph, TrustEdge, evidence
from tests.recommend.worlds import edge, peer
from wire import codec
from wire.errors import Malformed, RemoteError

edges = st.builds(
    TrustEdge,
    source=st.integers(1, 4).map(peer),
    target=st.integers(5, 7).map(peer),
    kind=st.sampled_from(["work", "jury", "rejected"]),
    weight=st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 50.0]),
    count=st.integers(0, 3),
    seq=st.integers(0, 3),
)


@given(st.lists(edges, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(statements: list[TrustEdge], random: object) -> None:
    forwards, shuffled = LocalGraph(), LocalGraph()
    forwards.put(statements)
    mixed = list(statements)
    random.shuffle(mixed)  # type: ignore[attr-defined] # hypothesis gives a random.Random that it can shrink
    for statement in mixed:
        shuffled.put([statement])
    assert list(forwards.edges()) == list(shuffled.edges())


@given(st.lists(edges, max_size=12))
def test_putting_everything_again_changes_nothing(statements: list[TrustEdge]) -> None:
    graph = LocalGraph()
    graph.put(statements)
    version = graph.version
    assert graph.put(list(graph.edges()) + statements) == 0
    assert graph.version == version


def test_the_later_statement_stands() -> None:
    graph = LocalGraph()
    assert graph.put([edge(1, 2, 5.0, seq=3)]) == 1
    assert graph.put([edge(1, 2, 9.0, seq=2)]) == 0
    assert graph.trust(peer(1), peer(2)) == 5.0
    assert graph.put([edge(1, 2, 0.0, seq=4)]) == 1
    assert graph.between(peer(1), peer(2)) == []


def test_trust_and_distrust_are_summed_apart_and_capped() -> None:
    graph = LocalGraph(cap=10.0)
    graph.put([
        evidence(peer(1), peer(2), "work", count=8, seq=0),
        evidence(peer(1), peer(2), "jury", count=40, seq=0),
        evidence(peer(1), peer(2), "rejected", count=1, seq=0),
        evidence(peer(1), peer(2), "fault", count=30, seq=0),
    ])  # fmt: skip
    assert (graph.trust(peer(1), peer(2)), graph.distrust(peer(1), peer(2))) == (10.0, 10.0)
    assert sorted(graph.compiled().weight.tolist()) == [-10.0, 10.0]


def test_nobody_speaks_for_another() -> None:
    graph = LocalGraph()
    with pytest.raises(RemoteError, match="another peer") as refused:
        graph.put([edge(1, 2), edge(3, 2)], author=peer(1))
    assert refused.value.peer == peer(1)
    assert list(graph.edges()) == []


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (edge(1, 1), "oneself"),
        (edge(1, 2, math.nan), "finite"),
        (edge(1, 2, math.inf), "finite"),
        (TrustEdge(peer(1), peer(2), "work", 1.0, -1, 0), "negative"),
        (TrustEdge(peer(1), peer(2), "work", 1.0, 1, -1), "negative"),
        (TrustEdge(peer(1)[:31], peer(2), "work", 1.0, 1, 0), "32-byte"),  # type: ignore[arg-type] # a short key
    ],
)
def test_impossible_edges_are_refused_and_nothing_is_taken(bad: TrustEdge, reason: str) -> None:
    graph = LocalGraph()
    with pytest.raises(Malformed, match=reason):
        graph.put([edge(1, 2), bad])
    assert list(graph.edges()) == []


def test_one_source_cannot_fill_the_graph() -> None:
    graph = LocalGraph()
    graph.put(edge(1, target) for target in range(2, TARGETS_MAX + 2))
    with pytest.raises(RemoteError, match="more than"):
        graph.put([edge(1, TARGETS_MAX + 2)])
    assert graph.put([edge(1, 2, 3.0, seq=1), edge(2, 3)]) == 2


def test_an_edge_has_one_encoding() -> None:
    raw = codec.encode(edge(1, 2, 1.5, seq=7))
    assert codec.decode(TrustEdge, raw) == edge(1, 2, 1.5, seq=7)
    with pytest.raises(Malformed):
        codec.decode(TrustEdge, raw + b"\x00")
