"""A simulated channel: two ends, and for each direction a pipe in which items keep their order.

A close is an item like any other, so it cannot overtake frames. A pipe holds a bounded number of bytes (under
way, and delivered but not yet received); a sender waits for room, as it would for a transport window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from wire.errors import ChannelClosed, FrameTooLarge
from wire.limits import FRAME_BYTES_MAX
from wire.peer import PeerId, short

PIPE_BYTES_MAX = 2 * FRAME_BYTES_MAX
"""Bytes in one direction that were sent and not yet received, before the last frame."""


@dataclass
class Item:
    """One thing on its way through a pipe."""

    kind: str
    deliver: Callable[[], None]
    frame: bytes = b""


@dataclass(eq=False)
class Pipe:
    """One direction of one channel, between node numbers; items arrive in the order in which they were sent."""

    source: int
    target: int
    channel: int
    items: deque[Item] = field(default_factory=deque)
    held_bytes: int = 0
    last_at_s: float = 0.0
    stalled: int = 0
    dead: bool = False


class Carrier(Protocol):
    """What a channel needs of the network."""

    def transmit(self, pipe: Pipe, item: Item) -> None: ...
    def forget(self, channel: SimChannel) -> None: ...


class SimChannel:
    """One end; see `wire.transport.Channel`."""

    def __init__(self, carrier: Carrier, peer: PeerId, out: Pipe) -> None:
        self._carrier = carrier
        self._peer = peer
        self.out = out
        self.opened = trio.Event()
        self.refused: str | None = None
        self.closed_here = False
        self.ended: str | None = None
        self._inbox: deque[bytes] = deque()
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._other: SimChannel = self

    def join(self, other: SimChannel) -> None:
        """Make the two ends know each other."""
        self._other, other._other = other, self

    @property
    def other(self) -> SimChannel:
        """The other end."""
        return self._other

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, frame: bytes) -> None:
        if len(frame) > FRAME_BYTES_MAX:
            raise FrameTooLarge(f"{len(frame)} bytes; a frame has at most {FRAME_BYTES_MAX}")
        await trio.lowlevel.checkpoint()
        while self._open() and self.out.held_bytes > PIPE_BYTES_MAX:
            await self._room.park()
        if not self._open():
            raise ChannelClosed(self.ended or "closed here")
        self.out.held_bytes += len(frame)
        other = self._other
        self._carrier.transmit(self.out, Item("frame", lambda: other.take(frame), frame))

    def _open(self) -> bool:
        return not self.closed_here and self.ended is None

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            if not self._open():
                raise ChannelClosed("closed here" if self.closed_here else str(self.ended))
            await self._news.park()
        frame = self._inbox.popleft()
        self._other.release(len(frame))
        return frame

    async def aclose(self) -> None:
        if not self.closed_here:
            self.closed_here = True
            while self._inbox:
                self._other.release(len(self._inbox.popleft()))
            self._wake()
            self._carrier.transmit(self.out, Item("close", self._other.on_closed))
        # no checkpoint that could be cancelled: closing must always get this far
        await trio.lowlevel.cancel_shielded_checkpoint()

    # ---- called by the network

    def take(self, frame: bytes) -> None:
        """A frame has arrived."""
        if self.closed_here:
            self._other.release(len(frame))
            return
        self._inbox.append(frame)
        self._news.unpark()

    def release(self, size: int) -> None:
        """The other end has made room for `size` bytes."""
        self.out.held_bytes -= size
        self._room.unpark_all()

    def on_closed(self) -> None:
        """The other end's close has arrived, behind all of its frames."""
        self.end(f"{short(self._peer)} closed the channel")
        if self.closed_here:
            self._carrier.forget(self)

    def end(self, reason: str) -> None:
        """Nothing more will arrive here."""
        if self.ended is None:
            self.ended = reason
        self._wake()

    def _wake(self) -> None:
        self._news.unpark_all()
        self._room.unpark_all()
