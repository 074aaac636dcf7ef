"""Methods of the market and their messages; where several may come, each is a tagged struct, so that one decode accepts
exactly those.

`job.hire`, a stream: requester to worker Hire, Reveal; worker to requester Hired, Working, Committed, Delivered,
Declined. `jury.audit` and `jury.reveal`, requester to juror, one call each. `dispute.entry`, `dispute.opening` and
`dispute.shown`, requester to a side of a dispute, one call each (`verify.bisection`). `pay.told`, payer to payee, one
call. Format: docs/spec/market.md.
"""

from __future__ import annotations

from typing import Any, cast

from node.market.material import Carried
from verify.bisection import Entry, Opening, Shown
from verify.messages import JuryAnswer, RevealAsk
from wire.codec import Wire
from wire.envelope import Envelope
from wire.job import PoolMember
from wire.rpc.seam import Method


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
    """The answer with how it came about (`node.market.material.Answered`), and the salt that opens the commitment."""

    answer: Carried
    salt: bytes


class AuditAsk(Wire, frozen=True):
    """A `verify.messages.JuryAsk` on its way to a juror: output and trace (`Answered`) may be long."""

    spec: Envelope
    commitment: Envelope
    secret: bytes
    salt: bytes
    pool: list[PoolMember]
    answer: Carried


class DisputeAsk(Wire, frozen=True):
    """What a side of a dispute is asked for, by the method: its `Entry` (`index` is 0), the `Opening` of leaf `index`,
    or both states of step `index` as `Shown` (the worker only). `job` is that of the level at which the challenger sat.
    """

    job: bytes
    root: bytes
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
FromRequester = Hire | Reveal

HIRE: Method[FromRequester, FromWorker] = Method("job.hire", cast(Any, FromRequester), cast(Any, FromWorker))
AUDIT = Method("jury.audit", AuditAsk, JuryAnswer)
REVEAL = Method("jury.reveal", RevealAsk, Envelope)
DISPUTE_ENTRY = Method("dispute.entry", DisputeAsk, Entry)
DISPUTE_OPENING = Method("dispute.opening", DisputeAsk, Opening)
DISPUTE_SHOWN = Method("dispute.shown", DisputeAsk, Shown)
PAID = Method("pay.told", Paid, Settled)
