"""Frames of the market's protocols, each a tagged struct so that one decode accepts exactly what may come.

`/quorate/job/1`, a channel: requester to worker Hire, Reveal; worker to requester Hired, Working, Committed,
Delivered, Declined. `/quorate/audit/1` and `/quorate/reveal/1`, requester to juror, one call each: the messages are
those of `verify.messages`. `/quorate/dispute/1`, requester to a side of a dispute, one call each: DisputeAsk, answered
by what it asks for (`verify.bisection`). `/quorate/paid/1`, payer to payee, one call: Paid, answered by Settled.
Format: docs/spec/market.md.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope
from wire.job import Output, Trace

JOB_PROTOCOL = "/quorate/job/1"
AUDIT_PROTOCOL = "/quorate/audit/1"
REVEAL_PROTOCOL = "/quorate/reveal/1"
DISPUTE_PROTOCOL = "/quorate/dispute/1"
PAID_PROTOCOL = "/quorate/paid/1"


class Hire(Wire, frozen=True, tag="hire"):
    """An offer of work. `spec` is an envelope of domain "job"; `offer` the payer's ledger entry.

    Under the policy `escalate` (offers by the rule "ladder") `above` are the specs of the levels above the first, and
    `nonce` the 16 random bytes from which the first spec's was made (`verify.ladder`); else both are empty.
    """

    spec: Envelope
    offer: bytes
    above: list[Envelope]
    nonce: bytes


class Reveal(Wire, frozen=True, tag="reveal"):
    """The 32-byte beacon secret, sent only after the worker's commitment."""

    secret: bytes


class Hired(Wire, frozen=True, tag="hired"):
    """The worker's ledger entry that accepts the offer."""

    accept: bytes


class Declined(Wire, frozen=True, tag="declined"):
    """No, and why. `code` is machine-readable."""

    code: str
    reason: str


class Working(Wire, frozen=True, tag="working"):
    """A sign of life: steps or tokens done of a total, and the piece of text just produced, if any."""

    done: int
    total: int
    text: str = ""


class Committed(Wire, frozen=True, tag="committed"):
    """The worker's commitments, envelopes of domain "commitment": one per spec, in the order of the hire."""

    commitments: list[Envelope]


class Delivered(Wire, frozen=True, tag="delivered"):
    """The answer, how it came about, and the salt that opens the commitment."""

    output: Output
    trace: Trace
    salt: bytes


class DisputeAsk(Wire, frozen=True):
    """What a side of a dispute is asked for: its `Entry`, the `Opening` of leaf `index`, or both states of step `index`
    as `Shown` (the worker only). `job` is that of the level at which the challenger sat."""

    job: bytes
    root: bytes
    want: Literal["entry", "opening", "shown"]
    index: int


class Paid(Wire, frozen=True):
    """A receipt for `job` is on the payer's chain; the payee fetches what it lacks and settles.

    `keys` are the jurors' key records (domain "keys"), without which its certificate cannot be checked.
    """

    job: bytes
    keys: list[Envelope]


class Settled(Wire, frozen=True):
    """The payee's settlement entry; empty if nothing was owed to it."""

    entry: bytes


FromWorker = Hired | Working | Committed | Delivered | Declined


def decode_from_worker(frame: bytes) -> FromWorker:
    """What a worker may send.

    Raises:
        Malformed: anything else.
    """
    message: FromWorker = codec.decode(cast(Any, FromWorker), frame)
    return message
