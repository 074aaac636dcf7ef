"""Frames of `/quorate/light/1`, a channel for each request: one frame from the light peer, then the node's.

A job is named by an `ask`, 16 bytes that the light peer draws: asked twice it is one job, so whoever lost a connection
asks again. Format: docs/spec/light.md.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from wire import codec
from wire.codec import Wire
from wire.errors import Malformed

PROTOCOL = "/quorate/light/1"
ASK_BYTES = 16
INVITATION_BYTES = 32
BODY_BYTES_MAX = 128 << 10
PART_BYTES_MAX = 256 << 10
REASON_CHARS_MAX = 500


class Hello(Wire, frozen=True, tag="hello"):
    """May I? With an invitation where the node does not know the peer yet. Answered by Welcome."""

    invitation: bytes | None


class Submit(Wire, frozen=True, tag="submit"):
    """Have this job run: `body` is JSON as in a submission to the local API. Answered as Follow."""

    ask: bytes
    body: str


class Follow(Wire, frozen=True, tag="follow"):
    """What becomes of a job: its events above the number `after`, Parts of answer and receipt, Done."""

    ask: bytes
    after: int


class Cancel(Wire, frozen=True, tag="cancel"):
    """Stop a job. Answered by Taken."""

    ask: bytes


class Offered(Wire, frozen=True):
    """A model that a job can name."""

    name: str
    cid: str
    kind: str
    lanes: list[str]


class Welcome(Wire, frozen=True, tag="welcome"):
    """What the node offers, and what it allows: jobs at once, and micro-credits a day, of which some are left."""

    models: list[Offered]
    jobs_max: int
    credit_micro: int
    left_micro: int


class Taken(Wire, frozen=True, tag="taken"):
    """The job is known, and may cost up to `budget_micro`."""

    budget_micro: int


class Event(Wire, frozen=True, tag="event"):
    """One event of the job, as JSON."""

    seq: int
    body: str


class Part(Wire, frozen=True, tag="part"):
    """The next bytes of the answer or of its receipt."""

    of: Literal["output", "receipt"]
    data: bytes


class Done(Wire, frozen=True, tag="done"):
    """The end of a job: its state and cost, and where it failed a code and a reason."""

    state: str
    cost_micro: int
    code: str
    reason: str


class Refused(Wire, frozen=True, tag="refused"):
    """No, and why; after `retry_s` seconds it may be otherwise, 0 says that it will not."""

    code: str
    reason: str
    retry_s: float


Request = Hello | Submit | Follow | Cancel
Reply = Welcome | Taken | Event | Part | Done | Refused


def decode_request(frame: bytes) -> Request:
    """What a light peer may send.

    Raises:
        Malformed: anything else.
    """
    request: Request = codec.decode(cast(Any, Request), frame)
    if isinstance(request, Hello):
        if request.invitation is not None and len(request.invitation) != INVITATION_BYTES:
            raise Malformed(f"an invitation of {len(request.invitation)} bytes")
        return request
    if len(request.ask) != ASK_BYTES:
        raise Malformed(f"an ask of {len(request.ask)} bytes")
    if isinstance(request, Submit) and len(request.body.encode()) > BODY_BYTES_MAX:
        raise Malformed("a job that goes on and on")
    return request


def decode_reply(frame: bytes) -> Reply:
    """What a node may send.

    Raises:
        Malformed: anything else.
    """
    reply: Reply = codec.decode(cast(Any, Reply), frame)
    return reply


def refused(code: str, reason: str, retry_s: float = 0.0) -> Refused:
    """A refusal of bounded length."""
    return Refused(code, reason[:REASON_CHARS_MAX], retry_s)
