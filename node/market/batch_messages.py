"""Messages of `job.batch`, one stream for one batch of jobs under the policy `sample:q`.

Requester to worker: `HireBatch`, then one `BatchJob` per job, then, once the worker has committed, `BatchReveal`.
Worker to requester: `Ready` once it has room for the jobs, `Hired` once it has read them (or `Declined`), any number of
`BatchWorking`, `BatchCommitted`, an `Opened` for each picked job, an `Unchecked` for each other.
Format: docs/spec/market.md.
"""

from __future__ import annotations

from typing import Any, cast

from node.market.material import Carried
from node.market.messages import Declined, Hired
from verify.sampling import BatchOpening, BatchSecret
from wire.codec import Wire
from wire.envelope import Envelope
from wire.rpc.seam import Method

BATCH_JOBS_MAX = 256
"""Jobs in one batch."""

BATCH_BYTES_MAX = 32 << 20
"""Jobs of one batch, all messages together; and likewise its answers, blobs included."""


class HireBatch(Wire, frozen=True, tag="hire_batch"):
    """An offer of work. `offer` is a `BatchOffer` in an envelope; `entry` the payer's ledger entry for all of it."""

    offer: Envelope
    entry: bytes


class Ready(Wire, frozen=True, tag="ready"):
    """There is room for a batch: send its jobs."""


class BatchJob(Wire, frozen=True, tag="batch_job"):
    """The next job of the batch, an envelope of domain "job"."""

    spec: Envelope


class BatchReveal(Wire, frozen=True, tag="batch_reveal"):
    """What decides which answers are opened, and the 32-byte beacon secrets of the picked jobs, in ascending order."""

    shown: BatchSecret
    secrets: list[bytes]


class BatchWorking(Wire, frozen=True, tag="batch_working"):
    """A sign of life from job number `index`; the rest as in `Working`."""

    index: int
    done: int
    total: int
    text: str = ""


class BatchCommitted(Wire, frozen=True, tag="batch_committed"):
    """The `BatchCommitment` in an envelope, and the `Commitment` to each answer, in the order of the jobs."""

    batch: Envelope
    answers: list[Envelope]


class Opened(Wire, frozen=True, tag="opened"):
    """A picked answer (`node.market.material.Answered`), with all that its jury needs; `salt` has 32 bytes."""

    opening: BatchOpening
    answer: Carried
    salt: bytes


class Unchecked(Wire, frozen=True, tag="unchecked"):
    """An answer that was not picked, an `Output` alone: the one committed to, and nobody looks whether it is right.

    `salt` and `proof` lead from the output to leaf 0 of its commitment (`verify.commitment.check_output_leaf`).
    """

    index: int
    output: Carried
    salt: bytes
    proof: list[bytes]


FromBatchWorker = Ready | Hired | Declined | BatchWorking | BatchCommitted | Opened | Unchecked
FromBatchRequester = HireBatch | BatchJob | BatchReveal

BATCH: Method[FromBatchRequester, FromBatchWorker] = Method(
    "job.batch", cast(Any, FromBatchRequester), cast(Any, FromBatchWorker)
)
