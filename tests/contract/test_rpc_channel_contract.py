"""The channel behind calls: what shares it, what ends it, and what becomes of calls that are under way then."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from node.rpc.node import open_rpc
from tests.contract.test_rpc_contract import ONE, Ask, Tell, calling, upper
from tests.contract.test_transport_contract import Eventually
from wire.errors import Busy, ChannelClosed, RemoteError, Unreachable
from wire.peer import PeerId
from wire.rpc import frames
from wire.rpc.seam import PROTOCOL
from wire.transport import Channel


async def test_a_large_message_does_not_keep_small_ones_waiting(pair: Any) -> None:
    """The small call, made last, is answered before the large ones."""
    order: list[str] = []
    async with calling(pair) as two:
        two.bob.serve(ONE, upper)

        async def call(text: str) -> None:
            await two.alice.call(two.peer, ONE, Ask(text), timeout_s=30)
            order.append(text[:5])

        await call("first")
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call, "large" * 600_000)
                while two.alice.under_way()[0] < 3:
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(call, "small")
        assert order == ["first", "small", "large", "large", "large"]


async def test_a_lost_channel_ends_its_calls_and_the_next_call_opens_another(pair: Any, eventually: Eventually) -> None:
    started = trio.Event()

    async def slow(_peer: PeerId, ask: Ask) -> Tell:
        if ask.number:
            started.set()
            await trio.sleep_forever()
        return Tell(ask.text)

    async with calling(pair) as two:
        two.bob.serve(ONE, slow)

        async def lost() -> None:
            with pytest.raises(ChannelClosed):
                await two.alice.call(two.peer, ONE, Ask("lost", 1), timeout_s=30)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lost)
                await started.wait()
                for answering, _, _ in list(two.bob._answering.values()):
                    await answering._channel.aclose()
            assert await two.alice.call(two.peer, ONE, Ask("again"), timeout_s=20) == Tell("again")
        await eventually(two.at_rest)


async def test_channels_are_closed_to_make_room_but_never_under_a_call(
    pair: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.rpc.node.CHANNELS_MAX", 1)
    started, release = trio.Event(), trio.Event()

    async def slow(_peer: PeerId, ask: Ask) -> Tell:
        started.set()
        await release.wait()
        return Tell(ask.text)

    async with calling(pair) as two:
        two.bob.serve(ONE, slow)
        stranger = PeerId(b"s" * 32)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: two.alice.call(two.peer, ONE, Ask("x"), timeout_s=20))
            with trio.fail_after(10):
                await started.wait()
            with pytest.raises(Busy):
                await two.alice.call(stranger, ONE, Ask("x"), timeout_s=5)
            release.set()
        with pytest.raises(Unreachable):
            await two.alice.call(stranger, ONE, Ask("x"), timeout_s=5)
        await eventually(lambda: two.peer not in two.alice._links)
        assert await two.alice.call(two.peer, ONE, Ask("again"), timeout_s=10) == Tell("again")


async def test_a_second_channel_takes_the_place_of_the_first(pair: Any, eventually: Eventually) -> None:
    """So that a peer's share is that of one channel, however many it opens."""
    async with calling(pair) as two:
        two.bob.serve(ONE, upper)
        first = await pair.alice.open(two.peer, PROTOCOL)
        await first.send(frames.open_(1, b"test.one", 5000))
        await eventually(lambda: two.bob.under_way() == (0, 1))
        silent, second = await pair.alice.open(two.peer, PROTOCOL), await pair.alice.open(two.peer, PROTOCOL)
        await silent.aclose()
        await first.send(frames.open_(2, b"test.none", 5000))
        with trio.fail_after(10):
            assert frames.split(await first.receive())[0].kind == frames.ERROR, "one that says nothing takes no place"
        await second.send(frames.open_(1, b"test.none", 5000))
        with trio.fail_after(10), pytest.raises(ChannelClosed):
            await first.receive()
        with trio.fail_after(10):
            assert frames.split(await second.receive())[0].kind == frames.ERROR
        await second.aclose()
        await eventually(lambda: not two.bob._answering)


async def test_a_peer_that_breaks_the_protocol_is_blamed_and_loses_its_channel(pair: Any) -> None:
    async with calling(pair) as two:
        two.bob.serve(ONE, upper)
        channel = await pair.alice.open(two.peer, PROTOCOL)
        await channel.send(b"nonsense")
        with trio.fail_after(10), pytest.raises(ChannelClosed):
            await channel.receive()
        assert [error.peer for error in pair.blamed] == [pair.alice.peer]
        assert await two.alice.call(two.peer, ONE, Ask("well"), timeout_s=10) == Tell("WELL")


async def test_a_server_that_breaks_the_protocol_is_blamed_and_every_call_ends(pair: Any) -> None:
    async def nonsense(channel: Channel) -> None:
        await channel.receive()
        await channel.send(b"nonsense")
        await trio.sleep_forever()

    pair.bob.serve(PROTOCOL, nonsense)
    blamed: list[RemoteError] = []
    async with open_rpc(pair.alice, blame=blamed.append) as alice:
        with trio.fail_after(10), pytest.raises(RemoteError, match="broke the call protocol"):
            await alice.call(pair.bob.peer, ONE, Ask("x"), timeout_s=10)
        assert [error.peer for error in blamed] == [pair.bob.peer]
        assert alice.under_way() == (0, 0)


async def test_leaving_the_scope_ends_every_call(pair: Any, eventually: Eventually) -> None:
    async def never(_peer: PeerId, _ask: Ask) -> Tell:
        await trio.sleep_forever()
        raise AssertionError("unreachable code")

    ended: list[str] = []
    async with open_rpc(pair.bob, blame=print) as bob, trio.open_nursery() as nursery:
        bob.serve(ONE, never)
        async with open_rpc(pair.alice, blame=print) as alice:

            async def call() -> None:
                try:
                    await alice.call(pair.bob.peer, ONE, Ask("x"), timeout_s=60)
                except ChannelClosed as exc:
                    ended.append(str(exc))

            nursery.start_soon(call)
            await eventually(lambda: bob.under_way() == (0, 1))
        await eventually(lambda: bob.under_way() == (0, 0))
        assert len(ended) == 1
