"""Stopping lets nobody down: what is under way ends well, and what comes later is refused in so many words."""

from __future__ import annotations

import pytest
import trio

from node.rpc.node import open_rpc
from node.transport_libp2p import open_transport
from wire.codec import Wire
from wire.errors import Busy, ChannelClosed, RemoteError, Unreachable
from wire.peer import PeerId
from wire.rpc.seam import Method
from wire.transport import Channel

ECHO = "/contract/echo/1"


class Said(Wire, frozen=True):
    text: str


SLOW = Method("test.slow", Said, Said)


def nobody_to_blame(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        await channel.send(await channel.receive())


async def test_a_call_under_way_is_answered_and_the_next_is_told_to_come_back() -> None:
    begun, go = trio.Event(), trio.Event()
    answers: list[str] = []

    async def slow(_peer: PeerId, said: Said) -> Said:
        begun.set()
        await go.wait()
        return said

    async with (
        open_transport(b"b" * 32, blame=nobody_to_blame) as bob,
        open_rpc(bob, blame=nobody_to_blame) as served,
        open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice,
        open_rpc(alice, blame=nobody_to_blame) as calls,
    ):
        served.serve(SLOW, slow)
        alice.learn(bob.peer, bob.addresses())

        async def call() -> None:
            answers.append((await calls.call(bob.peer, SLOW, Said("well"), timeout_s=30)).text)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await begun.wait()
                bob.go_away()
                served.take_no_more()
                with pytest.raises(Busy) as refused:
                    await calls.call(bob.peer, SLOW, Said("later"), timeout_s=30)
                assert refused.value.retry_s >= 1
                assert answers == []
                go.set()
        assert answers == ["well"]
        assert served.answered.ended == {("test.slow", "ok"): 1, ("test.slow", "busy"): 1}


async def test_channels_go_on_and_no_others_are_opened() -> None:
    async with (
        open_transport(b"b" * 32, blame=nobody_to_blame) as bob,
        open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice,
        open_transport(b"i" * 32, listen=[], blame=nobody_to_blame) as stranger,
    ):
        bob.serve(ECHO, echo)
        for each in (alice, stranger):
            each.learn(bob.peer, bob.addresses())
        with trio.fail_after(30):
            channel = await alice.open(bob.peer, ECHO)
            await channel.send(b"one")
            assert await channel.receive() == b"one"
            assert bob.serving == {ECHO: 1}
            bob.go_away()
            for each in (alice, stranger):
                with pytest.raises((Unreachable, ChannelClosed)):  # a proposal under way is reset
                    await (await each.open(bob.peer, ECHO)).receive()
            await channel.send(b"two")
            assert await channel.receive() == b"two"
            await channel.aclose()
        assert bob.gate.refusals["stopping"] >= 1


async def test_who_goes_away_may_still_open_channels() -> None:
    async with (
        open_transport(b"b" * 32, blame=nobody_to_blame) as bob,
        open_transport(b"h" * 32, blame=nobody_to_blame) as alice,
    ):
        for one, other in ((alice, bob), (bob, alice)):
            one.serve(ECHO, echo)
            one.learn(other.peer, other.addresses())
        with trio.fail_after(30):
            standing = await alice.open(bob.peer, ECHO)
            await standing.send(b"one")
            assert await standing.receive() == b"one"
            bob.go_away()
            channel = await bob.open(alice.peer, ECHO)
            await channel.send(b"help")
            assert await channel.receive() == b"help"
