"""One request, one reply, and every way in which either side can fail the other."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import pytest

from wire import codec
from wire.call import REASON_CHARS_MAX, Answer, Refusal, answer_calls, call, unpack
from wire.codec import Wire
from wire.errors import Busy, LocalError, Malformed, Refused, RemoteError
from wire.peer import PeerId
from wire.transport import Channel, Handler

HERE, THERE = PeerId(b"h" * 32), PeerId(b"t" * 32)


class Ask(Wire, frozen=True):
    n: int


class Reply(Wire, frozen=True):
    n: int


class Loop:
    """Both ends of a channel: what is sent is handled at once, and the answer waits to be received."""

    def __init__(self, peer: PeerId, handler: Handler | None = None) -> None:
        self.peer, self.closed = peer, False
        self._handler = handler
        self.inbox: list[bytes] = []
        self.outbox: list[bytes] = []

    async def send(self, frame: bytes) -> None:
        if self._handler is None:
            self.outbox.append(frame)
            return
        far = Loop(HERE)
        far.inbox.append(frame)
        await self._handler(far)
        self.inbox.extend(far.outbox)

    async def receive(self) -> bytes:
        return self.inbox.pop(0)

    async def aclose(self) -> None:
        self.closed = True


class OneHandler:
    """A transport on which every peer runs the same handler."""

    peer = HERE

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.opened: list[Loop] = []

    async def open(self, peer: PeerId, _protocol: str) -> Channel:
        self.opened.append(Loop(peer, self._handler))
        return self.opened[-1]

    def serve(self, protocol: str, handler: Handler) -> None:
        raise AssertionError("not served here")

    def addresses(self) -> list[str]:
        return []

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        raise AssertionError("nothing to learn here")


def _unblamed(error: RemoteError) -> None:
    raise AssertionError(error)


async def _double(peer: PeerId, ask: Ask) -> Wire:
    assert peer == HERE
    return Reply(2 * ask.n)


def _failing(exc: Exception) -> Callable[[PeerId, Ask], Awaitable[Wire]]:
    async def handle(_peer: PeerId, _ask: Ask) -> Wire:
        raise exc

    return handle


async def test_a_call_is_answered_and_its_channel_closed() -> None:
    transport = OneHandler(answer_calls(Ask, _double, blame=_unblamed))
    assert await call(transport, THERE, "/double", Ask(21), Reply) == Reply(42)
    assert [channel.closed for channel in transport.opened] == [True]


@pytest.mark.parametrize(
    ("exc", "code", "retry_s", "blamed"),
    [
        (Busy(retry_s=2.5), "busy", 2.5, 0),
        (Busy(retry_s=1e9), "busy", 3600.0, 0),
        (LocalError("no such model"), "refused", 0.0, 0),
        (Malformed("half a tensor"), "refused", 0.0, 0),
        (RemoteError(HERE, "asked twice"), "refused", 0.0, 1),
        (LocalError("long " * 1000), "refused", 0.0, 0),
    ],
    ids=["busy", "busy for ever", "local", "malformed", "remote", "long reason"],
)
async def test_a_handlers_errors_become_refusals(exc: Exception, code: str, retry_s: float, blamed: int) -> None:
    blames: list[RemoteError] = []
    transport = OneHandler(answer_calls(Ask, _failing(exc), blame=blames.append))
    with pytest.raises(Refused) as caught:
        await call(transport, THERE, "/double", Ask(1), Reply)
    assert (code, retry_s) == (caught.value.code, caught.value.retry_s)
    assert caught.value.penalty == 0.0
    assert len(caught.value.text) <= REASON_CHARS_MAX
    assert blamed == len(blames)
    assert transport.opened[0].closed


async def test_a_bug_in_a_handler_is_not_hidden() -> None:
    transport = OneHandler(answer_calls(Ask, _failing(ZeroDivisionError()), blame=_unblamed))
    with pytest.raises(ZeroDivisionError):
        await call(transport, THERE, "/double", Ask(1), Reply)


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x91\xcc\x01", b"\x91\xa1x", b"\x92\x01\x02"])
async def test_a_malformed_request_is_blamed_and_refused(frame: bytes) -> None:
    blames: list[RemoteError] = []
    channel = Loop(THERE)
    channel.inbox.append(frame)
    await answer_calls(Ask, _double, blame=blames.append)(channel)
    assert [error.peer for error in blames] == [THERE]
    with pytest.raises(Refused, match="malformed"):
        unpack(HERE, channel.outbox[0], Reply)


BAD_ANSWERS = {
    "no answer": b"",
    "neither": codec.encode(Answer(None, None)),
    "both": codec.encode(Answer(codec.encode(Reply(1)), Refusal("busy", "x"))),
    "another type": codec.encode(Answer(codec.encode("text"), None)),
    "body not canonical": codec.encode(Answer(b"\x91\xcc\x01", None)),
    "endless wait": codec.encode(Answer(None, Refusal("busy", "x", math.inf))),
    "no number": codec.encode(Answer(None, Refusal("busy", "x", math.nan))),
    "negative wait": codec.encode(Answer(None, Refusal("busy", "x", -1.0))),
    "endless reason": codec.encode(Answer(None, Refusal("busy", "x" * 501))),
    "endless code": codec.encode(Answer(None, Refusal("x" * 501, ""))),
}


@pytest.mark.parametrize("frame", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_malformed_answer_is_the_peers_fault(frame: bytes) -> None:
    with pytest.raises(RemoteError, match="undecodable answer") as caught:
        unpack(THERE, frame, Reply)
    assert caught.value.peer == THERE
    assert not isinstance(caught.value, Refused)
