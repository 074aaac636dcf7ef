"""One stream of our own muxer, in trio.

The first half, for our own channels, never waits besides in `news` and `room`; the second is what py-libp2p calls.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamError, MuxedStreamReset

from node.libp2p.multiselect import Proposer, Responder, proposal
from node.libp2p.yamux_state import Stream
from wire.errors import Malformed, Unreachable

if TYPE_CHECKING:
    from node.libp2p.muxer import Muxer


class MuxedStream(IMuxedStream):
    """One stream. The first half is for our own channels, the second what py-libp2p expects."""

    def __init__(self, conn: Muxer, state: Stream) -> None:
        self.muxed_conn = self.conn = conn
        self.state = state
        state.owner = self
        self.stream_id = state.id
        self.is_initiator = state.ours
        self.negotiated: str | None = None
        self._proposer: Proposer | None = None
        self._left = bytearray()
        self._news: trio.Event | None = None
        self._room: trio.Event | None = None

    # ---- without waiting

    def take(self) -> list[bytes | bytearray]:
        """What has arrived, and `use` is to be told of; empty if nothing has.

        Raises:
            ProtocolRefused, Malformed: the answer to a lazy proposal; the stream is reset.
        """
        if not self.state.chunks:
            return []
        chunks = self.conn.core.take(self.state)
        if self._proposer is not None:
            chunks = self._agreed(chunks)
        if self.conn.core.has_output:
            self.conn.flush_later()
        return chunks

    def _agreed(self, chunks: list[bytes | bytearray]) -> list[bytes | bytearray]:
        assert self._proposer is not None
        got = b"".join(chunks)
        try:
            rest = self._proposer.feed(got)
        except (Unreachable, Malformed) as exc:
            self.conn.confirmed.discard(self._proposer.protocol)
            self.abort(str(exc))
            raise
        if rest is None:
            self.use(len(got))
            return []
        self._proposer = None
        self.use(len(got) - len(rest))
        return [rest] if rest else []

    def use(self, size: int) -> None:
        """So many taken bytes were used."""
        self.conn.core.use(self.state, size)
        if self.conn.core.has_output:
            self.conn.flush_later()

    def need(self, size: int) -> None:
        """Nothing of what was taken can be used before `size` more bytes arrive."""
        self.conn.core.need(self.state, size)
        if self.conn.core.has_output:
            self.conn.flush_later()

    def offer(self, data: memoryview, *, later: bool = False, begun: bool = False, negotiating: bool = False) -> int:
        """Send the start of `data`; returns how much was taken, 0 where `room` is to be waited for."""
        taken = self.conn.core.write(self.state, data, begun=begun, negotiating=negotiating)
        self.conn.memory.grew(taken)
        if later:
            self.conn.flush_later()
        elif taken:
            self.conn.flush()
        return taken

    def propose(self, protocol: str) -> None:
        """Negotiate lazily: the proposal leaves with whatever is sent next, the answer is checked when read."""
        self._proposer = Proposer(protocol)
        proposed = proposal(protocol)
        if self.offer(memoryview(proposed), later=True, negotiating=True) < len(proposed) and self.broken is None:
            self.abort("the peer leaves no window for a proposal")

    def finish(self) -> None:
        """Half-close behind what was queued."""
        self.conn.core.close_write(self.state)
        self.conn.flush_later()

    def discard(self, for_s: float) -> None:
        """Nobody reads any more; reset the stream if the other side does not finish in `for_s` seconds."""
        self.conn.core.discard(self.state, trio.current_time() + for_s)
        self.conn.flush_later()

    def abort(self, reason: str) -> None:
        """Reset."""
        self.conn.core.reset(self.state, reason)
        self.conn.flush_later()
        self.wake()

    def wake(self) -> None:
        """Let all waiters look again."""
        self.wake_reader()
        self.wake_writer()

    def wake_reader(self) -> None:
        """Let whoever waits for data look again."""
        if self._news is not None:
            self._news.set()
            self._news = None

    def wake_writer(self) -> None:
        """Let whoever waits for room look again."""
        if self._room is not None:
            self._room.set()
            self._room = None

    @property
    def broken(self) -> str | None:
        """Why nothing can be sent or received any more; None while something can."""
        return self.state.ended or self.conn.lost

    # ---- waiting

    async def news(self) -> None:
        """Wait until there is data, an end or a loss."""
        state = self.state
        while not state.chunks and not state.received_all and self.broken is None:
            if self._news is None:
                self._news = trio.Event()
            await self._news.wait()

    async def room(self) -> None:
        """Wait until `offer` may take something, or never will."""
        while self.state.blocked and self.broken is None:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    async def confirmed(self) -> None:
        """Wait for the answer to `propose`.

        Raises:
            ProtocolRefused, Malformed: the answer is no, or nonsense.
            MuxedStreamError: the stream ended before.
        """
        while self._proposer is not None:
            await self.news()
            rest = self.take()
            if rest:
                self._left += b"".join(rest)
            elif not self.state.chunks and self._proposer is not None:
                self._check_readable()

    async def respond(self, responder: Responder) -> str:
        """Answer the other side's proposals until one fits; the answer leaves with what is sent next.

        Raises:
            Malformed: what it proposes is none.
            MuxedStreamError: the stream ended before.
        """
        while responder.agreed is None:
            await self.news()
            got = b"".join(self.take())
            if not got:
                self._check_readable()
                continue
            answer = responder.feed(got)
            rest = responder.rest() if responder.agreed is not None else b""
            self._left += rest
            self.use(len(got) - len(rest))
            if answer and self.offer(memoryview(answer), later=True, negotiating=True) < len(answer):
                raise Malformed("the peer leaves no window for an answer")
        return responder.agreed

    def leftover(self) -> bytes:
        """Taken while negotiating, and still to be used by whoever reads."""
        left = bytes(self._left)
        self._left.clear()
        return left

    def _check_readable(self) -> None:
        if self.state.chunks:
            return
        if self.broken is not None:
            raise MuxedStreamReset(self.broken)
        if self.state.received_all:
            raise MuxedStreamEOF("the other side closed the stream")

    # ---- what py-libp2p expects of a stream

    async def read(self, n: int | None = -1) -> bytes:
        """Up to `n` bytes, at least one; any number if `n` is negative or None."""
        while n != 0 and not self._left:
            await self.news()
            chunks = self.take()
            if not chunks:
                self._check_readable()
            self._left += b"".join(chunks)
        size = len(self._left) if n is None or n < 0 else min(n, len(self._left))
        data = bytes(self._left[:size])
        del self._left[:size]
        self.use(size)
        await trio.lowlevel.checkpoint()
        return data

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            taken = self.offer(view)
            view = view[taken:]
            if taken == 0:
                if self.broken is not None:
                    raise MuxedStreamReset(self.broken)
                if self.state.closing or self.state.sent_all:
                    raise MuxedStreamClosed("the stream is closed for sending")
                await self.room()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        """Half-close."""
        self.finish()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        """Reset."""
        self.abort("reset here")
        await trio.lowlevel.checkpoint()

    def set_deadline(self, ttl: int) -> None:
        """Time belongs to the caller."""
        raise MuxedStreamError("a stream keeps no deadlines; use a cancel scope")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.conn.get_remote_address()

    async def __aenter__(self) -> MuxedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
