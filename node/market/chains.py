"""The chain of states behind a committed answer: whether its ends fit, what is disputed, and which step is accused.

The first state is what the seed gives and the answer what the last state gives; whoever holds output and trace sees
both without running a model. What lies between is a matter of single steps (`verify.bisection`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from verify.bisection import StateBook, Terms, accusing_leaves, latent_states, token_states
from verify.evidence import STEP_MEASURES, state_count
from verify.fingerprints.base import Floats, relative_l2
from verify.fingerprints.registry import fingerprint_for
from wire import codec
from wire.errors import LocalError, Malformed
from wire.job import INPUTS, Expected, JobSpec, Kind, Lane, Output, TextInput, Trace
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy
from workloads import claims, diffusion, noise
from workloads.catalog import built_in
from workloads.text import claimed_tokens


class Asked(Protocol):
    """What says whether a job has steps; a spec has it, and so has a user's request."""

    @property
    def kind(self) -> Kind: ...

    @property
    def lane(self) -> Lane: ...

    @property
    def inputs(self) -> bytes: ...


def has_steps(job: Asked) -> bool:
    """Whether single steps of such a job can be disputed: images, and texts of the exact lane without beams."""
    given = codec.decode(INPUTS[job.kind], job.inputs)
    searched = isinstance(given, TextInput) and given.method == "beam"
    return (job.kind, job.lane) in STEP_MEASURES and not searched


def states_of(spec: JobSpec, output: Output, trace: Trace) -> list[Tensor]:
    """All states of a run, the seed's first.

    Raises:
        Malformed: no run of this job gives such a claim: other tensors, sizes or values, a text that ends too early.
    """
    given = spec.input()
    fingerprint_for(spec.kind, spec.lane).admit(given, output, trace)
    if isinstance(given, TextInput):
        claimed_tokens(given, output)
    else:
        _check_size(spec, output.tensors["pixels"])
    return _chain(spec, {**output.tensors, **trace.tensors})


def _check_size(spec: JobSpec, pixels: Tensor) -> None:
    """Raises: Malformed unless a picture has the model's size; a model that is not installed here may make any."""
    with suppress(LocalError):
        config = built_in().find(spec.model, spec.kind).manifest.config
        claims.array(pixels, "pixels", "u1", (config["height"], config["width"]))


def _chain(spec: JobSpec, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    if spec.kind == "image.generate":
        return latent_states(Trace(dict(tensors)))
    return token_states(tensors["tokens"].numpy().tolist(), state_count(spec))


def terms_of(
    spec: JobSpec,
    root: bytes,
    worker: PeerId,
    challenger: PeerId,
    output: Output,
    trace: Trace,
    thresholds: Mapping[str, float],
) -> Terms:
    """What a challenger and the worker dispute about; with a flaw, where the claim shows by itself that it is wrong."""
    measure, distance = STEP_MEASURES[spec.kind, spec.lane]
    flaw, pinned, first = "", None, from_numpy(np.zeros(0, dtype=np.int32))
    try:
        states = states_of(spec, output, trace)
    except Malformed:
        flaw = "dispute.answer"
    else:
        flaw, first = _flaw(spec, output, states, thresholds), states[0]
        pinned = StateBook.of(spec.id, root, states).head
    return Terms(
        job=spec.id,
        root=root,
        defender=worker,
        challenger=challenger,
        count=state_count(spec),
        first=first,
        threshold=thresholds[measure],
        distance=distance,
        pinned=pinned,
        flaw=flaw,
    )


def _flaw(spec: JobSpec, output: Output, states: Sequence[Tensor], thresholds: Mapping[str, float]) -> str:
    """Why the ends of a chain do not fit; empty if they do. A chain of tokens begins with none, and is its answer."""
    if spec.kind != "image.generate":
        return ""
    start, end = (states[at].numpy().astype(np.float64) for at in (0, -1))
    given = noise.normal(spec.seed, *start.shape).astype(np.float64)
    shown = output.tensors["pixels"].numpy().astype(np.float64)
    drawn = diffusion.pixels(end).astype(np.float64)
    if relative_l2(_row(start - given), _row(given)) > thresholds.get("noise", 0.0):
        return "dispute.first"
    return "dispute.answer" if float(np.abs(shown - drawn).max()) > thresholds.get("pixels", 0.0) else ""


def _row(values: Floats) -> Floats:
    return values.reshape(1, -1)


def accusation(
    spec: JobSpec,
    output: Output,
    trace: Trace,
    expected: Expected,
    thresholds: Mapping[str, float],
    drawn: Sequence[int] = (),
) -> list[bytes] | None:
    """The list of states of a juror that rejected: the claim's up to the step that it found wrong, others after it.

    Args:
        spec, output, trace: what was claimed.
        expected: what the juror computed. thresholds: as calibrated.
        drawn: the steps that it looked at, ascending; all if empty.

    Returns:
        Leaf data (`verify.bisection.state_leaf`), or None if no step is wrong: what the juror found lies elsewhere.
    """
    if not has_steps(spec):
        return None
    try:
        claimed = states_of(spec, output, trace)
    except Malformed:
        return None
    measure, distance = STEP_MEASURES[spec.kind, spec.lane]
    own = _own(spec, expected, claimed, drawn)
    far = [distance(claimed[step], claimed[step + 1], after) for step, after in own.items()]
    worst = max(zip(far, own, strict=True), default=(0.0, 0), key=lambda found: found[0])
    return accusing_leaves(claimed, worst[1]) if worst[0] > thresholds[measure] else None


def _own(spec: JobSpec, expected: Expected, claimed: Sequence[Tensor], drawn: Sequence[int]) -> dict[int, Tensor]:
    """Own states after the steps that can be judged: from the claimed states, or of an own run up to where it parts."""
    if "steps" in expected.tensors:
        rows = [from_numpy(row) for row in expected.tensors["steps"].numpy()]
        return dict(zip(drawn or range(len(rows)), rows, strict=True))
    run = _chain(spec, expected.tensors)
    if "tokens" in expected.tensors:  # what lies beyond the part of a text that was read is not judged
        run = run[: expected.tensors["tokens"].shape[0] + 1]
    parted = next((at for at, pair in enumerate(zip(run, claimed, strict=False)) if pair[0] != pair[1]), 0)
    return {parted - 1: run[parted]} if parted else {}
