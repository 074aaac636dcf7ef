"""What waits to be sent on a call channel, and in which order it goes.

Control frames first, then small messages, then chunks of large ones in turn; each batch has room for both, so neither
waits for the other for longer than a batch. A message begins only with credit (`share`), and the messages of one
request go one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from wire.errors import Malformed
from wire.rpc import frames
from wire.rpc.frames import CHUNK_BYTES, LAST, ZIPPED
from wire.rpc.packet import Buffer
from wire.rpc.share import SMALL_BYTES_MAX, WINDOW_BYTES, Share, cost

CONTROL_BYTES_MAX = 1 << 20
"""Control frames waiting to be sent; a peer that lets more pile up is not reading."""

BATCH_CONTROL_BYTES = 64 << 10
BATCH_SMALL_BYTES = 64 << 10
BATCH_LARGE_BYTES = 128 << 10
"""After so many bytes of each sort a batch takes no more of it; the last frame may pass the mark."""

ZIP_BYTES_MIN = 1024
"""Messages below are never compressed."""


class _Message:
    """A message on its way; without `parts` (None), the CLOSE that stands in for a last one and needs no credit."""

    __slots__ = ("at", "cost", "is_close", "last", "parts", "size", "zipping")

    def __init__(self, parts: Sequence[Buffer] | None, *, last: bool, zipping: bool) -> None:
        self.parts: Sequence[Buffer] = parts or ()
        self.size = sum(map(len, self.parts))
        self.is_close = parts is None
        self.cost = 0 if self.is_close else cost(self.size)
        self.last = last
        self.at = 0
        self.zipping = zipping and self.size >= ZIP_BYTES_MIN

    def chunk(self) -> Sequence[Buffer]:
        """The next `CHUNK_BYTES` or what is left."""
        if self.size <= CHUNK_BYTES:
            return self.parts
        left = deque(self.parts)
        taken: list[Buffer] = []
        room = CHUNK_BYTES
        while room and left:
            part = left.popleft()
            if len(part) > room:
                part = memoryview(part)
                left.appendleft(part[room:])
                part = part[:room]
            taken.append(part)
            room -= len(part)
        self.parts = left
        return taken


class Sending:
    """The messages of one request in one direction."""

    __slots__ = ("begun", "closing", "id", "kept", "outstanding", "over", "queue", "queued_bytes", "waiting")

    def __init__(self, number: int) -> None:
        self.id = number
        self.queue: deque[_Message] = deque()
        self.queued_bytes = 0
        self.begun: _Message | None = None
        self.kept: deque[int] = deque()
        self.outstanding = 0
        self.waiting = False
        self.closing = False
        self.over = False


class Outbox:
    """One direction of a channel, at the side that sends.

    Args:
        release_last: whether a last message, once sent, ends its request (the server's answer), or stays
            outstanding until the request ends (the caller's).

    Attributes:
        held_bytes: bytes of messages that are not sent yet.
        finished: requests that ended with their last message; whoever reads it empties it.
    """

    def __init__(self, *, release_last: bool) -> None:
        self.held_bytes = 0
        self.finished: list[int] = []
        self._release_last = release_last
        self._share = Share()
        self._open: dict[int, Sending] = {}
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        self._credits: dict[int, int] = {}
        self._waiting: tuple[deque[Sending], deque[Sending]] = (deque(), deque())
        self._small: deque[Sending] = deque()
        self._large: deque[Sending] = deque()

    @property
    def outstanding_bytes(self) -> int:
        """Credit in use."""
        return self._share.used

    @property
    def idle(self) -> bool:
        """Whether there is nothing that could be sent now."""
        return not (self._control or self._credits or self._small or self._large)

    @property
    def choked(self) -> bool:
        """Whether the peer does not read the control frames that it causes."""
        return self._control_bytes > CONTROL_BYTES_MAX

    def __len__(self) -> int:
        return len(self._open)

    def queued_bytes(self, number: int) -> int:
        """What waits of one request; 0 if it is over."""
        sending = self._open.get(number)
        return sending.queued_bytes if sending is not None else 0

    # ---- putting in

    def control(self, frame: bytes) -> None:
        """Send a control frame before any message."""
        self._control.append(frame)
        self._control_bytes += len(frame)

    def begin(self, number: int) -> None:
        """A request exists from now on."""
        self._open[number] = Sending(number)

    def post(self, number: int, parts: Sequence[Buffer], *, last: bool, zipping: bool) -> None:
        """Queue a message; its parts must not change until it is sent."""
        sending = self._open[number]
        message = _Message(parts, last=last, zipping=zipping)
        sending.queue.append(message)
        sending.queued_bytes += message.size
        self.held_bytes += message.size
        self._advance(sending)

    def finish(self, number: int) -> None:
        """No further message of a request: said with its last one if that has not begun, else by a CLOSE behind it."""
        sending = self._open[number]
        if sending.queue:
            sending.queue[-1].last = True
        elif sending.begun is None:
            self._close(sending)
        elif sending.begun.at == 0:
            sending.begun.last = True
        else:
            sending.closing = True

    def _close(self, sending: Sending) -> None:
        sending.begun = _Message(None, last=True, zipping=False)
        self._small.append(sending)

    def taken(self, number: int) -> None:
        """A received message was taken: tell the sender with the next batch."""
        self._credits[number] = self._credits.get(number, 0) + 1

    def end(self, number: int) -> None:
        """A request is over: forget what waits, give its credit back."""
        self._credits.pop(number, None)
        sending = self._open.pop(number, None)
        if sending is None:
            return
        sending.over = True
        self.held_bytes -= sending.queued_bytes
        sending.queued_bytes = 0
        for amount in sending.kept:
            self._share.give(amount)
        if sending.begun is not None:
            self._share.give(sending.begun.cost)
        self._admit()

    def credit(self, number: int, messages: int) -> None:
        """The other side has taken messages.

        Raises:
            Malformed: more than were sent.
        """
        sending = self._open.get(number)
        if sending is None:
            return
        if messages > len(sending.kept):
            raise Malformed(f"credit for {messages} messages of {len(sending.kept)}")
        for _ in range(messages):
            amount = sending.kept.popleft()
            sending.outstanding -= amount
            self._share.give(amount)
        self._advance(sending)
        self._admit()

    def _advance(self, sending: Sending) -> None:
        """Begin the next message of a request if there is credit."""
        if sending.begun is not None or sending.waiting or not sending.queue:
            return
        amount = sending.queue[0].cost
        if sending.outstanding and sending.outstanding + amount > WINDOW_BYTES:
            return
        queue = self._waiting[sending.queue[0].size > SMALL_BYTES_MAX]
        if queue or not self._share.fits(amount):
            sending.waiting = True
            queue.append(sending)
        else:
            self._start(sending, amount)

    def _start(self, sending: Sending, amount: int) -> None:
        self._share.take(amount)
        sending.outstanding += amount
        sending.begun = sending.queue.popleft()
        (self._large if sending.begun.size > SMALL_BYTES_MAX else self._small).append(sending)

    def _admit(self) -> None:
        for queue in self._waiting:
            while queue:
                sending = queue[0]
                if not sending.over:
                    amount = sending.queue[0].cost
                    if not self._share.fits(amount):
                        break
                    sending.waiting = False
                    self._start(sending, amount)
                queue.popleft()

    # ---- taking out

    def next_batch(self, opens: Sequence[bytes] = ()) -> bytes | None:
        """The next channel frame, with `opens` before all else; None if nothing can be sent now."""
        parts: list[Buffer] = list(opens)
        size = 0
        while self._control and size < BATCH_CONTROL_BYTES:
            frame = self._control.popleft()
            parts.append(frame)
            size += len(frame)
            self._control_bytes -= len(frame)
        for number, messages in self._credits.items():
            parts.append(frames.credit(number, messages))
        self._credits.clear()
        size = 0
        while self._small and size < BATCH_SMALL_BYTES:
            size += self._emit(self._small.popleft(), parts)
        size = 0
        while self._large and size < BATCH_LARGE_BYTES:
            sending = self._large.popleft()
            size += self._emit(sending, parts)
            if sending.begun is not None and sending.begun.at and not sending.over:
                self._large.append(sending)
        return b"".join(parts) if parts else None

    def _emit(self, sending: Sending, parts: list[Buffer]) -> int:
        """Add the next chunk of a request's message; returns its bytes before compression."""
        message = sending.begun
        if sending.over or message is None:
            return 0
        if message.is_close:
            parts.append(frames.close(sending.id))
            self._sent(sending, message)
            return frames.HEAD_BYTES
        chunk = message.chunk()
        size = length = min(message.size - message.at, CHUNK_BYTES)
        flags = 0
        if message.zipping:
            packed = frames.deflate(chunk[0] if len(chunk) == 1 else b"".join(chunk))
            if packed is None:
                message.zipping = False  # what begins incompressible mostly stays so
            else:
                chunk, length, flags = [packed], len(packed), ZIPPED
        if message.at == 0:
            parts.append(frames.begin_head(flags | (LAST if message.last else 0), sending.id, message.size, length))
        else:
            parts.append(frames.more_head(flags, sending.id, length))
        parts.extend(chunk)
        message.at += size
        sending.queued_bytes -= size
        self.held_bytes -= size
        if message.at == message.size:
            self._sent(sending, message)
        return size

    def _sent(self, sending: Sending, message: _Message) -> None:
        sending.begun = None
        if message.last and self._release_last:
            self._share.give(message.cost)
            self.finished.append(sending.id)
            self.end(sending.id)
            return
        if not message.is_close:
            sending.kept.append(message.cost)
        if sending.closing:
            sending.closing = False
            self._close(sending)
        else:
            self._advance(sending)
