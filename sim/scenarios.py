"""Scenarios on raw channels: each has a safety phase under faults and a liveness phase after them.

A scenario raises `AssertionError` when a property does not hold; the seed repeats it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from sim.faults import ROUGH, Faults
from sim.world import Build, SimNode, World
from wire.errors import ChannelClosed, Malformed, TransportError, Unreachable
from wire.hashing import digest
from wire.transport import Channel

ECHO = "/quorate/sim/echo/1"
GOSSIP = "/quorate/sim/gossip/1"
QUIET_S = 120.0
"""Virtual seconds in which everything must come right once the faults have stopped."""


@dataclass(frozen=True)
class Scenario:
    """A play for a world of its own kind.

    Args:
        nodes: how many, unless asked otherwise.
        faults: of the network while it plays.
        build: the app of each node.
        play: drives the world and returns what came out, in words.
    """

    nodes: int
    faults: Faults
    build: Build
    play: Callable[[World], Awaitable[str]]


# ---- echo: no frame is ever lost, doubled, reordered or altered on a channel that lives


@asynccontextmanager
async def echo_app(node: SimNode) -> AsyncIterator[None]:
    """Answers every frame with itself."""

    async def echo(channel: Channel) -> None:
        while True:
            await channel.send(await channel.receive())

    node.transport.serve(ECHO, echo)
    yield


class _Tally:
    def __init__(self) -> None:
        self.frames = 0
        self.lost_channels = 0
        self.unreachable = 0


async def play_echo(world: World) -> str:
    """Every node talks to every other; every answer is the question."""
    tally = _Tally()
    async with trio.open_nursery() as nursery:
        for node in world.nodes:
            for other in world.nodes:
                if node is not other:
                    nursery.start_soon(_talk, node, other, tally)
        await trio.sleep(5)
        world.net.partition(world.third, world.rest)
        await trio.sleep(30)
        world.net.heal()
    assert tally.frames > 0, "nothing was echoed"
    return f"{tally.frames} frames echoed, {tally.lost_channels} channels lost, {tally.unreachable} opens failed"


async def _talk(node: SimNode, other: SimNode, tally: _Tally) -> None:
    for round_ in range(10):
        await trio.sleep(node.random.expovariate(0.5))
        try:
            channel = await node.transport.open(other.peer, ECHO)
        except Unreachable:
            tally.unreachable += 1
            continue
        try:
            sent = [digest("sim.echo", bytes([node.number, other.number, round_, n])) * (n + 1) for n in range(5)]
            for frame in sent:
                await channel.send(frame)
            for frame in sent:
                received = await channel.receive()
                assert received == frame, "an echo differs from what was sent"
                tally.frames += 1
        except ChannelClosed:
            tally.lost_channels += 1
        finally:
            await channel.aclose()


# ---- gossip: nothing that nobody said is believed; after healing everyone knows everything


class Gossip:
    """Pushes what it knows to a random peer, again and again; what it knows is on its disk."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self.known: dict[bytes, None] = node.disk.setdefault("known", {})

    def say(self, item: bytes) -> None:
        """Add an item of our own."""
        self.known[item] = None

    def state(self) -> bytes:
        """A digest of all that is known, the same whatever the order in which it came."""
        return digest("sim.gossip", *sorted(self.known))

    async def serve(self, channel: Channel) -> None:
        """Take items of 32 bytes until the other side closes."""
        while True:
            item = await channel.receive()
            if len(item) != 32:
                raise Malformed("an item has 32 bytes")
            self.known[item] = None

    async def push_for_ever(self) -> None:
        """Send everything to one random peer each second."""
        while True:
            await trio.sleep(0.5 + self._node.random.random())
            try:
                channel = await self._node.transport.open(self._node.random.choice(self._node.others), GOSSIP)
            except TransportError:
                continue
            try:
                for item in list(self.known):
                    await channel.send(item)
            except TransportError:
                continue
            finally:
                await channel.aclose()


@asynccontextmanager
async def gossip_app(node: SimNode) -> AsyncIterator[Gossip]:
    """Gossips with everybody."""
    gossip = Gossip(node)
    node.transport.serve(GOSSIP, gossip.serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gossip.push_for_ever)
        yield gossip
        nursery.cancel_scope.cancel()


async def play_gossip(world: World) -> str:
    """Flood items through partition, crashes and lost connections; then heal and demand convergence."""
    said: dict[bytes, None] = {}

    def each_says(round_: int) -> None:
        for node in world.nodes:
            if node.alive:
                item = digest("sim.item", node.peer, bytes([round_]))
                said[item] = None
                node.app.say(item)

    each_says(0)
    await trio.sleep(5)
    world.net.partition(world.third, world.rest)
    each_says(1)
    await world.nodes[-1].crash()
    await trio.sleep(30)
    each_says(2)
    for node in world.nodes:
        assert all(item in said for item in node.disk["known"]), f"node {node.number} knows what nobody said"
    world.net.heal()
    await world.nodes[-1].restart()
    healed_s = world.now
    with trio.fail_after(QUIET_S):
        await world.until(lambda: all(len(node.app.known) == len(said) for node in world.nodes))
    assert len({node.app.state() for node in world.nodes}) == 1, "the nodes know different things"
    assert not any(node.blamed for node in world.nodes), "an honest node was blamed"
    return f"{len(said)} items at {len(world.nodes)} nodes, {world.now - healed_s:.2f} s after healing"


SCENARIOS: dict[str, Scenario] = {
    "echo": Scenario(6, ROUGH, echo_app, play_echo),
    "gossip": Scenario(20, ROUGH, gossip_app, play_gossip),
}
"""By name, as `python -m sim SEED --scenario NAME` takes them."""
