"""What a fingerprint is, and the checks and distances that several share.

A fingerprint turns (output, trace, expected) into named distances: finite, never negative, 0 for equality. It never
crashes on what a worker sent: what cannot be compared is `Refused`. All distances are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from wire.codec import Wire
from wire.errors import Malformed
from wire.job import Expected, Kind, Lane, Output, Trace
from wire.tensor import Tensor

Floats = NDArray[np.float64]

FAR = 1e9
"""The distance of what is not comparable at all, and the largest one reported: reveals carry finite numbers."""


@dataclass(frozen=True)
class Fingerprint:
    """One way to compare.

    Attributes:
        id: `<name>/<parameters>/<version>`; any change of a number it can return is a new version.
        kind, lane: what it compares.
        resolution: for each decisive measure the smallest difference that the data types can carry; a threshold
            is never below it. Measures that `compare` returns beyond these are informative only.
        admit: refuses what does not even have the right tensors for this input; run it before any re-check.
        compare: the distances.
        compare_steps: the distances where only some steps of a run were recomputed, ascending; None for what has none.
    """

    id: str
    kind: Kind
    lane: Lane
    resolution: Mapping[str, float]
    admit: Callable[[Wire, Output, Trace], None]
    compare: Callable[[Output, Trace, Expected], dict[str, float]]
    compare_steps: Callable[[Output, Trace, Expected, Sequence[int]], dict[str, float]] | None = None

    def distances(self, output: Output, trace: Trace, expected: Expected, steps: Sequence[int]) -> dict[str, float]:
        """`compare`, or `compare_steps` if there are `steps`.

        Raises:
            ExpectedUnusable: this fingerprint knows no steps. As `compare` otherwise.
        """
        if not steps:
            return self.compare(output, trace, expected)
        if self.compare_steps is None:
            raise ExpectedUnusable(f"{self.id} does not compare single steps")
        return self.compare_steps(output, trace, expected, steps)


def only(tensors: Mapping[str, Tensor], *names: str) -> None:
    """Refuse unless exactly these tensors are there, and well-formed."""
    for name in names:
        if name not in tensors:
            raise Refused("missing", f"tensor {name!r}")
    extra = sorted(set(tensors) - set(names))
    if extra:
        raise Refused("extra", f"tensors {extra[:4]}")
    for name in names:
        try:
            tensors[name].check()
        except Malformed as exc:
            raise Refused("shape", f"{name}: {exc}") from exc


def claimed(tensors: Mapping[str, Tensor], name: str, dtype: str, ndim: int) -> Floats:
    """A worker's tensor as float64.

    Raises:
        Refused: missing, of another dtype or number of axes, empty, or not finite.
    """
    if name not in tensors:
        raise Refused("missing", f"tensor {name!r}")
    tensor = tensors[name]
    if tensor.dtype != dtype:
        raise Refused("dtype", f"{name}: {tensor.dtype}, {dtype} expected")
    try:
        values = tensor.numpy()
    except Malformed as exc:
        raise Refused("shape", f"{name}: {exc}") from exc
    if values.ndim != ndim:
        raise Refused("shape", f"{name}: {values.ndim} axes, {ndim} expected")
    if values.size == 0:
        raise Refused("empty", name)
    if not np.isfinite(values).all():
        raise Refused("nonfinite", name)
    return values.astype(np.float64)


def computed(expected: Expected, name: str, dtype: str, shape: tuple[int, ...]) -> Floats:
    """Our own tensor as float64; infinities become `FAR`.

    Raises:
        ExpectedUnusable: missing, of another dtype or shape, or NaN.
    """
    if name not in expected.tensors:
        raise ExpectedUnusable(f"the executor returned no {name!r}")
    tensor = expected.tensors[name]
    try:
        values = tensor.numpy().astype(np.float64)
    except Malformed as exc:
        raise ExpectedUnusable(f"{name}: {exc}") from exc
    if tensor.dtype != dtype or values.shape != shape:
        raise ExpectedUnusable(f"{name}: {tensor.dtype}{list(values.shape)}, {dtype}{list(shape)} expected")
    if np.isnan(values).any():
        raise ExpectedUnusable(f"{name}: NaN")
    return np.clip(values, -FAR, FAR)


def relative_l2(difference: Floats, scale: Floats) -> float:
    """Largest row-wise ||difference|| / ||scale||, both [rows, n]; `FAR` where something differs from nothing."""
    top = np.linalg.norm(difference, axis=1)
    bottom = np.linalg.norm(scale, axis=1)
    with np.errstate(over="ignore"):
        ratio = np.divide(top, bottom, out=np.where(top > 0, FAR, 0.0), where=bottom > 0)
    return bounded(float(ratio.max()))


def bounded(distance: float) -> float:
    """`distance` within 0..FAR."""
    return min(max(distance, 0.0), FAR)


def rows(values: Floats) -> Floats:
    """[n, ...] as [n, product of the rest]."""
    return values.reshape(values.shape[0], -1)
