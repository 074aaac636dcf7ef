"""Streams between the node and data channels: Yamux over a local socket on one side, a data channel each on the other.

Runs in the WebRTC process, on asyncio. Towards the network a stream waits while its data channel has
`BUFFERED_BYTES_MAX` to send, so the window of the local stream closes and whoever writes in the node waits. From the
network nothing can be made to wait, for data channels have no windows: what the node does not take is held here, and a
stream of which `UNREAD_BYTES_MAX` are held is reset, both ways. No more than `STREAMS_MAX` data channels are open.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from node.libp2p.yamux import YamuxConnection
from node.libp2p.yamux_frames import YamuxViolation
from node.libp2p.yamux_state import STREAMS_IN_MAX, STREAMS_OUT_MAX, Ended, GoneAway, Opened, Readable, Stream, Writable
from node.webrtc.messages import DATA_BYTES_MAX, Flag, Message, Reader
from wire.errors import Malformed

BUFFERED_BYTES_MAX, BUFFERED_BYTES_LOW = 256 << 10, 64 << 10
"""A data channel takes more while it has less than the first to send; a full one once it has the second."""

UNREAD_BYTES_MAX = 2 << 20
"""Received, beyond what the window of the local stream holds. Others send up to that much without asking."""

UNREAD_ALL_BYTES_MAX = 8 << 20
"""The same over all streams of a connection; beyond it the one that holds most is reset."""

STREAMS_MAX = STREAMS_IN_MAX + STREAMS_OUT_MAX
FIN_ACK_S = 10.0
"""Seconds for the receipt of our FIN before the data channel is closed without it."""

TICK_S = 5.0
INIT = "init"
"""Label of the data channel that only serves to begin; it is closed by whoever opened it."""


class Channel(Protocol):
    """What is used of aiortc's RTCDataChannel."""

    @property
    def readyState(self) -> str: ...
    @property
    def bufferedAmount(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def bufferedAmountLowThreshold(self) -> int: ...
    @bufferedAmountLowThreshold.setter
    def bufferedAmountLowThreshold(self, value: int) -> None: ...
    def send(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def on(self, event: str, handler: Any) -> Any: ...


class Pipe:
    """One stream and its data channel."""

    def __init__(self, bridge: Bridge, stream: Stream, channel: Channel) -> None:
        self._bridge = bridge
        self.stream = stream
        self._channel = channel
        self._reader = Reader()
        self._unsent: deque[memoryview] = deque()
        self._unread: deque[memoryview] = deque()
        self.unread_bytes = 0
        self._fin_sent = self._fin_acked = self._fin_received = self._stopped = self._over = False
        stream.owner = self
        channel.bufferedAmountLowThreshold = BUFFERED_BYTES_LOW
        channel.on("open", self.send_on)
        channel.on("bufferedamountlow", self.send_on)
        channel.on("message", self._on_message)
        channel.on("close", self._on_close)

    # ---- to the network

    def send_on(self) -> None:
        """Give the data channel what it takes."""
        if self._over or self._channel.readyState != "open":
            return
        core, stream = self._bridge.core, self.stream
        while self._channel.bufferedAmount < BUFFERED_BYTES_MAX:
            if not self._unsent:
                self._unsent.extend(memoryview(chunk) for chunk in core.take(stream))
            if not self._unsent:
                break
            piece = self._unsent.popleft()
            if len(piece) > DATA_BYTES_MAX:
                self._unsent.appendleft(piece[DATA_BYTES_MAX:])
                piece = piece[:DATA_BYTES_MAX]
            if not self._stopped:
                self._channel.send(Message(bytes(piece)).encode())
            core.use(stream, len(piece))
        self._bridge.flush_later()
        if stream.received_all and not self._unsent and not stream.chunks and not self._fin_sent:
            self._fin_sent = True
            self._say(Flag.FIN)
            self._bridge.loop.call_later(FIN_ACK_S, self._stop_waiting)
            self._close_if_done()

    def _say(self, flag: Flag) -> None:
        if self._channel.readyState == "open":
            self._channel.send(Message(flag=flag).encode())

    def _stop_waiting(self) -> None:
        self._fin_acked = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._fin_sent and self._fin_acked and self._fin_received and not self._unread and not self._over:
            self._over = True
            self._channel.close()
            self._bridge.forget(self)

    # ---- from the network

    def _on_message(self, data: bytes | str) -> None:
        if self._over:
            return
        try:
            for message in self._reader.feed(data.encode() if isinstance(data, str) else data):
                self._on_said(message)
        except Malformed as exc:
            self.reset(str(exc))
        self._bridge.flush_later()

    def _on_said(self, message: Message) -> None:
        if message.data and not self._fin_received:
            self._unread.append(memoryview(message.data))
            self.unread_bytes += len(message.data)
            self._bridge.unread_bytes += len(message.data)
            self.deliver()
            if self.unread_bytes > UNREAD_BYTES_MAX:
                self.reset("data that nobody reads")
            self._bridge.shed()
        match message.flag:
            case Flag.FIN:
                self._fin_received = True
                self._say(Flag.FIN_ACK)
                self.deliver()
            case Flag.FIN_ACK:
                self._fin_acked = True
                self._close_if_done()
            case Flag.STOP_SENDING:
                self._stopped = True
                self.send_on()
            case Flag.RESET:
                self._end("the peer reset the stream")

    def deliver(self) -> None:
        """Give the node what its window takes."""
        core, stream = self._bridge.core, self.stream
        while self._unread and not self._over:
            piece = self._unread[0]
            taken = core.write(stream, piece, begun=True)
            self.unread_bytes -= taken
            self._bridge.unread_bytes -= taken
            if taken < len(piece):
                self._unread[0] = piece[taken:]
                break
            self._unread.popleft()
        self._bridge.flush_later()
        if self._fin_received and not self._unread and not self._over:
            core.close_write(stream)
            self._close_if_done()

    def _on_close(self) -> None:
        if not self._fin_received:
            self._end("the data channel was closed")
        elif not self._over:  # whoever closes after FIN reads no more, either
            self._stopped = self._fin_acked = True
            self._fin_sent = True
            self._close_if_done()

    # ---- the end

    def reset(self, reason: str) -> None:
        """End the stream at once, both ways."""
        if not self._over:
            self._say(Flag.RESET)
            self._end(reason)

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._bridge.core.reset(self.stream, reason)
        self._bridge.flush_later()
        self._channel.close()
        self._bridge.forget(self)


class Bridge:
    """All streams of one connection; feed it what comes from the local socket.

    Args:
        open_channel: opens a data channel.
        send: writes to the local socket; nothing is sent before `start`.
        ended: called once when the node has gone away or breaks the protocol.
    """

    def __init__(self, open_channel: Any, send: Any, ended: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.core = YamuxConnection(initiator=False, now=self.loop.time())
        self.unread_bytes = 0
        self.ended = False
        self._open_channel = open_channel
        self._send = send
        self._tell_ended = ended
        self._pipes: set[Pipe] = set()
        self._paused = True
        self._planned = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """From here on bytes go to the node."""
        self._tick()
        self.resume()

    def on_channel(self, channel: Channel) -> None:
        """The other side opened a data channel."""
        if channel.label == INIT:
            return
        if self.ended or len(self._pipes) >= STREAMS_MAX:
            channel.close()
            return
        try:
            stream = self.core.open()
        except YamuxViolation:
            channel.close()
            return
        self._pipes.add(Pipe(self, stream, channel))
        self.flush_later()

    def receive(self, data: bytes) -> None:
        """Bytes from the node."""
        try:
            for event in self.core.receive(data, self.loop.time()):
                self._on_event(event)
        except YamuxViolation as exc:
            self.stop(str(exc))
            return
        self.flush_later()

    def _on_event(self, event: object) -> None:
        match event:
            case Opened(stream):
                self._pipes.add(Pipe(self, stream, self._open_channel()))
            case Readable(stream) if isinstance(stream.owner, Pipe):
                stream.owner.send_on()
            case Writable(stream) if isinstance(stream.owner, Pipe):
                stream.owner.deliver()
            case Ended(stream) if isinstance(stream.owner, Pipe):
                stream.owner.reset(stream.ended or "reset by the node")
            case GoneAway():
                self.stop("the node closed the connection")

    def shed(self) -> None:
        """Reset what is read slowest where all together hold too much."""
        while self.unread_bytes > UNREAD_ALL_BYTES_MAX:
            max(self._pipes, key=lambda pipe: pipe.unread_bytes).reset("data that nobody reads")

    def forget(self, pipe: Pipe) -> None:
        """A stream has ended."""
        if pipe in self._pipes:
            self._pipes.discard(pipe)
            self.unread_bytes -= pipe.unread_bytes
            pipe.unread_bytes = 0

    # ---- writing to the node

    def pause(self) -> None:
        """The local socket takes no more for now."""
        self._paused = True

    def resume(self) -> None:
        """It does again."""
        self._paused = False
        self.flush_later()

    def flush_later(self) -> None:
        """Send what is queued after this turn of the loop."""
        if not self._planned and not self._paused and not self.ended and self.core.has_output:
            self._planned = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._planned = False
        while not self._paused and not self.ended and self.core.has_output:
            pieces, ready = self.core.batch()
            self._send(b"".join(pieces))
            for stream in ready:
                if isinstance(stream.owner, Pipe):
                    stream.owner.deliver()

    def _tick(self) -> None:
        try:
            for event in self.core.tick(self.loop.time()):
                self._on_event(event)
        except YamuxViolation as exc:
            self.stop(str(exc))
            return
        self.flush_later()
        self._timer = self.loop.call_later(TICK_S, self._tick)

    def stop(self, reason: str) -> None:
        """End everything."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        for pipe in list(self._pipes):
            pipe.reset(reason)
        self._tell_ended(reason)
