"""How much the other side of a connection may send: receive windows within one budget. Sans-IO.

Each stream begins with the 256 KiB of the specification and grows to `WINDOW_BYTES`, given back once half is due, as
long as all windows together have grown by no more than `GROWTH_BYTES_MAX`, or not at all while the node
is lean. Beyond that one stream at a time (the token) gets exactly what completes its frame, so that frames longer than
256 KiB never wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable

from node.libp2p.yamux_frames import INITIAL_WINDOW_BYTES
from node.libp2p.yamux_state import GROWTH_BYTES_MAX, QUANTUM_BYTES, WINDOW_BYTES, Stream


class Windows:
    """The receive windows of all streams of one connection.

    Args:
        announce: told of every window that grows, by how much.
        lean: whether no window may grow for now, for all connections together hold too much.
    """

    def __init__(self, announce: Callable[[Stream, int], None], lean: Callable[[], bool]) -> None:
        self.growth = 0
        self._announce = announce
        self._lean = lean
        self._starved: dict[int, Stream] = {}
        self._token: Stream | None = None

    def first(self, stream: Stream) -> int:
        """What a new stream's window grows by at once; the caller announces it."""
        growth = WINDOW_BYTES - INITIAL_WINDOW_BYTES if 2 * self.growth < self._growth_max() else 0
        stream.recv_window += growth
        self._weigh(stream)
        return growth

    def credit(self, stream: Stream) -> None:
        """Give window back once half of it is due, as far as the budget allows."""
        due = WINDOW_BYTES - stream.recv_window - stream.buffered
        if due < WINDOW_BYTES // 2 or stream.received_all:
            return
        grant = min(due, self._allowed(stream))
        if grant < QUANTUM_BYTES:
            self._starved[stream.id] = stream
        else:
            self._grant(stream, grant)

    def need(self, stream: Stream, size: int) -> None:
        """The reader waits for `size` more bytes before it can use any: let them come, with the token if need be."""
        short = size - stream.recv_window - stream.buffered
        if short <= 0 or stream.received_all:
            return
        stream.needs = size
        if short > self._allowed(stream):
            if self._token is not None and self._token is not stream:
                self._starved[stream.id] = stream
                return
            self._token = stream
        self._grant(stream, short)

    def used(self, stream: Stream) -> None:
        """The reader used, or nobody wants, bytes that were held."""
        stream.needs = 0
        self._weigh(stream)
        self._release(stream)
        self.credit(stream)
        if self._starved:
            self._feed()

    def forget(self, stream: Stream) -> None:
        """The stream is gone."""
        self.growth -= stream.grown
        stream.grown = 0
        self._starved.pop(stream.id, None)
        self._release(stream)
        if self._starved:
            self._feed()

    def _release(self, stream: Stream) -> None:
        if self._token is stream:
            self._token = None

    def _weigh(self, stream: Stream) -> None:
        grown = max(0, stream.recv_window + stream.buffered + stream.taken - INITIAL_WINDOW_BYTES)
        self.growth += grown - stream.grown
        stream.grown = grown

    def _allowed(self, stream: Stream) -> int:
        own = INITIAL_WINDOW_BYTES - stream.recv_window - stream.buffered - stream.taken
        return max(own, 0) + max(self._growth_max() - self.growth, 0)

    def _growth_max(self) -> int:
        return 0 if self._lean() else GROWTH_BYTES_MAX

    def _grant(self, stream: Stream, size: int) -> None:
        self._starved.pop(stream.id, None)
        stream.recv_window += size
        self._weigh(stream)
        self._announce(stream, size)

    def _feed(self) -> None:
        """Those that need bytes first, as far as the budget goes or nobody holds the token."""
        if self._growth_max() - self.growth < QUANTUM_BYTES and (
            self._token is not None or not any(stream.needs for stream in self._starved.values())
        ):
            return  # as it mostly is while many streams are open: not worth an order among them
        for stream in sorted(self._starved.values(), key=lambda stream: not stream.needs):
            if self._growth_max() - self.growth < QUANTUM_BYTES and (self._token is not None or not stream.needs):
                return
            self._starved.pop(stream.id, None)
            if stream.needs:
                self.need(stream, stream.needs)
            else:
                self.credit(stream)
