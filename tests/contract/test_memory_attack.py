"""Many hostile identities at once: what all of them together make a node hold is bounded, and others are served."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from node.rpc.node import open_rpc
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.contract.attacker import Attacker, attacker, data, held, proposing
from wire.codec import Wire
from wire.errors import ChannelClosed, RemoteError
from wire.memory import Memory
from wire.peer import PeerId
from wire.rpc.seam import Method, Stream
from wire.transport import Channel

ECHO, IDLE = "/contract/echo/1", "/contract/idle/1"
STREAM_BYTES = 200 << 10
STREAMS, ATTACKERS = 10, 20
BYTES_MAX = 16 << 20


def nobody_to_blame(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        await channel.send(await channel.receive())


async def idle(channel: Channel) -> None:
    """Read nothing."""
    await trio.sleep_forever()


class Said(Wire, frozen=True):
    text: str


ONE, MANY = Method("test.one", Said, Said), Method("test.many", Said, Said)


async def answer(_peer: PeerId, said: Said) -> Said:
    """The first letter."""
    return Said(said.text[:1])


async def take_nothing(stream: Stream[Said, Said]) -> None:
    """Leave every message where it is."""
    await trio.sleep_forever()


async def fill(enemy: Attacker) -> None:
    """Leave as much unread as the first windows of some streams allow."""
    for stream in range(1, 2 * STREAMS, 2):
        await enemy.send(proposing(stream, IDLE), data(stream, bytes(STREAM_BYTES)))


async def test_identities_without_number_share_one_bound() -> None:
    memory = Memory(BYTES_MAX, peers_max=64)
    async with AsyncExitStack() as stack:
        bob: Libp2pTransport = await stack.enter_async_context(
            open_transport(b"b" * 32, blame=nobody_to_blame, memory=memory)
        )
        bob.serve(ECHO, echo)
        bob.serve(IDLE, idle)
        honest = await stack.enter_async_context(open_transport(b"h" * 32, listen=[], blame=nobody_to_blame))
        honest.learn(bob.peer, bob.addresses())
        channel = await honest.open(bob.peer, ECHO)
        most = 0
        for number in range(ATTACKERS):
            enemy = await stack.enter_async_context(attacker(bob, seed=bytes([number]) + bytes(31)))
            await fill(enemy)
            with trio.fail_after(20):
                for size in (100, 100_000):
                    await channel.send(bytes(size))
                    assert await channel.receive() == bytes(size)
            most = max(most, held(bob))
        assert ATTACKERS * STREAMS * STREAM_BYTES > 2 * BYTES_MAX
        assert BYTES_MAX // 4 < most <= BYTES_MAX
        assert memory.times_shed > 0
        assert memory.lean


async def test_frames_longer_than_a_window_still_pass_while_the_node_is_lean() -> None:
    memory = Memory(BYTES_MAX, peers_max=64)
    async with (
        open_transport(b"b" * 32, blame=nobody_to_blame, memory=memory) as bob,
        open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as honest,
    ):
        bob.serve(ECHO, echo)
        bob.serve(IDLE, idle)
        honest.learn(bob.peer, bob.addresses())
        async with AsyncExitStack() as stack:
            for number in range(5):
                await fill(await stack.enter_async_context(attacker(bob, seed=bytes([number]) + bytes(31))))
            with trio.fail_after(20):
                while not memory.lean:
                    await trio.sleep(0.01)
                    memory.look()
                channel = await honest.open(bob.peer, ECHO)
                for _ in range(5):
                    await channel.send(bytes(1 << 20))
                    assert await channel.receive() == bytes(1 << 20)


async def test_calls_that_hold_too_much_end_and_those_of_others_go_on() -> None:
    memory = Memory(2 << 20, peers_max=8)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        bob = await enter(open_transport(b"b" * 32, blame=nobody_to_blame, memory=memory))
        served = await enter(open_rpc(bob, blame=nobody_to_blame, memory=memory))
        served.serve_stream(MANY, take_nothing)
        served.serve(ONE, answer)
        callers = []
        for seed in (b"g", b"h"):
            transport = await enter(open_transport(seed * 32, listen=[], blame=nobody_to_blame))
            transport.learn(bob.peer, bob.addresses())
            callers.append(await enter(open_rpc(transport, blame=nobody_to_blame)))
        greedy, honest = callers

        async def open_streams_without_end() -> None:
            async with AsyncExitStack() as streams:
                while True:
                    stream = await streams.enter_async_context(greedy.stream(bob.peer, MANY, timeout_s=20))
                    await stream.send(Said("x" * 200_000))
                    assert (await honest.call(bob.peer, ONE, Said("y" * 200_000), timeout_s=20)).text == "y"

        with trio.fail_after(20), pytest.raises(ChannelClosed):
            await open_streams_without_end()
        assert memory.times_shed > 0
        assert (await honest.call(bob.peer, ONE, Said("z"), timeout_s=20)).text == "z"
