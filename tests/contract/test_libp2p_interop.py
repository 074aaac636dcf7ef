"""Our own session and muxer speak with py-libp2p's, in both directions: only the bytes on the wire are shared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from libp2p import new_swarm
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from node.libp2p.muxer import Muxer
from node.libp2p_host import libp2p_id
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.errors import RemoteError
from wire.transport import Channel

ECHO = "/contract/echo/1"
RAW = TProtocol("/contract/raw/1")
LISTEN = Multiaddr("/ip4/127.0.0.1/tcp/0")


def nobody_to_blame(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        await channel.send(await channel.receive())


@asynccontextmanager
async def stock_host() -> AsyncIterator[BasicHost]:
    """py-libp2p with Noise alone and its own session and muxer, and an echo of bytes."""
    key_pair = create_new_key_pair(b"s" * 32)
    noise = StockNoise(key_pair, noise_privkey=create_new_noise_key_pair().private_key)
    host = BasicHost(network=new_swarm(key_pair=key_pair, sec_opt={NOISE: noise}))

    async def back(stream: Any) -> None:
        try:
            while True:
                await stream.write(await stream.read(1 << 16))
        except StreamEOF:
            await stream.close()

    host.set_stream_handler(RAW, back)
    async with host.run([LISTEN]):
        yield host


@asynccontextmanager
async def both() -> AsyncIterator[tuple[Libp2pTransport, BasicHost]]:
    """Ours, which dialled a stock host."""
    async with (
        stock_host() as host,
        open_transport(b"f" * 32, blame=nobody_to_blame) as fast,
    ):
        fast.serve(ECHO, echo)
        identity = host.get_id()
        await cast(Any, fast)._swarm.dial_addr(host.get_addrs()[0], identity)
        yield fast, host


@asynccontextmanager
async def dialled_by_stock() -> AsyncIterator[tuple[Libp2pTransport, BasicHost]]:
    """Ours, dialled by a stock host."""
    async with (
        stock_host() as host,
        open_transport(b"f" * 32, blame=nobody_to_blame) as fast,
    ):
        fast.serve(ECHO, echo)
        await host.connect(PeerInfo(libp2p_id(fast.peer), [Multiaddr(fast.addresses()[0].rpartition("/p2p/")[0])]))
        yield fast, host


DIRECTIONS = pytest.mark.parametrize("meeting", [both, dialled_by_stock], ids=["ours dials", "stock dials"])


async def read_all(stream: Any, size: int) -> bytes:
    """So many bytes."""
    got = b""
    while len(got) < size:
        got += await stream.read(1 << 16)
    return got


@DIRECTIONS
async def test_each_muxer_is_what_it_should_be(meeting: Any) -> None:
    async with meeting() as (fast, host):
        stream = await cast(Any, fast)._host.new_stream(host.get_id(), [RAW])
        with trio.fail_after(10):
            await stream.write(b"there?")
            assert await read_all(stream, 6) == b"there?"
        (ours,) = [c.muxed_conn for cs in cast(Any, fast)._swarm.connections.values() for c in cs]
        (theirs,) = [c.muxed_conn for cs in cast(Any, host).get_network().connections.values() for c in cs]
        assert type(ours) is Muxer
        assert isinstance(theirs, Yamux)


@DIRECTIONS
async def test_we_open_and_they_answer_until_the_half_close(meeting: Any) -> None:
    async with meeting() as (fast, host):
        stream = await cast(Any, fast)._host.new_stream(host.get_id(), [RAW])
        with trio.fail_after(10):
            await stream.write(b"hello")
            assert await read_all(stream, 5) == b"hello"
            await stream.muxed_stream.close()
            with pytest.raises(StreamEOF):
                await stream.read(1)


@DIRECTIONS
async def test_they_open_and_our_channel_answers(meeting: Any) -> None:
    async with meeting() as (fast, host):
        stream = await host.new_stream(libp2p_id(fast.peer), [TProtocol(ECHO)])
        with trio.fail_after(10):
            await stream.write(b"\0\0\0\5hello\0\0\0\0")
            assert await read_all(stream, 13) == b"\0\0\0\5hello\0\0\0\0"
            await stream.close()


@DIRECTIONS
async def test_a_protocol_that_is_not_served_is_refused_and_the_next_one_fits(meeting: Any) -> None:
    async with meeting() as (fast, host):
        stream = await host.new_stream(libp2p_id(fast.peer), [TProtocol("/contract/none/1"), TProtocol(ECHO)])
        with trio.fail_after(10):
            await stream.write(b"\0\0\0\1x")
            assert await read_all(stream, 5) == b"\0\0\0\1x"
        stream = await cast(Any, fast)._host.new_stream(host.get_id(), [TProtocol("/contract/none/1"), RAW])
        with trio.fail_after(10):
            await stream.write(b"y")
            assert await read_all(stream, 1) == b"y"


@DIRECTIONS
async def test_eight_megabytes_there_and_back_on_either_side(meeting: Any) -> None:
    size = 8 << 20
    async with meeting() as (fast, host):
        ours = await cast(Any, fast)._host.new_stream(host.get_id(), [RAW])
        theirs = await host.new_stream(libp2p_id(fast.peer), [TProtocol(ECHO)])
        frame = (1 << 20).to_bytes(4, "big") + bytes(1 << 20)
        got: dict[str, int] = {}

        async def read(name: str, stream: Any, total: int) -> None:
            got[name] = len(await read_all(stream, total))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, "ours", ours, size)
                nursery.start_soon(read, "theirs", theirs, 8 * len(frame))
                nursery.start_soon(ours.write, bytes(size))
                nursery.start_soon(theirs.write, 8 * frame)
        assert got == {"ours": size, "theirs": 8 * len(frame)}


@DIRECTIONS
async def test_a_hundred_streams_of_ours_at_once(meeting: Any) -> None:
    answers: list[bytes] = []
    async with meeting() as (fast, host):

        async def talk(number: int) -> None:
            stream = await cast(Any, fast)._host.new_stream(host.get_id(), [RAW])
            await stream.write(bytes([number]) * 3000)
            answers.append(await read_all(stream, 3000))
            await stream.close()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(talk, number)
    assert sorted(answers) == [bytes([number]) * 3000 for number in range(100)]


@DIRECTIONS
async def test_as_many_streams_of_theirs_as_they_may_open_at_once_and_many_more_in_turn(meeting: Any) -> None:
    answers: list[bytes] = []
    async with meeting() as (fast, host):
        at_once = trio.Semaphore(40)

        async def talk(number: int) -> None:
            async with at_once:
                stream = await host.new_stream(libp2p_id(fast.peer), [TProtocol(ECHO)])
                await stream.write(b"\0\0\0\1" + bytes([number]))
                answers.append(await read_all(stream, 5))
                await stream.close()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(talk, number)
    assert sorted(answers) == [b"\0\0\0\1" + bytes([number]) for number in range(100)]
