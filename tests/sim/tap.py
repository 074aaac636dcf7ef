"""A transport that writes down what a node says, and lets a test change what it sends: of calls each whole message.

A message is taken down when its last chunk passes, under the name of its method; everything else frame by frame, under
its protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import trio

from sim.transport import SimTransport
from sim.world import SimNode
from wire.peer import PeerId
from wire.rpc import frames
from wire.rpc.frames import BEGIN, CHUNK_BYTES, LAST, MORE, OPEN, ZIPPED, Refusal
from wire.rpc.seam import PROTOCOL
from wire.transport import Channel, Handler


@dataclass(frozen=True)
class Frame:
    """A message, or a frame of another protocol, as a node sent or received it."""

    at_s: float
    node: int
    peer: PeerId
    protocol: str
    sent: bool
    data: bytes


Alter = Callable[[SimNode, str, bytes], bytes | Refusal]
"""Changes what a node sends: (node, method or protocol, message) -> message, or the error to answer instead."""


class Tap:
    """See the module."""

    def __init__(self, node: SimNode, log: list[Frame], alter: Alter | None) -> None:
        self._inner: SimTransport = node.transport
        self._node, self._log, self._alter = node, log, alter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def channel(self, inner: Channel, protocol: str) -> Channel:
        return cast(Channel, TapChannel(self, inner, protocol))

    def serve(self, protocol: str, handler: Handler) -> None:
        self._inner.serve(protocol, lambda channel: handler(self.channel(channel, protocol)))

    async def open(self, peer: PeerId, protocol: str) -> Channel:
        return self.channel(await self._inner.open(peer, protocol), protocol)

    def note(self, peer: PeerId, protocol: str, data: bytes, *, sent: bool) -> bytes | Refusal:
        """Take something down, once it is changed."""
        said: bytes | Refusal = data
        if sent and self._alter is not None:
            said = self._alter(self._node, protocol, data)
        if isinstance(said, bytes):
            self._log.append(Frame(trio.current_time(), self._node.number, peer, protocol, sent, said))
        return said


class TapChannel:
    """One end of a channel that is listened to."""

    def __init__(self, tap: Tap, inner: Channel, protocol: str) -> None:
        self._tap, self._inner, self._protocol = tap, inner, protocol
        self._calls = Calls(tap, inner.peer) if protocol == PROTOCOL else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def send(self, frame: bytes) -> None:
        if self._calls is not None:
            if batch := self._calls.passing(frame, sent=True):
                await self._inner.send(batch)
            return
        said = self._tap.note(self._inner.peer, self._protocol, frame, sent=True)
        assert isinstance(said, bytes), "only calls are answered with errors"
        await self._inner.send(said)

    async def receive(self) -> bytes:
        frame = await self._inner.receive()
        if self._calls is not None:
            self._calls.passing(frame, sent=False)
        else:
            self._tap.note(self._inner.peer, self._protocol, frame, sent=False)
        return frame


@dataclass
class Half:
    """A message of which chunks are missing."""

    total: int
    last: int
    data: bytes


class Calls:
    """Messages out of the frames of one call channel."""

    def __init__(self, tap: Tap, peer: PeerId) -> None:
        self._tap, self._peer = tap, peer
        self._names: dict[int, str] = {}
        self._halves: dict[tuple[int, bool], Half] = {}

    def passing(self, batch: bytes, *, sent: bool) -> bytes:
        """What to send instead of a batch; messages leave with their last chunk."""
        out = []
        for frame in frames.split(batch):
            if frame.kind == OPEN:
                self._names[frame.id] = frames.read_open(frame.payload)[0]
            if frame.kind not in (BEGIN, MORE):
                head = struct.pack(">BII", frame.kind | frame.flags, frame.id, len(frame.payload))
                out.append(head + bytes(frame.payload))
                continue
            chunk: bytes | memoryview = frame.payload
            if frame.kind == BEGIN:
                total, chunk = frames.read_begin(frame.payload)
                self._halves[frame.id, sent] = Half(total, frame.flags & LAST, b"")
            half = self._halves[frame.id, sent]
            half.data += frames.inflate(memoryview(chunk), CHUNK_BYTES) if frame.flags & ZIPPED else bytes(chunk)
            if len(half.data) == half.total:
                del self._halves[frame.id, sent]
                out += self._whole(frame.id, half, sent=sent)
        return b"".join(out)

    def _whole(self, number: int, half: Half, *, sent: bool) -> list[bytes]:
        said = self._tap.note(self._peer, self._names[number], half.data[1:], sent=sent)
        if isinstance(said, Refusal):
            return [frames.error(number, said)]
        message = half.data[:1] + said
        chunks = [message[at : at + CHUNK_BYTES] for at in range(0, len(message), CHUNK_BYTES)]
        first = frames.begin_head(half.last, number, len(message), len(chunks[0])) + chunks[0]
        return [first, *(frames.more_head(0, number, len(chunk)) + chunk for chunk in chunks[1:])]
