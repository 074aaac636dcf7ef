"""What every filling of the Transport seam must do when a caller is cancelled: whole, untouched or closed."""

from __future__ import annotations

from typing import Any

import trio

from tests.contract.test_transport_contract import ECHO, Eventually, collector, echo
from wire.errors import ChannelClosed
from wire.limits import FRAME_BYTES_MAX
from wire.transport import Channel


async def test_a_cancelled_receive_loses_nothing(pair: Any) -> None:
    async def drip(channel: Channel) -> None:
        for n in range(100):
            await channel.send(bytes([n]) * 300)
            await trio.sleep(0.001)

    pair.bob.serve(ECHO, drip)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    got: list[bytes] = []
    with trio.fail_after(20):
        while len(got) < 100:
            with trio.move_on_after(0.0007):
                got.append(await channel.receive())
    assert got == [bytes([n]) * 300 for n in range(100)]
    await channel.aclose()


async def test_a_cancelled_send_is_sent_whole_or_ends_the_channel(pair: Any) -> None:
    """Frames that do arrive are exactly those sent, whatever was cancelled between them."""
    go = trio.Event()
    got: list[bytes] = []
    done = trio.Event()
    collect = collector(got, done)

    async def late(channel: Channel) -> None:
        await go.wait()
        await collect(channel)

    pair.bob.serve(ECHO, late)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    sent: list[bytes] = []
    broken = False
    for n in range(30):
        frame = bytes([n]) * FRAME_BYTES_MAX
        with trio.move_on_after(0.02):
            try:
                await channel.send(frame)
            except ChannelClosed:
                broken = True
                break
            sent.append(frame)
    go.set()
    with trio.fail_after(20):
        try:
            await channel.send(b"last")
            sent.append(b"last")
        except ChannelClosed:
            broken = True
        await channel.aclose()
        await done.wait()
    assert got == (sent[: len(got)] if broken else sent)


async def test_a_send_cancelled_at_any_step_leaves_the_channel_untouched_or_closed(pair: Any) -> None:
    """Cancel after 0, 1, 2, ... turns of the scheduler, or never; what arrives is always whole and was sent."""
    pair.bob.serve(ECHO, echo)
    frame = bytes(600_000)
    untouched = ended = whole = 0
    for turns in (*range(0, 60, 2), 400, 10_000, None):
        channel = await pair.alice.open(pair.bob.peer, ECHO)
        sent = await _send_for(channel, frame, turns)
        try:
            with trio.fail_after(60):
                await channel.send(b"after")
                first = await channel.receive()
                assert first == (frame if sent else b"after")
                whole += sent
                untouched += not sent
        except ChannelClosed:
            assert not sent
            ended += 1
        await channel.aclose()
    assert untouched > 0
    assert whole > 0
    assert untouched + ended + whole == 33


async def _send_for(channel: Channel, frame: bytes, turns: int | None) -> bool:
    """Send, but cancel after so many turns, if any; whether the send returned."""
    sent = False

    async def send() -> None:
        nonlocal sent
        await channel.send(frame)
        sent = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        if turns is not None:
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    return sent


async def test_a_send_cancelled_before_it_begins_leaves_the_channel_usable(pair: Any) -> None:
    pair.bob.serve(ECHO, echo)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.send(b"never")
    with trio.fail_after(5):
        await channel.send(b"now")
        assert await channel.receive() == b"now"
    await channel.aclose()


async def test_a_cancelled_open_leaves_nothing_behind(pair: Any, eventually: Eventually) -> None:
    pair.bob.serve(ECHO, echo)
    await (await pair.alice.open(pair.bob.peer, ECHO)).aclose()
    before = trio.lowlevel.current_statistics().tasks_living
    for n in range(40):
        with trio.move_on_after(n * 0.0001):
            await (await pair.alice.open(pair.bob.peer, ECHO)).aclose()
    await eventually(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
    channel = await pair.alice.open(pair.bob.peer, ECHO)
    await channel.send(b"fine")
    with trio.fail_after(5):
        assert await channel.receive() == b"fine"
    await channel.aclose()
