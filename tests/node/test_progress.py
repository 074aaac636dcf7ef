"""Progress on its way to the requester: in order, nothing lost, not a frame per token."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from node.market.messages import Working
from node.market.progress import Reporter
from wire.errors import ChannelClosed
from workloads.executor import Progress, Token


class Sink:
    """The sending half of a conversation."""

    def __init__(self, fail: bool = False) -> None:
        self.frames: list[Working] = []
        self._fail = fail

    async def send(self, message: Working) -> None:
        await trio.lowlevel.checkpoint()
        if self._fail:
            raise ChannelClosed("gone")
        self.frames.append(message)


async def test_fast_tokens_travel_together_and_none_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    sink, reporter = Sink(), Reporter(Working)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.forward, sink.send)
        for number in range(100):
            reporter.emit(Token(chr(97 + number % 26)))
            await trio.sleep(0.01)
        reporter.finish()
    assert "".join(frame.text for frame in sink.frames) == "".join(chr(97 + n % 26) for n in range(100))
    assert sink.frames[-1].done == 100
    assert len(sink.frames) <= 22, "one frame each 0.05 s at most, in one second"


async def test_a_run_that_says_nothing_sends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    sink, reporter = Sink(), Reporter(Working)
    reporter.finish()
    await reporter.forward(sink.send)
    assert sink.frames == []


async def test_the_last_step_is_told(autojump_clock: trio.testing.MockClock) -> None:
    sink, reporter = Sink(), Reporter(Working)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.forward, sink.send)
        reporter.emit(Progress(1, 2))
        await trio.sleep(0.001)
        reporter.emit(Progress(2, 2))
        reporter.finish()
    assert [(frame.done, frame.total) for frame in sink.frames] == [(1, 2), (2, 2)]


async def test_a_requester_that_went_away_is_an_error() -> None:
    reporter = Reporter(Working)
    reporter.emit(Progress(1, 2))
    with pytest.raises(ChannelClosed):
        await reporter.forward(Sink(fail=True).send)
