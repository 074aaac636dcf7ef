"""What a Yamux connection keeps of each stream, what it tells, and the bounds that it keeps. Sans-IO.

Source: github.com/hashicorp/yamux, spec.md; the bounds are our own (docs/spec/transport.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from node.libp2p.yamux_frames import INITIAL_WINDOW_BYTES
from wire.limits import CHANNELS_PER_PEER_MAX, FRAME_BYTES_MAX

WINDOW_BYTES = FRAME_BYTES_MAX + (64 << 10)
"""Receive window of a stream: the longest frame of a channel fits whether or not anybody reads."""

FRAME_BYTES = 256 << 10
"""Longest frame we send, and most bytes of one stream waiting to be sent; any receiver's first window takes it."""

QUANTUM_BYTES = 64 << 10
"""Bytes of one stream in a row while other streams wait."""

QUEUE_BYTES_MAX = 512 << 10
"""Bytes of all streams waiting to be sent, beyond which a stream that has bytes there waits."""

SMALL_BYTES = 16 << 10
"""What a stream with nothing waiting may queue beyond that, as long as all of it stays below twice as much."""

GROWTH_BYTES_MAX = 3 << 20
"""What the windows of all streams together may exceed their first 256 KiB by."""

HELD_BYTES_MAX = 29 << 19
"""Unread bytes of a connection, beyond which the stream that holds most is reset."""

STREAMS_IN_MAX = CHANNELS_PER_PEER_MAX + 8
"""Streams that the other side may keep open: its channels, and some for identify, ping and the like."""

STREAMS_IN_ALL_MAX = 4 * STREAMS_IN_MAX
"""With those that it has finished and we have not: a quick caller closes before our handler is done."""

STREAMS_OUT_MAX = 256
CONTROL_BYTES_MAX = 64 << 10
"""Control frames waiting to be sent; more are waiting only if the other side makes us answer and does not read."""

PING_BURST, PINGS_PER_S = 10, 2.0
KEEPALIVE_S = 30.0
"""Silence after which we ping; after as much again the other side counts as gone."""

IDLE_S = 900.0
"""A connection that carried no stream for so long is closed."""

PIECE_BYTES = 56
"""Bookkeeping of one piece of received data."""


class Stream:
    """One stream, as its connection sees it. Read by anyone, changed by `YamuxConnection` alone.

    `owner` is whatever a shell wants to find again when an event names the stream.
    """

    __slots__ = (
        "blocked",
        "buffered",
        "chunks",
        "closing",
        "discarding",
        "ended",
        "grown",
        "id",
        "linger_until",
        "moved",
        "needs",
        "ours",
        "out",
        "owner",
        "queued",
        "received_all",
        "recv_window",
        "ringed",
        "send_window",
        "sent_all",
        "taken",
        "wants",
    )

    def __init__(self, number: int, ours: bool) -> None:
        self.id = number
        self.owner: object = None
        self.ours = ours
        self.send_window = self.recv_window = INITIAL_WINDOW_BYTES
        self.chunks: list[bytes | bytearray] = []
        self.buffered = self.taken = self.grown = 0
        self.out: list[memoryview] = []
        self.queued = 0
        self.needs = self.wants = self.moved = 0
        self.blocked = self.ringed = self.closing = self.discarding = False
        self.sent_all = self.received_all = False
        self.linger_until: float | None = None
        self.ended: str | None = None

    @property
    def held(self) -> int:
        """Bytes received and not used, with their bookkeeping."""
        return self.buffered + self.taken + PIECE_BYTES * len(self.chunks)


class Opened(NamedTuple):
    """The other side opened a stream."""

    stream: Stream


class Readable(NamedTuple):
    """Data arrived, or the other side finished."""

    stream: Stream


class Writable(NamedTuple):
    """A stream that was refused bytes may try again."""

    stream: Stream


class Ended(NamedTuple):
    """A stream was reset, by either side; `stream.ended` says why."""

    stream: Stream


class Pong(NamedTuple):
    """The answer to a ping."""

    value: int


class GoneAway(NamedTuple):
    """The other side will open and accept nothing more."""

    code: int


Event = Opened | Readable | Writable | Ended | Pong | GoneAway


@dataclass
class Figures:
    """What happened so far, for metrics."""

    streams_refused: int = 0
    streams_shed: int = 0
    overruns: int = 0
    pings_ignored: int = 0
