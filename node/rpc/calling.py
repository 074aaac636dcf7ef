"""Calls to one peer over one channel, which is opened for the first and kept for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from node.rpc.pump import Pump
from node.rpc.streams import RpcStream, Side, again, ended
from wire.errors import ChannelClosed, FrameTooLarge, Malformed, QuorateError, RemoteError, TransportError
from wire.memory import Growth, Memory
from wire.peer import PeerId, short
from wire.rpc.caller import Arrived, Caller, Event
from wire.rpc.inbox import Message
from wire.rpc.packet import Buffer
from wire.rpc.seam import PROTOCOL, Method
from wire.serving import Blame
from wire.transport import Transport

IDLE_S = 300.0
"""Seconds without a call after which the channel is closed."""

RENEW_S = 60.0
"""Age in seconds from which a channel gives way to a new one once nothing is under way on it: a channel stays on the
connection that it was opened on, and meanwhile a better one may have come up, such as a direct one beside a relayed."""


class _Pending:
    """A unary call that a task waits for."""

    __slots__ = ("error", "message", "task")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.message: Message = b""
        self.error: QuorateError | None = None


class Link:
    """The channel on which we call one peer; `run` must run in a task, once."""

    def __init__(self, transport: Transport, peer: PeerId, blame: Blame, memory: Memory) -> None:
        self._memory = memory
        self._growth = Growth(memory, self)
        self._transport = transport
        self._peer = peer
        self._blame = blame
        self._core = Caller(peer)
        self._streams: dict[int, RpcStream[Any, Any]] = {}
        self._pump = Pump(self._core, self._next_batch, self._streams, self._due)
        self._side = Side(self._core, self._pump)
        self._pending: dict[int, _Pending] = {}
        self._opened_s = self._used_s = trio.current_time()
        self._life = trio.CancelScope()
        self._end: QuorateError = ChannelClosed("the calls were shut down")
        self.alive = True

    @property
    def core(self) -> Caller:
        """The state, for those who look."""
        return self._core

    @property
    def used_s(self) -> float:
        """When a call began here last."""
        return self._used_s

    @property
    def stale(self) -> bool:
        """Whether another channel should take its place: it is old, and nothing is under way."""
        return not self._core and trio.current_time() >= self._opened_s + RENEW_S

    def close(self) -> None:
        """End the channel; calls that are under way fail."""
        self._end = ChannelClosed("closed when idle")
        self.alive = False
        self._life.cancel()

    # ---- of the application

    def _start(self, name: bytes, timeout_s: float) -> int:
        if not self.alive:
            raise ChannelClosed(f"the channel with {short(self._peer)} has ended")
        self._used_s = trio.current_time()
        return self._core.start(name, timeout_s, self._used_s)

    async def exchange(self, name: bytes, parts: Sequence[Buffer], *, zipping: bool, timeout_s: float) -> Message:
        """One message there, one back; errors as `wire.rpc.seam.Rpc.call`."""
        number = self._start(name, timeout_s)
        self._core.post(number, parts, last=True, zipping=zipping)
        pending = self._pending[number] = _Pending(trio.lowlevel.current_task())
        self._pump.wake()

        def abort(_: Callable[[], None]) -> trio.lowlevel.Abort:
            del self._pending[number]
            self._core.cancel(number)
            self._pump.wake()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if pending.error is not None:
            raise pending.error
        return pending.message

    @asynccontextmanager
    async def stream(self, method: Method[Any, Any], *, timeout_s: float) -> AsyncIterator[RpcStream[Any, Any]]:
        """See `wire.rpc.seam.Rpc.stream`."""
        number = self._start(method.name.encode(), timeout_s)
        stream: RpcStream[Any, Any] = RpcStream(self._side, self._peer, number, method.answer, zipping=method.compress)
        self._streams[number] = stream
        self._pump.wake()
        try:
            yield stream
        finally:
            self._core.cancel(number)
            self._streams.pop(number, None)
            self._pump.wake()

    # ---- the channel

    async def run(self) -> None:
        """Open the channel and serve it until it ends; then every call that is under way has ended."""
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump.watch)
                    await self._run_channel(nursery)
                    nursery.cancel_scope.cancel()
        finally:
            self.alive = False
            for number in self._core.lost():
                self._fail(number, again(self._end))

    async def _run_channel(self, nursery: trio.Nursery) -> None:
        try:
            channel = await self._transport.open(self._peer, PROTOCOL)
        except TransportError as exc:
            self._end = exc
            return
        self._memory.join(self._peer, self)
        try:
            nursery.start_soon(self._write, channel, nursery)
            while True:
                self._handle(self._core.receive(await channel.receive()))
                self._growth.look()
        except (Malformed, FrameTooLarge) as exc:
            self._end = RemoteError(self._peer, f"broke the call protocol: {exc}")
            self._blame(self._end)
        except TransportError as exc:
            self._end = exc
        finally:
            self._memory.leave(self._peer, self)
            await channel.aclose()

    # ---- `wire.memory.Part`

    def held(self) -> int:
        """Bytes of answers that nobody has taken, and of requests that wait."""
        requests, _, answers = self._core.held
        return requests + answers if self.alive else 0

    def stalled(self) -> int:
        """Calls end within deadlines: nothing here lies for ever."""
        return 0

    def shed(self, size: int) -> None:
        """End the channel; calls that are under way fail."""
        self.close()
        self._end = ChannelClosed(f"the calls with {short(self._peer)} hold too much")

    async def _write(self, channel: Any, nursery: trio.Nursery) -> None:
        try:
            await self._pump.write(channel)
        except TransportError as exc:
            self._end = exc
            nursery.cancel_scope.cancel()

    def _next_batch(self) -> bytes | None:
        return self._core.next_batch(trio.current_time())

    def _due(self) -> float:
        now = trio.current_time()
        self._handle(self._core.expire(now))
        if not self._core and now >= self._used_s + IDLE_S:
            self.close()
        return max(self._used_s, now if self._core else self._used_s) + IDLE_S

    # ---- events

    def _handle(self, events: Sequence[Event]) -> None:
        for event in events:
            pending = self._pending.pop(event.id, None)
            if pending is not None:
                self._answer(pending, event)
                continue
            stream = self._streams.get(event.id)
            if stream is None:
                continue
            if isinstance(event, Arrived):
                stream.arrived(event.message, last=event.last)
                if event.last:
                    stream.fail(ended(self._peer))
            else:
                if event.error is None:
                    stream.closed()
                elif isinstance(event.error, RemoteError) and event.error.penalty:
                    self._blame(event.error)
                stream.fail(event.error or ended(self._peer))
        if events or not self._core.idle:
            self._pump.wake()

    def _answer(self, pending: _Pending, event: Event) -> None:
        if isinstance(event, Arrived) and event.last:
            pending.message = event.message
        elif isinstance(event, Arrived) or event.error is None:
            self._core.cancel(event.id)
            pending.error = RemoteError(self._peer, "answered a call with several messages, or with none")
        else:
            pending.error = event.error
        if isinstance(pending.error, RemoteError) and pending.error.penalty:
            self._blame(pending.error)
        trio.lowlevel.reschedule(pending.task)

    def _fail(self, number: int, error: QuorateError) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None:
            pending.error = error
            trio.lowlevel.reschedule(pending.task)
        stream = self._streams.get(number)
        if stream is not None:
            stream.fail(error)
