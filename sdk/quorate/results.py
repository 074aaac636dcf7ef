"""What a finished job comes to: a result, or the error that says why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar, cast

from quorate._calls import named_error
from quorate.errors import InvalidReceipt, JobCancelled, JobFailed, NodeFault, Unaudited, VerificationFailed
from quorate.outputs import Output, read_output
from quorate.receipt import Receipt
from quorate.views import Attempt, BatchView, JobView, JurorView

O_co = TypeVar("O_co", bound=Output, covariant=True)


@dataclass(frozen=True, slots=True)
class Result(Generic[O_co]):
    """An answer and what vouches for it.

    Attributes:
        output: the answer; `output_raw` its canonical bytes, which the receipt's digest covers.
        verdict: "accept", or "unaudited" where the caller allowed that.
        lane: "exact" or "tolerant": how the jury compared.
        distances: per measure, the median of what the jurors in the majority measured, to be read against `thresholds`.
        cost_micro: what was paid in all, in micro-credits.
        attempts: the workers that were tried, in order.
        receipt: verifies offline; None for a job that nobody was asked to check. Under the policy "escalate" the one of
            the jury that sat last.
        decided_by: under "escalate" the number of the level whose jury decided, from 0, "dispute" or "nobody"; else
            None. What a dispute decided stands in no receipt.
        evidence: what convicts a worker that was tried before and rejected; None if none was.
        seconds: from submission to the end.
    """

    job_id: str
    output: O_co
    output_raw: bytes | None
    verdict: str
    lane: str
    worker: str | None
    jury: tuple[JurorView, ...]
    distances: dict[str, float]
    thresholds: dict[str, float]
    cost_micro: int
    attempts: tuple[Attempt, ...]
    receipt: Receipt | None
    seconds: float
    decided_by: int | str | None = None
    evidence: bytes | None = None


@dataclass(frozen=True, slots=True)
class ItemResult(Generic[O_co]):
    """One answer of a batch.

    Attributes:
        audited: whether a jury looked at this very answer. If not, nobody did: it is the answer that the worker was
            bound to before it knew what would be picked, and no more.
        checked: the same in words, e.g. "unchecked, batch audited at rate 3/100".
        receipt: of an audited answer.
    """

    index: int
    output: O_co
    audited: bool
    checked: str
    jury: tuple[JurorView, ...]
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class BatchResult(Generic[O_co]):
    """All answers of a batch, and how much of it was looked at.

    Attributes:
        items: in the order of the requests.
        verdict: "accept": every picked answer was accepted; "unaudited" where the caller allowed that.
        rate: audits/jobs.
        cost_micro: what was paid in all, in micro-credits.
    """

    batch_id: str
    items: tuple[ItemResult[O_co], ...]
    verdict: str
    rate: str
    lane: str
    worker: str | None
    cost_micro: int
    attempts: tuple[Attempt, ...]
    seconds: float


def check_ended_well(view: JobView | BatchView, *, allow_unaudited: bool) -> None:
    """Nothing, if the job has an answer, or the batch has all its answers, and the caller may have them.

    Raises:
        VerificationFailed: a jury rejected the answer.
        Unaudited: no quorum, and `allow_unaudited` is False.
        JobCancelled, NoProvider, InsufficientCredit, JobTimeout, JobFailed: it ended without an answer.
        NodeFault: it has not ended.
    """
    if not view.final:
        raise NodeFault(f"the node ended the events of job {view.id[:16]} in state {view.state!r}")
    if view.state == "cancelled":
        raise JobCancelled(f"job {view.id[:16]} was cancelled", code="cancelled", job=view)
    if view.verdict == "reject":
        raise VerificationFailed(_rejected(view), code="rejected", job=view)
    unaudited = view.verdict != "accept" and (view.state == "settled" or view.verdict == "unaudited")
    answered = view.output is not None if isinstance(view, JobView) else all(item.output for item in view.items)
    if unaudited and not (allow_unaudited and answered):
        raise Unaudited(f"no quorum of jurors vouches for job {view.id[:16]}", code="unaudited", job=view)
    if view.error is not None and not unaudited:
        raise named_error(view.error, job=view)
    if not answered:
        raise JobFailed(f"job {view.id[:16]} ended without an answer", job=view)


def _rejected(view: JobView | BatchView) -> str:
    tried = len(view.attempts)
    return f"the jury rejected job {view.id[:16]}" + (f" after {tried} attempts" if tried > 1 else "")


def conclude(
    view: JobView, receipt: Receipt | None, output_raw: bytes | None, evidence: bytes | None = None
) -> Result[Output]:
    """The result of a job for which `check_ended_well` holds."""
    assert view.output is not None, "checked before"
    verdict = "accept" if view.verdict == "accept" else "unaudited"
    return Result(
        job_id=view.id,
        output=read_output(view.output),
        output_raw=output_raw,
        verdict=verdict,
        lane=view.lane,
        worker=view.worker,
        jury=tuple(view.jury),
        distances=majority_distances(view),
        thresholds=view.thresholds,
        cost_micro=view.cost_micro,
        attempts=tuple(view.attempts),
        receipt=receipt,
        seconds=view.seconds or 0.0,
        decided_by=None if view.escalation is None else view.escalation.decided_by,
        evidence=evidence,
    )


def conclude_batch(view: BatchView, receipts: Mapping[int, Receipt]) -> BatchResult[Output]:
    """The result of a batch for which `check_ended_well` holds; `receipts` are those of the audited jobs."""
    items = tuple(
        ItemResult(
            index=item.index,
            output=read_output(item.output),
            audited=item.audited,
            checked=item.checked,
            jury=tuple(item.jury),
            receipt=receipts.get(item.index),
        )
        for item in view.items
        if item.output is not None
    )
    return BatchResult(
        batch_id=view.id,
        items=items,
        verdict="accept" if view.verdict == "accept" else "unaudited",
        rate=view.rate,
        lane=view.lane,
        worker=view.worker,
        cost_micro=view.cost_micro,
        attempts=tuple(view.attempts),
        seconds=view.seconds or 0.0,
    )


def check_batch_receipts(result: BatchResult[Output], outputs: Mapping[int, bytes]) -> None:
    """Nothing, if the receipts of all audited answers hold for their very bytes, and accept them.

    Raises:
        InvalidReceipt: `missing` where there is none or no answer to compare, `verdict` if one says something else.
    """
    for item in result.items:
        if not item.audited:
            continue
        raw = outputs.get(item.index)
        if item.receipt is None or raw is None:
            raise InvalidReceipt("missing", f"no receipt, or not the bytes, of answer {item.index}")
        if (said := item.receipt.verify(output=raw).verdict) != "accept":
            raise InvalidReceipt("verdict", f"the receipt of answer {item.index} says {said}")


def check_receipt(result: Result[Output]) -> None:
    """Nothing, if the result's receipt holds, for its very bytes and its verdict; what a dispute decided is no jury's.

    Raises:
        InvalidReceipt: `missing` if there is no receipt or no answer to compare, `verdict` if it says something else.
    """
    if result.receipt is None or result.output_raw is None:
        raise InvalidReceipt("missing", "the node gave no receipt, or not the bytes of the answer")
    summary = result.receipt.verify(output=result.output_raw)
    if summary.verdict != result.verdict and result.decided_by != "dispute":
        raise InvalidReceipt("verdict", f"the node says {result.verdict}, the receipt {summary.verdict}")


def majority_distances(view: JobView) -> dict[str, float]:
    """Per measure, the median over the jurors whose verdict is the job's; one liar moves it little."""
    agreeing = [juror.distances for juror in view.jury if juror.verdict == view.verdict]
    names = sorted({name for distances in agreeing for name in distances})
    return {name: median(d[name] for d in agreeing if name in d) for name in names}


def typed_batch(result: BatchResult[Output]) -> BatchResult[O_co]:
    """The same result; the type of the answers follows from the requests."""
    return cast("BatchResult[O_co]", result)


def typed(result: Result[Output]) -> Result[O_co]:
    """The same result; the type of the answer follows from the request."""
    return cast("Result[O_co]", result)
