"""One Yamux stream as a `wire.transport.Channel`.

A pump task reads the stream all the time and fills a queue bounded in bytes, so the muxer is never kept waiting
by a handler's own work; a full queue stops the pump, the Yamux window closes, and the sender waits.

Cancellation: frames are taken from the queue, so a cancelled `receive` loses nothing. Bytes are handed to the
muxer under a shield (half a Noise message would kill the whole connection); between them a `send` may be
cancelled: before its first byte the channel is untouched, after it the stream is reset.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol, cast

import trio
from libp2p.abc import INetStream
from libp2p.exceptions import BaseLibp2pError

from node.framing import FrameReader, encode_frame
from wire.errors import ChannelClosed, FrameTooLarge, TransportError
from wire.limits import FRAME_BYTES_MAX
from wire.peer import PeerId, short

INBOX_BYTES_MAX = 2 * FRAME_BYTES_MAX
"""Received frames waiting for `receive`, and 64 bytes each for their bookkeeping."""

READ_BYTES = 1 << 18
"""Most bytes taken from the muxer at once."""

WRITE_BYTES = 65000
"""Most bytes given to the muxer at once: one Yamux frame in one Noise message."""

WINDOW_POLL_S = 0.005
"""How often a closed Yamux window is looked at (the muxer offers no event)."""

STALL_S = 20.0
"""Seconds after which a socket that takes no bytes is given up."""

LINGER_S = 60.0
"""Seconds for which a channel that was closed here waits for the other side to close before it is reset."""

LOST = (BaseLibp2pError, trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""What py-libp2p raises when a stream or its connection is gone."""


class _Muxed(Protocol):
    """What is used of a Yamux stream."""

    send_window: int

    async def read(self, n: int | None = -1) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


class Inbox:
    """Frames that were received and not yet taken; `put` waits while it is full."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._end: TransportError | None = None
        self._news = trio.lowlevel.ParkingLot()
        self._space = trio.lowlevel.ParkingLot()

    async def put(self, frame: bytes) -> None:
        """Add a frame; once ended, it is dropped."""
        while self._bytes > INBOX_BYTES_MAX and self._end is None:
            await self._space.park()
        if self._end is None:
            self._frames.append(frame)
            self._bytes += len(frame) + 64
            self._news.unpark()

    async def get(self) -> bytes:
        """The next frame, or how the channel ended."""
        await trio.lowlevel.checkpoint()
        while not self._frames:
            if self._end is not None:
                raise type(self._end)(*self._end.args)
            await self._news.park()
        frame = self._frames.popleft()
        self._bytes -= len(frame) + 64
        self._space.unpark()
        return frame

    def end(self, reason: TransportError, *, drop: bool = False) -> None:
        """No more frames; those already here are still handed out unless dropped. The first reason stays."""
        if drop:
            self._frames.clear()
        if self._end is None or drop:
            self._end = reason
        self._news.unpark_all()
        self._space.unpark_all()


class Libp2pChannel:
    """See `wire.transport.Channel`; `pump` must run in a task for as long as the channel lives."""

    def __init__(self, peer: PeerId, stream: INetStream) -> None:
        self._peer = peer
        self._stream = stream
        self._muxed = cast(_Muxed, cast(Any, stream).muxed_stream)
        self._inbox = Inbox()
        self._sending = trio.Lock()
        self._closed_here = False
        self._ended = False
        self._pumping = trio.CancelScope()

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, frame: bytes) -> None:
        raw = encode_frame(frame)
        async with self._sending:
            await self._write(memoryview(raw))

    async def _write(self, raw: memoryview) -> None:
        at = 0
        try:
            while at < len(raw):
                self._check_open()
                size = min(self._muxed.send_window, WRITE_BYTES, len(raw) - at)
                if size <= 0:
                    await trio.sleep(WINDOW_POLL_S)
                    continue
                await self._write_chunk(bytes(raw[at : at + size]))
                at += size
        finally:
            if 0 < at < len(raw):
                await self.abort()

    def _check_open(self) -> None:
        if self._closed_here or self._ended:
            raise ChannelClosed(f"channel with {short(self._peer)} has ended")

    async def _write_chunk(self, chunk: bytes) -> None:
        try:
            with trio.fail_after(STALL_S) as stall:
                stall.shield = True
                await self._muxed.write(chunk)
        except (*LOST, trio.TooSlowError) as exc:
            await self.abort()
            raise ChannelClosed(f"connection with {short(self._peer)} lost while sending: {exc}") from exc

    async def receive(self) -> bytes:
        return await self._inbox.get()

    async def aclose(self) -> None:
        if self._closed_here:
            await trio.lowlevel.checkpoint()
            return
        self._closed_here = True
        self._inbox.end(ChannelClosed("closed here"), drop=True)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STALL_S):
            async with self._sending:
                await self._finish()

    async def _finish(self) -> None:
        """Say that no more frames follow; the pump then waits a while for the other side to do the same."""
        try:
            await self._stream.close()
        except LOST:
            self._pumping.cancel()
        else:
            self._pumping.deadline = trio.current_time() + LINGER_S

    async def abort(self) -> None:
        """Reset the stream at once: frames in flight may be lost, nothing can be misread."""
        self._ended = True
        self._inbox.end(ChannelClosed(f"channel with {short(self._peer)} was reset"))
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STALL_S):
            await self._stream.reset()
        self._pumping.cancel()

    async def pump(self) -> None:
        """Move what arrives into the queue until the other side closes or the connection ends."""
        finished = False
        try:
            with self._pumping:
                await self._pull()
                finished = True
        finally:
            self._ended = True
            self._inbox.end(ChannelClosed(f"{short(self._peer)} closed the channel, or the connection ended"))
            if not finished:
                await self.abort()

    async def _pull(self) -> None:
        reader = FrameReader()
        while True:
            try:
                reader.feed(await self._muxed.read(READ_BYTES))
            except LOST:
                return
            if self._closed_here:
                reader = FrameReader()
                continue
            try:
                while (frame := reader.next_frame()) is not None:
                    await self._inbox.put(frame)
            except FrameTooLarge as exc:
                self._inbox.end(exc)
                await self.abort()
                return
