"""Evidence that a worker cheated, that anyone can check offline: no trust in whoever hands it over, none in the jury.

A bundle is a receipt in which a juror rejected, that juror's decisive measure, and an opening of what the worker
itself signed: either all tensors, from which the committed root is recomputed, or one step of a signed list of
states (`verify.bisection`) with two audit paths. The reader recomputes; only its own distance convicts. So a lying jury
cannot frame a worker, and a bundle says the same from any sender and however often it comes: `Conviction.id` names
(job, root, worker), whoever keeps convictions keeps one of each. Format: docs/spec/evidence.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from verify.bisection import (
    DOMAIN,
    PROOF_MAX,
    STATES_MAX,
    Distance,
    StateList,
    StepOpening,
    exact_distance,
    state_leaf,
    step_distance,
)
from verify.calibration import Calibration
from verify.case import open_answer, open_draw
from verify.faults import Fault, Refused, demand, unseal_as
from verify.fingerprints.registry import FINGERPRINTS
from verify.receipt import Summary
from verify.receipt import check as check_receipt
from wire import codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed
from wire.hashing import digest
from wire.job import Expected, ImageInput, JobSpec, Output, Receipt, TextInput, Trace
from wire.merkle import verify_inclusion
from wire.peer import PeerId
from wire.tensor import Tensor

VERSION = 1
EVIDENCE_BYTES_MAX = 896 << 10
"""Longest bundle; it fits a frame."""


class Tensors(Wire, frozen=True, tag="tensors"):
    """Everything that the worker committed; with the receipt's salt it gives the root again."""

    output: Output
    trace: Trace


class Step(Wire, frozen=True, tag="step"):
    """One step of a list of states that the worker signed."""

    opening: StepOpening


class Bundle(Wire, frozen=True):
    """`juror` rejected in `receipt`, because of `measure`; `shown` is what to recompute."""

    version: int
    receipt: Receipt
    juror: PeerId
    measure: str
    shown: Tensors | Step


FaultWord = Literal["measure", "refused", "step"]


@dataclass(frozen=True)
class Conviction:
    """What a bundle that holds proves.

    Attributes:
        peer: the worker. job, root: the job and the committed answer.
        fault: "measure" (a distance beyond its threshold), "refused" (an answer that cannot be compared), "step" (a
            state that does not follow from the one before).
        measure: which. distance, threshold: the reader's own. step: which; None but for "step".
        juror: whose rejection it rests on; `claimed` is the distance that it reported.
    """

    peer: PeerId
    job: bytes
    root: bytes
    fault: FaultWord
    measure: str
    distance: float
    threshold: float
    juror: PeerId
    claimed: float
    step: int | None = None

    @property
    def id(self) -> bytes:
        """32 bytes: the same for every proof against this worker for this answer."""
        return digest("evidence", self.job, self.root, self.peer)


class Referee(Protocol):
    """What a reader computes for itself; `workloads` has the means."""

    def recheck(self, spec: JobSpec, output: Output, trace: Trace, *, steps: Sequence[int] = ()) -> Expected:
        """As `workloads.executor.Executor.recheck`; `Malformed` where no honest run gives this answer."""
        ...

    def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        """The state after `step`, from the one before it."""
        ...


STEP_MEASURES: Mapping[tuple[str, str], tuple[str, Distance]] = {
    ("image.generate", "tolerant"): ("step", step_distance),
    ("image.generate", "exact"): ("mismatch", exact_distance),
    ("text.generate", "exact"): ("mismatch", exact_distance),
}
"""Kinds and lanes whose single steps can be disputed: the calibrated measure, and how to compare."""


def state_count(spec: JobSpec) -> int:
    """How many states a trajectory of this job has.

    Raises:
        LocalError: the workload has no steps. Malformed: the input does not fit the kind.
    """
    given = spec.input()
    if isinstance(given, ImageInput):
        return given.steps + 1
    if isinstance(given, TextInput):
        return given.tokens_max + 1
    raise LocalError(f"{spec.kind} has no steps")


def build(receipt: Receipt, juror: PeerId, measure: str, shown: Tensors | StepOpening) -> bytes:
    """A bundle, encoded.

    Args:
        receipt: one in which `juror` rejected and revealed `measure`. shown: what the worker signed.

    Raises:
        Fault: evidence.juror, evidence.measure, evidence.size, or as `verify.receipt.check`.
    """
    _rejection(check_receipt(receipt), juror, measure)
    body = Step(shown) if isinstance(shown, StepOpening) else shown
    raw = codec.encode(Bundle(VERSION, receipt, juror, measure, body))
    demand(len(raw) <= EVIDENCE_BYTES_MAX, "evidence.size", f"{len(raw)} bytes")
    return raw


def decode(raw: bytes) -> Bundle:
    """Raises: Fault evidence.size, evidence.encoding."""
    demand(len(raw) <= EVIDENCE_BYTES_MAX, "evidence.size", f"{len(raw)} bytes")
    try:
        return codec.decode(Bundle, raw, bytes_max=EVIDENCE_BYTES_MAX)
    except Malformed as exc:
        raise Fault("evidence.encoding", str(exc)) from exc


def check(bundle: Bundle, referee: Referee, calibrations: Mapping[bytes, Calibration]) -> Conviction:
    """Check everything, and recompute.

    Args:
        bundle: from `decode`. referee: what computes here. calibrations: the records that we accept, by hash.

    Raises:
        Fault: a `Malformed` whose `code` names the first check of docs/spec/evidence.md that fails.
        LocalError: we cannot recompute; says nothing about the bundle.
    """
    demand(bundle.version == VERSION, "evidence.version", f"version {bundle.version}")
    summary = check_receipt(bundle.receipt)
    claimed = _rejection(summary, bundle.juror, bundle.measure)
    thresholds = _thresholds(summary.spec, calibrations)
    limit = 0.0 if bundle.measure.startswith("refused.") else thresholds.get(bundle.measure)
    demand(limit is not None, "evidence.measure", f"{bundle.measure!r} decides nothing")
    assert limit is not None, "demanded"
    demand(claimed > limit, "evidence.measure", f"the juror reported {claimed:g}, within {limit:g}")
    if isinstance(bundle.shown, Step):
        fault, distance, step = _check_step(summary, bundle.measure, bundle.shown.opening, referee)
    else:
        fault, distance, step = *_check_tensors(bundle, summary.spec, thresholds, referee), None
    demand(distance > limit, "evidence.innocent", f"{bundle.measure} is {distance:g}, within {limit:g}")
    return Conviction(
        peer=summary.worker,
        job=summary.job,
        root=summary.root,
        fault=fault,
        measure=bundle.measure,
        distance=distance,
        threshold=limit,
        juror=bundle.juror,
        claimed=claimed,
        step=step,
    )


def _rejection(summary: Summary, juror: PeerId, measure: str) -> float:
    """The distance that this juror revealed with its rejection."""
    said = next((each for each in summary.jury if each.peer == juror), None)
    demand(said is not None and said.verdict == "reject", "evidence.juror", "no juror who rejected")
    assert said is not None, "demanded"
    demand(measure in said.distances, "evidence.measure", f"the juror revealed no {measure!r}")
    return said.distances[measure]


def _thresholds(spec: JobSpec, calibrations: Mapping[bytes, Calibration]) -> Mapping[str, float]:
    record = calibrations.get(spec.calibration)
    demand(record is not None, "evidence.calibration", "an unknown record")
    assert record is not None, "demanded"
    subject = (record.kind, record.model, record.lane, record.numeric, record.fingerprint)
    named = (spec.kind, spec.model, spec.lane, spec.numeric, spec.fingerprint)
    demand(subject == named and record.certified, "evidence.calibration", "not a certified record of this job's model")
    return record.thresholds


def _check_tensors(
    bundle: Bundle, spec: JobSpec, thresholds: Mapping[str, float], referee: Referee
) -> tuple[FaultWord, float]:
    """How far the answer is from what we compute, at the steps that the jury was drawn to look at; 1 is "refused"."""
    assert isinstance(bundle.shown, Tensors), "the other kind"
    output, trace, receipt = bundle.shown.output, bundle.shown.trace, bundle.receipt
    case = open_draw(spec, receipt.commitment, receipt.secret, receipt.pool)
    try:
        open_answer(case, output, trace, receipt.salt)
    except Fault as exc:
        raise Fault("evidence.opening", exc.detail) from exc
    fingerprint = FINGERPRINTS.get((spec.kind, spec.lane))
    demand(fingerprint is not None and fingerprint.id == spec.fingerprint, "evidence.fingerprint", spec.fingerprint)
    assert fingerprint is not None, "demanded"
    try:
        fingerprint.admit(spec.input(), output, trace)
        expected = referee.recheck(spec, output, trace, steps=case.drawn)
        distances = fingerprint.distances(output, trace, expected, case.drawn)
    except Malformed as exc:
        code = exc.code if isinstance(exc, Refused) else "claim"
        return "refused", float(bundle.measure == f"refused.{code}")
    return "measure", distances.get(bundle.measure, 0.0)


def _check_step(summary: Summary, measure: str, opening: StepOpening, referee: Referee) -> tuple[FaultWord, float, int]:
    """How far one signed step is from what we compute."""
    spec = summary.spec
    decisive, distance = STEP_MEASURES.get((spec.kind, spec.lane), ("", exact_distance))
    demand(measure == decisive, "evidence.measure", f"{measure!r} is not a measure of steps")
    listed = unseal_as("evidence.states", opening.states, DOMAIN, StateList, author=summary.worker)
    demand((listed.job, listed.root) == (summary.job, summary.root), "evidence.job", "states of another answer")
    demand(listed.count == _count(spec) <= STATES_MAX, "evidence.count", f"{listed.count} states")
    step = opening.step
    demand(0 <= step < listed.count - 1, "evidence.step", f"step {step} of {listed.count - 1}")
    for index, state, path in (
        (step, opening.before, opening.before_proof),
        (step + 1, opening.after, opening.after_proof),
    ):
        demand(len(path) <= PROOF_MAX, "evidence.path", f"{len(path)} hashes")
        included = verify_inclusion(state_leaf(index, state), index, listed.count, path, listed.states)
        demand(included, "evidence.path", f"state {index} is not in the signed list")
    own = referee.recompute(spec, step, opening.before)
    return "step", distance(opening.before, opening.after, own), step


def _count(spec: JobSpec) -> int:
    try:
        return state_count(spec)
    except Malformed as exc:
        raise Fault("evidence.count", str(exc)) from exc
