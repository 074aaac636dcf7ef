"""What a requester keeps of a rejected answer: a bundle that convicts the worker before anybody who recomputes.

Nothing is recomputed here. A bundle that rests on a lying juror's word is made all the same and convicts nobody: its
reader finds the answer right (`verify.evidence`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from verify.bisection import Ruling, StepOpening
from verify.evidence import STEP_MEASURES, Tensors, build
from verify.faults import Fault
from verify.receipt import JurorSummary, check
from wire.hashing import digest
from wire.job import JobSpec, Output, Receipt, Trace


def bundle_hash(raw: bytes) -> bytes:
    """How a ledger receipt names a bundle that decided a dispute."""
    return digest("evidence.bundle", raw)


def prove(
    spec: JobSpec,
    receipts: Sequence[Receipt],
    output: Output,
    trace: Trace,
    thresholds: Mapping[str, float],
    ruling: Ruling | None = None,
) -> bytes | None:
    """The bundle against the worker of a rejected answer.

    Args:
        spec: of one of the levels; kind and lane matter. receipts: of all juries that sat.
        output, trace: what the worker committed. thresholds: as calibrated.
        ruling: of the dispute that the worker lost, if there was one.

    Returns:
        The encoded bundle, about the one wrong step where a dispute found it; None if no juror revealed why, or if it
        would be too long.
    """
    challenger = None if ruling is None else ruling.challenger
    found = [(receipt, juror) for receipt in receipts for juror in check(receipt).jury if juror.verdict == "reject"]
    for receipt, juror in sorted(found, key=lambda each: each[1].peer != challenger):
        shown: Tensors | StepOpening = Tensors(output, trace)
        measures = list(_over(juror, thresholds))
        if ruling is not None and ruling.proof is not None and juror.peer == challenger:
            measures, shown = [STEP_MEASURES[spec.kind, spec.lane][0]], ruling.proof
        for measure in measures:
            try:
                return build(receipt, juror.peer, measure, shown)
            except Fault:
                continue  # too long, or not what this juror revealed: the next may do
    return None


def _over(juror: JurorSummary, thresholds: Mapping[str, float]) -> Iterator[str]:
    """The measures for which this juror rejected."""
    for measure, value in sorted(juror.distances.items()):
        limit = 0.0 if measure.startswith("refused.") else thresholds.get(measure)
        if limit is not None and value > limit:
            yield measure
