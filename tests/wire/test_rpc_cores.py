"""What a hostile peer sends to either side of a call channel, and what order honest messages go in."""

from __future__ import annotations

import zlib

import pytest

from wire.errors import Busy, ChannelClosed, Expired, Malformed, Refused, RemoteError
from wire.hashing import digest
from wire.peer import PeerId
from wire.rpc import caller as calls
from wire.rpc import frames
from wire.rpc.caller import Caller
from wire.rpc.frames import BEGIN, CHUNK_BYTES, LAST, MESSAGE_BYTES_MAX, MORE, ZIPPED, Refusal
from wire.rpc.server import ANSWERS_BYTES_MAX, ANSWERS_SOFT_BYTES, Arrived, Asked, Broke, Opened, Server, Stopped
from wire.rpc.share import OVERHEAD_BYTES, POOL_BYTES, WINDOW_BYTES

PEER = PeerId(b"p" * 32)
METHODS = {"one": True, "many": False}


def ask(number: int, message: bytes = b"hello", name: bytes = b"one", ms: int = 1000) -> bytes:
    """A whole request, as an honest caller sends it."""
    return frames.open_(number, name, ms) + begin(number, message, LAST)


def begin(number: int, message: bytes, flags: int = 0, total: int | None = None) -> bytes:
    """A message, or the beginning of one."""
    return frames.begin_head(flags, number, len(message) if total is None else total, len(message)) + message


def more(number: int, chunk: bytes, flags: int = 0) -> bytes:
    """A further chunk."""
    return frames.more_head(flags, number, len(chunk)) + chunk


def errors(batch: bytes | None) -> list[tuple[int, str]]:
    """Ids and codes of the ERROR frames in a batch."""
    found = frames.split(batch) if batch else []
    return [(f.id, frames.read_error(f.payload).code) for f in found if f.kind == frames.ERROR]


def at_rest(core: Caller | Server) -> bool:
    """Nothing is left of any call."""
    return len(core) == 0 and core.held == (0, 0, 0)


# ---- a hostile caller

BREAKS_THE_CHANNEL = {
    "a frame of a request that was not opened": [begin(1, b"x", LAST)],
    "an id used again": [ask(5), ask(5)],
    "an id that goes back": [ask(5), ask(4)],
    "a chunk of no message": [frames.open_(1, b"one", 9) + more(1, b"x")],
    "a message within a message": [frames.open_(1, b"one", 9) + begin(1, b"x", total=9) + begin(1, b"y")],
    "chunks past the announced length": [frames.open_(1, b"one", 9) + begin(1, b"x", total=2) + more(1, b"yz")],
    "a first chunk past the announced length": [frames.open_(1, b"one", 9) + begin(1, b"xyz", total=2)],
    "a message of which nothing comes": [frames.open_(1, b"one", 9) + begin(1, b"", total=2)],
    "a message behind the last": [frames.open_(1, b"many", 9) + begin(1, b"x", LAST) + begin(1, b"y")],
    "a close behind the last": [frames.open_(1, b"many", 9) + begin(1, b"x", LAST) + frames.close(1)],
    "a close within a message": [frames.open_(1, b"many", 9) + begin(1, b"x", total=9) + frames.close(1)],
    "credit for what was not sent": [frames.open_(1, b"many", 9) + frames.credit(1, 1)],
    "an error, which only servers send": [frames.open_(1, b"many", 9) + frames.error(1, Refusal("a", "b"))],
    "a deadline of a year": [frames.open_(1, b"one", 2**32 - 1)],
    "a bomb": [frames.open_(1, b"one", 9) + begin(1, zlib.compress(bytes(1 << 20), 9, -15), ZIPPED, total=1 << 20)],
    "a bomb in a later chunk": [
        frames.open_(1, b"one", 9) + begin(1, b"x", total=99) + more(1, zlib.compress(bytes(4000), 9, -15), ZIPPED)
    ],
}


@pytest.mark.parametrize("name", BREAKS_THE_CHANNEL)
def test_a_caller_that_breaks_the_protocol_loses_the_channel(name: str) -> None:
    server = Server(METHODS)
    *honest, last = BREAKS_THE_CHANNEL[name]
    for batch in honest:
        server.receive(batch, 0.0)
    with pytest.raises(Malformed):
        server.receive(last, 0.0)
    server.lost()
    assert server.held == (0, 0, 0)


COSTS_THE_REQUEST = {
    "a giant length": ("overrun", frames.open_(1, b"one", 9) + begin(1, b"x", total=MESSAGE_BYTES_MAX + 1)),
    "all the length there is": ("overrun", frames.open_(1, b"one", 9) + begin(1, b"x", total=2**32 - 1)),
    "a window overrun": (
        "overrun",
        frames.open_(1, b"many", 9)
        + b"".join(begin(1, bytes(CHUNK_BYTES)) for _ in range(WINDOW_BYTES // (CHUNK_BYTES + OVERHEAD_BYTES) + 1)),
    ),
    "two messages where one belongs": ("malformed", frames.open_(1, b"one", 9) + begin(1, b"x")),
    "none where one belongs": ("malformed", frames.open_(1, b"one", 9) + frames.close(1)),
}


@pytest.mark.parametrize("name", COSTS_THE_REQUEST)
def test_a_caller_that_overruns_loses_the_request_and_is_blamed(name: str) -> None:
    code, batch = COSTS_THE_REQUEST[name]
    server = Server(METHODS)
    events = server.receive(batch, 0.0)
    assert [type(event) for event in events if isinstance(event, Broke)] == [Broke]
    for event in events:
        if isinstance(event, Opened):
            server.done(event.id)
    assert errors(server.next_batch()[0]) == [(1, code)]
    assert at_rest(server)
    assert server.receive(more(1, b"late") + frames.cancel(1), 0.0) == [], "what was under way is dropped"


def test_what_all_requests_together_may_hold_is_bounded() -> None:
    """Many small messages, each within its own window, past the pool of all."""
    server = Server(METHODS)
    fits = POOL_BYTES[0] // (CHUNK_BYTES + OVERHEAD_BYTES)
    for number in range(1, fits + 1):
        events = server.receive(ask(number, bytes(CHUNK_BYTES)), 0.0)
        assert [type(event) for event in events] == [Asked]
    assert server.held[2] <= POOL_BYTES[0]
    assert [type(event) for event in server.receive(ask(fits + 1, bytes(CHUNK_BYTES)), 0.0)] == [Broke]


def test_requests_past_the_bound_are_busy_and_stopping_handlers_count() -> None:
    """Opening and cancelling over and over starts no more handlers than there may be."""
    server = Server(METHODS, requests_max=3)
    for number in (1, 2, 3):
        assert [type(e) for e in server.receive(ask(number), 0.0)] == [Asked]
    assert server.receive(ask(4), 0.0) == []
    assert server.receive(frames.cancel(1), 0.0) == [Stopped(1)]
    assert server.receive(ask(5), 0.0) == [], "the handler of 1 has not stopped yet"
    assert errors(server.next_batch()[0]) == [(4, "busy"), (5, "busy")]
    server.done(1)
    assert [type(e) for e in server.receive(ask(6), 0.0)] == [Asked]
    assert len(server) == 3


def test_a_caller_that_takes_no_answers_starts_no_more_requests_and_then_gets_none() -> None:
    """2 MiB wait: nothing starts. More than 8 MiB would wait: the answer is dropped, the request ends busy."""
    server = Server(METHODS)
    for number in range(1, 6):
        assert len(server.receive(ask(number), 0.0)) == 1
    answer = bytes(ANSWERS_BYTES_MAX // 3)
    assert [server.post(number, [answer], last=True) for number in range(1, 6)] == [True, True, True, False, False]
    assert ANSWERS_SOFT_BYTES < server.held[0] <= ANSWERS_BYTES_MAX
    assert server.receive(ask(9), 0.0) == [], "waits for its start"
    assert server.receive(frames.cancel(2), 0.0) == [Stopped(2)]
    refused: list[tuple[int, str]] = []
    started: list[object] = []
    while server.held[0]:
        assert not started or server.held[0] <= ANSWERS_SOFT_BYTES
        batch, events = server.next_batch()
        refused += errors(batch)
        started += [event for event in events if isinstance(event, Asked)]
    assert refused == [(4, "busy"), (5, "busy")]
    assert [event.id for event in started if isinstance(event, Asked)] == [9]


def test_a_caller_that_reads_no_errors_loses_the_channel() -> None:
    server = Server({})
    flood = b"".join(frames.open_(number, b"none", 9) for number in range(1, 30_000))
    with pytest.raises(Malformed, match="read"):
        server.receive(flood, 0.0)


def test_a_request_ends_at_its_deadline_on_the_server_too() -> None:
    server = Server(METHODS)
    (asked,) = server.receive(ask(1, ms=500), 10.0)
    assert server.next_deadline_s == pytest.approx(10.5)
    assert server.expire(10.4) == []
    assert server.expire(10.5) == [Stopped(1)]
    assert isinstance(asked, Asked)
    assert not server.post(asked.id, [b"too late"], last=True)
    server.done(1)
    assert errors(server.next_batch()[0]) == [(1, "deadline")]
    assert at_rest(server)


# ---- a hostile server


def calling(name: bytes = b"one") -> Caller:
    """A caller whose call 1 is under way."""
    caller = Caller(PEER)
    assert caller.start(name, 5.0, 0.0) == 1
    caller.post(1, [b"hello"], last=True)
    assert caller.next_batch(0.0) is not None
    return caller


@pytest.mark.parametrize(
    "batch",
    [
        begin(2, b"x", LAST),
        frames.cancel(1),
        frames.open_(1, b"one", 5),
        frames.credit(1, 2),
        begin(1, b"x", total=9) + begin(1, b"y"),
        more(1, b"x"),
        begin(1, b"xyz", total=2),
        b"\xff" * 30,
    ],
    ids=["unknown call", "cancel", "open", "credit", "within", "no message", "over", "noise"],
)
def test_a_server_that_breaks_the_protocol_loses_the_channel(batch: bytes) -> None:
    caller = calling()
    with pytest.raises(Malformed):
        caller.receive(batch)
    assert caller.lost() == [1]
    assert at_rest(caller)


def test_an_answer_to_a_call_that_was_not_sent_breaks_the_protocol() -> None:
    caller = calling()
    caller.start(b"one", 5.0, 0.0)
    with pytest.raises(Malformed):
        caller.receive(begin(2, b"x", LAST))


def test_an_answer_past_its_credit_ends_the_call_and_says_whose_fault_it_is() -> None:
    caller = calling()
    (ended,) = caller.receive(begin(1, b"x", total=2**32 - 1))
    assert isinstance(ended, calls.Ended)
    assert isinstance(ended.error, RemoteError)
    assert ended.error.penalty > 0
    assert [f.kind for f in frames.split(caller.next_batch(0.0) or b"")] == [frames.CANCEL]
    assert at_rest(caller)


def test_an_answer_to_a_cancelled_call_is_dropped() -> None:
    caller = calling()
    caller.cancel(1)
    assert caller.receive(begin(1, b"x", total=3) + more(1, b"yz") + begin(1, b"again", LAST)) == []
    assert at_rest(caller)


@pytest.mark.parametrize(
    ("refusal", "kind", "text"),
    [
        (Refusal("busy", "later", 1500), Busy, "1.5 s"),
        (Refusal("deadline", ""), Expired, "deadline"),
        (Refusal("unknown", "no method"), Refused, "no method"),
        (Refusal("what nobody knows", "why"), RemoteError, "what nobody knows"),
    ],
)
def test_error_codes_become_typed_errors(refusal: Refusal, kind: type[Exception], text: str) -> None:
    caller = calling()
    (ended,) = caller.receive(frames.error(1, refusal))
    assert isinstance(ended, calls.Ended)
    assert isinstance(ended.error, kind)
    assert text in str(ended.error)
    assert at_rest(caller)


def test_calls_past_the_bound_are_busy_here() -> None:
    caller = Caller(PEER, calls_max=2)
    caller.start(b"one", 5.0, 0.0)
    caller.start(b"one", 5.0, 0.0)
    with pytest.raises(Busy):
        caller.start(b"one", 5.0, 0.0)


def test_a_channel_whose_ids_are_used_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "ID_MAX", 1)
    caller = Caller(PEER)
    caller.start(b"one", 5.0, 0.0)
    with pytest.raises(ChannelClosed):
        caller.start(b"one", 5.0, 0.0)


# ---- order


def sent(caller: Caller) -> list[tuple[int, int]]:
    """Kind and id of each frame of the next batch that carries a message."""
    batch = caller.next_batch(0.0)
    return [(f.kind, f.id) for f in frames.split(batch or b"") if f.kind in (BEGIN, MORE)] if batch else []


def test_small_messages_pass_large_ones_and_large_ones_go_in_turn() -> None:
    caller = Caller(PEER)
    for number in (1, 2):
        caller.start(b"one", 5.0, 0.0)
        caller.post(number, [bytes(5 * CHUNK_BYTES)], last=True)
    assert sent(caller) == [(BEGIN, 1), (BEGIN, 2)]
    caller.start(b"one", 5.0, 0.0)
    caller.post(3, [b"small"], last=True)
    assert sent(caller) == [(BEGIN, 3), (MORE, 1), (MORE, 2)]
    rest = [frame for _ in range(3) for frame in sent(caller)]
    assert rest == [(MORE, 1), (MORE, 2)] * 3
    assert sent(caller) == []


def test_small_messages_do_not_starve_large_ones() -> None:
    caller = Caller(PEER)
    for number in range(1, 12):
        caller.start(b"one", 5.0, 0.0)
        caller.post(number, [bytes(CHUNK_BYTES if number < 11 else 3 * CHUNK_BYTES)], last=True)
    assert (BEGIN, 11) in sent(caller)
    assert (MORE, 11) in sent(caller)


def test_a_message_without_credit_waits_for_it_and_small_ones_do_not() -> None:
    """Two messages of 4 MiB do not fit the pool together: the second begins when the first was answered."""
    caller = Caller(PEER)
    for number in (1, 2):
        caller.start(b"one", 5.0, 0.0)
        caller.post(number, [bytes(4 << 20)], last=True)
    while sent(caller):
        pass
    assert caller.queued_bytes(2) == 4 << 20
    caller.start(b"one", 5.0, 0.0)
    caller.post(3, [b"small"], last=True)
    assert sent(caller) == [(BEGIN, 3)]
    caller.receive(begin(1, b"done", LAST))
    assert sent(caller)[0] == (BEGIN, 2)


def test_a_stream_waits_for_its_window_and_goes_on_when_messages_were_taken() -> None:
    server = Server(METHODS)
    caller = Caller(PEER)
    caller.start(b"many", 5.0, 0.0)
    for _ in range(6):
        caller.post(1, [bytes(CHUNK_BYTES)], last=False)
    got = []
    while (batch := caller.next_batch(0.0)) is not None:
        got += [e for e in server.receive(batch, 0.0) if isinstance(e, Arrived)]
    assert len(got) == 3
    server.taken(1)
    assert caller.receive(server.next_batch()[0] or b"") == []
    assert sent(caller) == [(BEGIN, 1)]


@pytest.mark.parametrize("kind", ["zeros", "noise", "short"])
def test_a_message_is_compressed_only_where_that_makes_it_shorter(kind: str) -> None:
    noise = b"".join(digest("test", bytes([n])) for n in range(256))
    message = {"zeros": bytes(9000), "noise": noise, "short": bytes(500)}[kind]
    caller, server = Caller(PEER), Server(METHODS)
    caller.start(b"one", 5.0, 0.0)
    caller.post(1, [message], last=True, zipping=True)
    batch = caller.next_batch(0.0) or b""
    assert (len(batch) < len(message) // 8) == (kind == "zeros")
    (asked,) = server.receive(batch, 0.0)
    assert isinstance(asked, Asked)
    assert asked.message == message
