"""Requests of one peer over one channel, handled side by side.

Tasks are kept for the next requests: starting one costs as much as a small answer. A task that takes a request calls
the next task first, so that a handler that waits holds up nobody; one that does not is over before that task runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from node.figures import Outcomes
from node.rpc.pump import Pump
from node.rpc.streams import RpcStream, Side
from wire.errors import Busy, ChannelClosed, LocalError, Malformed, RemoteError, TransportError
from wire.memory import Growth, Memory
from wire.peer import PeerId
from wire.rpc import packet
from wire.rpc.frames import Refusal
from wire.rpc.inbox import Message
from wire.rpc.packet import Packet
from wire.rpc.seam import Method
from wire.rpc.server import Arrived, Asked, Broke, Closed, Event, Opened, Server, Stopped
from wire.serving import Blame, Bug, failure_of
from wire.transport import Channel

IDLE_MAX = 64
"""Tasks that wait for the next request of a channel."""

JOBS_IN_A_ROW = 16
"""After so many requests a task lets others run."""

STOPPING_RETRY_S = 60.0
"""When to ask again a node that is stopping: it may have been started again by then."""

Run = Callable[[], Awaitable[None]]
Job = tuple[int, str, Run]
"""A request's number, its method, and what answers it."""

ENDED = ChannelClosed("the request is over")


@dataclass(frozen=True)
class Served:
    """A method and what answers it: one of the two handlers."""

    method: Method[Any, Any]
    unary: Callable[[PeerId, Packet[Any]], Awaitable[Packet[Any]]] | None
    stream: Callable[[Any], Awaitable[None]] | None


def refusal_of(error: Exception) -> Refusal:
    """What the caller is told of a handler's error; of a bug, only that there was one."""
    if isinstance(error, Busy):
        return Refusal("busy", str(error), max(1, round(error.retry_s * 1000)))
    if isinstance(error, RemoteError):
        return Refusal("refused", error.reason)
    if isinstance(error, LocalError | Malformed):
        return Refusal("refused", str(error))
    return Refusal("failed", str(error) if isinstance(error, TransportError) else "the handler failed")


async def _stopping() -> None:
    """What answers every request from now on."""
    raise Busy(STOPPING_RETRY_S, "this node is stopping")


class _BadRequest(RemoteError):
    """The request itself does not decode."""


class Answering:
    """One channel that a peer opened to call us."""

    def __init__(
        self,
        channel: Channel,
        served: Mapping[str, Served],
        unary: Mapping[str, bool],
        blame: Blame,
        on_bug: Bug | None,
        memory: Memory,
        figures: Outcomes,
    ) -> None:
        self._figures = figures
        self._memory = memory
        self._growth = Growth(memory, self)
        self._cut = self._stopping = False
        self._channel = channel
        self._peer = channel.peer
        self._served = served
        self._blame = blame
        self._on_bug = on_bug
        self._core = Server(unary)
        self._streams: dict[int, RpcStream[Any, Any]] = {}
        self._pump = Pump(self._core, self._next_batch, self._streams, self._due)
        self._side = Side(self._core, self._pump)
        self._scopes: dict[int, trio.CancelScope] = {}
        self._nursery: trio.Nursery
        self._jobs: deque[Job] = deque()
        self._idle = trio.lowlevel.ParkingLot()
        self._called = False

    @property
    def core(self) -> Server:
        """The state, for those who look."""
        return self._core

    async def run(self, batch: bytes) -> None:
        """Answer until the channel ends.

        Args:
            batch: its first frame.

        Raises:
            Malformed, TransportError: how it ended.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._memory.join(self._peer, self)
                nursery.start_soon(self._pump.watch)
                nursery.start_soon(self._pump.write, self._channel)
                while True:
                    self._handle(self._core.receive(batch, trio.current_time()))
                    self._growth.look()
                    batch = await self._channel.receive()
        finally:
            self._memory.leave(self._peer, self)
            self._core.lost()

    def take_no_more(self) -> None:
        """Refuse requests that come from now on, with `Busy`."""
        self._stopping = True

    # ---- `wire.memory.Part`

    def held(self) -> int:
        """Bytes of requests that are not answered, and of answers that wait."""
        if self._cut:
            return 0
        answers, _, requests = self._core.held
        return answers + requests

    def stalled(self) -> int:
        """Handlers end within deadlines: nothing here lies for ever."""
        return 0

    def shed(self, size: int) -> None:
        """End the channel."""
        self._cut = True
        self._nursery.cancel_scope.cancel()

    def _next_batch(self) -> bytes | None:
        batch, events = self._core.next_batch()
        if events:
            self._handle(events)
        return batch

    def _due(self) -> float:
        self._handle(self._core.expire(trio.current_time()))
        return float("inf")

    # ---- events

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Asked():
                    self._begin(event.id, event.name, partial(self._answer, event))
                case Opened():
                    self._open(event)
                case Arrived():
                    if (stream := self._streams.get(event.id)) is not None:
                        stream.arrived(event.message, last=event.last)
                case Closed():
                    if (stream := self._streams.get(event.id)) is not None:
                        stream.closed()
                case Stopped():
                    self._stop(event.id)
                case Broke():
                    self._blame(RemoteError(self._peer, f"broke the call protocol: {event.reason}"))
        self._pump.wake()

    def _open(self, event: Opened) -> None:
        served = self._served[event.name]
        method, handler = served.method, served.stream
        assert handler is not None, "the core knows which methods stream"
        stream: RpcStream[Any, Any] = RpcStream(
            self._side, self._peer, event.id, method.request, zipping=method.compress
        )
        self._streams[event.id] = stream
        self._begin(event.id, event.name, partial(self._stream, handler, stream))

    def _stop(self, number: int) -> None:
        scope = self._scopes.get(number)
        if scope is not None:
            scope.cancel()
        stream = self._streams.get(number)
        if stream is not None:
            stream.fail(ENDED)

    # ---- handlers

    def _begin(self, number: int, name: str, run: Run) -> None:
        """Run a handler soon, in a task that waits for one, or else in another."""
        self._jobs.append((number, name, _stopping if self._stopping else run))
        self._call()

    def _call(self) -> None:
        """Have one more task look for jobs; until it does, no other is called."""
        if self._called:
            return
        self._called = True
        if self._idle:
            self._idle.unpark()
        else:
            self._nursery.start_soon(self._work)

    async def _work(self) -> None:
        """Run one job after the other; a scope that was cancelled is used no more."""
        self._called = False
        jobs = 0
        while True:
            with trio.CancelScope() as scope:
                while not scope.cancel_called:
                    if not self._jobs:
                        if len(self._idle) >= IDLE_MAX:
                            return
                        await self._idle.park()
                        self._called = False
                        continue
                    job = self._jobs.popleft()
                    if self._jobs:
                        self._call()
                    await self._run(job, scope)
                    jobs += 1
                    if jobs % JOBS_IN_A_ROW == 0:
                        await trio.lowlevel.checkpoint()

    async def _run(self, job: Job, scope: trio.CancelScope) -> None:
        """One handler."""
        number, name, run = job
        self._scopes[number] = scope
        began, outcome = trio.current_time(), "cancelled"
        try:
            if not self._core.answers(number):
                return
            error = await failure_of(run, self._on_bug)
            outcome = "ok"
            if error is not None:
                outcome = self._refuse(number, error)
        finally:
            self._figures.add(name, outcome, trio.current_time() - began)
            del self._scopes[number]
            self._streams.pop(number, None)
            self._core.done(number)
            self._pump.wake()

    def _refuse(self, number: int, error: Exception) -> str:
        if isinstance(error, RemoteError) and error.penalty > 0:
            self._blame(error)
        refusal = refusal_of(error)
        if isinstance(error, _BadRequest):
            refusal = refusal._replace(code="malformed")
        self._core.refuse(number, refusal)
        return refusal.code

    async def _answer(self, asked: Asked) -> None:
        served = self._served[asked.name]
        assert served.unary is not None, "the core knows which methods stream"
        answer = await served.unary(self._peer, self._decode(served.method, asked.message))
        parts = packet.encode(answer.body, answer.tensors)
        self._core.post(asked.id, parts, last=True, zipping=served.method.compress)

    def _decode(self, method: Method[Any, Any], message: Message) -> Packet[Any]:
        try:
            return packet.decode(method.request, message)
        except Malformed as exc:
            raise _BadRequest(self._peer, f"malformed request: {exc}") from exc

    async def _stream(self, handler: Callable[[Any], Awaitable[None]], stream: RpcStream[Any, Any]) -> None:
        await handler(stream)
        stream.finish()
