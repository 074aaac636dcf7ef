"""js-libp2p against our transport: dialling both ways, identify, ping, frames back and forth, and refusals."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import trio

from node.transport_libp2p import Libp2pTransport, open_transport
from tests.interop.js import running
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.peer import PeerId, from_text, to_text
from wire.transport import Channel

ECHO = "/quorate/interop/echo/1"
LIMIT_S = 60.0
INSTALL_S = 300.0
TCP, WS = "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"


def PATHS(test: Any) -> Any:
    """Both of our implementations, over TCP and over WebSocket."""
    test = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "stock"])(test)
    return pytest.mark.parametrize("listen", [TCP, WS], ids=["tcp", "ws"])(test)


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        try:
            await channel.send(await channel.receive())
        except ChannelClosed:
            return


async def asked(ours: Libp2pTransport, peer: PeerId) -> bytes:
    """The answer to a frame on a protocol that nobody serves; the refusal may come with the opening or after it."""
    channel = await ours.open(peer, "/nobody/serves/this")
    await channel.send(b"x")
    return await channel.receive()


def nobody(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


@PATHS
async def test_it_identifies_and_pings_us(listen: str, fast_path: bool) -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("streams.mjs", ECHO, listen) as js,
            open_transport(b"i" * 32, listen=[listen], blame=nobody, fast_path=fast_path) as ours,
        ):
            ours.serve(ECHO, echo)
            await js.heard("peer")
            with trio.fail_after(LIMIT_S):
                await js.tell(ping=ours.addresses()[0])
                identified = await js.heard("identified")
                pong = await js.heard("pong")
    assert identified["identified"] == to_text(ours.peer)
    assert ECHO in identified["protocols"]
    assert 0 <= pong["pong"] < 1000 * LIMIT_S


@PATHS
@pytest.mark.parametrize(("count", "size"), [(200, 100), (16, 500_000)])
async def test_its_frames_come_back_whole(listen: str, fast_path: bool, count: int, size: int) -> None:
    whole = hashlib.sha256()
    for number in range(count):
        whole.update(size.to_bytes(4, "big") + bytes([number]) * size)
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("streams.mjs", ECHO, listen) as js,
            open_transport(b"i" * 32, listen=[listen], blame=nobody, fast_path=fast_path) as ours,
        ):
            ours.serve(ECHO, echo)
            await js.heard("peer")
            with trio.fail_after(LIMIT_S):
                await js.tell(call=ours.addresses()[0], count=count, size=size)
                assert await js.heard("echoed") == {"echoed": whole.hexdigest(), "missing": 0}


@PATHS
async def test_we_dial_it_and_our_frames_come_back(listen: str, fast_path: bool) -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("streams.mjs", ECHO, listen) as js,
            open_transport(b"i" * 32, listen=[], blame=nobody, fast_path=fast_path) as ours,
        ):
            hello = await js.heard("peer")
            peer = from_text(hello["peer"])
            ours.learn(peer, hello["addresses"])
            with trio.fail_after(LIMIT_S):
                channels = [await ours.open(peer, ECHO) for _ in range(8)]
                for number, channel in enumerate(channels):
                    for frame in (b"", bytes([number]), bytes([number]) * 700_000):
                        await channel.send(frame)
                        assert await channel.receive() == frame
                    await channel.aclose()
            assert [channel.peer for channel in channels] == [peer] * 8


@PATHS
async def test_what_nobody_serves_is_refused_on_either_side(listen: str, fast_path: bool) -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("streams.mjs", ECHO, listen) as js,
            open_transport(b"i" * 32, listen=[listen], blame=nobody, fast_path=fast_path) as ours,
        ):
            hello = await js.heard("peer")
            peer = from_text(hello["peer"])
            ours.learn(peer, hello["addresses"])
            with trio.fail_after(LIMIT_S):
                with pytest.raises((Unreachable, ChannelClosed)):
                    await asked(ours, peer)
                await js.tell(refuse=ours.addresses()[0])
                assert (await js.heard("refused"))["refused"] == "UnsupportedProtocolError"


@PATHS
async def test_an_address_with_another_identity_is_not_it(listen: str, fast_path: bool) -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("streams.mjs", ECHO, listen) as js,
            open_transport(b"i" * 32, listen=[], blame=nobody, fast_path=fast_path) as ours,
            open_transport(b"o" * 32, listen=[], blame=nobody) as other,
        ):
            hello = await js.heard("peer")
            ours.learn(other.peer, [address.rpartition("/p2p/")[0] for address in hello["addresses"]])
            with trio.fail_after(LIMIT_S), pytest.raises(Unreachable):
                await ours.open(other.peer, ECHO)
