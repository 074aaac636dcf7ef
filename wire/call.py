"""One request, one reply, on a channel of its own: the smallest use of the Transport seam.

Everything that nodes ask of one another goes by `wire.rpc`, over a channel that is kept. This is for what is about the
connection itself, and must run on the one that is best now: the check of reach (docs/spec/reach.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from wire import codec
from wire.codec import Wire
from wire.errors import Busy, LocalError, Malformed, Refused, RemoteError
from wire.peer import PeerId
from wire.transport import Channel, Transport

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)


REASON_CHARS_MAX = 500
RETRY_S_MAX = 3600.0


class Refusal(Wire, frozen=True, tag="refusal"):
    """What a server answers instead of a reply; `retry_s` is 0 where trying again cannot help."""

    code: str
    reason: str
    retry_s: float = 0.0


class Answer(Wire, frozen=True):
    """A reply frame: exactly one of the two fields is set."""

    body: bytes | None
    refusal: Refusal | None


def unpack(peer: PeerId, frame: bytes, kind: type[R]) -> R:
    """The reply inside an answer frame.

    Raises:
        Refused: the peer said no.
        RemoteError: the frame is malformed.
    """
    try:
        answer = codec.decode(Answer, frame)
        if answer.refusal is not None and answer.body is None:
            _check(answer.refusal)
            raise Refused(peer, answer.refusal.code, answer.refusal.reason, answer.refusal.retry_s)
        if answer.body is None or answer.refusal is not None:
            raise Malformed("an answer holds either a body or a refusal")
        return codec.decode(kind, answer.body)
    except Malformed as exc:
        raise RemoteError(peer, f"undecodable answer: {exc}") from exc


def _check(refusal: Refusal) -> None:
    if len(refusal.code) > REASON_CHARS_MAX or len(refusal.reason) > REASON_CHARS_MAX:
        raise Malformed("a refusal that goes on and on")
    if not 0 <= refusal.retry_s <= RETRY_S_MAX:  # a NaN fails this too
        raise Malformed(f"a refusal with retry_s {refusal.retry_s}")


def _refuse(code: str, reason: str, retry_s: float = 0.0) -> Answer:
    return Answer(None, Refusal(code, reason[:REASON_CHARS_MAX], min(retry_s, RETRY_S_MAX)))


async def call(transport: Transport, peer: PeerId, protocol: str, request: Wire, reply: type[R]) -> R:
    """Send `request` to `peer` and return its reply; the caller bounds the time.

    Raises:
        Unreachable, ChannelClosed: the connection.
        Refused: the peer said no.
        RemoteError: the reply is malformed.
    """
    channel = await transport.open(peer, protocol)
    try:
        await channel.send(codec.encode(request))
        return unpack(peer, await channel.receive(), reply)
    finally:
        await channel.aclose()


def answer_calls(
    kind: type[Q],
    handle: Callable[[PeerId, Q], Awaitable[Wire]],
    blame: Callable[[RemoteError], None],
) -> Callable[[Channel], Awaitable[None]]:
    """A channel handler that decodes one request, answers it, and closes.

    Args:
        kind: type of the request.
        handle: makes the reply; may raise `Busy` or `LocalError`, which become refusals.
        blame: told of every malformed request and of every `RemoteError` with a penalty.
    """

    async def handler(channel: Channel) -> None:
        try:
            request = codec.decode(kind, await channel.receive())
        except Malformed as exc:
            blame(RemoteError(channel.peer, f"malformed request: {exc}"))
            await channel.send(codec.encode(_refuse("malformed", str(exc))))
            return
        try:
            body = codec.encode(await handle(channel.peer, request))
        except Busy as exc:
            answer = _refuse("busy", str(exc), exc.retry_s)
        except RemoteError as exc:
            if exc.penalty > 0:
                blame(exc)
            answer = _refuse("refused", exc.reason)
        except (LocalError, Malformed) as exc:
            answer = _refuse("refused", str(exc))
        else:
            answer = Answer(body, None)
        await channel.send(codec.encode(answer))

    return handler
