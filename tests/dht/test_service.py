"""The service on the simulated network, under a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from dht.driver import Settings
from dht.messages import ASK, FindNode, Node, Nodes, Ping, Pong, Reply, Request, Store
from dht.provider import NAMESPACE, ProviderAd, key_of
from dht.record import DOMAIN, Record
from dht.service import Dht, StoreResult, open_dht
from node.rpc.node import RpcNode, open_rpc
from sim.transport import address_of
from sim.world import SimNode, World, world
from tests.dht.coreworld import MODEL, START_MS, an_ad
from wire import codec
from wire.envelope import Envelope
from wire.errors import LocalError, Refused
from wire.hashing import digest
from wire.peer import PeerId

T = TypeVar("T")
QUICK = Settings(tick_s=10.0, refresh_s=60.0)


async def inline(function: Callable[[], T], /) -> T:
    """Threads do not belong under a virtual clock."""
    return function()


def now_ms() -> int:
    return START_MS + int(trio.current_time() * 1000)


def dht_through(
    first: Callable[[], PeerId], path: Path | None = None
) -> Callable[[SimNode], AbstractAsyncContextManager[Dht]]:
    """Builds nodes that know nobody but node 0, and keep their records under `path`."""

    @asynccontextmanager
    async def build(node: SimNode) -> AsyncIterator[Dht]:
        if node.number:
            node.transport.learn(first(), [address_of(0, first())])
        file = path / f"{node.number}.db" if path else None
        bootstrap = [first()] if node.number else []
        async with (
            open_rpc(node.transport, blame=node.blamed.append) as rpc,
            open_dht(
                node.transport, rpc, node.identity, now_ms, file, bootstrap,
                rng=node.random, settings=QUICK, blame=node.blamed.append, run=inline,
            ) as dht,
        ):  # fmt: skip
            yield dht

    return build


@asynccontextmanager
async def swarm(nodes: int, seed: int = 1, path: Path | None = None) -> AsyncIterator[World]:
    """Nodes that have all joined through node 0."""
    worlds: list[World] = []
    build = dht_through(lambda: worlds[0].nodes[0].peer, path)
    async with world(nodes=nodes, seed=seed, introduce=False) as w:
        worlds.append(w)
        w.build = build
        for node in w.nodes:
            await node.crash()
            await node.restart()
        for node in w.nodes[1:]:
            assert await node.app.bootstrap() > 0
        yield w


def rpc_of(node: SimNode) -> RpcNode:
    """The calls of a node's DHT."""
    rpc: RpcNode = node.app._driver._rpc
    return rpc


def ad_of(node: SimNode) -> ProviderAd:
    return ProviderAd(MODEL, "embed.text", ["exact"], 5, node.transport.addresses(), 0.0, b"")


async def test_six_nodes_know_each_other_and_find_every_provider(autojump_clock: MockClock) -> None:
    async with swarm(6) as w:
        with trio.fail_after(10):  # who was asked last is still being asked back
            await w.until(lambda: [len(node.app.contacts()) for node in w.nodes] == [5] * 6)
        for node in w.nodes[1:4]:
            assert await node.app.provide(ad_of(node)) == StoreResult(6, 6)
        expected = sorted((node.peer, ad_of(node)) for node in w.nodes[1:4])
        for node in w.nodes:
            assert sorted(await node.app.providers(MODEL)) == expected
        assert [node.blamed for node in w.nodes] == [[]] * 6


async def test_a_provider_found_through_the_dht_can_be_dialled(autojump_clock: MockClock) -> None:
    """Only the ad's addresses lead there: nobody introduced the two."""
    async with swarm(6) as w:
        assert await w.nodes[5].app.find_peer(w.nodes[2].peer) == w.nodes[2].transport.addresses()
        reply = await rpc_of(w.nodes[5]).call(w.nodes[2].peer, ASK, Request(Ping(), []), timeout_s=5.0)
        assert reply.told == Pong()


async def test_fifty_nodes_find_thirty_providers_that_came_at_once(autojump_clock: MockClock) -> None:
    async with swarm(50, seed=2) as w:
        results: list[StoreResult] = []

        async def provide(node: SimNode) -> None:
            results.append(await node.app.provide(ad_of(node)))

        async with trio.open_nursery() as nursery:
            for node in w.nodes[:30]:
                nursery.start_soon(provide, node)
        assert results == [StoreResult(20, 20)] * 30
        for node in w.nodes[30::4]:
            assert [peer for peer, _ in await node.app.providers(MODEL)] == sorted(n.peer for n in w.nodes[:30])


async def test_an_ad_is_renewed_while_its_node_lives_and_gone_ten_minutes_after(autojump_clock: MockClock) -> None:
    async with swarm(4) as w:
        await w.nodes[1].app.provide(ad_of(w.nodes[1]))
        await trio.sleep(3600)
        assert [peer for peer, _ in await w.nodes[3].app.providers(MODEL)] == [w.nodes[1].peer]
        await w.nodes[1].crash()
        await trio.sleep(601)
        assert await w.nodes[3].app.providers(MODEL) == []
        assert [len(w.nodes[n].app.core.shelf) for n in (0, 2, 3)] == [0, 0, 0]


async def test_a_withdrawn_ad_runs_out(autojump_clock: MockClock) -> None:
    async with swarm(3) as w:
        await w.nodes[1].app.provide(ad_of(w.nodes[1]))
        w.nodes[1].app.withdraw(MODEL)
        await trio.sleep(601)
        assert await w.nodes[2].app.providers(MODEL) == []


async def test_a_restarted_network_still_has_its_records_and_contacts(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """No bootstrap peer is up at first; what was on disk is enough."""
    async with swarm(5, path=tmp_path) as w:
        await w.nodes[1].app.put(Record("value", bytes(32), 7, now_ms(), now_ms() + 3_600_000, b"kept"))
        await trio.sleep(30)
        for node in w.nodes:
            await node.crash()
        for node in w.nodes[2:]:
            await node.restart()
            for other in w.nodes[2:]:
                node.transport.learn(other.peer, [address_of(other.number, other.peer)])
        assert await w.nodes[4].app.bootstrap() == 2
        assert [record.record.body for record in await w.nodes[4].app.get("value", bytes(32))] == [b"kept"]


async def test_a_provider_is_found_when_half_the_network_stays_silent(autojump_clock: MockClock) -> None:
    async with swarm(12, seed=3) as w:
        await w.nodes[1].app.provide(ad_of(w.nodes[1]))
        for node in w.nodes[6:]:
            await node.crash()
        with trio.fail_after(30):
            assert [peer for peer, _ in await w.nodes[3].app.providers(MODEL)] == [w.nodes[1].peer]


async def test_two_halves_find_each_other_again_after_a_partition(autojump_clock: MockClock) -> None:
    async with swarm(8, seed=4) as w:
        w.net.partition([0, 1, 2, 3], [4, 5, 6, 7])
        await trio.sleep(300)
        await w.nodes[6].app.provide(ad_of(w.nodes[6]))
        w.net.heal()
        await trio.sleep(400)
        for node in w.nodes:
            assert [peer for peer, _ in await node.app.providers(MODEL)] == [w.nodes[6].peer]
            assert len(node.app.contacts()) == 7


async def test_malformed_requests_cost_their_sender_its_place(autojump_clock: MockClock) -> None:
    """Two forged records: refused, blamed, banned; an honest neighbour notices nothing."""
    async with swarm(4) as w:
        victim, liar, honest = w.nodes[0], w.nodes[1], w.nodes[2]
        body = codec.encode(Record(NAMESPACE, key_of(MODEL), 1, now_ms(), now_ms() + 1000, codec.encode(an_ad())))
        forged = Request(Store([Envelope(DOMAIN, honest.peer, body, bytes(64))]), [])
        for _ in range(2):
            with pytest.raises(Refused, match="signature"):
                await rpc_of(liar).call(victim.peer, ASK, forged, timeout_s=5.0)
        assert [error.peer for error in victim.blamed] == [liar.peer, liar.peer]
        assert liar.peer not in {contact.peer for contact in victim.app.contacts()}
        with pytest.raises(Refused, match="banned"):
            await rpc_of(liar).call(victim.peer, ASK, Request(FindNode(bytes(32)), []), timeout_s=5.0)
        reply = await rpc_of(honest).call(victim.peer, ASK, Request(FindNode(bytes(32)), []), timeout_s=5.0)
        assert isinstance(reply.told, Nodes)


async def test_a_peer_that_answers_with_too_many_contacts_is_blamed_and_the_look_up_goes_on(
    autojump_clock: MockClock,
) -> None:
    async with swarm(5) as w:
        liar, honest = w.nodes[1], w.nodes[2]

        async def flood(peer: PeerId, request: Request) -> Reply:
            fakes = [Node(PeerId(digest("fake", n.to_bytes(4, "big"))), []) for n in range(21)]
            return Reply(Nodes(fakes, []), [])

        rpc_of(liar).serve(ASK, flood)
        await w.nodes[3].app.provide(ad_of(w.nodes[3]))
        assert [peer for peer, _ in await honest.app.providers(MODEL)] == [w.nodes[3].peer]
        assert {error.peer for error in honest.blamed} == {liar.peer}


async def test_two_records_with_one_number_are_evidence_wherever_they_meet(autojump_clock: MockClock) -> None:
    async with swarm(4) as w:
        for body in (b"one", b"two"):
            await w.nodes[1].app.put(Record("value", bytes(32), 7, now_ms(), now_ms() + 1000, body))
        (evidence,) = w.nodes[2].app.equivocations()
        assert evidence.author() == w.nodes[1].peer
        assert len(await w.nodes[3].app.get("value", bytes(32))) == 1


async def test_what_others_would_refuse_is_our_callers_fault(autojump_clock: MockClock) -> None:
    async with swarm(2) as w:
        with pytest.raises(LocalError, match="CID"):
            await w.nodes[0].app.provide(ProviderAd("no cid", "embed.text", ["exact"], 5, [], 0.0, b""))
        with pytest.raises(LocalError, match="not kept here"):
            await w.nodes[0].app.publish("no such namespace", bytes(32), b"", life_s=10)


async def test_a_node_that_starts_before_the_one_it_joins_through_joins_when_that_comes(
    autojump_clock: MockClock,
) -> None:
    """Without a word from whoever started it: a relay, or a node that serves nothing, publishes no ad either."""
    async with swarm(2) as w:
        first, second = w.nodes
        await first.crash()
        await second.crash()
        await second.restart()
        assert await second.app.bootstrap() == 0
        await trio.sleep(30)
        assert second.app.contacts() == []
        await first.restart()
        with trio.fail_after(20):
            await w.until(lambda: [len(node.app.contacts()) for node in w.nodes] == [1, 1])


async def test_a_node_alone_keeps_its_own_record(autojump_clock: MockClock) -> None:
    async with swarm(1) as w:
        assert await w.nodes[0].app.provide(ad_of(w.nodes[0])) == StoreResult(1, 1)
        assert [peer for peer, _ in await w.nodes[0].app.providers(MODEL)] == [w.nodes[0].peer]


async def test_a_disk_that_fails_costs_copies_but_not_the_node(autojump_clock: MockClock, tmp_path: Path) -> None:
    """What the disk refuses is logged; memory goes on serving."""
    async with swarm(3, path=tmp_path) as w:
        for node in w.nodes:
            node.app._store.close()
        with structlog.testing.capture_logs() as logs:
            await w.nodes[1].app.provide(ad_of(w.nodes[1]))
            await trio.sleep(60)
            assert [peer for peer, _ in await w.nodes[2].app.providers(MODEL)] == [w.nodes[1].peer]
        assert {entry["event"] for entry in logs} == {"records_not_saved"}
