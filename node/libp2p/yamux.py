"""One side of a Yamux connection: frames in, events out, frames out. Sans-IO.

Theory of operation. `receive` takes bytes and returns events; `batch` gives the next bytes to send, control frames
first, then the streams in turn, each a bounded quantum while others wait. What may be sent is reserved from the other
side's window when `write` takes it, so a stream without window queues nothing here; its caller waits for `Writable`.

What the other side can make us hold is bounded whatever it sends:

- a stream holds what its window allowed: 256 KiB from the start (the specification fixes that), grown to
  `WINDOW_BYTES` and given back at half, counting bytes that a reader took to assemble a frame and has not used;
- growing stops while all windows together have grown by `GROWTH_BYTES_MAX`; one stream at a time still
  gets what completes its frame then (the token), so that frames longer than 256 KiB never wait for each other;
- beyond `HELD_BYTES_MAX` of unread data the stream that holds most is reset; a stream that is sent past its window is
  reset; the payload of either is dropped as it arrives;
- streams, pings answered and queued control frames are bounded, too.

Source: github.com/hashicorp/yamux, spec.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from node.libp2p.yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    FrameParser,
    YamuxViolation,
    frame_header,
)
from node.libp2p.yamux_state import (
    CONTROL_BYTES_MAX,
    FRAME_BYTES,
    HELD_BYTES_MAX,
    IDLE_S,
    KEEPALIVE_S,
    PIECE_BYTES,
    PING_BURST,
    PINGS_PER_S,
    QUANTUM_BYTES,
    QUEUE_BYTES_MAX,
    SMALL_BYTES,
    STREAMS_IN_ALL_MAX,
    STREAMS_IN_MAX,
    STREAMS_OUT_MAX,
    Ended,
    Event,
    Figures,
    GoneAway,
    Opened,
    Pong,
    Readable,
    Stream,
    Writable,
)
from node.libp2p.yamux_windows import Windows


class YamuxConnection:
    """See the module. `now` is any monotonic clock in seconds; `lean` as for `Windows`."""

    def __init__(self, *, initiator: bool, now: float, lean: Callable[[], bool] = lambda: False) -> None:
        self._parity = 1 if initiator else 0
        self._next_id = 1 if initiator else 2
        self.streams: dict[int, Stream] = {}
        self.figures = Figures()
        self.held = self.queued = 0
        self.gone_away: int | None = None
        self._ours = self._theirs = self._unfinished = 0
        self._parser = FrameParser()
        self._current: Stream | None = None
        self._last_flags = self._left = 0
        self._control: list[bytes] = []
        self._control_bytes = 0
        self._ring: list[Stream] = []
        self._waiting: OrderedDict[int, Stream] = OrderedDict()
        self._windows = Windows(lambda stream, size: self._send_control(WINDOW_UPDATE, 0, stream.id, size), lean)
        self._ticks = 0
        self._pings, self._pings_at = float(PING_BURST), now
        self._heard = self._used = now
        self._asked: float | None = None
        self._opened_any = False

    # ---- our side

    def open(self) -> Stream:
        """Open a stream; its SYN goes out with the next batch.

        Raises:
            YamuxViolation: too many are open, all numbers are used, or the other side went away.
        """
        if self._ours >= STREAMS_OUT_MAX or self._next_id > 0xFFFFFFFF or self.gone_away is not None:
            raise YamuxViolation("no further stream can be opened on this connection")
        stream = Stream(self._next_id, True)
        self._next_id += 2
        self._ours += 1
        self._add(stream, SYN)
        return stream

    def write(self, stream: Stream, data: memoryview, *, begun: bool = False, negotiating: bool = False) -> int:
        """Queue the start of `data`; returns how many bytes were taken. After 0, wait for `Writable`.

        Args:
            begun: what came before belongs to the same message; it is finished before others begin, so that the
                other side need not hold parts of many.
            negotiating: taken whatever is queued, as far as the window goes: what follows on the stream means nothing
                without it. Its size is bounded by who calls.
        """
        if stream.sent_all or stream.closing or stream.ended is not None:
            return 0
        room = QUEUE_BYTES_MAX - self.queued
        if not stream.queued and room < SMALL_BYTES and room > SMALL_BYTES - QUEUE_BYTES_MAX:
            room = SMALL_BYTES
        if negotiating:
            room = len(data)
        size = min(len(data), stream.send_window, room, FRAME_BYTES - stream.queued)
        if size <= 0:
            stream.blocked, stream.wants = True, len(data)
            if stream.send_window > 0:
                self._waiting[stream.id] = stream
                self._waiting.move_to_end(stream.id, last=not begun)
            return 0
        stream.send_window -= size
        stream.out.append(data[:size])
        stream.queued += size
        self.queued += size
        self._to_ring(stream)
        return size

    def close_write(self, stream: Stream) -> None:
        """No more from us; the other side hears of it after everything that was queued."""
        if stream.closing or stream.sent_all or stream.ended is not None:
            return
        if stream.queued:
            stream.closing = True
        else:  # at once, so that it is heard of before a stream that is opened next
            stream.sent_all = True
            self._send_control(WINDOW_UPDATE, FIN, stream.id, 0)
            self._remove_if_done(stream)

    def discard(self, stream: Stream, until: float) -> None:
        """Drop what the other side still sends; reset the stream if it has not finished at `until`."""
        if self.streams.get(stream.id) is not stream:
            return
        stream.discarding, stream.linger_until = True, until
        self._forget_unread(stream)
        self._remove_if_done(stream)

    def reset(self, stream: Stream, reason: str) -> None:
        """End a stream at once, both ways."""
        if stream.ended is None and stream.id in self.streams:
            self._send_control(WINDOW_UPDATE, RST, stream.id, 0)
            self._end(stream, reason)

    def take(self, stream: Stream) -> list[bytes | bytearray]:
        """Everything that has arrived; it counts as held until `use` says otherwise."""
        chunks = list(stream.chunks)
        stream.chunks.clear()
        self.held -= PIECE_BYTES * len(chunks)
        stream.taken += stream.buffered
        stream.buffered = 0
        self._windows.credit(stream)
        return chunks

    def use(self, stream: Stream, size: int) -> None:
        """So many taken bytes are no longer held."""
        if self.streams.get(stream.id) is not stream:
            return
        size = min(size, stream.taken)
        stream.moved = self._ticks
        stream.taken -= size
        self.held -= size
        self._windows.used(stream)
        self._remove_if_done(stream)

    def need(self, stream: Stream, size: int) -> None:
        """The reader can use nothing of what it took before `size` more bytes arrive."""
        self._windows.need(stream, size)

    def ping(self, value: int) -> None:
        """Ask whether the other side lives."""
        self._send_control(PING, SYN, 0, value)

    def go_away(self, code: int) -> None:
        """Tell that nothing more will be opened or accepted."""
        self._send_control(GO_AWAY, 0, 0, code)

    # ---- their side

    def receive(self, chunk: bytes, now: float) -> list[Event]:
        """Take bytes from the other side; returns what they mean.

        Raises:
            YamuxViolation: the connection must be given up (say so with `go_away`).
        """
        self._heard = now
        self._asked = None
        events: list[Event] = []
        for item in self._parser.feed(chunk):
            if isinstance(item, bytes):
                self._on_payload(item, events)
            else:
                self._on_header(*item, events, now)
        if self._control_bytes > CONTROL_BYTES_MAX:
            raise YamuxViolation("the peer asks for answers and does not read them")
        return events

    def tick(self, now: float) -> list[Event]:
        """What time brings: keep-alive pings, the end of streams that linger.

        Raises:
            YamuxViolation: the other side is silent, or the connection idle, for too long.
        """
        events: list[Event] = []
        self._ticks += 1
        for stream in list(self.streams.values()):
            if stream.linger_until is not None and now >= stream.linger_until:
                self.reset(stream, "the other side did not finish after our close")
                events.append(Ended(stream))
        if self.streams or self._opened_any:
            self._used, self._opened_any = now, False
        elif now - self._used >= IDLE_S:
            raise YamuxViolation(f"no stream for {IDLE_S:g} s")
        if self._asked is not None and now - self._asked >= KEEPALIVE_S:
            raise YamuxViolation(f"the peer was silent for {now - self._heard:.0f} s")
        if self._asked is None and now - self._heard >= KEEPALIVE_S:
            self._asked = now
            self.ping(int(now) & 0xFFFFFFFF)
        return events

    def _on_header(self, kind: int, flags: int, number: int, length: int, events: list[Event], now: float) -> None:
        if kind in (DATA, WINDOW_UPDATE):
            stream = self._opened(number, flags, events) if flags & SYN else self.streams.get(number)
            if number == 0:
                raise YamuxViolation("stream 0 carries no data")
            if kind == WINDOW_UPDATE:
                self._on_window(stream, flags, length, events)
                return
            if stream is not None and (length > stream.recv_window or (length and stream.received_all)):
                self.figures.overruns += 1
                self.reset(stream, "the peer sent past its window, or after its end")
                events.append(Ended(stream))
                stream = None
            self._current, self._last_flags, self._left = stream, flags & (FIN | RST), length
            if not length:
                self._finish(stream, flags, events)
        elif kind == PING:
            if flags & SYN:
                self._answer_ping(length, now)
            elif flags & ACK:
                events.append(Pong(length))
        else:
            self.gone_away = length
            events.append(GoneAway(length))

    def _opened(self, number: int, flags: int, events: list[Event]) -> Stream | None:
        if number in self.streams or number % 2 == self._parity or not number:
            raise YamuxViolation(f"stream {number} cannot be opened by the other side")
        if flags & ACK:
            raise YamuxViolation("SYN and ACK at once")
        if self._unfinished >= STREAMS_IN_MAX or self._theirs >= STREAMS_IN_ALL_MAX:
            self.figures.streams_refused += 1
            self._send_control(WINDOW_UPDATE, RST, number, 0)
            return None
        stream = Stream(number, False)
        self._theirs += 1
        self._unfinished += 1
        self._add(stream, ACK)
        events.append(Opened(stream))
        return stream

    def _on_window(self, stream: Stream | None, flags: int, length: int, events: list[Event]) -> None:
        if stream is None:
            return
        stream.send_window += length
        if stream.send_window > 0xFFFFFFFF:
            raise YamuxViolation("a window past 32 bits")
        if length and stream.blocked:
            stream.blocked = False
            events.append(Writable(stream))
        self._finish(stream, flags, events)

    def _on_payload(self, piece: bytes, events: list[Event]) -> None:
        size = len(piece)
        self._left -= size
        stream = self._current
        if stream is not None and stream.ended is None:
            stream.recv_window -= size
            if stream.discarding:
                self._windows.credit(stream)
            else:
                self._keep(stream, piece)
                events.append(Readable(stream))
                while self.held > HELD_BYTES_MAX:
                    self._shed(events)
        if not self._left:
            self._finish(stream, self._last_flags, events)

    def _keep(self, stream: Stream, piece: bytes) -> None:
        """Small pieces behind others are joined: two bytes each must not cost fifty."""
        chunks = stream.chunks
        stream.buffered += len(piece)
        self.held += len(piece)
        if chunks and len(piece) < 1024:
            last = chunks[-1]
            if isinstance(last, bytearray) and len(last) < SMALL_BYTES:
                last += piece
                return
            chunks.append(bytearray(piece))
        else:
            chunks.append(piece)
        self.held += PIECE_BYTES

    def _finish(self, stream: Stream | None, flags: int, events: list[Event]) -> None:
        if stream is None or stream.ended is not None or not flags & (FIN | RST):
            return
        if flags & RST:
            self._end(stream, "the peer reset the stream")
            events.append(Ended(stream))
            return
        self._finished(stream)
        events.append(Readable(stream))
        self._remove_if_done(stream)

    def _answer_ping(self, value: int, now: float) -> None:
        self._pings = min(float(PING_BURST), self._pings + (now - self._pings_at) * PINGS_PER_S)
        self._pings_at = now
        if self._pings < 1:
            self.figures.pings_ignored += 1
            return
        self._pings -= 1
        self._send_control(PING, ACK, 0, value)

    def _shed(self, events: list[Event]) -> None:
        worst = max(self.streams.values(), key=lambda stream: stream.held)
        self.figures.streams_shed += 1
        self.reset(worst, "too much unread data on this connection")
        events.append(Ended(worst))

    # ---- the set of streams

    def _add(self, stream: Stream, flag: int) -> None:
        self._opened_any = True
        self.streams[stream.id] = stream
        stream.moved = self._ticks
        self._send_control(WINDOW_UPDATE, flag, stream.id, self._windows.first(stream))

    def _end(self, stream: Stream, reason: str) -> None:
        stream.ended, stream.sent_all = reason, True
        self._finished(stream)
        self.queued -= stream.queued
        stream.queued = 0
        stream.out.clear()
        self._forget_unread(stream)
        self._remove(stream)

    def _finished(self, stream: Stream) -> None:
        """The other side sends no more on it."""
        if not stream.received_all:
            stream.received_all = True
            self._unfinished -= not stream.ours

    def _forget_unread(self, stream: Stream) -> None:
        self.held -= stream.held
        stream.chunks.clear()
        stream.buffered = stream.taken = 0
        self._windows.used(stream)

    def _remove_if_done(self, stream: Stream) -> None:
        if stream.sent_all and stream.received_all and not stream.held:
            self._remove(stream)

    def _remove(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        if stream.ours:
            self._ours -= 1
        else:
            self._theirs -= 1
        self._waiting.pop(stream.id, None)
        self._windows.forget(stream)

    # ---- sending

    def _send_control(self, kind: int, flags: int, number: int, length: int) -> None:
        self._control.append(frame_header(kind, flags, number, length))
        self._control_bytes += 12

    def _to_ring(self, stream: Stream) -> None:
        if not stream.ringed:
            stream.ringed = True
            self._ring.append(stream)

    @property
    def growth(self) -> int:
        """What our windows exceed their first 256 KiB by, all together."""
        return self._windows.growth

    def stalled(self) -> int:
        """Bytes held in streams of which nobody has used any for at least one whole tick."""
        return sum(stream.held for stream in self.streams.values() if stream.moved < self._ticks - 1)

    def greediest(self) -> Stream | None:
        """The stream that makes us keep most, what waits to be sent included; first those that nobody reads."""
        found = max(
            self.streams.values(),
            key=lambda stream: (stream.held if stream.moved < self._ticks - 1 else 0, stream.held + stream.queued),
            default=None,
        )
        return found if found is not None and found.held + found.queued else None

    @property
    def has_output(self) -> bool:
        """Whether `batch` would return anything."""
        return bool(self._control or self._ring)

    def batch(self) -> tuple[list[bytes | memoryview], list[Stream]]:
        """The next bytes to send, some 256 KiB at most, and the streams that may write again because of it."""
        pieces: list[bytes | memoryview] = list(self._control)
        self._control.clear()
        self._control_bytes = 0
        left = FRAME_BYTES
        while self._ring and left > 0:
            stream = self._ring.pop(0)
            if stream.ended is not None:
                stream.ringed = False
                continue
            size = min(stream.queued, left, QUANTUM_BYTES if self._ring else FRAME_BYTES)
            if size:
                pieces.append(frame_header(DATA, 0, stream.id, size))
                self._carve(stream, size, pieces)
                left -= size
            if stream.queued:
                self._ring.append(stream)
                continue
            stream.ringed = False
            if stream.closing:
                stream.closing, stream.sent_all = False, True
                pieces.append(frame_header(WINDOW_UPDATE, FIN, stream.id, 0))
                self._remove_if_done(stream)
        return pieces, self._writable()

    def _carve(self, stream: Stream, size: int, into: list[bytes | memoryview]) -> None:
        stream.queued -= size
        self.queued -= size
        out, done = stream.out, 0
        while size:
            piece = out[done]
            if len(piece) > size:
                out[done] = piece[size:]
                piece = piece[:size]
            else:
                done += 1
            into.append(piece)
            size -= len(piece)
        del out[:done]

    def _writable(self) -> list[Stream]:
        """Those that wait, in their order, as many as there is room for."""
        ready: list[Stream] = []
        room = QUEUE_BYTES_MAX - self.queued
        while self._waiting and room > QUEUE_BYTES_MAX // 2 - FRAME_BYTES // 2:
            _, stream = self._waiting.popitem(last=False)
            stream.blocked = False
            room -= min(stream.wants, FRAME_BYTES)
            ready.append(stream)
        return ready
