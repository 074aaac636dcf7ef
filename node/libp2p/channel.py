"""A stream of our own muxer as a `wire.transport.Channel`: no task, no queue, no copy besides joining a frame.

Received bytes wait in the stream itself, so its window bounds them; bytes of an incomplete frame still count as held
by the connection. A frame of up to one Yamux frame is queued in one step, so a cancelled `send` leaves it whole or
unsent; a longer one that is cancelled between two pieces resets the stream.
"""

from __future__ import annotations

from functools import lru_cache

import trio

from node.framing import HEADER_BYTES, FrameAssembler
from node.libp2p.muxed_stream import MuxedStream
from wire.errors import ChannelClosed, FrameTooLarge, Malformed, Unreachable
from wire.limits import FRAME_BYTES_MAX
from wire.peer import PeerId
from wire.peer import short as spelled

LINGER_S = 60.0
"""Seconds for which a channel that was closed here waits for the other side to close before it is reset."""

CLOSE_S = 20.0
"""Seconds that a close waits for a send under way."""

JOINED_BYTES_MAX = 32 << 10
"""Frames up to this length are copied behind their header; longer ones follow it as they are."""

USED_BYTES_MIN = 32 << 10
"""The stream is told of used bytes in steps of so many."""

TURNS = 16
"""Operations in a row before other tasks get a turn."""

short = lru_cache(4096)(spelled)
"""Every channel ends with an error that names its peer, and spelling a name costs as much as sending a frame."""


class MuxedChannel:
    """See `wire.transport.Channel`."""

    def __init__(self, peer: PeerId, stream: MuxedStream) -> None:
        self._peer = peer
        self._stream = stream
        self._frames = FrameAssembler()
        self._sending = trio.Lock()
        self._closed_here = False
        self._failed: type[ChannelClosed] | type[FrameTooLarge] | None = None
        self._why = ""
        self._used = 0
        self._turns = 0
        self._frames.feed(stream.leftover())

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def _turn(self) -> None:
        """A checkpoint that costs a turn of the scheduler only now and then."""
        self._turns += 1
        if self._turns % TURNS:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    # ---- sending

    async def send(self, frame: bytes) -> None:
        size = len(frame)
        if size > FRAME_BYTES_MAX:
            raise FrameTooLarge(f"{size} bytes; a frame has at most {FRAME_BYTES_MAX}")
        await self._turn()
        if self._sending.locked():
            await self._sending.acquire()
        else:
            self._sending.acquire_nowait()
        try:
            header = size.to_bytes(HEADER_BYTES, "big")
            if size <= JOINED_BYTES_MAX:
                await self._send(memoryview(header + frame))
            else:
                await self._send(memoryview(header), memoryview(frame))
        finally:
            self._sending.release()

    async def _send(self, *parts: memoryview) -> None:
        self._check_open()
        begun = False
        try:
            for part in parts:
                at = 0
                while at < len(part):
                    self._check_writable()
                    # a header alone leaves with what follows it
                    taken = self._stream.offer(part[at:] if at else part, later=part is not parts[-1], begun=begun)
                    if taken:
                        begun = True
                        at += taken
                    else:
                        await self._stream.room()
        except (trio.Cancelled, ChannelClosed):
            if begun:
                self._stream.abort("ended within a frame")
            raise

    def _check_open(self) -> None:
        if self._closed_here or self._failed is not None:
            raise ChannelClosed(f"channel with {short(self._peer)} has ended: {self._why or 'closed here'}")

    def _check_writable(self) -> None:
        stream = self._stream
        state = stream.state
        if stream.broken is not None or state.received_all or state.closing or state.sent_all:
            raise ChannelClosed(f"channel with {short(self._peer)} has ended: {stream.broken or 'finished'}")

    # ---- receiving

    async def receive(self) -> bytes:
        await self._turn()
        while True:
            if self._failed is not None:
                raise self._failed(self._why)
            if self._closed_here:
                raise ChannelClosed("closed here")
            frame = self._next_frame()
            if frame is not None:
                return frame
            if self._fetch():
                continue
            if self._stream.broken is not None or self._stream.state.received_all:
                self._use(self._frames.have, at_once=True)
                raise ChannelClosed(f"{short(self._peer)} closed the channel: {self._stream.broken or 'finished'}")
            if self._frames.missing:
                self._stream.need(self._frames.missing)
            await self._stream.news()

    def _next_frame(self) -> bytes | None:
        try:
            frame = self._frames.next_frame()
        except FrameTooLarge as exc:
            self._fail(FrameTooLarge, str(exc))
            self._stream.abort(str(exc))
            raise
        if frame is not None:
            self._use(HEADER_BYTES + len(frame), at_once=not self._frames.have)
        return frame

    def _use(self, size: int, *, at_once: bool) -> None:
        self._used += size
        if at_once or self._used >= USED_BYTES_MIN:
            self._stream.use(self._used)
            self._used = 0

    def _fetch(self) -> bool:
        """Move what has arrived to the assembler; whether there was anything."""
        try:
            chunks = self._stream.take()
        except (Unreachable, Malformed) as exc:
            self._fail(ChannelClosed, str(exc))
            raise ChannelClosed(str(exc)) from exc
        for chunk in chunks:
            self._frames.feed(chunk)
        return bool(chunks)

    def _fail(self, kind: type[ChannelClosed] | type[FrameTooLarge], why: str) -> None:
        self._failed, self._why = kind, why

    # ---- closing

    async def aclose(self) -> None:
        if self._closed_here:
            await trio.lowlevel.checkpoint()
            return
        self._closed_here = True
        self._stream.wake_reader()
        if self._sending.locked():
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                async with self._sending:
                    await trio.lowlevel.checkpoint()
        self._frames = FrameAssembler()
        if self._sending.locked():
            self._stream.abort("closed within a frame")
        self._stream.finish()
        self._stream.discard(LINGER_S)
        await trio.lowlevel.checkpoint()

    async def abort(self) -> None:
        """Reset the stream at once: frames in flight may be lost, nothing can be misread."""
        self._fail(ChannelClosed, f"channel with {short(self._peer)} was reset")
        self._stream.abort("reset here")
        await trio.lowlevel.cancel_shielded_checkpoint()
