"""Gossip over the simulated network and over libp2p: links come and go by themselves, judgements take their time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from node.gossip.params import TopicParams
from node.gossip.router import Arrived, Verdict
from node.gossip.service import Gossip, open_gossip
from node.transport_libp2p import open_transport
from sim.faults import CALM, ROUGH
from sim.world import SimNode, world
from wire.errors import LocalError, Malformed, RemoteError
from wire.identity import Identity
from wire.peer import PeerId

T = "t"
PARAMS = TopicParams(rate=50.0, burst=100.0)


class App:
    """A node's gossip and what it got."""

    def __init__(self, gossip: Gossip) -> None:
        self.gossip = gossip
        self.got: list[bytes] = []
        self._more = trio.Event()

    async def has(self, count: int) -> None:
        """Wait for so many messages."""
        while len(self.got) < count:
            await self._more.wait()

    async def judge(self, arrived: Arrived) -> Verdict:
        if arrived.data.startswith(b"slow"):
            await trio.sleep(3.0)
        if arrived.data.startswith(b"never"):
            await trio.sleep_forever()
        if arrived.data.startswith(b"bad"):
            raise Malformed("not of this topic")
        if arrived.data.startswith(b"ours"):
            raise LocalError("we cannot say")
        if arrived.data.startswith(b"theirs"):
            raise RemoteError(arrived.author, "lied elsewhere", penalty=0.2)
        self.got.append(arrived.data)
        self._more.set()
        self._more = trio.Event()
        return "accept"


@asynccontextmanager
async def build(node: SimNode) -> AsyncIterator[App]:
    async with open_gossip(
        node.identity,
        node.transport,
        lambda: 1_700_000_000_000 + round(trio.current_time() * 1000),
        peers=lambda: node.others,
        blame=node.blamed.append,
        rng=node.random,
    ) as gossip:
        app = App(gossip)
        gossip.subscribe(T, app.judge, PARAMS)
        yield app


@pytest.mark.parametrize("faults", [CALM, ROUGH], ids=["calm", "rough"])
async def test_messages_reach_everybody_through_lost_connections(faults: object, autojump_clock: MockClock) -> None:
    async with world(nodes=16, seed=1, faults=faults, build=build) as w:  # type: ignore[arg-type]  # of the list
        await trio.sleep(10)
        written = []
        for number in range(40):
            author = w.nodes[number % 16]
            data = b"%d" % number
            author.app.got.append(data)
            author.app.gossip.publish(T, data)
            written.append(data)
            await trio.sleep(0.2)
        await trio.sleep(10)
        assert sum(data in node.app.got for data in written for node in w.nodes) >= 0.999 * 16 * 40
        assert all(len(node.app.got) == len(set(node.app.got)) for node in w.nodes)
        assert [error for node in w.nodes for error in node.blamed] == []


async def test_a_node_that_comes_back_is_linked_again(autojump_clock: MockClock) -> None:
    async with world(nodes=5, seed=2, build=build) as w:
        await trio.sleep(5)
        await w.nodes[4].crash()
        w.nodes[0].app.gossip.publish(T, b"while it was away")
        await trio.sleep(10)
        assert len(w.nodes[0].app.gossip.peers(T)) == 3
        await w.nodes[4].restart()
        await trio.sleep(40)
        w.nodes[4].app.gossip.publish(T, b"back")
        await trio.sleep(2)
        assert all(b"back" in node.app.got for node in w.nodes[:4])


async def test_a_slow_judgement_holds_up_nobody_and_one_that_never_ends_relays_nothing(
    autojump_clock: MockClock,
) -> None:
    async with world(nodes=6, seed=3, build=build) as w:
        await trio.sleep(5)
        gossip = w.nodes[0].app.gossip
        for data in (b"never", b"slow", b"fast"):
            gossip.publish(T, data)
        await trio.sleep(1)
        assert all(node.app.got == [b"fast"] for node in w.nodes[1:])
        await trio.sleep(20)
        assert all(node.app.got == [b"fast", b"slow"] for node in w.nodes[1:])
        assert all(node.app.gossip.about()["deliveries"] == 0 for node in w.nodes)


async def test_what_a_judge_raises_says_who_pays(autojump_clock: MockClock) -> None:
    async with world(nodes=4, seed=4, build=build) as w:
        await trio.sleep(5)
        author, others = w.nodes[0], w.nodes[1:]
        for data in (b"ours", b"theirs"):
            author.app.gossip.publish(T, data)
        await trio.sleep(2)
        assert all(node.app.gossip.score(author.peer) >= 0 for node in others)
        assert [[error.peer for error in node.blamed] for node in others] == [[author.peer]] * 3
        author.app.gossip.publish(T, b"bad")
        await trio.sleep(2)
        assert all(node.app.gossip.score(author.peer) < 0 for node in others)
        assert all(node.app.got == [] for node in others)


async def test_what_the_node_caught_a_peer_at_counts_here(autojump_clock: MockClock) -> None:
    async with world(nodes=4, seed=5, build=build) as w:
        await trio.sleep(5)
        liar, others = w.nodes[0], w.nodes[1:]
        for node in others:
            node.app.gossip.penalise(RemoteError(liar.peer, "served an invalid chain", penalty=1.0))
        liar.app.gossip.publish(T, b"news")
        await trio.sleep(5)
        assert all(node.app.got == [] for node in others)


async def test_an_rpc_that_is_none_ends_the_channel_and_names_the_peer(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=6, build=build) as w:
        await trio.sleep(3)
        one, other = w.nodes
        channel = await one.transport.open(other.peer, "/meshsub/1.1.0")
        await channel.send(b"\x0a\xff")
        await trio.sleep(1)
        assert [error.peer for error in other.blamed] == [one.peer]


async def test_a_topic_may_be_left(autojump_clock: MockClock) -> None:
    async with world(nodes=3, seed=7, build=build) as w:
        await trio.sleep(3)
        w.nodes[2].app.gossip.unsubscribe(T)
        await trio.sleep(1)
        assert w.nodes[2].peer not in w.nodes[0].app.gossip.peers(T)
        w.nodes[0].app.gossip.publish(T, b"news")
        await trio.sleep(5)
        assert [node.app.got for node in w.nodes] == [[], [b"news"], []]


@pytest.mark.parametrize("fast_path", [True, False])
async def test_over_libp2p(fast_path: bool) -> None:
    people = [Identity.from_seed(bytes([number]) * 32) for number in range(1, 5)]
    blamed: list[RemoteError] = []
    async with trio.open_nursery() as nursery:
        apps: list[App] = []
        places: dict[PeerId, list[str]] = {}

        async def live(who: Identity, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with open_transport(who, blame=blamed.append, fast_path=fast_path) as transport:
                for peer, addresses in places.items():
                    transport.learn(peer, addresses)
                known = list(places)
                places[who.peer] = transport.addresses()
                async with open_gossip(
                    who, transport, lambda: 1_700_000_000_000, peers=lambda: known, blame=blamed.append
                ) as gossip:
                    apps.append(App(gossip))
                    gossip.subscribe(T, apps[-1].judge, PARAMS)
                    task_status.started()
                    await trio.sleep_forever()

        for who in people:
            await nursery.start(live, who)
        with trio.fail_after(30):
            for app in apps:
                await app.gossip.linked(T, 3)
            for number, app in enumerate(apps):
                app.gossip.publish(T, b"%d" % number)
            for app in apps:
                await app.has(3)
        nursery.cancel_scope.cancel()
    assert [sorted(app.got) for app in apps] == [
        sorted(b"%d" % other for other in range(4) if other != number) for number in range(4)
    ]
    assert blamed == []
