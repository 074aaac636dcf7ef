"""From distances to a verdict, and whose fault it is where there is none.

accept: every decisive distance is within its calibrated threshold. reject: one is not, or the claim cannot be compared
at all (the worker's fault). inconclusive: our own run gave nothing to compare with. abstain: we cannot judge this job
(no such model, calibration or fingerprint here); it says nothing about the worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints.base import Fingerprint
from wire import codec
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Expected, Output, Trace, VerdictWord

Inability = Literal[
    "model",
    "fingerprint",
    "calibration.unknown",
    "calibration.subject",
    "calibration.uncertified",
    "threshold",
    "input",
]
"""Why a juror abstains: what it lacks or cannot read."""

INABILITIES: tuple[Inability, ...] = get_args(Inability)


@dataclass(frozen=True)
class Finding:
    """What a juror found.

    Attributes:
        verdict: see the module. distances: by measure, finite and not negative.
        sketch: 32-byte hash of what the juror computed. why: for people; empty on accept.
    """

    verdict: VerdictWord
    distances: Mapping[str, float] = field(default_factory=dict)
    sketch: bytes = digest("sketch", codec.encode(Expected({})))
    why: str = ""


def refused(exc: Malformed) -> Finding:
    """Reject what cannot be compared, or what an executor calls impossible; `refused.<code>` says so in the reveal."""
    code = exc.code if isinstance(exc, Refused) else "claim"
    return Finding("reject", {f"refused.{code}": 1.0}, why=str(exc))


def abstain(code: Inability, why: str) -> Finding:
    """We cannot judge this job; `abstain.<code>` says so in the reveal, and `why` is for people here."""
    return Finding("abstain", {f"abstain.{code}": 1.0}, why=why)


def inconclusive(why: str) -> Finding:
    """Our own run gave nothing to compare with."""
    return Finding("inconclusive", why=why)


def judge(
    fingerprint: Fingerprint,
    thresholds: Mapping[str, float],
    output: Output,
    trace: Trace,
    expected: Expected,
    steps: Sequence[int] = (),
) -> Finding:
    """Compare and decide.

    Args:
        fingerprint: how.
        thresholds: for each decisive measure the largest honest distance, as calibrated.
        output, trace: the worker's claim, admitted by the fingerprint.
        expected: our own result.
        steps: those that it is about, where only some were drawn; ascending, all if empty.
    """
    missing = sorted(set(fingerprint.resolution) - set(thresholds))
    if missing:
        return abstain("threshold", f"no threshold for {', '.join(missing)}")
    try:
        distances = fingerprint.distances(output, trace, expected, steps)
    except Refused as exc:
        return refused(exc)
    except ExpectedUnusable as exc:
        return inconclusive(str(exc))
    sketch = digest("sketch", codec.encode(expected))
    over = [name for name in sorted(fingerprint.resolution) if distances[name] > thresholds[name]]
    if not over:
        return Finding("accept", distances, sketch)
    why = ", ".join(f"{name} {distances[name]:.3g} > {thresholds[name]:.3g}" for name in over)
    return Finding("reject", distances, sketch, why)
