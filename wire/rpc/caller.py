"""The side of a call channel that opened it and makes the calls: every call ends with an answer or a typed error.

States of a call: waiting to be opened, open, over. It is over by the last message or ERROR of the server, by
`cancel`, by its deadline, or with the channel; from then on nothing of it is kept, and frames that still arrive for it
are dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from wire.errors import Busy, ChannelClosed, Expired, Malformed, QuorateError, Refused, RemoteError
from wire.peer import PeerId
from wire.rpc import frames
from wire.rpc.frames import BEGIN, CLOSE, CREDIT, DEADLINE_MS_MAX, ERROR, MORE, Frame, Refusal
from wire.rpc.inbox import Inbox, Message, Overrun, Receiving
from wire.rpc.outbox import Outbox
from wire.rpc.packet import Buffer

CALLS_MAX = 1024
"""Calls under way on one channel."""

RETRY_S = 1.0
ID_MAX = 2**32 - 1


class Arrived(NamedTuple):
    """A whole message of the server; the call is over if it is the last."""

    id: int
    message: Message
    last: bool


class Ended(NamedTuple):
    """The call is over: without a further message, or by an error."""

    id: int
    error: QuorateError | None


Event = Arrived | Ended


def failure(peer: PeerId, refusal: Refusal) -> QuorateError:
    """The error that an ERROR frame stands for; a code that is not known is a `RemoteError` like any other refusal."""
    if refusal.code == "busy":
        return Busy(refusal.retry_ms / 1000, refusal.reason or "busy")
    if refusal.code == "deadline":
        return Expired("the peer ended the call at its deadline")
    return Refused(peer, refusal.code, refusal.reason, refusal.retry_ms / 1000)


class _Call:
    __slots__ = ("deadline_s", "name", "opened", "receiving")

    def __init__(self, name: bytes, deadline_s: float) -> None:
        self.name = name
        self.deadline_s = deadline_s
        self.receiving = Receiving()
        self.opened = False


class Caller:
    """One channel's calls; `now` is in seconds on any steady clock."""

    def __init__(self, peer: PeerId, *, calls_max: int = CALLS_MAX) -> None:
        self._peer = peer
        self._calls_max = calls_max
        self._outbox = Outbox(release_last=False)
        self._inbox = Inbox(release_last=True)
        self._calls: dict[int, _Call] = {}
        self._opening: deque[int] = deque()
        self._highest = 0
        self.next_deadline_s = float("inf")

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def held(self) -> tuple[int, int, int]:
        """Message bytes queued here, outstanding at the peer, and received and not released."""
        return self._outbox.held_bytes, self._outbox.outstanding_bytes, self._inbox.outstanding_bytes

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send now."""
        return not self._opening and self._outbox.idle

    def queued_bytes(self, number: int) -> int:
        """Message bytes of one call that are not sent yet."""
        return self._outbox.queued_bytes(number)

    # ---- of the application

    def start(self, name: bytes, timeout_s: float, now: float) -> int:
        """Begin a call; returns its id.

        Raises:
            Busy: too many are under way, or the peer does not read.
            ChannelClosed: the channel has used up its ids.
        """
        if len(self._calls) >= self._calls_max:
            raise Busy(RETRY_S, f"{self._calls_max} calls to one peer under way")
        if self._outbox.choked:
            raise Busy(RETRY_S, "the peer does not read")
        if self._highest >= ID_MAX:
            raise ChannelClosed("the channel has used up its ids")
        self._highest += 1
        deadline_s = now + timeout_s
        self._calls[self._highest] = _Call(name, deadline_s)
        self.next_deadline_s = min(self.next_deadline_s, deadline_s)
        self._opening.append(self._highest)
        self._outbox.begin(self._highest)
        return self._highest

    def post(self, number: int, parts: Sequence[Buffer], *, last: bool, zipping: bool = False) -> bool:
        """Queue a message of a call that is under way; always true, as it is never dropped (`Server.post`)."""
        self._outbox.post(number, parts, last=last, zipping=zipping)
        return True

    def finish(self, number: int) -> None:
        """No further message of a call that is under way."""
        self._outbox.finish(number)

    def under_way(self, number: int) -> bool:
        """Whether the call is not over."""
        return number in self._calls

    def taken(self, number: int) -> None:
        """The application took a message of a call; the server may send more."""
        call = self._calls.get(number)
        if call is not None:
            self._inbox.taken(call.receiving)
            self._outbox.taken(number)

    def cancel(self, number: int) -> None:
        """Nobody waits for the call any more; nothing happens if it is over."""
        call = self._forget(number)
        if call is not None and call.opened:
            self._outbox.control(frames.cancel(number))

    # ---- of the channel

    def next_batch(self, now: float) -> bytes | None:
        """The next channel frame to send; None if there is none now."""
        opens: list[bytes] = []
        while self._opening:
            number = self._opening.popleft()
            call = self._calls.get(number)
            if call is not None:
                call.opened = True
                left_ms = min(max(int((call.deadline_s - now) * 1000), 1), DEADLINE_MS_MAX)
                opens.append(frames.open_(number, call.name, left_ms))
        return self._outbox.next_batch(opens)

    def receive(self, batch: bytes) -> list[Event]:
        """Take a channel frame.

        Raises:
            Malformed: the peer broke the protocol; the channel is of no further use.
        """
        events: list[Event] = []
        for frame in frames.split(batch):
            if frame.id > self._highest:
                raise Malformed(f"an answer to call {frame.id}, which was not made")
            call = self._calls.get(frame.id)
            if call is None:
                continue  # over here; the peer had not heard of it yet
            if not call.opened:
                raise Malformed(f"an answer to call {frame.id}, which was not sent")
            if frame.kind in (BEGIN, MORE):
                self._take(call, frame, events)
            elif frame.kind == CREDIT:
                self._outbox.credit(frame.id, frames.read_credit(frame.payload))
            elif frame.kind == ERROR:
                error = failure(self._peer, frames.read_error(frame.payload))
                self._forget(frame.id)
                events.append(Ended(frame.id, error))
            elif frame.kind == CLOSE:
                self._inbox.close(call.receiving)
                self._forget(frame.id)
                events.append(Ended(frame.id, None))
            else:
                raise Malformed(f"a server does not send frames of kind {frame.kind}")
        return events

    def _take(self, call: _Call, frame: Frame, events: list[Event]) -> None:
        try:
            message = self._inbox.take(call.receiving, frame)
        except Overrun as exc:
            self.cancel(frame.id)
            events.append(Ended(frame.id, RemoteError(self._peer, f"overran its credit: {exc}")))
            return
        if message is not None:
            last = call.receiving.closed
            if last:
                self._forget(frame.id)
            events.append(Arrived(frame.id, message, last))

    def _forget(self, number: int) -> _Call | None:
        call = self._calls.pop(number, None)
        if call is not None:
            self._inbox.end(call.receiving)
            self._outbox.end(number)
        return call

    # ---- of the clock

    def expire(self, now: float) -> list[Event]:
        """End the calls whose time is up; `next_deadline_s` then says when to look again."""
        due = [number for number, call in self._calls.items() if call.deadline_s <= now]
        for number in due:
            self.cancel(number)
        self.next_deadline_s = min((call.deadline_s for call in self._calls.values()), default=float("inf"))
        return [Ended(number, Expired("no answer within the deadline")) for number in due]

    def lost(self) -> list[int]:
        """The channel has ended: the calls that end with it."""
        left = list(self._calls)
        for number in left:
            self._forget(number)
        return left
