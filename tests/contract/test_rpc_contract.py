"""Calls do the same on every filling of the Transport seam."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.rpc.node import RpcNode, open_rpc
from tests.contract.test_transport_contract import Eventually
from wire.codec import Wire
from wire.errors import Busy, ChannelClosed, Expired, LocalError, Malformed, Refused, RemoteError, Unreachable
from wire.peer import PeerId
from wire.rpc.caller import CALLS_MAX
from wire.rpc.packet import Packet
from wire.rpc.seam import Method, Stream
from wire.transport import Channel


class Ask(Wire, frozen=True):
    text: str
    number: int = 0


class Tell(Wire, frozen=True):
    text: str


ONE = Method("test.one", Ask, Tell)
ZIPPED = Method("test.zipped", Ask, Tell, compress=True)
MANY = Method("test.many", Ask, Ask)


@dataclass
class Two:
    """Alice and Bob, who answers, and what was blamed on whom."""

    alice: RpcNode
    bob: RpcNode
    peer: PeerId
    blamed: list[RemoteError] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)

    def at_rest(self) -> bool:
        """No call is under way anywhere."""
        return self.alice.under_way() == self.bob.under_way() == (0, 0)


@asynccontextmanager
async def calling(pair: Any) -> AsyncIterator[Two]:
    """Calls over both transports of a pair."""
    blamed: list[RemoteError] = []
    bugs: list[Exception] = []
    async with (
        open_rpc(pair.bob, blame=blamed.append, on_bug=bugs.append) as bob,
        open_rpc(pair.alice, blame=blamed.append) as alice,
    ):
        yield Two(alice, bob, pair.bob.peer, blamed, bugs)


async def upper(_peer: PeerId, ask: Ask) -> Tell:
    """Answer in capitals."""
    return Tell(ask.text.upper())


@pytest.mark.parametrize("method", [ONE, ZIPPED])
@pytest.mark.parametrize("size", [0, 100, 65_536, 200_000, 3_000_000])
async def test_a_call_is_answered(pair: Any, size: int, method: Method[Ask, Tell]) -> None:
    async with calling(pair) as two:
        two.bob.serve(method, upper)
        with trio.fail_after(20):
            assert await two.alice.call(two.peer, method, Ask("a" * size), timeout_s=20) == Tell("A" * size)
        assert two.at_rest()
        assert two.blamed == []


async def test_a_call_after_the_end_is_refused(pair: Any) -> None:
    async with calling(pair) as two:
        two.bob.serve(ONE, upper)
    with pytest.raises(Unreachable, match="stopping"):
        await two.alice.call(two.peer, ONE, Ask("a"), timeout_s=5)


async def test_many_calls_at_once_share_one_channel(pair: Any) -> None:
    async with calling(pair) as two:
        two.bob.serve(ONE, upper)
        opened = 0
        real = pair.alice.open

        async def count(peer: PeerId, protocol: str) -> Channel:
            nonlocal opened
            opened += 1
            channel: Channel = await real(peer, protocol)
            return channel

        two.alice._transport = Counting(pair.alice, count)
        answers: dict[int, str] = {}

        async def one(n: int) -> None:
            answers[n] = (await two.alice.call(two.peer, ONE, Ask(f"call {n}"), timeout_s=20)).text

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for n in range(300):
                    nursery.start_soon(one, n)
        assert answers == {n: f"CALL {n}" for n in range(300)}
        assert opened == 1
        assert two.at_rest()


class Counting:
    """A transport whose `open` is somebody else's."""

    def __init__(self, inner: Any, open_: Any) -> None:
        self._inner = inner
        self.open = open_

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


async def test_tensors_travel_beside_the_struct(pair: Any) -> None:
    async def double(_peer: PeerId, packet: Packet[Ask]) -> Packet[Tell]:
        return Packet(Tell(packet.body.text), tuple(tensor * 2 for tensor in packet.tensors))

    async with calling(pair) as two:
        two.bob.serve_packets(ONE, double)
        arrays = (np.arange(300_000, dtype="f4").reshape(3, -1), np.array([1, 2], dtype="i8"))
        with trio.fail_after(20):
            got = await two.alice.exchange(two.peer, ONE, Packet(Ask("x"), arrays), timeout_s=20)
        assert got.body == Tell("x")
        for tensor, array in zip(got.tensors, arrays, strict=True):
            assert tensor.tolist() == (array * 2).tolist()


# ---- errors


@pytest.mark.parametrize(
    ("error", "kind", "blamed"),
    [
        (Busy(2.5), Busy, 0),
        (LocalError("no such model"), Refused, 0),
        (Malformed("half a tensor"), Refused, 0),
        (RemoteError(b"x" * 32, "asked twice"), Refused, 1),
        (Unreachable("who is that"), Refused, 0),
    ],
    ids=["busy", "local", "malformed", "remote", "transport"],
)
async def test_a_handlers_error_is_typed_at_the_caller(
    pair: Any, error: Exception, kind: type[Exception], blamed: int
) -> None:
    async def fail(_peer: PeerId, _ask: Ask) -> Tell:
        raise error

    async with calling(pair) as two:
        two.bob.serve(ONE, fail)
        with pytest.raises(kind):
            await two.alice.call(two.peer, ONE, Ask("x"), timeout_s=10)
        assert two.at_rest()
        assert len(two.blamed) == blamed


async def test_a_bug_in_a_handler_ends_its_request_only(pair: Any) -> None:
    async def maybe(_peer: PeerId, ask: Ask) -> Tell:
        return Tell(str(1 // ask.number))

    async with calling(pair) as two:
        two.bob.serve(ONE, maybe)
        with pytest.raises(Refused, match="the handler failed"):
            await two.alice.call(two.peer, ONE, Ask("x", 0), timeout_s=10)
        assert [type(bug) for bug in two.bugs] == [ZeroDivisionError]
        assert await two.alice.call(two.peer, ONE, Ask("x", 1), timeout_s=10) == Tell("1")


async def test_what_is_not_of_the_methods_type_is_refused_and_blamed(pair: Any) -> None:
    async with calling(pair) as two:
        two.bob.serve(ONE, upper)
        wrong = Method(ONE.name, Tell, Tell)
        with pytest.raises(Refused, match="malformed"):
            await two.alice.call(two.peer, wrong, Tell("no number"), timeout_s=10)
        assert [error.penalty > 0 for error in two.blamed] == [True]
        with pytest.raises(Refused, match="tensors"):
            await two.alice.exchange(two.peer, ONE, Packet(Ask("x"), (np.zeros(1),)), timeout_s=10)


async def test_an_answer_of_another_type_is_the_servers_fault(pair: Any) -> None:
    async with calling(pair) as two:
        two.bob.serve(ONE, upper)
        with pytest.raises(RemoteError, match="undecodable") as caught:
            await two.alice.call(two.peer, Method(ONE.name, Ask, Ask), Ask("x"), timeout_s=10)
        assert caught.value.penalty > 0


async def test_a_method_that_is_not_served_is_refused(pair: Any) -> None:
    async with calling(pair) as two:
        with pytest.raises(Refused, match="no method"):
            await two.alice.call(two.peer, ONE, Ask("x"), timeout_s=10)


async def test_a_peer_without_calls_cannot_be_reached(pair: Any) -> None:
    async with open_rpc(pair.alice, blame=print) as alice:
        with pytest.raises(Unreachable):
            await alice.call(pair.bob.peer, ONE, Ask("x"), timeout_s=10)
        assert alice.under_way() == (0, 0)


async def test_more_calls_than_there_may_be_are_busy(pair: Any, eventually: Eventually) -> None:
    async def never(_peer: PeerId, _ask: Ask) -> Tell:
        await trio.sleep_forever()
        raise AssertionError("unreachable code")

    async with calling(pair) as two:
        two.bob.serve(ONE, never)

        async def hang() -> None:
            await two.alice.call(two.peer, ONE, Ask("x"), timeout_s=60)

        async with trio.open_nursery() as nursery:
            for _ in range(CALLS_MAX):
                nursery.start_soon(hang)
            await wait_all_tasks_blocked()
            with pytest.raises(Busy):
                await two.alice.call(two.peer, ONE, Ask("x"), timeout_s=10)
            nursery.cancel_scope.cancel()
        await eventually(two.at_rest)


# ---- time and cancellation


async def test_a_deadline_ends_the_call_on_both_sides(pair: Any, eventually: Eventually) -> None:
    stopped: list[str] = []

    async def slow(_peer: PeerId, ask: Ask) -> Tell:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(ask.text)
        raise AssertionError("unreachable code")

    async with calling(pair) as two:
        two.bob.serve(ONE, slow)
        with pytest.raises(Expired):
            await two.alice.call(two.peer, ONE, Ask("late"), timeout_s=0.2)
        await eventually(lambda: stopped == ["late"])
        await eventually(two.at_rest)


async def test_a_caller_that_goes_away_stops_the_handler(pair: Any, eventually: Eventually) -> None:
    started = trio.Event()
    stopped: list[str] = []

    async def slow(_peer: PeerId, ask: Ask) -> Tell:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(ask.text)
        raise AssertionError("unreachable code")

    async with calling(pair) as two:
        two.bob.serve(ONE, slow)
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                await two.alice.call(two.peer, ONE, Ask("gone"), timeout_s=60)

            nursery.start_soon(call)
            with trio.fail_after(10):
                await started.wait()
            nursery.cancel_scope.cancel()
        await eventually(lambda: stopped == ["gone"])
        await eventually(two.at_rest)


# ---- streams


async def counting(stream: Stream[Ask, Ask]) -> None:
    """For each number so many answers."""
    async for packet in stream:
        for n in range(packet.body.number):
            await stream.send(Ask(packet.body.text, n))


async def test_a_stream_goes_both_ways_at_its_own_pace(pair: Any) -> None:
    async with calling(pair) as two:
        two.bob.serve_stream(MANY, counting)
        with trio.fail_after(20):
            async with two.alice.stream(two.peer, MANY, timeout_s=20) as stream:
                await stream.send(Ask("a", 2))
                assert [await stream.receive() for _ in range(2)] == [Packet(Ask("a", n)) for n in range(2)]
                await stream.send(Ask("b", 1))
                stream.finish()
                assert [packet.body async for packet in stream] == [Ask("b", 0)]
                assert await stream.receive() is None
                with pytest.raises(ChannelClosed):
                    await stream.send(Ask("more"))
        assert two.at_rest()


@pytest.mark.parametrize("size", [10, 30_000, 100_000, 300_000])
async def test_a_stream_that_is_not_taken_waits_and_loses_nothing(pair: Any, size: int) -> None:
    """Server stream: one request, many answers, of which the caller takes none for a while."""
    sent = 0
    many = 4_000_000 // max(size, 20_000)

    async def flood(stream: Stream[Ask, Ask]) -> None:
        nonlocal sent
        assert await stream.receive() is not None
        for n in range(many):
            await stream.send(Ask("x" * size, n), last=n == many - 1)
            sent += 1

    async with calling(pair) as two:
        two.bob.serve_stream(MANY, flood)
        with trio.fail_after(30):
            async with two.alice.stream(two.peer, MANY, timeout_s=30) as stream:
                await stream.send(Ask("go"), last=True)
                first = await stream.receive()
                assert first is not None
                assert size < 20_000 or sent < many
                assert [packet.body.number async for packet in stream] == list(range(1, many))
        assert sent == many
        assert two.at_rest()


async def test_a_client_stream_has_one_answer(pair: Any) -> None:
    async def add(stream: Stream[Ask, Ask]) -> None:
        total = 0
        async for packet in stream:
            total += packet.body.number + sum(int(tensor.sum()) for tensor in packet.tensors)
        await stream.send(Ask("sum", total), last=True)

    async with calling(pair) as two:
        two.bob.serve_stream(MANY, add)
        with trio.fail_after(20):
            async with two.alice.stream(two.peer, MANY, timeout_s=20) as stream:
                for n in range(50):
                    await stream.send(Ask("n", n), [np.full(3, n)], last=n == 49)
                assert await stream.receive() == Packet(Ask("sum", 4 * sum(range(50))))
        assert two.at_rest()


async def test_a_stream_left_early_stops_its_handler(pair: Any, eventually: Eventually) -> None:
    stopped = trio.Event()

    async def endless(stream: Stream[Ask, Ask]) -> None:
        try:
            while True:
                await stream.send(Ask("x" * 50_000))
        finally:
            stopped.set()

    async with calling(pair) as two:
        two.bob.serve_stream(MANY, endless)
        async with two.alice.stream(two.peer, MANY, timeout_s=20) as stream:
            assert await stream.receive() is not None
        with trio.fail_after(10):
            await stopped.wait()
        await eventually(two.at_rest)


async def test_a_streams_handler_that_fails_tells_the_caller(pair: Any) -> None:
    async def fail(stream: Stream[Ask, Ask]) -> None:
        await stream.receive()
        raise LocalError("not today")

    async with calling(pair) as two:
        two.bob.serve_stream(MANY, fail)
        async with two.alice.stream(two.peer, MANY, timeout_s=20) as stream:
            await stream.send(Ask("x"))
            with pytest.raises(Refused, match="not today"):
                await stream.receive()
            with pytest.raises(Refused, match="not today"):
                await stream.send(Ask("y"))
        assert two.at_rest()
