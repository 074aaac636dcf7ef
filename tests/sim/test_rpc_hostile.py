"""A hostile caller and an honest one at one server: the first holds no more than its share, the second is served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from node.rpc.node import RpcNode, open_rpc
from sim.world import SimNode, World, world
from wire.codec import Wire
from wire.errors import ChannelClosed
from wire.peer import PeerId
from wire.rpc import frames, packet
from wire.rpc.frames import CHUNK_BYTES, LAST, MESSAGE_BYTES_MAX
from wire.rpc.seam import PROTOCOL, Method
from wire.rpc.server import ANSWERS_BYTES_MAX, REQUESTS_MAX
from wire.rpc.share import POOL_BYTES
from wire.transport import Channel

BIG = 3_000_000


class Ask(Wire, frozen=True):
    answer_bytes: int


class Tell(Wire, frozen=True):
    data: bytes


ONE = Method("hostile.one", Ask, Tell)
ASK = packet.encode(Ask(BIG))[0]


@asynccontextmanager
async def calls(node: SimNode) -> AsyncIterator[RpcNode]:
    """Answers of any length."""

    async def answer(_peer: PeerId, ask: Ask) -> Tell:
        return Tell(bytes(ask.answer_bytes))

    async with open_rpc(node.transport, blame=node.blamed.append) as rpc:
        rpc.serve(ONE, answer)
        yield rpc


def asking(number: int) -> bytes:
    """A request for a big answer."""
    name = ONE.name.encode()
    return frames.open_(number, name, 60_000) + frames.begin_head(LAST, number, len(ASK), len(ASK)) + bytes(ASK)


def beginning(number: int, total: int) -> bytes:
    """A message of which one chunk comes and no more."""
    chunk = bytes(min(total, CHUNK_BYTES) // 2)
    name = ONE.name.encode()
    return frames.open_(number, name, 60_000) + frames.begin_head(LAST, number, total, len(chunk)) + chunk


async def honest(w: World) -> None:
    """Node 2 is answered at once, small and large."""
    for size in (10, 1_000_000):
        with trio.fail_after(5):
            told = await w.nodes[2].app.call(w.nodes[0].peer, ONE, Ask(size), timeout_s=5.0)
        assert len(told.data) == size


def held(w: World, by: PeerId) -> tuple[int, int, int, int]:
    """Requests of a peer at node 0, bytes of its answers that wait, and of its messages that have begun."""
    core = w.nodes[0].app._answering[by][0].core
    return (len(core), *core.held)


async def test_answers_that_are_not_read_stop_at_their_bound(autojump_clock: object) -> None:
    """A thousand requests for 3 MB each: some MB wait, the rest is refused or not even started."""
    async with world(nodes=3, seed=1, build=calls) as w:
        channel = await w.nodes[1].transport.open(w.nodes[0].peer, PROTOCOL)
        for number in range(1, REQUESTS_MAX + 50):
            await channel.send(asking(number))
        await trio.sleep(5.0)
        requests, waiting, _, begun = held(w, w.nodes[1].peer)
        assert requests <= REQUESTS_MAX
        assert 0 < waiting <= ANSWERS_BYTES_MAX
        assert begun <= sum(POOL_BYTES)
        await honest(w)
        await channel.aclose()
        await w.until(lambda: w.nodes[1].peer not in w.nodes[0].app._answering)


async def test_messages_that_do_not_end_stop_at_their_pool_and_their_deadline(autojump_clock: object) -> None:
    async with world(nodes=3, seed=2, build=calls) as w:
        channel = await w.nodes[1].transport.open(w.nodes[0].peer, PROTOCOL)
        totals = [MESSAGE_BYTES_MAX, *[1_000_000] * 3, *[60_000] * 40]
        for number, total in enumerate(totals, 1):
            await channel.send(beginning(number, total))
        await trio.sleep(5.0)
        *_, begun = held(w, w.nodes[1].peer)
        assert sum(POOL_BYTES) / 2 < begun <= sum(POOL_BYTES)
        assert w.nodes[0].blamed, "messages without credit are blamed"
        await honest(w)
        await trio.sleep(60.0)
        assert held(w, w.nodes[1].peer) == (0, 0, 0, 0), "what does not end is given up at its deadline"
        await channel.aclose()


async def test_any_number_of_channels_holds_what_one_does(autojump_clock: object) -> None:
    async with world(nodes=3, seed=3, build=calls) as w:
        channels: list[Channel] = []
        for _ in range(40):
            channels.append(await w.nodes[1].transport.open(w.nodes[0].peer, PROTOCOL))
            await channels[-1].send(beginning(1, MESSAGE_BYTES_MAX))
        await trio.sleep(5.0)
        *_, begun = held(w, w.nodes[1].peer)
        assert begun <= sum(POOL_BYTES)
        await honest(w)
        ended = 0
        for channel in channels:
            with trio.move_on_after(1.0):
                try:
                    await channel.receive()
                except ChannelClosed:
                    ended += 1
        assert ended == len(channels) - 1
