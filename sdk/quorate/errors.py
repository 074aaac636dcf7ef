"""Every error that this SDK raises on purpose.

QuorateError
├── NodeUnreachable       no node answers: not running, wrong address, or the connection keeps breaking
├── NodeFault             the node failed, or answered with something that is no answer
│   └── NodeBusy          the node refuses for lack of capacity; try again later
├── Unauthorized          the token is missing or wrong
├── NotFound              the node knows no such job or document
├── BadRequest            the request cannot be; `known` lists what can
├── NoProvider            no peer offers that model
├── InsufficientCredit    the job costs more than this node may spend
├── JobTimeout            the job, or the wait for it, took too long
├── JobFailed             the job ended without an answer, for another reason
├── JobCancelled          the job was cancelled
├── VerificationFailed    the jury rejected every answer; nobody but the jurors was paid
├── Unaudited             an answer, but no quorum of jurors vouches for it
└── InvalidReceipt        a receipt does not verify; `reason` is the first fault
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorate.views import BatchView, JobView


class QuorateError(Exception):
    """Root of the tree; `code` is the node's word for the error, empty if it did not come from a node."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NodeUnreachable(QuorateError):
    """No node answers there."""


class NodeFault(QuorateError):
    """The node failed or answered with something unreadable."""


class NodeBusy(NodeFault):
    """The node has no room for more jobs at the moment."""


class Unauthorized(QuorateError):
    """The token is missing or wrong."""


class NotFound(QuorateError):
    """No such job or document at this node."""


class BadRequest(QuorateError):
    """Unknown model or field, or a value that cannot be; `known` lists the names that would have been right."""

    def __init__(self, message: str, *, code: str = "", known: Sequence[str] = ()) -> None:
        super().__init__(message, code=code)
        self.known = tuple(known)


class JobError(QuorateError):
    """Something about one job or batch; `job` is its last known state, None if it was never accepted."""

    def __init__(self, message: str, *, code: str = "", job: JobView | BatchView | None = None) -> None:
        super().__init__(message, code=code)
        self.job = job


class NoProvider(JobError):
    """No peer that may be used offers the model."""


class InsufficientCredit(JobError):
    """The job would cost more than the balance or the budget allows."""


class JobTimeout(JobError):
    """The job did not end in its time, or not within the time that the caller wanted to wait."""


class JobFailed(JobError):
    """The job ended without an answer."""


class JobCancelled(JobError):
    """The job was cancelled before it ended."""


class VerificationFailed(JobError):
    """A quorum of jurors rejected the answer of the last worker that was tried."""


class Unaudited(JobError):
    """No quorum was reached: the answer, if there is one, is nobody's word but the worker's."""


class InvalidReceipt(QuorateError):
    """A receipt that proves nothing; `reason` is the stable name of the first fault (docs/spec/receipt.md)."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
