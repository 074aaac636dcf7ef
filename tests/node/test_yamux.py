"""Yamux without a network: frames survive any cut, and every bound holds against a side that keeps no rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.libp2p import yamux_state
from node.libp2p.multiselect import NEGOTIATION_BYTES_MAX
from node.libp2p.yamux import YamuxConnection
from node.libp2p.yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    INITIAL_WINDOW_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    FrameParser,
    Header,
    YamuxViolation,
    frame_header,
)
from node.libp2p.yamux_state import (
    CONTROL_BYTES_MAX,
    GROWTH_BYTES_MAX,
    HELD_BYTES_MAX,
    IDLE_S,
    KEEPALIVE_S,
    PING_BURST,
    QUANTUM_BYTES,
    STREAMS_IN_ALL_MAX,
    STREAMS_IN_MAX,
    WINDOW_BYTES,
    Ended,
    GoneAway,
    Opened,
    Pong,
    Readable,
    Stream,
    Writable,
)
from tests.node.cutting import cuts
from wire.limits import CHANNELS_PER_PEER_MAX, FRAME_BYTES_MAX


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    """A data frame."""
    return frame_header(DATA, flags, stream, len(payload)) + payload


def sent(connection: YamuxConnection) -> list[Header | bytes]:
    """What a connection would send now, as headers and payload."""
    parser, found = FrameParser(), []
    while connection.has_output:
        found += parser.feed(b"".join(connection.batch()[0]))
    return found


def listener() -> YamuxConnection:
    """The side under attack; the other one dialled and so opens odd streams."""
    return YamuxConnection(initiator=False, now=0.0)


def opened(there: YamuxConnection, number: int = 1) -> Stream:
    """A stream that the attacker opened."""
    (event,) = there.receive(frame_header(WINDOW_UPDATE, SYN, number, 0), 0.0)
    assert isinstance(event, Opened)
    return event.stream


# ---- frames

FRAMES = st.one_of(
    st.tuples(st.just(DATA), st.integers(0, 15), st.integers(0, 9), st.integers(0, 40)),
    st.tuples(st.integers(1, 3), st.integers(0, 15), st.integers(0, 9), st.integers(0, 2**32 - 1)),
)


@given(st.lists(FRAMES, max_size=10), st.lists(st.integers(1, 30), min_size=1))
def test_frames_are_the_same_however_the_stream_is_cut(frames: list[Header], sizes: list[int]) -> None:
    raw = b"".join(frame_header(*frame) + (bytes(frame[3]) if frame[0] == DATA else b"") for frame in frames)
    parser, found = FrameParser(), []
    for chunk in cuts(raw, sizes):
        found += parser.feed(chunk)
    assert [item for item in found if isinstance(item, tuple)] == frames
    assert b"".join(item for item in found if isinstance(item, bytes)) == bytes(
        sum(frame[3] for frame in frames if frame[0] == DATA)
    )


@pytest.mark.parametrize(
    "header", [(1, 0, 0, 1, 0), (0, 4, 0, 1, 0), (0, 0, 16, 1, 0)], ids=["version", "type", "flag"]
)
def test_an_unknown_header_is_refused(header: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(YamuxViolation, match="header"):
        FrameParser().feed(HEADER.pack(*header))


def test_a_giant_frame_holds_nothing_until_it_arrives_and_loses_its_stream() -> None:
    there = listener()
    stream = opened(there)
    (event,) = there.receive(frame_header(DATA, 0, 1, 2**32 - 1), 0.0)
    assert event == Ended(stream)
    assert there.receive(bytes(1 << 20), 0.0) == []
    assert (there.held, there.figures.overruns) == (0, 1)
    assert (WINDOW_UPDATE, RST, 1, 0) in sent(there)


# ---- windows


def test_a_stream_that_is_sent_past_its_window_is_reset_and_the_others_live() -> None:
    there = listener()
    first, second = opened(there, 1), opened(there, 3)
    there.receive(data(1, bytes(WINDOW_BYTES)), 0.0)
    assert there.receive(data(1, b"x"), 0.0) == [Ended(first)]
    assert there.receive(data(3, b"fine"), 0.0) == [Readable(second)]
    assert there.take(second) == [b"fine"]


def test_window_is_given_back_at_half_and_not_for_every_read() -> None:
    there = listener()
    stream = opened(there)
    sent(there)
    for _ in range(WINDOW_BYTES // (16 << 10) - 1):
        there.receive(data(1, bytes(16 << 10)), 0.0)
        there.use(stream, sum(map(len, there.take(stream))))
    updates = [item for item in sent(there) if isinstance(item, tuple)]
    assert [item[:3] for item in updates] == [(WINDOW_UPDATE, 0, 1)]
    assert WINDOW_BYTES // 2 <= updates[0][3] < WINDOW_BYTES // 2 + (16 << 10)


def test_nothing_is_queued_for_a_stream_without_window() -> None:
    here = YamuxConnection(initiator=True, now=0.0)
    stream = here.open()
    view = memoryview(bytes(1 << 20))
    taken = 0
    while size := here.write(stream, view):
        taken += size
        here.batch()
    assert taken == INITIAL_WINDOW_BYTES
    assert here.queued == 0
    assert here.receive(frame_header(WINDOW_UPDATE, 0, 1, 5), 0.0) == [Writable(stream)]
    assert here.write(stream, view) == 5


def test_a_window_past_32_bits_ends_the_connection() -> None:
    there = listener()
    opened(there)
    with pytest.raises(YamuxViolation, match="32 bits"):
        there.receive(frame_header(WINDOW_UPDATE, 0, 1, 2**32 - 1), 0.0)


def test_all_streams_together_hold_no_more_than_the_connection_may() -> None:
    """A peer that fills every stream, read by a handler that assembles a frame for ever."""
    there = listener()
    streams = [opened(there, 2 * n + 1) for n in range(STREAMS_IN_MAX)]
    most = 0
    for _ in range(80):
        for stream in streams:
            size = min(stream.recv_window, 64 << 10)
            if stream.ended is None and size:
                there.receive(data(stream.id, bytes(size)), 0.0)
                there.take(stream)
                there.need(stream, WINDOW_BYTES)
            most = max(most, there.held)
    assert most <= HELD_BYTES_MAX
    assert most > HELD_BYTES_MAX // 2


def test_long_frames_on_many_streams_all_complete() -> None:
    """Windows stop growing when the connection is full, and one stream at a time goes on: no deadlock, no reset."""
    there = listener()
    streams = [opened(there, 2 * n + 1) for n in range(32)]
    left = dict.fromkeys(streams, WINDOW_BYTES)
    got = dict.fromkeys(streams, 0)
    for _ in range(600):
        for stream in streams:
            size = min(stream.recv_window, left[stream], 64 << 10)
            if size:
                there.receive(data(stream.id, bytes(size)), 0.0)
                left[stream] -= size
            got[stream] += sum(map(len, there.take(stream)))
            if got[stream] == WINDOW_BYTES:
                there.use(stream, WINDOW_BYTES)
                got[stream] = 0
            elif got[stream]:
                there.need(stream, left[stream])
    assert set(left.values()) == {0}
    assert there.figures.streams_shed == 0
    assert there.held == 0


def test_windows_stop_growing_when_the_connection_has_grown_enough() -> None:
    there = listener()
    streams = [opened(there, 2 * n + 1) for n in range(32)]
    for stream in streams:
        there.receive(data(stream.id, bytes(200 << 10)), 0.0)
        there.use(stream, sum(map(len, there.take(stream))))
    assert there.growth <= GROWTH_BYTES_MAX
    assert sum(stream.recv_window - INITIAL_WINDOW_BYTES for stream in streams) == there.growth
    assert streams[-1].recv_window == INITIAL_WINDOW_BYTES


def test_payload_of_two_bytes_a_frame_costs_little_more_than_two_bytes() -> None:
    there = listener()
    stream = opened(there)
    there.receive(data(1, b"xy") * 50_000, 0.0)
    assert stream.buffered == 100_000
    assert len(stream.chunks) < 20
    assert there.held < 102_000


# ---- streams


def test_a_flood_of_streams_is_refused_one_by_one() -> None:
    there = listener()
    for n in range(STREAMS_IN_MAX):
        opened(there, 2 * n + 1)
    sent(there)
    number = 2 * STREAMS_IN_MAX + 1
    assert there.receive(data(number, b"early", SYN), 0.0) == []
    assert sent(there) == [(WINDOW_UPDATE, RST, number, 0)]
    assert (there.figures.streams_refused, len(there.streams), there.held) == (1, STREAMS_IN_MAX, 0)


def test_a_stream_that_the_peer_has_finished_makes_room_for_another_up_to_a_point() -> None:
    there = listener()
    for n in range(yamux_state.STREAMS_IN_ALL_MAX + 10):
        there.receive(frame_header(WINDOW_UPDATE, SYN | FIN, 2 * n + 1, 0), 0.0)
    assert len(there.streams) == yamux_state.STREAMS_IN_ALL_MAX
    assert there.figures.streams_refused == 10


def test_who_floods_and_does_not_read_the_refusals_is_given_up() -> None:
    there = listener()
    for n in range(STREAMS_IN_MAX):
        opened(there, 2 * n + 1)
    flood = b"".join(frame_header(WINDOW_UPDATE, SYN, 2 * n + 1, 0) for n in range(1000, 1000 + CONTROL_BYTES_MAX))
    with pytest.raises(YamuxViolation, match="does not read"):
        there.receive(flood, 0.0)


@pytest.mark.parametrize("number", [0, 2, 1], ids=["zero", "our parity", "open already"])
def test_a_number_that_is_not_theirs_to_open_ends_the_connection(number: int) -> None:
    there = listener()
    opened(there, 1)
    with pytest.raises(YamuxViolation):
        there.receive(frame_header(WINDOW_UPDATE, SYN, number, 0), 0.0)


def test_data_after_the_end_resets_the_stream() -> None:
    there = listener()
    stream = opened(there)
    there.receive(frame_header(WINDOW_UPDATE, FIN, 1, 0), 0.0)
    assert there.receive(data(1, b"more"), 0.0) == [Ended(stream)]


def test_frames_for_a_stream_that_is_gone_are_dropped() -> None:
    there = listener()
    there.reset(opened(there), "enough")
    assert there.receive(data(1, bytes(1000)) + frame_header(WINDOW_UPDATE, FIN, 1, 9), 0.0) == []
    assert there.held == 0


def test_what_is_discarded_is_credited_and_never_held() -> None:
    there = listener()
    stream = opened(there)
    there.discard(stream, until=60.0)
    for _ in range(8):
        assert there.receive(data(1, bytes(WINDOW_BYTES // 2)), 0.0) == []
    assert (there.held, stream.ended) == (0, None)
    assert there.tick(60.0) == [Ended(stream)]


# ---- sending


def test_streams_take_turns_and_a_small_frame_does_not_wait_for_a_large_one() -> None:
    here = YamuxConnection(initiator=True, now=0.0)
    bulk, small = here.open(), here.open()
    here.batch()
    assert here.write(bulk, memoryview(bytes(256 << 10))) == 256 << 10
    assert here.write(small, memoryview(b"urgent")) == 6
    frames = [item for item in sent(here) if isinstance(item, tuple)]
    assert frames[:3] == [(DATA, 0, 1, QUANTUM_BYTES), (DATA, 0, 3, 6), (DATA, 0, 1, (192 << 10) - 6)]


def test_control_frames_go_first() -> None:
    here = YamuxConnection(initiator=True, now=0.0)
    stream = here.open()
    here.batch()
    here.write(stream, memoryview(bytes(1000)))
    here.ping(7)
    assert sent(here)[0] == (PING, SYN, 0, 7)


def full() -> tuple[YamuxConnection, list[Stream]]:
    """A connection whose queue is full, and its streams; those from the third on have nothing queued."""
    here = YamuxConnection(initiator=True, now=0.0)
    streams = [here.open() for _ in range(8)]
    here.receive(b"".join(frame_header(WINDOW_UPDATE, 0, stream.id, 1 << 20) for stream in streams), 0.0)
    assert [here.write(stream, memoryview(bytes(256 << 10))) for stream in streams[:2]] == [256 << 10] * 2
    return here, streams


def test_a_full_queue_still_takes_a_small_frame_of_another_stream() -> None:
    here, streams = full()
    assert here.write(streams[2], memoryview(bytes(64 << 10))) == 16 << 10
    assert here.write(streams[2], memoryview(b"x")) == here.write(streams[0], memoryview(b"x")) == 0
    ready: list[Stream] = []
    while here.has_output:
        ready += here.batch()[1]
    assert ready == [streams[2], streams[0]]


def test_a_proposal_is_taken_however_much_is_queued() -> None:
    alice = YamuxConnection(initiator=True, now=0.0)
    for _ in range(alone := yamux_state.STREAMS_OUT_MAX - 1):
        alice.write(alice.open(), memoryview(bytes(INITIAL_WINDOW_BYTES)))
    last = alice.open()
    assert len(alice.streams) == alone + 1
    assert alice.write(last, memoryview(b"small")) == 0, "the queue is full"
    assert alice.write(last, memoryview(b"proposal"), negotiating=True) == len(b"proposal")
    last.send_window = 3
    assert alice.write(last, memoryview(b"proposal"), negotiating=True) == 3, "never past the window"


def test_a_message_that_has_begun_goes_on_before_others_begin() -> None:
    """Else the receiver would hold a part of each of them."""
    here, streams = full()
    for stream in streams[2:]:
        here.write(stream, memoryview(bytes(16 << 10)))
    for stream in streams[3:]:
        assert here.write(stream, memoryview(bytes(256 << 10))) == 0
    assert here.write(streams[2], memoryview(bytes(256 << 10)), begun=True) == 0
    ready: list[Stream] = []
    while not ready:
        ready = here.batch()[1]
    assert ready[0] == streams[2]
    assert len(ready) <= 2


def test_the_end_follows_everything_that_was_written() -> None:
    here = YamuxConnection(initiator=True, now=0.0)
    stream = here.open()
    here.write(stream, memoryview(b"last words"))
    here.close_write(stream)
    assert here.write(stream, memoryview(b"never")) == 0
    assert sent(here)[-3:] == [(DATA, 0, 1, 10), b"last words", (WINDOW_UPDATE, FIN, 1, 0)]


# ---- pings, going away, time


def test_pings_are_answered_at_a_bounded_rate() -> None:
    there = listener()
    there.receive(frame_header(PING, SYN, 0, 5) * 1000, 0.0)
    assert sent(there) == [(PING, ACK, 0, 5)] * PING_BURST
    assert there.figures.pings_ignored == 1000 - PING_BURST
    there.receive(frame_header(PING, SYN, 0, 6), 1.0)
    assert sent(there) == [(PING, ACK, 0, 6)]


def test_a_silent_peer_is_asked_once_and_then_given_up() -> None:
    here = listener()
    assert here.tick(KEEPALIVE_S - 1) == []
    assert sent(here) == []
    here.tick(KEEPALIVE_S)
    ((kind, flags, _, value),) = sent(here)
    assert (kind, flags) == (PING, SYN)
    assert here.receive(frame_header(PING, ACK, 0, value), KEEPALIVE_S + 1) == [Pong(value)]
    here.tick(2 * KEEPALIVE_S + 1)
    with pytest.raises(YamuxViolation, match="silent"):
        here.tick(3 * KEEPALIVE_S + 1)


def test_a_connection_without_streams_ends_after_a_while() -> None:
    there = listener()
    stream = opened(there)
    there.tick(10.0)
    there.reset(stream, "done")
    there.receive(frame_header(PING, ACK, 0, 0), 9.0 + IDLE_S)
    there.tick(9.0 + IDLE_S)
    with pytest.raises(YamuxViolation, match="no stream"):
        there.tick(10.0 + IDLE_S)


def test_nothing_is_opened_towards_a_side_that_goes_away() -> None:
    there = listener()
    assert there.receive(frame_header(GO_AWAY, 0, 0, 0), 0.0) == [GoneAway(0)]
    with pytest.raises(YamuxViolation, match="opened"):
        there.open()


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1))
def test_garbage_ends_the_same_whatever_the_cuts(raw: bytes, sizes: list[int]) -> None:
    def outcome(chunks: list[bytes]) -> tuple[str, int, int, list[int]]:
        there = listener()
        error = ""
        try:
            for chunk in chunks:
                there.receive(chunk, 0.0)
        except YamuxViolation as exc:
            error = str(exc)
        return error, sum(s.buffered for s in there.streams.values()), there._control_bytes, list(there.streams)

    assert outcome(cuts(raw, sizes)) == outcome([raw])


def test_the_bounds_fit_each_other() -> None:
    negotiating = STREAMS_IN_ALL_MAX * NEGOTIATION_BYTES_MAX
    assert HELD_BYTES_MAX + 2 * yamux_state.QUEUE_BYTES_MAX + CONTROL_BYTES_MAX + negotiating <= 16 << 20


@pytest.mark.parametrize("taking", [False, True], ids=["nothing", "what came"])
def test_a_peer_that_fills_every_channel_loses_none_while_nobody_reads(taking: bool) -> None:
    """However far the windows grew: they are all that it may send."""
    alice, bob = YamuxConnection(initiator=True, now=0.0), YamuxConnection(initiator=False, now=0.0)
    streams = [alice.open() for _ in range(CHANNELS_PER_PEER_MAX)]
    moved = True
    while moved:
        moved = sum(alice.write(stream, memoryview(bytes(FRAME_BYTES_MAX))) for stream in streams) > 0
        while alice.has_output:
            bob.receive(b"".join(alice.batch()[0]), 0.0)
        for stream in bob.streams.values() if taking else ():
            bob.take(stream)
        while bob.has_output:
            alice.receive(b"".join(bob.batch()[0]), 0.0)
            moved = True
    assert bob.figures.streams_shed == 0
    assert len(bob.streams) == CHANNELS_PER_PEER_MAX
    assert all(stream.held >= INITIAL_WINDOW_BYTES for stream in bob.streams.values())
