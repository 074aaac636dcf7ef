"""What every filling of the Transport seam must do."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from wire.errors import ChannelClosed, FrameTooLarge, LocalError, Malformed, RemoteError, Unreachable
from wire.limits import CHANNELS_PER_PEER_MAX, FRAME_BYTES_MAX
from wire.peer import PeerId, to_text
from wire.transport import Channel

ECHO = "/contract/echo/1"
Eventually = Callable[..., Awaitable[None]]


async def echo(channel: Channel) -> None:
    """Answer every frame with itself until the other side closes."""
    while True:
        await channel.send(await channel.receive())


def collector(into: list[bytes], done: trio.Event) -> Callable[[Channel], Awaitable[None]]:
    """A handler that keeps every frame and says when the other side has closed."""

    async def collect(channel: Channel) -> None:
        try:
            while True:
                into.append(await channel.receive())
        except ChannelClosed:
            done.set()

    return collect


# ---- frames


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 65_536, FRAME_BYTES_MAX])
async def test_a_frame_arrives_whole(pair: Any, size: int) -> None:
    pair.bob.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    frame = bytes(range(256)) * (size // 256 + 1)
    with trio.fail_after(10):
        await channel.send(frame[:size])
        assert await channel.receive() == frame[:size]
    await channel.aclose()


async def test_frames_keep_their_order_and_their_borders(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    frames = [bytes([n % 251]) * (n * 37 % 5000) for n in range(200)]
    received: list[bytes] = []

    async def read() -> None:
        for _ in frames:
            received.append(await channel.receive())

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for frame in frames:
                await channel.send(frame)
    assert received == frames
    await channel.aclose()


async def test_a_frame_past_the_limit_is_refused_here_and_the_channel_lives(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    with pytest.raises(FrameTooLarge):
        await channel.send(bytes(FRAME_BYTES_MAX + 1))
    await channel.send(b"still here")
    with trio.fail_after(10):
        assert await channel.receive() == b"still here"
    await channel.aclose()


async def test_large_frames_flow_both_ways_past_a_slow_reader(pair: Any) -> None:
    """More bytes than any window holds, in both directions at once, and neither side reads while it writes."""
    count = 12
    bob_got: list[int] = []

    async def flood(channel: Channel) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_many, channel, count)
            await trio.sleep(0.3)
            for _ in range(count):
                bob_got.append(len(await channel.receive()))

    pair.bob.serve(ECHO, flood)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    with trio.fail_after(120):  # it must end; the stock stack on a busy machine takes its time
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_many, channel, count)
            await trio.sleep(0.2)
            alice_got = [len(await channel.receive()) for _ in range(count)]
        with pytest.raises(ChannelClosed):
            await channel.receive()
    assert alice_got == bob_got == [FRAME_BYTES_MAX] * count
    await channel.aclose()


async def _send_many(channel: Channel, count: int) -> None:
    for _ in range(count):
        await channel.send(bytes(FRAME_BYTES_MAX))


async def test_a_sender_waits_for_a_reader_that_does_not_read(pair: Any) -> None:
    """A bounded channel: a megabyte after another cannot pile up at someone who does nothing."""
    started = trio.Event()

    async def idle(channel: Channel) -> None:
        started.set()
        await trio.sleep_forever()

    pair.bob.serve(ECHO, idle)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    await started.wait()
    sent = 0
    with trio.move_on_after(1.0):
        for _ in range(64):
            await channel.send(bytes(FRAME_BYTES_MAX))
            sent += 1
    assert 1 <= sent < 16


# ---- the end of a channel


async def test_close_queues_behind_frames(pair: Any) -> None:
    got: list[bytes] = []
    done = trio.Event()
    pair.bob.serve(ECHO, collector(got, done))
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    frames = [bytes([n]) * 20_000 for n in range(50)]
    for frame in frames:
        await channel.send(frame)
    await channel.aclose()
    with trio.fail_after(10):
        await done.wait()
    assert got == frames


async def test_a_handler_that_returns_closes_behind_its_frames(pair: Any) -> None:
    async def greet(channel: Channel) -> None:
        for n in range(5):
            await channel.send(bytes([n]))

    pair.bob.serve(ECHO, greet)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    with trio.fail_after(10):
        assert [await channel.receive() for _ in range(5)] == [bytes([n]) for n in range(5)]
        with pytest.raises(ChannelClosed):
            await channel.receive()
        with pytest.raises(ChannelClosed):
            await channel.receive()
    await channel.aclose()


async def test_close_may_be_called_again(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    await channel.aclose()
    await channel.aclose()


async def test_a_closed_channel_neither_sends_nor_receives(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    await channel.aclose()
    with pytest.raises(ChannelClosed):
        await channel.send(b"late")
    with pytest.raises(ChannelClosed):
        await channel.receive()


async def test_closing_ends_a_receive_that_waits(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)

    async def wait() -> None:
        with pytest.raises(ChannelClosed):
            await channel.receive()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.01)
            await channel.aclose()


async def test_sending_fails_once_the_other_side_has_closed(pair: Any) -> None:
    async def leave(channel: Channel) -> None:
        return

    pair.bob.serve(ECHO, leave)
    channel = await pair.alice.open(pair.bob.peer, ECHO)

    async def send_for_ever() -> None:
        while True:
            await channel.send(b"anyone?")
            await trio.sleep(0.01)

    with trio.fail_after(5), pytest.raises(ChannelClosed):
        await send_for_ever()
    await channel.aclose()


# ---- opening


async def test_a_stranger_is_unreachable(pair: Any) -> None:
    with trio.fail_after(10), pytest.raises(Unreachable):
        await pair.alice.open(PeerId(bytes(31) + b"\x01"), ECHO)


async def test_oneself_is_unreachable(pair: Any) -> None:
    with pytest.raises(Unreachable):
        await pair.alice.open(pair.alice.peer, ECHO)


async def test_a_protocol_that_is_not_served_is_unreachable(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    for _ in range(3):
        with trio.fail_after(10), pytest.raises(Unreachable, match="does not serve"):
            await pair.alice.open(pair.bob.peer, "/contract/nothing/1")
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    await channel.aclose()


async def test_both_sides_know_who_is_at_the_other_end(pair: Any) -> None:
    seen: list[PeerId] = []

    async def look(channel: Channel) -> None:
        seen.append(channel.peer)

    pair.bob.serve(ECHO, look)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    with trio.fail_after(5), pytest.raises(ChannelClosed):
        await channel.receive()
    assert channel.peer == pair.bob.peer
    assert seen == [pair.alice.peer]
    assert sorted(pair.alice.connected()) == sorted([pair.bob.peer, *pair.between])
    assert sorted(pair.bob.connected()) == sorted([pair.alice.peer, *pair.between])


async def test_a_connection_serves_both_directions(pair: Any) -> None:
    """Bob has no address of Alice, and opens a channel over the connection that she made."""
    pair.bob.serve(ECHO, echo)
    pair.alice.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    with trio.fail_after(10):
        back = await pair.bob.open(pair.alice.peer, ECHO)
        await back.send(b"back")
        assert await back.receive() == b"back"
    await back.aclose()
    await channel.aclose()


async def test_addresses_name_their_peer(pair: Any) -> None:
    addresses = pair.bob.addresses()
    assert addresses
    assert all(address.endswith(f"/p2p/{to_text(pair.bob.peer)}") for address in addresses)


async def test_addresses_that_lead_nowhere_are_survived(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    pair.alice.learn(pair.bob.peer, ["", "/nonsense", "/ip4/127.0.0.1/tcp/x", "a" * 5000, *pair.bob.addresses()])
    with trio.fail_after(10):
        channel = await pair.alice.open(pair.bob.peer, ECHO)
    await channel.aclose()


async def test_channels_are_independent(pair: Any) -> None:
    """Many at once on one connection, one of them stuck; each gets its own answers."""
    stuck = trio.Event()

    async def maybe_stuck(channel: Channel) -> None:
        if await channel.receive() == b"stuck":
            stuck.set()
            await trio.sleep_forever()
        await echo(channel)

    async def talk(n: int) -> None:
        channel = await pair.alice.open(pair.bob.peer, ECHO)
        await channel.send(b"go")
        for size in (1, 1000, 100_000):
            await channel.send(bytes([n]) * size)
            assert await channel.receive() == bytes([n]) * size
        await channel.aclose()

    pair.bob.serve(ECHO, maybe_stuck)
    with trio.fail_after(20):
        first = await pair.alice.open(pair.bob.peer, ECHO)
        await first.send(b"stuck")
        await stuck.wait()
        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(talk, n)
    await first.aclose()


async def test_one_peer_cannot_open_channels_without_end(pair: Any) -> None:
    running = 0

    async def hold(channel: Channel) -> None:
        nonlocal running
        running += 1
        with pytest.raises(ChannelClosed):
            await channel.receive()

    pair.bob.serve(ECHO, hold)
    channels = [await pair.alice.open(pair.bob.peer, ECHO) for _ in range(CHANNELS_PER_PEER_MAX)]
    with trio.fail_after(10), pytest.raises((ChannelClosed, Unreachable)):
        await (await pair.alice.open(pair.bob.peer, ECHO)).receive()
    assert running == CHANNELS_PER_PEER_MAX
    for channel in channels:
        await channel.aclose()


async def test_many_channels_one_after_the_other_leave_nothing_behind(pair: Any, eventually: Eventually) -> None:
    pair.bob.serve(ECHO, echo)
    await (await pair.alice.open(pair.bob.peer, ECHO)).aclose()
    before = trio.lowlevel.current_statistics().tasks_living
    for n in range(3 * CHANNELS_PER_PEER_MAX):
        channel = await pair.alice.open(pair.bob.peer, ECHO)
        await channel.send(bytes([n]))
        assert await channel.receive() == bytes([n])
        await channel.aclose()
    await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= before)


async def test_large_calls_on_many_channels_at_once_all_get_their_answers(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    frames = {n: bytes([n]) * (256 << 10) for n in range(2 * CHANNELS_PER_PEER_MAX)}
    answers: dict[int, bytes] = {}

    async def work() -> None:
        while frames:
            n, frame = frames.popitem()
            channel = await pair.alice.open(pair.bob.peer, ECHO)
            await channel.send(frame)
            answers[n] = await channel.receive()
            assert answers[n] == frame
            await channel.aclose()

    async with trio.open_nursery() as nursery:
        for _ in range(CHANNELS_PER_PEER_MAX // 2):
            nursery.start_soon(work)
    assert len(answers) == 2 * CHANNELS_PER_PEER_MAX


# ---- handlers and blame


@pytest.mark.parametrize(
    ("error", "blames", "bugs"),
    [
        (lambda peer: RemoteError(peer, "lied", penalty=0.5), ["lied"], 0),
        (lambda peer: Malformed("garbage"), ["malformed frame: garbage"], 0),
        (
            lambda peer: ExceptionGroup("both", [RemoteError(peer, "lied"), Malformed("x")]),
            ["lied", "malformed frame: x"],
            0,
        ),
        (lambda peer: LocalError("no such file"), [], 1),
        (lambda peer: ZeroDivisionError("ours"), [], 1),
    ],
    ids=["remote error", "malformed", "group", "local error", "bug"],
)
async def test_an_error_of_a_handler_ends_its_channel_only(
    pair: Any, error: Callable[[PeerId], Exception], blames: list[str], bugs: int
) -> None:
    async def fail(channel: Channel) -> None:
        await channel.receive()
        raise error(channel.peer)

    pair.bob.serve(ECHO, echo)
    pair.bob.serve("/contract/fail/1", fail)
    good = await pair.alice.open(pair.bob.peer, ECHO)
    bad = await pair.alice.open(pair.bob.peer, "/contract/fail/1")
    with trio.fail_after(10):
        await bad.send(b"x")
        with pytest.raises(ChannelClosed):
            await bad.receive()
        await good.send(b"alive")
        assert await good.receive() == b"alive"
    assert sorted(exc.reason for exc in pair.blamed) == sorted(blames)
    assert all(exc.peer == pair.alice.peer for exc in pair.blamed)
    assert len(pair.bugs) == bugs
    await good.aclose()
    await bad.aclose()


def test_the_contract_covers_the_whole_seam() -> None:
    """A new operation of the seam needs tests here."""
    from wire import transport

    operations = {name for name, _ in inspect.getmembers(transport.Channel) if not name.startswith("_")}
    operations |= {name for name, _ in inspect.getmembers(transport.Transport) if not name.startswith("_")}
    assert operations == {"peer", "send", "receive", "aclose", "open", "serve", "addresses", "learn"}
