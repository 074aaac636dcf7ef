"""What requester and jurors say to one another. Format: docs/spec/verify.md."""

from __future__ import annotations

from wire.codec import Wire
from wire.envelope import Envelope
from wire.job import Output, PoolMember, Trace


class JuryAsk(Wire, frozen=True):
    """Requester to juror: judge this answer. Everything that the worker committed to, opened.

    `spec` and `commitment` are the signed envelopes, `secret` and `salt` open the draw and the commitment.
    """

    spec: Envelope
    commitment: Envelope
    secret: bytes
    salt: bytes
    pool: list[PoolMember]
    output: Output
    trace: Trace


class JuryAnswer(Wire, frozen=True):
    """Juror to requester: `said` is its sealed vote (domain "juror.commit"), or, where it has no vote, an open
    reveal of `abstain` or `inconclusive` (domain "juror.reveal"). `key` is its key record."""

    said: Envelope
    key: Envelope


class RevealAsk(Wire, frozen=True):
    """Requester to juror: the jury is full, here are all of its sealed votes in draw order; open yours.

    The answer is the juror's envelope of domain "juror.reveal".
    """

    job: bytes
    root: bytes
    commits: list[Envelope]
