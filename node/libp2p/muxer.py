"""Yamux over a Noise session, in trio: a reader, a writer and a clock around `node.libp2p.yamux`.

Invariants: the reader never waits for a send; whoever queues frames tries one non-blocking write and leaves the rest
to the writer, so nothing here can be cancelled between two bytes; a stream waits for data, or for room to write, on
an event of its own. Within one turn of the scheduler the first write goes out at once and all others together.
It takes the place of py-libp2p's Yamux and of its streams, and has what that library calls on them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import trio
from libp2p.abc import IMuxedConn
from libp2p.connection_types import ConnectionType
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable
from multiaddr import Multiaddr

from node.libp2p.muxed_stream import MuxedStream
from node.libp2p.pace import RESET_S, Pace
from node.libp2p.ticker import TICK_S, Ticker
from node.libp2p.yamux import YamuxConnection
from node.libp2p.yamux_frames import NORMAL, PROTOCOL_ERROR, YamuxViolation
from node.libp2p.yamux_state import STREAMS_IN_MAX, Ended, GoneAway, Opened, Pong, Readable, Stream, Writable
from wire.errors import Malformed
from wire.memory import Memory
from wire.peer import from_text

RTT_PERIOD_S = 60.0
"""How often the round trip is measured, the first time at the first tick."""

RTT_PING = 0x51A7
"""The value of a ping that measures; answers to others are not looked at."""

LOST = (BaseLibp2pError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError)
"""What ends a connection without anybody's fault."""


Acceptor = Callable[[MuxedStream], bool]
"""Takes a stream that the other side opened; false leaves it to py-libp2p."""

TakeStream = Callable[[MuxedStream], Awaitable[None]]
"""What py-libp2p does with a stream that the other side opened."""


class Session(Protocol):
    """What carries the muxer's bytes: a `NoiseSession`, or what keeps the same promises."""

    @property
    def has_windows(self) -> bool:
        """Whether a stream that nobody reads at the far end makes its writer here wait."""
        ...

    @property
    def is_initiator(self) -> bool: ...
    @property
    def acceptor(self) -> Any: ...
    @property
    def memory(self) -> Memory: ...
    @property
    def ticker(self) -> Ticker | None: ...
    @property
    def unsent(self) -> memoryview | None: ...
    @property
    def pace(self) -> Pace: ...
    @property
    def held(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    def cut(self) -> None: ...
    async def receive(self) -> bytes: ...
    def send_now(self, plain: bytes) -> bool: ...
    async def drain(self) -> None: ...
    async def close(self) -> None: ...
    def get_transport_addresses(self) -> list[Multiaddr]: ...
    def get_connection_type(self) -> ConnectionType: ...
    def get_remote_address(self) -> tuple[str, int] | None: ...


def _owner(state: Stream) -> MuxedStream:
    assert isinstance(state.owner, MuxedStream), "each stream is wrapped before anything else happens to it"
    return state.owner


class Muxer(IMuxedConn):
    """One connection; `start` runs for as long as it stands."""

    def __init__(
        self,
        secured_conn: Session,
        peer_id: ID,
        is_initiator: bool | None = None,
        on_close: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self.secured_conn = secured_conn
        self.peer_id = peer_id
        self.peer = from_text(peer_id.to_base58())
        self.on_close = on_close
        self._initiator = secured_conn.is_initiator if is_initiator is None else is_initiator
        self.memory = secured_conn.memory
        self.core = YamuxConnection(initiator=self._initiator, now=trio.current_time(), lean=lambda: self.memory.lean)
        self.lost: str | None = None
        self.heard_at = trio.current_time()
        self.rtt_s: float | None = None
        self._pinged_at = 0.0
        self.confirmed: set[str] = set()
        self.event_started, self.event_shutting_down, self.event_closed = trio.Event(), trio.Event(), trio.Event()
        self._acceptor = cast("Acceptor | None", secured_conn.acceptor)
        self._accepted: trio.MemorySendChannel[MuxedStream] | None = None
        self._accepting: trio.MemoryReceiveChannel[MuxedStream] | None = None
        if self._acceptor is None:
            self._accepted, self._accepting = trio.open_memory_channel(STREAMS_IN_MAX)
        self._library: TakeStream | None = None
        self._library_known: trio.Event | None = None
        self._rtt_due = 0.0
        self._work = trio.Event()
        self._flushed = False

    # ---- opening and sending, without waiting

    def open_now(self) -> MuxedStream:
        """A new stream, opened with what is sent next.

        Raises:
            MuxedConnUnavailable: not on this connection.
        """
        if self.lost is not None:
            raise MuxedConnUnavailable(self.lost)
        try:
            stream = MuxedStream(self, self.core.open())
        except YamuxViolation as exc:
            raise MuxedConnUnavailable(str(exc)) from exc
        return stream

    def flush(self) -> None:
        """Send now if nothing was sent in this turn, else with the writer's next batch."""
        if not self._flushed and self.secured_conn.unsent is None and self.lost is None:
            self._flushed = True
            self._send_batch()
        self.flush_later()

    def flush_later(self) -> None:
        """Let the writer send what is queued."""
        self._work.set()

    def _send_batch(self) -> None:
        pieces, ready = self.core.batch()
        try:
            if pieces:
                self.secured_conn.send_now(b"".join(pieces))
        except (OSError, Malformed) as exc:
            self._lose(f"the connection was lost: {exc}")
        for state in ready:
            _owner(state).wake_writer()

    # ---- the tasks

    async def start(self) -> None:
        """Run until the connection ends."""
        self.memory.join(self.peer, self)
        ticker = self.secured_conn.ticker
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_on)
                if ticker is not None:
                    ticker.join(self)
                else:
                    nursery.start_soon(self._look_at_the_clock)
                self.event_started.set()
                await self._read_on()
                nursery.cancel_scope.cancel()
        finally:
            self._lose("the connection ended")
            self.memory.leave(self.peer, self)
            if ticker is not None:
                ticker.leave(self)
            with trio.CancelScope(shield=True):
                await self.shut()
        if self._library is not None:
            await self.close()

    async def _read_on(self) -> None:
        try:
            while self.lost is None:
                chunk = await self.secured_conn.receive()
                self.heard_at = trio.current_time()
                for event in self.core.receive(chunk, self.heard_at):
                    self._on_event(event)
                self.memory.grew(len(chunk))
                if self.core.has_output:  # what is said in answer goes out with the next data, or after this turn
                    self.flush_later()
        except Malformed as exc:
            self._give_up(str(exc), PROTOCOL_ERROR)
        except LOST as exc:
            self._lose(f"the connection was lost: {exc}")

    def _on_event(self, event: object) -> None:
        match event:
            case Readable(state):
                _owner(state).wake_reader()
            case Writable(state):
                _owner(state).wake_writer()
            case Ended(state):
                if not state.ours:
                    self.secured_conn.pace.charge(RESET_S)
                _owner(state).wake()
            case Opened(state):
                self._on_opened(MuxedStream(self, state))
            case Pong(value):
                if value == RTT_PING and self._pinged_at:
                    self.rtt_s, self._pinged_at = trio.current_time() - self._pinged_at, 0.0
            case GoneAway():
                self.event_shutting_down.set()
                if not self.core.streams:
                    self._lose("the peer went away")

    def _on_opened(self, stream: MuxedStream) -> None:
        if self._acceptor is None or not self._acceptor(stream):
            self.leave(stream)

    def leave(self, stream: MuxedStream) -> None:
        """Give a stream to py-libp2p, which fetches them with `accept_stream`."""
        try:
            assert self._accepted is not None, "who accepts by himself hands streams over"
            self._accepted.send_nowait(stream)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            stream.abort("nobody accepts streams here")

    def hand_to(self, library: TakeStream) -> bool:
        """Have py-libp2p take streams without waiting for them; false where it has to wait, or all is over."""
        if self._acceptor is None or self.lost is not None:
            return False
        self._library = library
        if self._library_known is not None:
            self._library_known.set()
        return True

    async def hand_over(self, stream: MuxedStream) -> None:
        """Let py-libp2p deal with a stream; returns when it has."""
        while self._library is None and self.lost is None:
            if self._library_known is None:
                self._library_known = trio.Event()
            await self._library_known.wait()
        if self._library is None:
            stream.abort("the connection ended")
        else:
            await self._library(stream)

    async def _write_on(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            self._flushed = False
            try:
                while self.lost is None and (self.secured_conn.unsent is not None or self.core.has_output):
                    if self.secured_conn.unsent is None:
                        self._send_batch()
                        continue
                    await self.secured_conn.drain()
            except LOST as exc:
                self._lose(f"the connection takes no more: {exc}")
                await self.shut()
                return

    async def _look_at_the_clock(self) -> None:
        while self.lost is None:
            await trio.sleep(TICK_S)
            if not self.tick(trio.current_time()):
                await self.shut()

    def tick(self, now: float) -> bool:
        """What time brings; false if that is the end, with the socket still to be closed."""
        if self.lost is not None:
            return True
        try:
            for event in self.core.tick(now):
                self._on_event(event)
        except YamuxViolation as exc:
            self._give_up(str(exc), NORMAL)
            return False
        if now >= self._rtt_due:
            self._pinged_at, self._rtt_due = now, now + RTT_PERIOD_S
            self.core.ping(RTT_PING)
        if self.core.has_output:
            self.flush()
        return True

    def going_away(self) -> None:
        """Tell the other side to open nothing more; what is open goes on."""
        if self.lost is None:
            self.core.go_away(NORMAL)
            self.flush_later()

    # ---- `wire.memory.Part`

    def held(self) -> int:
        """Bytes received and not used, and those that wait to be sent."""
        session = self.secured_conn
        return self.core.held + self.core.queued + session.held + (len(session.unsent) if session.unsent else 0)

    def stalled(self) -> int:
        """Bytes that nobody reads."""
        return self.core.stalled()

    def shed(self, size: int) -> None:
        """Reset the streams that hold most; where that is not enough, end."""
        goal = self.held() - size
        while self.held() > goal and (state := self.core.greediest()) is not None:
            self.core.figures.streams_shed += 1
            _owner(state).abort("the node holds too much unread data")
        if self.held() > goal:
            self._lose("the node holds too much for this connection")
            self.secured_conn.cut()

    # ---- the end

    def _give_up(self, reason: str, code: int) -> None:
        """Say goodbye if the socket takes it at once."""
        if self.lost is None and self.secured_conn.unsent is None:
            self.core.go_away(code)
            self._send_batch()
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        self.event_shutting_down.set()
        for state in self.core.streams.values():
            if isinstance(state.owner, MuxedStream):  # not if the peer opened it and broke a rule in one breath
                state.owner.wake()
        if self._accepted is not None:
            self._accepted.close()
        if self._library_known is not None:
            self._library_known.set()

    async def shut(self) -> None:
        """Close the socket."""
        try:
            await self.secured_conn.close()
        except LOST:
            return

    async def close(self) -> None:
        """Go away: what was queued goes out if the socket takes it at once."""
        self._give_up("closed here", NORMAL)
        await self.shut()
        if not self.event_closed.is_set():
            self.event_closed.set()
            if self.on_close is not None:
                await self.on_close()

    # ---- what py-libp2p expects of a connection

    @property
    def is_initiator(self) -> bool:
        return self._initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and self.lost is None

    @property
    def is_closed(self) -> bool:
        return self.event_closed.is_set()

    async def open_stream(self) -> MuxedStream:
        """A new stream."""
        await trio.lowlevel.checkpoint()
        stream = self.open_now()
        self.flush_later()
        return stream

    async def accept_stream(self) -> MuxedStream:
        """The next stream that nobody else accepted.

        Raises:
            MuxedConnUnavailable: the connection ended.
        """
        if self._accepting is None:
            raise MuxedConnUnavailable(self.lost or "streams are handed over here")
        try:
            return await self._accepting.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable(self.lost or "closed") from None

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()
