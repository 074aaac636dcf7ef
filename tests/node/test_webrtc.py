"""WebRTC between two transports of this machine: crashes of its process, streams as they are, hostile words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from node.libp2p.channel import MuxedChannel
from node.libp2p.muxer import Muxer
from node.libp2p.negotiating import open_stream
from node.reach.ways import FAILED, Ways
from node.transport_libp2p import Libp2pTransport, open_transport
from node.webrtc.bridge import UNREAD_BYTES_MAX
from node.webrtc.helper import Helper, open_helper
from node.webrtc.local import Say
from node.webrtc.service import SHAKING_PER_PEER_MAX, WebRtc
from node.webrtc.session import RtcSession
from node.webrtc.signalling import SIGNAL_BYTES_MAX, SIGNALLING, Kind, Signal
from tests.contract.webrtc import over_webrtc
from wire.errors import ChannelClosed, RemoteError, TransportError, Unreachable
from wire.limits import FRAME_BYTES_MAX
from wire.transport import Channel

ECHO = "/test/echo/1"
IDLE = "/test/idle/1"
PATIENCE_S = 60.0


async def _echo(channel: Channel) -> None:
    while True:
        await channel.send(await channel.receive())


@asynccontextmanager
async def _two() -> AsyncIterator[tuple[Libp2pTransport, Libp2pTransport]]:
    blamed: list[RemoteError] = []
    async with (
        open_transport(b"a" * 32, listen=[], blame=blamed.append) as alice,
        open_transport(b"b" * 32, blame=blamed.append) as bob,
    ):
        alice.learn(bob.peer, bob.addresses())
        bob.serve(ECHO, _echo)
        yield alice, bob
    assert blamed == []


def _as_it_is(transport: Libp2pTransport, peer: Any) -> Muxer:
    """The WebRTC connection itself, without the one of Noise and Yamux over it."""
    muxers = [cast(Any, conn).muxed_conn for conn in Ways(*transport.network).over_udp(peer)]
    return next(muxer for muxer in muxers if isinstance(muxer.secured_conn, RtcSession))


async def _until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - there is no event for what happens at the other side
            await trio.sleep(0.01)


async def test_a_crash_of_the_process_ends_its_connections_and_the_next_dial_goes_elsewhere() -> None:
    async with _two() as (alice, bob), over_webrtc(alice, bob) as (rtc, _):
        channel = await alice.open(bob.peer, ECHO)
        await channel.send(b"before")
        assert await channel.receive() == b"before"
        process = rtc._helper.process
        assert process is not None
        process.kill()
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(ChannelClosed):
                await channel.receive()
            again = await alice.open(bob.peer, ECHO)
            await again.send(b"after")
            assert await again.receive() == b"after"
            await process.wait()
        assert not Ways(*alice.network).over_udp(bob.peer)
        await again.aclose()


async def test_a_process_that_crashed_is_started_again_after_a_pause(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process here is one that ends at once."""
    monkeypatch.setattr("node.webrtc.helper.sys.executable", "/bin/false")
    async with trio.open_nursery() as nursery:
        helper = Helper(nursery, ())
        pauses = [await _until_started(helper) for _ in range(9)]
        nursery.cancel_scope.cancel()
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[1] >= 1.0
    assert 60.0 <= pauses[-1] <= 60.5


async def _until_started(helper: Helper) -> float:
    """The seconds for which orders are refused; the process has ended again afterwards."""
    began = trio.current_time()
    while helper.starts < 100:
        try:
            local = await helper.connect(offer=True, path="loopback", stun=None)
        except Unreachable:
            if trio.current_time() >= helper._not_before:
                break  # it was started, and had ended before it took the order
            await trio.sleep(0.5)
        else:
            await local.stream.aclose()
            break
    took = trio.current_time() - began
    while helper._control is not None:
        await trio.lowlevel.checkpoint()
    return took


async def test_streams_on_data_channels_as_they_are_one_after_the_other() -> None:
    """What a browser does: each stream a data channel, opened and closed, hundreds of times."""
    async with _two() as (alice, bob), over_webrtc(alice, bob):
        muxer = _as_it_is(alice, bob.peer)
        with trio.fail_after(4 * PATIENCE_S):
            for n in range(300):
                channel = MuxedChannel(bob.peer, await open_stream(muxer, bob.peer, ECHO))
                frame = bytes([n % 251]) * (n * 97 % 40_000)
                await channel.send(frame)
                assert await channel.receive() == frame
                await channel.aclose()
                with pytest.raises(ChannelClosed):
                    await channel.receive()
        assert muxer.lost is None


async def test_a_protocol_that_is_not_served_is_refused_on_a_data_channel() -> None:
    async with _two() as (alice, bob), over_webrtc(alice, bob):
        with trio.fail_after(PATIENCE_S), pytest.raises(Unreachable, match="does not serve"):
            await open_stream(_as_it_is(alice, bob.peer), bob.peer, "/nobody/serves/1")


async def test_a_data_channel_that_nobody_reads_is_reset_and_others_go_on() -> None:
    """There is no window on it, so what is not read can only be dropped; under a seal its sender would wait."""
    async with _two() as (alice, bob), over_webrtc(alice, bob):

        async def idle(channel: Channel) -> None:
            await trio.sleep_forever()

        bob.serve(IDLE, idle)
        muxer = _as_it_is(alice, bob.peer)
        flooded = MuxedChannel(bob.peer, await open_stream(muxer, bob.peer, IDLE))
        other = MuxedChannel(bob.peer, await open_stream(muxer, bob.peer, ECHO))
        with trio.fail_after(4 * PATIENCE_S):
            sent = await _send_until_closed(flooded)
            await other.send(b"still here")
            assert await other.receive() == b"still here"
        assert UNREAD_BYTES_MAX < sent < 8 * UNREAD_BYTES_MAX
        await flooded.aclose()
        await other.aclose()


async def _send_until_closed(channel: Channel) -> int:
    sent = 0
    try:
        while True:
            await channel.send(bytes(FRAME_BYTES_MAX // 2))
            sent += FRAME_BYTES_MAX // 2
    except ChannelClosed:
        return sent


@pytest.mark.parametrize(
    "said",
    [
        [b"\x02\xff\xff"],
        [Signal(Kind.ANSWER, "v=0").encode()],
        [Signal(Kind.OFFER, "v=0\r\n" * 50).encode()],
        [Signal(Kind.OFFER, "\0" * 8000).encode()],
        [b"\xff\xff\xff\x7f"],
        [],
    ],
    ids=["not a signal", "an answer first", "no description", "nul bytes", "too long", "nothing"],
)
async def test_hostile_signalling_ends_itself_alone(said: list[bytes]) -> None:
    async with _two() as (alice, bob), open_helper() as helper:
        rtc = WebRtc(bob, helper)
        rtc.serve()
        await (await alice.open(bob.peer, ECHO)).aclose()
        stream = await Ways(*alice.network).open(bob.peer, SIGNALLING, bytes_max=SIGNAL_BYTES_MAX)
        for raw in said:
            await stream.write(raw)
        await stream.close()
        with trio.fail_after(PATIENCE_S):
            with pytest.raises((*FAILED, TransportError)):
                await stream.message(PATIENCE_S)
            await _until(lambda: rtc.failed == 1)
        assert rtc.made == 0
        assert bob.connected() == [alice.peer]


async def test_one_peer_begins_few_connections_at_a_time() -> None:
    async with _two() as (alice, bob), open_helper() as helper:
        rtc = WebRtc(bob, helper)
        rtc.serve()
        await (await alice.open(bob.peer, ECHO)).aclose()
        ways = Ways(*alice.network)
        streams = [await ways.open(bob.peer, SIGNALLING) for _ in range(SHAKING_PER_PEER_MAX)]
        await _until(lambda: len(rtc._shaking) == SHAKING_PER_PEER_MAX)
        extra = await ways.open(bob.peer, SIGNALLING)
        with trio.fail_after(PATIENCE_S), pytest.raises((*FAILED, TransportError)):
            await extra.message(PATIENCE_S)
        for stream in streams:
            await stream.reset()
        await _until(lambda: not rtc._shaking)


async def test_a_process_without_a_node_ends() -> None:
    async with open_helper() as helper:
        local = await helper.connect(offer=True, path="loopback", stun=None)
        with trio.fail_after(PATIENCE_S):
            assert (await local.heard()).kind is Say.OFFER
            process, control = helper.process, helper._control
            assert process is not None
            assert control is not None
            control.close()
            await process.wait()
            with pytest.raises(Unreachable):
                await local.heard()
            await local.stream.aclose()
