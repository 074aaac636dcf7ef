"""What arrives on a call channel: messages put together from chunks, within the credit that was given.

Memory is taken for a message when it begins, after its announced length was checked against what its sender may have
under way; chunks are copied into it once, so that no frame is kept alive by a few bytes of it.
"""

from __future__ import annotations

from collections import deque

from wire.errors import Malformed, QuorateError
from wire.rpc import frames
from wire.rpc.frames import BEGIN, CHUNK_BYTES, LAST, MESSAGE_BYTES_MAX, ZIPPED, Frame
from wire.rpc.share import WINDOW_BYTES, Share, cost

Message = bytes | bytearray


class Overrun(QuorateError):
    """A message was begun without the credit for it; its request ends."""


class Receiving:
    """The messages of one request in one direction."""

    __slots__ = ("at", "buffer", "closed", "kept", "last", "outstanding")

    def __init__(self) -> None:
        self.buffer: bytearray | None = None
        self.at = 0
        self.last = False
        self.closed = False
        self.kept: deque[int] = deque()
        self.outstanding = 0


class Inbox:
    """One direction of a channel, at the side that receives.

    Args:
        release_last: as at the sender's `Outbox`.
    """

    def __init__(self, *, release_last: bool) -> None:
        self._release_last = release_last
        self._share = Share()

    @property
    def outstanding_bytes(self) -> int:
        """Bytes of messages that have begun and were not released."""
        return self._share.used

    def take(self, receiving: Receiving, frame: Frame) -> Message | None:
        """Take a BEGIN or MORE frame; the message if it is now whole. `receiving.closed` says whether it was the last.

        Raises:
            Overrun: no credit, or longer than any message may be.
            Malformed: a frame out of its order, or chunks that do not add up.
        """
        if receiving.closed:
            raise Malformed(f"request {frame.id} goes on behind its end")
        if frame.kind == BEGIN:
            return self._begin(receiving, frame)
        buffer = receiving.buffer
        if buffer is None:
            raise Malformed(f"request {frame.id}: a chunk of no message")
        chunk = frame.payload
        room = min(len(buffer) - receiving.at, CHUNK_BYTES)
        return self._fill(receiving, buffer, frames.inflate(chunk, room) if frame.flags & ZIPPED else chunk)

    def _begin(self, receiving: Receiving, frame: Frame) -> Message | None:
        total, chunk = frames.read_begin(frame.payload)
        if receiving.buffer is not None:
            raise Malformed(f"request {frame.id}: a message within a message")
        amount = cost(total)
        if total > MESSAGE_BYTES_MAX or not self._share.fits(amount):
            raise Overrun(f"no credit for a message of {total} bytes")
        if receiving.outstanding and receiving.outstanding + amount > WINDOW_BYTES:
            raise Overrun(f"a message of {total} bytes beside {receiving.outstanding} that were not taken")
        whole = frames.inflate(chunk, min(total, CHUNK_BYTES)) if frame.flags & ZIPPED else chunk
        if len(whole) > total or (total and not len(whole)):
            raise Malformed(f"request {frame.id}: {len(whole)} bytes of a message of {total}")
        receiving.last = bool(frame.flags & LAST)
        receiving.at = 0
        self._share.take(amount)
        receiving.kept.append(amount)
        receiving.outstanding += amount
        if len(whole) == total:
            self._complete(receiving)
            return bytes(whole)
        receiving.buffer = bytearray(total)
        return self._fill(receiving, receiving.buffer, whole)

    def _fill(self, receiving: Receiving, buffer: bytearray, chunk: Buffer) -> Message | None:
        end = receiving.at + len(chunk)
        if end > len(buffer):
            raise Malformed(f"a message of {len(buffer)} bytes runs over")
        buffer[receiving.at : end] = chunk
        receiving.at = end
        if end < len(buffer):
            return None
        receiving.buffer = None
        self._complete(receiving)
        return buffer

    def _complete(self, receiving: Receiving) -> None:
        receiving.closed = receiving.last
        if receiving.last and self._release_last:
            self.end(receiving)

    def close(self, receiving: Receiving) -> None:
        """No further message follows.

        Raises:
            Malformed: within a message, or twice.
        """
        if receiving.closed or receiving.buffer is not None:
            raise Malformed("a close out of its order")
        receiving.closed = True

    def taken(self, receiving: Receiving) -> None:
        """The application took the first message that it had not taken."""
        amount = receiving.kept.popleft()
        receiving.outstanding -= amount
        self._share.give(amount)

    def end(self, receiving: Receiving) -> None:
        """The request is over: all of its messages are released."""
        for amount in receiving.kept:
            self._share.give(amount)
        receiving.kept.clear()
        receiving.outstanding = 0
        receiving.buffer = None
        receiving.closed = True


Buffer = bytes | memoryview
