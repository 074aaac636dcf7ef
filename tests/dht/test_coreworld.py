"""Hundreds of cores under a virtual clock: whatever is provided is found, by everybody, at logarithmic cost."""

from __future__ import annotations

from math import log2

import pytest

from dht.limits import K
from dht.shelf import Quotas
from tests.dht.coreworld import CoreWorld, signed_ad


@pytest.fixture(scope="module")
def big() -> CoreWorld:
    """300 nodes that have joined, 30 of which provide the model."""
    world = CoreWorld(300, seed=7)
    world.join_all()
    results: list[tuple[int, int]] = []
    for node in world.nodes[:30]:
        node.provide(signed_ad(node.identity, now_ms=world.now_ms), lambda kept, of: results.append((kept, of)))
    world.settle()
    assert results == [(K, K)] * 30
    return world


def test_everybody_finds_all_providers_among_300_nodes(big: CoreWorld) -> None:
    found = big.find_all(big.nodes[30::9])
    providers = {node.peer for node in big.nodes[:30]}
    assert [{record.author for record in lookup.values()} for lookup in found] == [providers] * 30


def test_a_look_up_costs_k_plus_a_few_requests(big: CoreWorld) -> None:
    """All k closest must answer, so k is the floor; the way there is at most log2 n steps of alpha requests."""
    asks = [lookup.asks for lookup in big.find_all(big.nodes[30::9])]
    assert min(asks) >= K
    assert max(asks) <= K + 3 * log2(300)


def test_providers_are_found_after_a_third_of_300_nodes_died_silently() -> None:
    world = CoreWorld(300, seed=8)
    world.join_all()
    for node in world.nodes[:10]:
        node.provide(signed_ad(node.identity, now_ms=world.now_ms), lambda kept, of: None)
    world.settle()
    for node in world.random.sample(world.nodes[10:], 100):
        node.alive = False
    askers = [node for node in world.nodes if node.alive][10::19]
    found = world.find_all(askers)
    providers = {node.peer for node in world.nodes[:10]}
    assert [{record.author for record in lookup.values()} for lookup in found] == [providers] * len(askers)


def test_thirty_providers_at_once_on_eight_nodes_lose_none() -> None:
    """Each of eight nodes writes for several authors in the same instant."""
    world = CoreWorld(8, seed=9)
    world.join_all()
    writers = CoreWorld(30, seed=9)
    kept: list[tuple[int, int]] = []
    for number, writer in enumerate(writers.nodes):
        record = signed_ad(writer.identity, now_ms=world.now_ms)
        world.nodes[number % 8].provide(record, lambda stored, of: kept.append((stored, of)))
    world.settle()
    assert kept == [(8, 8)] * 30
    everyone = {writer.peer for writer in writers.nodes}
    for lookup in world.find_all(world.nodes):
        assert {record.author for record in lookup.values()} == everyone


def test_under_a_full_key_the_storers_together_keep_more_authors_than_one_does() -> None:
    """Each of eight storers has four seats; seats differ, so more than four of 30 authors are found."""
    world = CoreWorld(8, seed=10, quotas=Quotas(per_key=4))
    world.join_all()
    for writer in CoreWorld(30, seed=10).nodes:
        world.nodes[0].provide(signed_ad(writer.identity, now_ms=world.now_ms), lambda kept, of: None)
        world.settle()
    (lookup,) = world.find_all([world.nodes[3]])
    assert max(len(node.core.shelf) for node in world.nodes) == 4
    assert len(lookup.values()) > 12


def test_the_same_seed_gives_the_same_run() -> None:
    def trace() -> tuple[int, int, list[list[str]]]:
        world = CoreWorld(40, seed=11)
        world.join_all()
        contacts = [[contact.peer.hex() for contact in node.core.table] for node in world.nodes]
        return world.messages, world.now_ms, contacts

    assert trace() == trace()
