"""What somebody at the WebSocket door can do: lose his connection. A neighbour is served meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from random import Random
from typing import Any, cast

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.patterns import PatternXX

from node.libp2p.gate import HANDSHAKES_PER_SUBNET_MAX, Gate
from node.libp2p.multiselect import HEADER, encode
from node.libp2p.noise_session import NoiseSession
from node.libp2p.websocket import IDLE_FRAMES_MAX, WebSocketBytes
from node.libp2p.websocket_stream import WebSocketStream
from node.libp2p_host import libp2p_id
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.contract.test_libp2p_attacks import (
    BEFORE,
    ECHO,
    HELLO,
    allocating_at_most,
    echo,
    neighbour_is_served,
    nobody_to_blame,
)
from tests.node.test_websocket import frame
from wire.errors import Unreachable
from wire.memory import Memory

LIMIT_S = 30.0


@pytest.fixture
async def bob() -> AsyncIterator[Libp2pTransport]:
    """The transport under attack, at its WebSocket door."""
    async with open_transport(b"b" * 32, listen=["/ip4/127.0.0.1/tcp/0/ws"], blame=nobody_to_blame) as transport:
        transport.serve(ECHO, echo)
        yield transport


async def tcp(bob: Libp2pTransport) -> trio.SocketStream:
    """A connection on which nothing was said yet."""
    return await trio.open_tcp_stream("127.0.0.1", int(bob.addresses()[0].split("/")[4]))


async def websocket(bob: Libp2pTransport) -> trio.SocketStream:
    """One whose HTTP part is over."""
    stream = await tcp(bob)
    await stream.send_all(WebSocketBytes(client=True).ask("127.0.0.1"))
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 101")
    return stream


async def rest(stream: trio.SocketStream) -> bytes:
    """Everything until the other side closes."""
    said = b""
    try:
        while piece := await stream.receive_some():
            said += piece
    except trio.BrokenResourceError:
        return said
    return said


@pytest.mark.parametrize(
    ("raw", "answered"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 400"),
        (b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 400"),
        (HELLO + encode("/noise") + b"\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000, b""),
    ],
    ids=["plain HTTP", "post", "libp2p over TCP", "endless header"],
)
async def test_who_does_not_speak_websocket_is_shown_out(bob: Libp2pTransport, raw: bytes, answered: bytes) -> None:
    with trio.fail_after(LIMIT_S):
        async with await tcp(bob) as stream:
            await stream.send_all(raw)
            assert (await rest(stream)).startswith(answered)
        await neighbour_is_served(bob)


async def test_a_slow_handshake_is_cut_off(bob: Libp2pTransport) -> None:
    with trio.fail_after(LIMIT_S):
        async with await tcp(bob) as stream, trio.open_nursery() as nursery:

            async def drip() -> None:
                try:
                    for byte in WebSocketBytes(client=True).ask("127.0.0.1")[:-1]:
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.5)
                except trio.BrokenResourceError:
                    return

            nursery.start_soon(drip)
            assert await rest(stream) == b""
            nursery.cancel_scope.cancel()
        await neighbour_is_served(bob)


async def test_silent_visitors_are_counted_from_the_first_byte() -> None:
    gate = Gate()
    async with open_transport(b"b" * 32, listen=["/ip4/127.0.0.1/tcp/0/ws"], blame=nobody_to_blame, gate=gate) as bob:
        with trio.fail_after(LIMIT_S):
            async with await tcp(bob):
                while not gate.handshakes.total():  # noqa: ASYNC110 - the gate has no event
                    await trio.sleep(0.01)
            while gate.handshakes.total():  # noqa: ASYNC110 - as above
                await trio.sleep(0.01)
    assert HANDSHAKES_PER_SUBNET_MAX > 1


async def test_a_denied_subnet_gets_no_answer_and_is_not_dialled() -> None:
    gate = Gate(subnets=["127.0.0.0/8"])
    listen = ["/ip4/127.0.0.1/tcp/0/ws"]
    async with (
        open_transport(b"b" * 32, listen=listen, blame=nobody_to_blame, gate=gate) as bob,
        open_transport(b"o" * 32, listen=listen, blame=nobody_to_blame) as other,
    ):
        with trio.fail_after(LIMIT_S):
            async with await tcp(bob) as stream:
                assert await rest(stream) == b""
            bob.learn(other.peer, other.addresses())
            with pytest.raises(Unreachable):
                await bob.open(other.peer, ECHO)


@pytest.mark.parametrize(
    "raw",
    [
        frame(2, b"\x13/multistream/1.0.0\n" + bytes(4000), length=1 << 62),
        b"".join(frame(0 if n else 2, b"\x00", final=False) for n in range(5000)),
        frame(2, final=False) + frame(0, final=False) * (IDLE_FRAMES_MAX + 1),
        frame(9) * (IDLE_FRAMES_MAX + 1),
        frame(1, b"hello"),
        Random(5000).randbytes(5000),
    ],
    ids=["giant frame", "fragments of a byte", "empty fragments", "pings", "text", "garbage"],
)
async def test_frames_that_carry_no_handshake_end_the_connection(bob: Libp2pTransport, raw: bytes) -> None:
    with trio.fail_after(LIMIT_S):
        async with await websocket(bob) as stream:
            with allocating_at_most(BEFORE):
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(raw)
                await rest(stream)
        await neighbour_is_served(bob)


async def session(bob: Libp2pTransport, stream: trio.SocketStream) -> NoiseSession:
    """An authenticated session over a WebSocket of ours."""
    door = WebSocketStream(stream, stream, client=True)
    await door.ask("127.0.0.1")
    raw = RawConnection(door, True)
    for line in (HEADER, "/noise"):
        await raw.write(encode(line))
    want = len(encode(HEADER) + encode("/noise"))
    got = b""
    while len(got) < want:
        got += await raw.read(want - len(got))
    key_pair = create_new_key_pair(b"m" * 32)
    noise_key = create_new_noise_key_pair().private_key
    pattern = PatternXX(ID.from_pubkey(key_pair.public_key), key_pair.private_key, noise_key)
    return NoiseSession(cast(Any, await pattern.handshake_outbound(raw, libp2p_id(bob.peer))), None, Memory())


async def test_a_giant_frame_holds_nothing_after_authentication_either(bob: Libp2pTransport) -> None:
    """A frame announced as 4 EiB, inside of which is half a Noise message: it is waited for, and nothing is kept."""
    with trio.fail_after(LIMIT_S):
        async with await tcp(bob) as stream:
            await session(bob, stream)
            with allocating_at_most(BEFORE):
                await stream.send_all(frame(2, b"\xff\xff" + bytes(60_000), length=1 << 62))
                await neighbour_is_served(bob)
            await stream.send_all(bytes(10_000))
            await rest(stream)
        await neighbour_is_served(bob)
