"""Faults of the simulated network: each does what it says, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from sim.channel import Item, Pipe
from sim.events import EventQueue
from sim.faults import CALM, ROUGH, Faults
from sim.network import STALL_S, SimNetwork
from sim.transport import CONNECT_S
from sim.world import SimNode, world
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.transport import Channel

ECHO = "/sim/echo/1"


@asynccontextmanager
async def echo_app(node: SimNode) -> AsyncIterator[int]:
    """An echo, and a count of lives on the disk."""

    async def echo(channel: Channel) -> None:
        while True:
            await channel.send(await channel.receive())

    node.disk["lives"] = node.disk.get("lives", 0) + 1
    node.transport.serve(ECHO, echo)
    yield node.disk["lives"]


# ---- the queue of events


@given(st.lists(st.floats(0, 100), max_size=50))
def test_events_come_out_by_time_and_then_in_order(times: list[float]) -> None:
    queue = EventQueue()
    ran: list[int] = []
    for n, at_s in enumerate(times):
        earliest = min(times[:n], default=float("inf"))
        assert queue.push(at_s, partial(ran.append, n)) == (at_s < earliest)
    while (action := queue.pop_due(100.0)) is not None:
        action()
    assert ran == sorted(range(len(times)), key=lambda n: (times[n], n))
    assert queue.next_at_s is None


def test_an_event_is_not_due_before_its_time() -> None:
    queue = EventQueue()
    queue.push(2.0, lambda: None)
    assert queue.pop_due(1.9) is None
    assert queue.next_at_s == 2.0
    assert queue.pop_due(2.0) is not None


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_whatever_the_delays_a_pipe_keeps_its_order(seed: int, count: int) -> None:
    """Frames and the close behind them, through clogs: the order of sending is the order of arriving."""
    arrived: list[int] = []

    async def main() -> None:
        network = SimNetwork(seed, Faults(0.0, 1.0, clog_share=0.1, clog_mean_s=3.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.pump)
            pipe, random = Pipe(0, 1, 1), Random(seed)
            for n in range(count):
                network.transmit(pipe, Item("frame", partial(arrived.append, n)))
                await trio.sleep(random.random())
            await trio.sleep(10_000)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert arrived == list(range(count))


# ---- partitions and clogs


async def test_nothing_crosses_a_partition_and_all_of_it_after_healing(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1, build=echo_app) as w:
        channel = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        w.net.partition([0], [1])
        for n in range(5):
            await channel.send(bytes([n]))
        with trio.move_on_after(STALL_S / 2) as waiting:
            await channel.receive()
        assert waiting.cancelled_caught
        w.net.heal()
        with trio.fail_after(1):
            assert [await channel.receive() for _ in range(5)] == [bytes([n]) for n in range(5)]
        await channel.aclose()


async def test_a_connection_that_delivers_nothing_is_given_up_by_both(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1, build=echo_app) as w:
        channel = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        w.net.partition([0], [1])
        await channel.send(b"lost")
        began = w.now
        with pytest.raises(ChannelClosed):
            await channel.receive()
        assert STALL_S <= w.now - began < STALL_S + 1
        assert w.nodes[0].transport.connected() == []
        assert w.nodes[1].transport.connected() == []


async def test_opening_across_a_partition_fails_after_a_while(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1, build=echo_app) as w:
        w.net.partition([0], [1])
        began = w.now
        with pytest.raises(Unreachable, match="no answer"):
            await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        assert CONNECT_S <= w.now - began < CONNECT_S + 0.1


async def test_a_partition_of_one_direction_lets_the_other_through(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1) as w:
        got: list[bytes] = []

        async def take(channel: Channel) -> None:
            while True:
                got.append(await channel.receive())

        w.nodes[1].transport.serve(ECHO, take)
        channel = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        w.net.partition([1], [0], both_ways=False)
        await channel.send(b"through")
        await trio.sleep(1)
        assert got == [b"through"]


async def test_a_clog_holds_one_direction_up_and_passes(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1, build=echo_app) as w:
        channel = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        w.net.clog(0, 1, 7.0)
        began = w.now
        await channel.send(b"slow")
        assert await channel.receive() == b"slow"
        assert 7.0 <= w.now - began < 7.5
        await channel.aclose()


async def test_delays_are_what_the_faults_say(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1, faults=Faults(0.5, 0.1), build=echo_app) as w:
        channel = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        began = w.now
        for _ in range(100):
            await channel.send(b"x")
            await channel.receive()
        assert w.now - began >= 100.0
        assert (w.now - began) / 200 == pytest.approx(0.6, rel=0.1)
        await channel.aclose()


# ---- losing connections and nodes


async def test_a_lost_connection_ends_all_channels_of_the_pair_and_no_other(autojump_clock: MockClock) -> None:
    async with world(nodes=3, seed=1, build=echo_app) as w:
        doomed = [await w.nodes[0].transport.open(w.nodes[1].peer, ECHO) for _ in range(2)]
        other = await w.nodes[0].transport.open(w.nodes[2].peer, ECHO)
        w.net.lose_connection(0, 1)
        for channel in doomed:
            with pytest.raises(ChannelClosed):
                await channel.receive()
        await other.send(b"alive")
        assert await other.receive() == b"alive"
        again = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        await again.send(b"again")
        assert await again.receive() == b"again"
        for channel in (*doomed, other, again):
            await channel.aclose()


@pytest.mark.parametrize("keep_disk", [True, False])
async def test_a_crash_takes_the_memory_and_maybe_the_disk(autojump_clock: MockClock, keep_disk: bool) -> None:
    async with world(nodes=2, seed=1, build=echo_app) as w:
        node, other = w.nodes
        channel = await other.transport.open(node.peer, ECHO)
        await node.crash(keep_disk=keep_disk)
        assert not node.alive
        with trio.fail_after(1), pytest.raises(ChannelClosed):
            await channel.receive()
        with pytest.raises(Unreachable):
            await other.transport.open(node.peer, ECHO)
        peer = node.peer
        await node.restart()
        assert node.peer == peer
        assert node.app == (2 if keep_disk else 1)
        channel = await other.transport.open(node.peer, ECHO)
        await channel.send(b"back")
        assert await channel.receive() == b"back"
        await channel.aclose()


async def test_a_dying_node_says_nothing_more(autojump_clock: MockClock) -> None:
    """What a crash unwinds on its way cannot reach anybody."""
    got: list[bytes] = []

    @asynccontextmanager
    async def last_words(node: SimNode) -> AsyncIterator[None]:
        async def take(channel: Channel) -> None:
            while True:
                got.append(await channel.receive())

        async def speak() -> None:
            channel = await node.transport.open(node.others[0], ECHO)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True), pytest.raises(ChannelClosed):
                    await channel.send(b"last words")

        node.transport.serve(ECHO, take)
        async with trio.open_nursery() as nursery:
            if node.number == 0:
                nursery.start_soon(speak)
            yield
            nursery.cancel_scope.cancel()

    async with world(nodes=2, seed=1, build=last_words) as w:
        await trio.sleep(1)
        await w.nodes[0].crash()
        await trio.sleep(60)
    assert got == []


async def test_rough_networks_lose_connections_and_calm_ones_do_not(autojump_clock: MockClock) -> None:
    lost = {}
    for name, faults in (("rough", ROUGH), ("calm", CALM)):
        async with world(nodes=2, seed=3, faults=faults, build=echo_app) as w:
            for _ in range(60):
                channel = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
                try:
                    for _ in range(10):
                        await channel.send(b"x")
                        await channel.receive()
                except ChannelClosed:
                    pass
                await channel.aclose()
            lost[name] = w.net.trace.counts["reset"]
    assert lost["calm"] == 0
    assert lost["rough"] > 0


# ---- worlds


async def test_until_returns_when_the_predicate_holds(autojump_clock: MockClock) -> None:
    async with world(nodes=1, seed=1) as w:
        with trio.fail_after(4):
            await w.until(lambda: w.now >= 3.0)
        assert 3.0 <= w.now < 3.2


async def test_strangers_need_an_introduction(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1, build=echo_app, introduce=False) as w:
        one, two = (node.transport for node in w.nodes)
        with pytest.raises(Unreachable, match="no address known"):
            await one.open(two.peer, ECHO)
        one.learn(two.peer, two.addresses())
        channel = await one.open(two.peer, ECHO)
        await channel.aclose()


def test_a_failure_names_its_seed() -> None:
    async def main() -> None:
        async with world(nodes=2, seed=77):
            raise KeyError("broken")

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert any("seed=77" in note for note in caught.value.__notes__)


def test_identities_follow_from_the_seed() -> None:
    async def peers(seed: int) -> list[bytes]:
        async with world(nodes=3, seed=seed) as w:
            assert all(node.identity.peer == node.peer for node in w.nodes)
            return [node.peer for node in w.nodes]

    one, same, other = (trio.run(peers, seed, clock=MockClock(autojump_threshold=0)) for seed in (1, 1, 2))
    assert one == same
    assert not set(one) & set(other)


async def test_blame_is_kept_per_node(autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=1) as w:

        async def accuse(channel: Channel) -> None:
            raise RemoteError(channel.peer, "lied")

        w.nodes[1].transport.serve(ECHO, accuse)
        channel = await w.nodes[0].transport.open(w.nodes[1].peer, ECHO)
        with pytest.raises(ChannelClosed):
            await channel.receive()
        assert [(exc.peer, exc.reason) for exc in w.nodes[1].blamed] == [(w.nodes[0].peer, "lied")]
        assert w.nodes[0].blamed == []
