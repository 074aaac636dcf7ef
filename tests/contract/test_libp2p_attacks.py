"""What a peer that keeps no rule can do to our fast path: lose its stream or its connection, and hold little of ours.

Before it is authenticated it makes us hold at most 2 MB, afterwards 16 MB, by what is allocated or by the counters;
and while each attack stands, a neighbour is served. Impersonation, other security protocols and long negotiation
messages are in `test_libp2p_security`, each bound by itself in `tests/node/test_yamux.py`.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from node.libp2p.multiselect import HEADER, encode
from node.libp2p.muxed_stream import MuxedStream
from node.libp2p.yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    INITIAL_WINDOW_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    frame_header,
)
from node.libp2p.yamux_state import PING_BURST, STREAMS_IN_MAX, WINDOW_BYTES
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.contract.attacker import HELLO, attacker, data, held, lines, muxers, proposing, syn, tcp
from wire.errors import ChannelClosed, RemoteError
from wire.limits import CHANNELS_PER_PEER_MAX, FRAME_BYTES_MAX
from wire.transport import Channel

ECHO, IDLE = "/contract/echo/1", "/contract/idle/1"
BEFORE, AFTER = 2_000_000, 16 << 20


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


@pytest.fixture
async def bob() -> AsyncIterator[Libp2pTransport]:
    """The transport under attack."""
    async with open_transport(b"b" * 32, blame=nobody_to_blame) as transport:
        transport.serve(ECHO, echo)
        transport.serve(IDLE, idle)
        yield transport


async def neighbour_is_served(bob: Libp2pTransport) -> None:
    """Somebody else connects, and gets answers."""
    async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as honest:
        honest.learn(bob.peer, bob.addresses())
        with trio.fail_after(10):
            channel = await honest.open(bob.peer, ECHO)
            for _ in range(20):
                await channel.send(b"well?" * 1000)
                assert await channel.receive() == b"well?" * 1000
            await channel.aclose()


@contextmanager
def allocating_at_most(limit: int) -> Iterator[None]:
    """What Python holds at the end is no more than `limit` bytes above what it held at the start."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown <= limit


# ---- before it is known who it is


@pytest.mark.parametrize("said", ["nothing", "a noise message begun"])
async def test_a_flood_of_handshakes_that_never_end(bob: Libp2pTransport, said: str) -> None:
    await neighbour_is_served(bob)
    async with AsyncExitStack() as stack:
        with allocating_at_most(BEFORE):
            for _ in range(50):
                stream = await stack.enter_async_context(await tcp(bob))
                if said != "nothing":
                    await lines(stream, HEADER, "/noise")
                    await stream.send_all(b"\xff\xff" + bytes(20_000))
        await neighbour_is_served(bob)


async def test_a_slow_loris_is_cut_off_and_holds_nothing_meanwhile(bob: Libp2pTransport) -> None:
    stream = await tcp(bob)
    async with stream:
        gone = trio.Event()

        async def drip() -> None:
            try:
                for byte in HELLO[:-1] * 100:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.5)
            except trio.BrokenResourceError:
                return

        async def listen() -> None:
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            gone.set()

        with trio.fail_after(15):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip)
                nursery.start_soon(listen)
                await neighbour_is_served(bob)
                await gone.wait()
                nursery.cancel_scope.cancel()
    assert gone.is_set()


# ---- afterwards: streams


async def test_a_flood_of_streams_gets_as_many_as_one_peer_may_have(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(*(syn(2 * n + 1) for n in range(1000)))
        with trio.fail_after(10):
            seen = await mallory.until(lambda item: item == (WINDOW_UPDATE, RST, 1999, 0))
        refused = sum(item[:2] == (WINDOW_UPDATE, RST) for item in seen if isinstance(item, tuple))
        assert 1000 - STREAMS_IN_MAX <= refused <= 1000 - CHANNELS_PER_PEER_MAX
        assert held(bob) == 0
        await neighbour_is_served(bob)


async def test_half_open_streams_are_reset_after_a_while(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(*(syn(2 * n + 1) + data(2 * n + 1, HELLO) for n in range(20)))
        await neighbour_is_served(bob)
        assert held(bob) < 20 * 100
        reset = set()
        with trio.fail_after(15):
            while len(reset) < 20:
                seen = await mallory.until(lambda item: isinstance(item, tuple) and item[1] & RST)
                reset.add(seen[-1][2])
        assert len(muxers(bob)) == 1


async def test_a_reader_hears_of_an_end_that_comes_with_many_streams(bob: Libp2pTransport) -> None:
    """Streams that are gone, a new one, and the end of one that is half closed here, all in one message."""
    async with attacker(bob) as mallory:
        await mallory.send(*(syn(2 * n + 1) + frame_header(WINDOW_UPDATE, RST, 2 * n + 1, 0) for n in range(40)))
        await neighbour_is_served(bob)
        (muxer,) = [each for each in muxers(bob) if each.lost is None]
        streams = [muxer.open_now() for _ in range(40)]
        for stream in streams:
            stream.finish()
        await mallory.until(lambda item: isinstance(item, tuple) and item[1:3] == (FIN, streams[-1].stream_id))
        heard: list[int] = []

        async def read(stream: MuxedStream) -> None:
            with pytest.raises(MuxedStreamEOF):
                await stream.read()
            heard.append(stream.stream_id)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(read, stream)
                await trio.testing.wait_all_tasks_blocked(0.01)
                ends = [frame_header(WINDOW_UPDATE, FIN, stream.stream_id, 0) for stream in streams]
                await mallory.send(syn(999), *ends)
        assert sorted(heard) == [stream.stream_id for stream in streams]


async def test_garbage_on_a_stream_ends_that_stream(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(syn(1) + data(1, b"\xff\xff\xff\xff\x7f" + bytes(1000)), proposing(3, ECHO))
        with trio.fail_after(10):
            await mallory.until(lambda item: isinstance(item, tuple) and item[1:3] == (RST, 1))
            await mallory.send(data(3, b"\0\0\0\1x"))
            await mallory.until(lambda item: isinstance(item, bytes) and item.endswith(b"\0\0\0\1x"))


# ---- afterwards: windows


async def test_who_fills_every_stream_that_nobody_reads_holds_no_more_than_the_bound(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(*(proposing(2 * n + 1, IDLE) for n in range(CHANNELS_PER_PEER_MAX)))
        with allocating_at_most(AFTER):
            for n in range(CHANNELS_PER_PEER_MAX):
                await mallory.send(data(2 * n + 1, bytes(INITIAL_WINDOW_BYTES - 100)))
            await neighbour_is_served(bob)
            most = held(bob)
        assert CHANNELS_PER_PEER_MAX * (INITIAL_WINDOW_BYTES - 1000) <= most <= AFTER


async def test_frames_that_never_complete_hold_no_more_than_the_bound(bob: Libp2pTransport) -> None:
    """Each channel is read, each waits for the rest of a frame of 1 MiB, and windows grow as far as they do."""
    async with attacker(bob) as mallory:
        streams = [2 * n + 1 for n in range(CHANNELS_PER_PEER_MAX)]
        await mallory.send(*(proposing(number, ECHO) for number in streams))
        with allocating_at_most(AFTER):
            for number in streams:
                await mallory.send(data(number, FRAME_BYTES_MAX.to_bytes(4, "big") + bytes(INITIAL_WINDOW_BYTES - 200)))
            await neighbour_is_served(bob)
        assert held(bob) <= AFTER


async def test_who_sends_past_the_window_loses_the_stream_and_only_that(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(proposing(1, IDLE), proposing(3, ECHO))
        for _ in range(8):
            await mallory.send(data(1, bytes(256 << 10)))
        await mallory.send(data(3, b"\0\0\0\1x"))
        with trio.fail_after(10):
            seen = await mallory.until(lambda item: isinstance(item, bytes) and item.endswith(b"\0\0\0\1x"))
        assert any(isinstance(item, tuple) and item[1:3] == (RST, 1) for item in seen)
        assert held(bob) <= WINDOW_BYTES
        await neighbour_is_served(bob)


async def test_who_gives_no_window_makes_us_queue_nothing(bob: Libp2pTransport) -> None:
    """It asks for answers on every stream and takes 256 KiB of each; the rest stays with whoever sends it."""
    wanted = 300 << 10
    async with attacker(bob) as mallory:
        streams = [2 * n + 1 for n in range(CHANNELS_PER_PEER_MAX)]
        left = dict.fromkeys(streams, INITIAL_WINDOW_BYTES)
        for number in streams:
            await mallory.send(proposing(number, ECHO), frame_header(WINDOW_UPDATE, 0, number, 0))
            frame = wanted.to_bytes(4, "big") + bytes(wanted)
            await mallory.send(data(number, frame[: 200 << 10]))
            with trio.fail_after(10):
                await mallory.until(lambda item, n=number: isinstance(item, tuple) and item[2] == n and item[3] > 1000)
            await mallory.send(data(number, frame[200 << 10 :]))
            with trio.fail_after(10):
                while left[number]:
                    seen = await mallory.until(
                        lambda item, n=number: isinstance(item, tuple) and item[::2] == (DATA, n)
                    )
                    left[number] -= seen[-1][3]
        await neighbour_is_served(bob)
        assert held(bob) < 100_000


async def test_a_peer_that_stops_reading_its_socket_holds_no_more_than_the_bound(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        streams = [2 * n + 1 for n in range(20)]
        for number in streams:
            await mallory.send(proposing(number, ECHO), frame_header(WINDOW_UPDATE, 0, number, 1 << 30))
        for _ in range(100):
            with trio.move_on_after(1) as stuck:
                for number in streams:
                    await mallory.send(data(number, (8 << 10).to_bytes(4, "big") + bytes(8 << 10)))
            if stuck.cancelled_caught:
                break
        await neighbour_is_served(bob)
        assert held(bob) <= AFTER


# ---- afterwards: frames


async def test_a_frame_of_4_gib_is_not_waited_for(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(proposing(1, ECHO), frame_header(DATA, 0, 1, 2**32 - 1))
        with trio.fail_after(10):
            await mallory.until(lambda item: item == (WINDOW_UPDATE, RST, 1, 0))
        with allocating_at_most(BEFORE):
            for _ in range(64):
                await mallory.send(bytes(256 << 10))
            await neighbour_is_served(bob)
        assert held(bob) == 0


async def test_frames_in_fragments_of_one_byte_are_frames(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        for byte in proposing(1, ECHO) + data(1, b"\0\0\0\5hello"):
            await mallory.send(bytes([byte]))
        with trio.fail_after(10):
            seen = await mallory.until(lambda item: isinstance(item, bytes) and item.endswith(b"hello"))
        assert (WINDOW_UPDATE, ACK, 1, WINDOW_BYTES - INITIAL_WINDOW_BYTES) in seen


async def test_two_bytes_a_frame_cost_little_more_than_two_bytes(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(proposing(1, IDLE))
        with allocating_at_most(BEFORE):
            await mallory.send(data(1, b"xy") * 50_000)
            await neighbour_is_served(bob)
            with trio.fail_after(60):
                while muxers(bob)[0].core.held < 100_000:  # noqa: ASYNC110 - read in small pieces, as it is dear
                    await trio.sleep(0.01)
            assert muxers(bob)[0].secured_conn.pace.pauses > 0
        assert 100_000 <= held(bob) < 110_000


@pytest.mark.parametrize(
    "frame",
    [b"\x01" + bytes(11), b"\0\7" + bytes(10), syn(2), syn(0), frame_header(DATA, 0, 0, 5), syn(1) + syn(1)],
    ids=["version", "type", "our number", "number zero", "data on zero", "behind a new stream"],
)
async def test_a_broken_rule_of_the_connection_ends_it_with_a_reason(bob: Libp2pTransport, frame: bytes) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(frame)
        with trio.fail_after(10):
            await mallory.until(lambda item: item == (GO_AWAY, 0, 0, 1))
            assert await mallory.ended()
    await neighbour_is_served(bob)


async def test_a_flood_of_pings_is_answered_a_few_times(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.send(frame_header(PING, SYN, 0, 7) * 10_000, proposing(1, ECHO))
        with trio.fail_after(10):
            seen = await mallory.until(lambda item: isinstance(item, bytes))
        assert PING_BURST <= seen.count((PING, ACK, 0, 7)) <= PING_BURST + 20
        await neighbour_is_served(bob)


# ---- afterwards: Noise


async def test_a_replayed_message_ends_the_connection_and_is_not_heard_twice(bob: Libp2pTransport) -> None:
    got: list[bytes] = []
    paid, ended = trio.Event(), trio.Event()

    async def collect(channel: Channel) -> None:
        try:
            while True:
                got.append(await channel.receive())
                paid.set()
        except ChannelClosed:
            ended.set()
            raise

    bob.serve("/contract/pay/1", collect)
    async with attacker(bob) as mallory:
        await mallory.send(proposing(1, "/contract/pay/1"))
        message = b"".join(mallory.session._sealer.seal(data(1, b"\0\0\0\6pay me")))
        with trio.fail_after(10):
            await mallory.socket.send_all(message)
            await paid.wait()
            await mallory.socket.send_all(message)
            await ended.wait()
            assert await mallory.ended()
    assert got == [b"pay me"]
    await neighbour_is_served(bob)


async def test_noise_instead_of_noise_ends_the_connection(bob: Libp2pTransport) -> None:
    async with attacker(bob) as mallory:
        await mallory.socket.send_all(b"\0\x20" + bytes(32) + encode("more"))
        with trio.fail_after(10):
            assert await mallory.ended()
    await neighbour_is_served(bob)
