"""A conversation between two roles of the market: messages of a stream of calls, each in its turn and in time."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from wire import codec
from wire.codec import Wire
from wire.errors import ChannelClosed, Malformed, RemoteError
from wire.peer import PeerId, short
from wire.rpc.seam import Stream

S = TypeVar("S", bound=Wire)
R = TypeVar("R", bound=Wire)
K = TypeVar("K")


class Talk(Generic[S, R]):
    """One end of it.

    Args:
        stream: of a method of the market.
        bytes_max: of everything that the other side says.
    """

    def __init__(self, stream: Stream[S, R], bytes_max: int | None = None) -> None:
        self._stream = stream
        self._left = bytes_max

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self._stream.peer

    async def send(self, message: S) -> None:
        """Say something; waits while the other side does not take it.

        Raises:
            QuorateError: how the conversation ended, if it has.
        """
        await self._stream.send(message)

    async def receive(self, within_s: float) -> R:
        """What the other side says next.

        Raises:
            trio.TooSlowError: nothing, in this time.
            ChannelClosed: it has ended the conversation.
            Malformed: more than `bytes_max`.
            QuorateError: how the conversation ended otherwise.
        """
        with trio.fail_after(within_s):
            packet = await self._stream.receive()
        if packet is None:
            raise ChannelClosed(f"{short(self.peer)} has ended the conversation")
        if packet.tensors:
            raise RemoteError(self.peer, "tensors where none belong", penalty=0.2)
        if self._left is not None:
            self.spend(len(codec.encode(packet.body)))
        return packet.body

    def spend(self, size: int) -> None:
        """Count bytes that the other side makes us take besides its messages.

        Raises:
            Malformed: more than `bytes_max` in all.
        """
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise Malformed("more than a conversation may hold")

    async def expect(self, kind: type[K], within_s: float) -> K:
        """As `receive`, and it must be of this kind.

        Raises:
            RemoteError: it is of another.
        """
        message = await self.receive(within_s)
        if not isinstance(message, kind):
            raise self.out_of_turn(message)
        return message

    def out_of_turn(self, message: object) -> RemoteError:
        """The fault of a message that was not its turn."""
        return RemoteError(self.peer, f"{type(message).__name__} out of turn", penalty=0.2)

    async def heard_out(self, within_s: float) -> None:
        """Wait until the other side ends the conversation, so long at most: until then it may fetch what was named."""
        with trio.move_on_after(within_s):
            await self._stream.receive()
