"""One end of a request of several messages (`wire.rpc.seam.Stream`)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from node.rpc.pump import Pump
from wire.codec import Wire
from wire.errors import Busy, ChannelClosed, Malformed, QuorateError, RemoteError
from wire.peer import PeerId, short
from wire.rpc import packet
from wire.rpc.inbox import Message
from wire.rpc.packet import Buffer, Packet
from wire.rpc.share import WINDOW_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

S = TypeVar("S", bound=Wire)
R = TypeVar("R", bound=Wire)


class Core(Protocol):
    """What is used of `Caller` and `Server`."""

    def post(self, number: int, parts: Sequence[Buffer], *, last: bool, zipping: bool = False) -> bool: ...
    def finish(self, number: int) -> None: ...
    def taken(self, number: int) -> None: ...
    def queued_bytes(self, number: int) -> int: ...


class Side:
    """What streams do with their channel, at either end."""

    def __init__(self, core: Core, pump: Pump) -> None:
        self._core = core
        self._pump = pump
        self.queued_bytes = core.queued_bytes

    def put(self, number: int, parts: Sequence[Buffer], *, last: bool, zipping: bool) -> None:
        """Queue a message.

        Raises:
            Busy: too much waits already.
        """
        if not self._core.post(number, parts, last=last, zipping=zipping):
            raise Busy(1.0, "the other side does not take what it asked for")
        self._pump.wake()

    def finish(self, number: int) -> None:
        """Queue the end of our side."""
        self._core.finish(number)
        self._pump.wake()

    def taken(self, number: int) -> None:
        """A message was taken."""
        self._core.taken(number)
        self._pump.wake()


class RpcStream(Generic[S, R]):
    """See `wire.rpc.seam.Stream`; `arrived`, `closed`, `fail` and `sent` are called by the channel."""

    def __init__(self, side: Side, peer: PeerId, number: int, kind: type[R], *, zipping: bool) -> None:
        self._side = side
        self._peer = peer
        self._number = number
        self._kind = kind
        self._zipping = zipping
        self._messages: deque[Message] = deque()
        self._said_all = False
        self._heard_all = False
        self._over: QuorateError | None = None
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, body: S, tensors: Sequence[NDArray[np.generic]] = (), *, last: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        self._check()
        if self._said_all:
            raise ChannelClosed("this side of the stream was finished")
        self._said_all = last
        self._side.put(self._number, packet.encode(body, tensors), last=last, zipping=self._zipping)
        while self._over is None and self._side.queued_bytes(self._number) > WINDOW_BYTES:
            await self._room.park()

    def _check(self) -> None:
        if self._over is not None:
            raise again(self._over)

    def finish(self) -> None:
        if not self._said_all and self._over is None:
            self._said_all = True
            self._side.finish(self._number)

    async def receive(self) -> Packet[R] | None:
        await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._heard_all:
                return None
            self._check()
            await self._news.park()
        message = self._messages.popleft()
        self._side.taken(self._number)
        try:
            return packet.decode(self._kind, message)
        except Malformed as exc:
            raise RemoteError(self._peer, f"undecodable message: {exc}") from exc

    def __aiter__(self) -> AsyncIterator[Packet[R]]:
        return self

    async def __anext__(self) -> Packet[R]:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    # ---- called by the channel

    def arrived(self, message: Message, *, last: bool) -> None:
        """A message has come."""
        self._messages.append(message)
        self._heard_all = last
        self._news.unpark()

    def closed(self) -> None:
        """No further message will come."""
        self._heard_all = True
        self._news.unpark_all()

    def fail(self, error: QuorateError) -> None:
        """The request is over."""
        if self._over is None:
            self._over = error
        self._news.unpark_all()
        self._room.unpark_all()

    def sent(self) -> None:
        """Something was sent."""
        if self._room:
            self._room.unpark_all()


def again(error: QuorateError) -> QuorateError:
    """The error for one more caller; one object raised in several tasks would mix their tracebacks."""
    copy = error.__class__.__new__(error.__class__, *error.args)
    copy.__dict__.update(error.__dict__)
    return copy


def ended(peer: PeerId) -> ChannelClosed:
    """The error of a stream whose peer has ended it well."""
    return ChannelClosed(f"{short(peer)} has ended the stream")
