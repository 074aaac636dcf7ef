"""`/quorate/reach/1`: one request, one reply (`wire.call`). Format: docs/spec/reach.md."""

from __future__ import annotations

from wire.codec import Wire
from wire.errors import Malformed

REACH_PROTOCOL = "/quorate/reach/1"
TEXTS_MAX = 4
CHARS_MAX = 256


class ReachAsk(Wire, frozen=True, tag="reach-ask"):
    """Where do you see me, and can you dial me there?

    Args:
        addresses: direct addresses without a peer; may be empty.
    """

    addresses: list[str]


class ReachReply(Wire, frozen=True, tag="reach-reply"):
    """What the server saw and did.

    Args:
        seen: where the asker's connection comes from, as a direct address.
        dialled: for each address asked about: true if the asker answered there, false if not, null if it was
            not tried.
    """

    seen: str
    dialled: list[bool | None]


def check_ask(ask: ReachAsk) -> None:
    """Raises:
    Malformed: more addresses, or longer ones, than anybody needs.
    """
    if len(ask.addresses) > TEXTS_MAX or any(len(text) > CHARS_MAX for text in ask.addresses):
        raise Malformed("too many or too long addresses")


def check_reply(reply: ReachReply, ask: ReachAsk) -> None:
    """Raises:
    Malformed: not an answer to `ask`.
    """
    if len(reply.seen) > CHARS_MAX or len(reply.dialled) != len(ask.addresses):
        raise Malformed("not an answer to what was asked")
