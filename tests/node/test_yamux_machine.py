"""Two ends of one Yamux connection under any mix of writes, reads, ends, resets, stalls and cuts.

What a reader gets is what the writer wrote, in order, nothing twice and nothing lost unless the stream was reset; the
counters always agree with what is there; at rest, after everything was read, all data has arrived.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.libp2p.yamux import YamuxConnection
from node.libp2p.yamux_state import HELD_BYTES_MAX, Ended, Opened, Stream

PATTERN = bytes(range(251)) * 10_000
SIDES = st.sampled_from([0, 1])


def content(key: tuple[int, int], start: int, size: int) -> bytes:
    """The bytes that one side writes on one stream, from any place on."""
    at = (start + 7 * key[0] + 3 * key[1]) % 251
    return PATTERN[at : at + size]


class Ends(RuleBasedStateMachine):
    """Side 0 dialled, side 1 listens; `wire[n]` is under way to side n."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = [YamuxConnection(initiator=True, now=0.0), YamuxConnection(initiator=False, now=0.0)]
        self.wire: list[deque[bytes]] = [deque(), deque()]
        self.streams: list[dict[int, Stream]] = [{}, {}]
        self.written: dict[tuple[int, int], int] = {}
        self.read: dict[tuple[int, int], int] = {}
        self.closed: set[tuple[int, int]] = set()
        self.reset_ids: set[int] = set()

    def pick(self, side: int, choice: int) -> Stream | None:
        """Some stream that `side` knows."""
        known = list(self.streams[side].values())
        return known[choice % len(known)] if known else None

    @rule(side=SIDES)
    def open(self, side: int) -> None:
        if len(self.streams[side]) < 12:
            stream = self.ends[side].open()
            self.streams[side][stream.id] = stream

    @rule(side=SIDES, choice=st.integers(0, 50), size=st.sampled_from([1, 100, 5_000, 70_000, 400_000, 1_200_000]))
    def write(self, side: int, choice: int, size: int) -> None:
        stream = self.pick(side, choice)
        if stream is not None:
            key = (side, stream.id)
            done = self.written.get(key, 0)
            taken = self.ends[side].write(stream, memoryview(content(key, done, size)))
            assert not taken or key not in self.closed
            self.written[key] = done + taken

    @rule(side=SIDES, choice=st.integers(0, 50), use=st.booleans())
    def take(self, side: int, choice: int, use: bool) -> None:
        stream = self.pick(side, choice)
        if stream is not None:
            self.read_from(side, stream, use)

    def read_from(self, side: int, stream: Stream, use: bool) -> None:
        """Read what is there; `use` it, or keep it as part of a frame that never completes."""
        key = (1 - side, stream.id)
        got = b"".join(self.ends[side].take(stream))
        start = self.read.get(key, 0)
        assert got == content(key, start, len(got))
        self.read[key] = start + len(got)
        if use:
            self.ends[side].use(stream, stream.taken)
        elif got:
            self.ends[side].need(stream, 100_000)

    @rule(side=SIDES, choice=st.integers(0, 50))
    def close(self, side: int, choice: int) -> None:
        stream = self.pick(side, choice)
        if stream is not None:
            self.ends[side].close_write(stream)
            self.closed.add((side, stream.id))

    @rule(side=SIDES, choice=st.integers(0, 50))
    def discard(self, side: int, choice: int) -> None:
        stream = self.pick(side, choice)
        if stream is not None:
            self.ends[side].discard(stream, until=1e9)
            self.reset_ids.add(stream.id)

    @rule(side=SIDES, choice=st.integers(0, 200))
    def reset(self, side: int, choice: int) -> None:
        stream = self.pick(side, choice) if choice < 50 else None
        if stream is not None:
            self.ends[side].reset(stream, "enough")
            self.reset_ids.add(stream.id)

    @rule(side=SIDES)
    def send(self, side: int) -> None:
        pieces, _ = self.ends[side].batch()
        if pieces:
            self.wire[1 - side].append(b"".join(pieces))

    @precondition(lambda self: self.wire[0] or self.wire[1])
    @rule(side=SIDES, cut=st.integers(1, 300_000))
    def deliver(self, side: int, cut: int) -> None:
        """The next bytes under way to `side` arrive."""
        if self.wire[side]:
            chunk = self.wire[side].popleft()
            if len(chunk) > cut:
                self.wire[side].appendleft(chunk[cut:])
                chunk = chunk[:cut]
            self.arrive(side, chunk)

    def arrive(self, side: int, chunk: bytes) -> None:
        """Bytes reach `side`."""
        for event in self.ends[side].receive(chunk, 0.0):
            if isinstance(event, Opened):
                self.streams[side][event.stream.id] = event.stream
            elif isinstance(event, Ended):
                self.reset_ids.add(event.stream.id)

    @invariant()
    def counters_agree(self) -> None:
        for end in self.ends:
            streams: Any = end.streams.values()
            assert end.held == sum(stream.held for stream in streams) <= HELD_BYTES_MAX
            assert end.queued == sum(stream.queued for stream in streams)
            assert end.growth == sum(stream.grown for stream in streams) >= 0
            assert all(stream.recv_window >= 0 and stream.send_window >= 0 for stream in streams)
            assert end.figures.overruns == end.figures.streams_shed == 0

    def teardown(self) -> None:
        """Let everything arrive and be read."""
        busy = True
        while busy:
            busy = False
            for side in (0, 1):
                while self.ends[side].has_output:
                    self.send(side)
                while self.wire[side]:
                    self.arrive(side, self.wire[side].popleft())
                    busy = True
                for stream in self.streams[side].values():
                    self.read_from(side, stream, use=True)
                busy = busy or self.ends[side].has_output
        for key, written in self.written.items():
            if key[1] not in self.reset_ids:
                assert self.read.get(key, 0) == written
        self.counters_agree()
        for number in self.streams[0].keys() - self.reset_ids:
            if {(0, number), (1, number)} <= self.closed:
                assert all(number not in end.streams for end in self.ends)


Ends.TestCase.settings = settings(max_examples=80, stateful_step_count=50)
TestTwoEnds = Ends.TestCase
