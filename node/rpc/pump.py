"""What both sides of a call channel need: a task that writes and one that watches the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import trio

from wire.transport import Channel


class Core(Protocol):
    """What is used of `Caller` and `Server`."""

    next_deadline_s: float

    @property
    def idle(self) -> bool: ...


class Waiting(Protocol):
    """A stream whose sender may wait until something was sent."""

    def sent(self) -> None: ...


class Pump:
    """Writes what a core has to send, and calls when a time has come.

    Args:
        core: the state.
        next_batch: takes the next channel frame.
        streams: told after each.
        due: called when `next_deadline_s` of the core, or `also_due_s`, has come; returns the next `also_due_s`.
    """

    def __init__(
        self,
        core: Core,
        next_batch: Callable[[], bytes | None],
        streams: Mapping[int, Waiting],
        due: Callable[[], float],
    ) -> None:
        self._core = core
        self._next_batch = next_batch
        self._streams = streams
        self._due = due
        self._work = trio.lowlevel.ParkingLot()
        self._earlier = trio.Event()
        self._watching_s = float("inf")

    def wake(self) -> None:
        """The core may have something to send, or an earlier deadline."""
        if self._work and not self._core.idle:
            self._work.unpark()
        if self._core.next_deadline_s < self._watching_s:
            self._earlier.set()

    async def write(self, channel: Channel) -> None:
        """Send what there is, for ever."""
        while True:
            while self._core.idle:
                await self._work.park()
            batch = self._next_batch()
            if batch is not None:
                await channel.send(batch)
                for stream in self._streams.values():
                    stream.sent()

    async def watch(self) -> None:
        """Call `due` whenever it is time, for ever."""
        also_due_s = self._due()
        while True:
            self._earlier = trio.Event()
            self._watching_s = min(self._core.next_deadline_s, also_due_s)
            with trio.move_on_at(self._watching_s):
                await self._earlier.wait()
            if trio.current_time() >= self._watching_s:
                also_due_s = self._due()
