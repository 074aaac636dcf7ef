"""The side of a call channel that answers: at most so many requests, so many bytes in and so many bytes out per peer.

States of a request: arriving, running (its handler works), answering, over. It is over when its last message is sent,
by an ERROR of ours, by CANCEL, by its deadline, or with the channel. A handler that is told to stop still counts until
`done`, so that opening and cancelling over and over buys a peer nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wire.errors import Malformed
from wire.rpc import frames
from wire.rpc.frames import BEGIN, CANCEL, CLOSE, CREDIT, MORE, OPEN, Frame, Refusal
from wire.rpc.inbox import Inbox, Message, Overrun, Receiving
from wire.rpc.outbox import Outbox
from wire.rpc.packet import Buffer

REQUESTS_MAX = 1024
"""Requests of one peer that are not over, and handlers of it that still stop."""

ANSWERS_SOFT_BYTES = 2 << 20
"""While more waits to be sent to a peer, none of its requests is started."""

ANSWERS_BYTES_MAX = 8 << 20
"""An answer that would make more than this wait is dropped, and its request ends as busy."""

RETRY_MS = 1000


class Asked(NamedTuple):
    """A unary request is whole: run its handler."""

    id: int
    name: str
    message: Message


class Opened(NamedTuple):
    """A stream was opened: run its handler."""

    id: int
    name: str


class Arrived(NamedTuple):
    """A message of a stream."""

    id: int
    message: Message
    last: bool


class Closed(NamedTuple):
    """The caller says nothing more on a stream."""

    id: int


class Stopped(NamedTuple):
    """The request is over; its handler is to stop."""

    id: int


class Broke(NamedTuple):
    """The peer broke a rule that cost it one request."""

    reason: str


Event = Asked | Opened | Arrived | Closed | Stopped | Broke


class _Request:
    __slots__ = ("answered", "deadline_s", "message", "name", "receiving", "running", "unary")

    def __init__(self, name: str, deadline_s: float, *, unary: bool) -> None:
        self.name = name
        self.deadline_s = deadline_s
        self.unary = unary
        self.receiving = Receiving()
        self.message: Message | None = None
        self.running = False
        self.answered = False


class Server:
    """One channel's requests; `now` is in seconds on any steady clock.

    Args:
        methods: whether a method takes one message and gives one (true), or streams; others are refused.
    """

    def __init__(self, methods: Mapping[str, bool], *, requests_max: int = REQUESTS_MAX) -> None:
        self._methods = methods
        self._requests_max = requests_max
        self._outbox = Outbox(release_last=True)
        self._inbox = Inbox(release_last=False)
        self._requests: dict[int, _Request] = {}
        self._deferred: dict[int, None] = {}
        self._stopping = 0
        self._highest = 0
        self.next_deadline_s = float("inf")

    def __len__(self) -> int:
        return len(self._requests) + self._stopping

    @property
    def held(self) -> tuple[int, int, int]:
        """Message bytes queued here, outstanding at the peer, and received and not released."""
        return self._outbox.held_bytes, self._outbox.outstanding_bytes, self._inbox.outstanding_bytes

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send now."""
        return self._outbox.idle

    def queued_bytes(self, number: int) -> int:
        """Message bytes of one request that are not sent yet."""
        return self._outbox.queued_bytes(number)

    # ---- of the channel

    def receive(self, batch: bytes, now: float) -> list[Event]:
        """Take a channel frame.

        Raises:
            Malformed: the peer broke the protocol; the channel is of no further use.
        """
        events: list[Event] = []
        for frame in frames.split(batch):
            if frame.kind == OPEN:
                self._open(frame, now, events)
                continue
            if frame.id > self._highest:
                raise Malformed(f"a frame of request {frame.id}, which was not opened")
            request = self._requests.get(frame.id)
            if request is None or (request.answered and frame.kind not in (CREDIT, CANCEL)):
                continue  # over here; the peer had not heard of it yet
            if frame.kind in (BEGIN, MORE):
                self._take(request, frame, events)
            elif frame.kind == CREDIT:
                self._outbox.credit(frame.id, frames.read_credit(frame.payload))
            elif frame.kind == CANCEL:
                self._stop(frame.id, events)
            elif frame.kind == CLOSE:
                self._close(request, frame, events)
            else:
                raise Malformed(f"a caller does not send frames of kind {frame.kind}")
        if self._outbox.choked:
            raise Malformed("the peer does not read the errors that it causes")
        return events

    def _open(self, frame: Frame, now: float, events: list[Event]) -> None:
        if frame.id <= self._highest:
            raise Malformed(f"request {frame.id} after {self._highest}")
        self._highest = frame.id
        name, remaining_ms = frames.read_open(frame.payload)
        unary = self._methods.get(name)
        if unary is None:
            self._outbox.control(frames.error(frame.id, Refusal("unknown", f"no method {name}")))
        elif len(self) >= self._requests_max:
            self._outbox.control(frames.error(frame.id, Refusal("busy", "too many requests", RETRY_MS)))
        else:
            request = _Request(name, now + remaining_ms / 1000, unary=unary)
            self._requests[frame.id] = request
            self.next_deadline_s = min(self.next_deadline_s, request.deadline_s)
            self._outbox.begin(frame.id)
            if not unary:
                request.running = True
                events.append(Opened(frame.id, name))

    def _take(self, request: _Request, frame: Frame, events: list[Event]) -> None:
        try:
            message = self._inbox.take(request.receiving, frame)
        except Overrun as exc:
            self._break(frame.id, Refusal("overrun", str(exc)), events)
            return
        if message is None:
            return
        last = request.receiving.closed
        if not request.unary:
            events.append(Arrived(frame.id, message, last))
        elif not last:
            self._break(frame.id, Refusal("malformed", "one message only"), events)
        else:
            if not self._deferred and self._outbox.held_bytes <= ANSWERS_SOFT_BYTES:
                request.running = True
                events.append(Asked(frame.id, request.name, message))
            else:
                request.message = message
                self._deferred[frame.id] = None

    def _close(self, request: _Request, frame: Frame, events: list[Event]) -> None:
        self._inbox.close(request.receiving)
        if request.unary:
            self._break(frame.id, Refusal("malformed", "no message"), events)
        else:
            events.append(Closed(frame.id))

    def _break(self, number: int, refusal: Refusal, events: list[Event]) -> None:
        events.append(Broke(f"{refusal.code}: {refusal.reason}"))
        self._refuse(number, refusal, events)

    def _start(self, events: list[Event]) -> None:
        """Start what may be started: nothing while the peer does not take its answers."""
        while self._deferred and self._outbox.held_bytes <= ANSWERS_SOFT_BYTES:
            number = next(iter(self._deferred))
            del self._deferred[number]
            request = self._requests[number]
            assert request.message is not None, "only whole requests wait to be started"
            message, request.message = request.message, None
            request.running = True
            events.append(Asked(number, request.name, message))

    def next_batch(self) -> tuple[bytes | None, list[Event]]:
        """The next channel frame to send, None if there is none now; and what may be started because of it."""
        batch = self._outbox.next_batch()
        events: list[Event] = []
        if self._deferred:
            self._start(events)
        if self._outbox.finished:
            self._sweep(events)
        return batch, events

    def _sweep(self, events: list[Event]) -> None:
        """Forget requests whose last message has been sent."""
        for number in self._outbox.finished:
            request = self._requests.pop(number)
            if request.running:
                self._stopping += 1
                events.append(Stopped(number))
        self._outbox.finished.clear()

    # ---- of the handlers

    def answers(self, number: int) -> bool:
        """Whether somebody still waits for answers to the request."""
        return number in self._requests

    def post(self, number: int, parts: Sequence[Buffer], *, last: bool, zipping: bool = False) -> bool:
        """Queue a message; false if it was dropped: the request is over, or too much waits and it ends as busy."""
        request = self._requests.get(number)
        if request is None:
            return False
        if last:
            self._answered(request)
        waiting = self._outbox.held_bytes
        if waiting and waiting + sum(map(len, parts)) > ANSWERS_BYTES_MAX:
            self.refuse(number, Refusal("busy", "answers are not taken", RETRY_MS))
            return False
        self._outbox.post(number, parts, last=last, zipping=zipping)
        return True

    def finish(self, number: int) -> None:
        """No further message of ours."""
        request = self._requests.get(number)
        if request is not None:
            self._answered(request)
            self._outbox.finish(number)

    def _answered(self, request: _Request) -> None:
        request.answered = True
        self._inbox.end(request.receiving)

    def refuse(self, number: int, refusal: Refusal) -> None:
        """End a request by an error; messages that were not sent yet are dropped."""
        self._refuse(number, refusal, [])

    def _refuse(self, number: int, refusal: Refusal, events: list[Event]) -> None:
        if number in self._requests:
            self._stop(number, events)
            self._outbox.control(frames.error(number, refusal))

    def taken(self, number: int) -> None:
        """The handler took a message of a stream; the caller may send more."""
        request = self._requests.get(number)
        if request is not None and request.receiving.kept:
            self._inbox.taken(request.receiving)
            self._outbox.taken(number)

    def done(self, number: int) -> None:
        """The handler has returned."""
        request = self._requests.get(number)
        if request is None:
            self._stopping -= 1
        else:
            request.running = False

    def _stop(self, number: int, events: list[Event]) -> None:
        request = self._requests.pop(number, None)
        if request is None:
            return
        self._deferred.pop(number, None)
        self._inbox.end(request.receiving)
        self._outbox.end(number)
        if request.running:
            self._stopping += 1
            events.append(Stopped(number))

    # ---- of the clock

    def expire(self, now: float) -> list[Event]:
        """End the requests whose time is up; `next_deadline_s` then says when to look again."""
        events: list[Event] = []
        for number in [number for number, request in self._requests.items() if request.deadline_s <= now]:
            self._refuse(number, Refusal("deadline", ""), events)
        self.next_deadline_s = min((each.deadline_s for each in self._requests.values()), default=float("inf"))
        return events

    def lost(self) -> None:
        """The channel has ended: forget every request; their handlers are to be stopped."""
        for number in list(self._requests):
            self._stop(number, [])
