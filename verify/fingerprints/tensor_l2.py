"""tensor.l2: relative L2 of each row of a tensor to our own, with a floor under rows that are next to nothing.

A row whose true value is zero has rounding noise and no length to compare it with; the floor, in the tensor's own
units, is calibrated from honest runs so that such rows stay below the resolution.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints.base import Floats, bounded, claimed, rows
from wire import seeded, text_sketch
from wire.tensor import Tensor

ID = "tensor.l2/rows-floor/1"

RESOLUTION = {"relative": 2.0**-20}
"""Eight float32 roundings."""


def calibrate_floor(pairs: Iterable[tuple[Floats, Floats]], *, resolution: float = RESOLUTION["relative"]) -> float:
    """The smallest floor under which every row of these honest pairs is within `resolution`.

    Args:
        pairs: (theirs, ours) of equal shapes, from real numeric variants.
    """
    floor = 0.0
    for theirs, ours in pairs:
        off = np.linalg.norm(rows(theirs - ours), axis=1)
        length = np.linalg.norm(rows(ours), axis=1)
        floor = max(floor, float(np.where(off > resolution * length, off / resolution, 0.0).max()))
    return floor


def sketch(values: NDArray[np.floating], seed: bytes) -> NDArray[np.uint8]:
    """u1[rows, 8] as `text_sketch.sketch`: what is committed where the tensor itself is too long to send."""
    return text_sketch.sketch(rows(values.astype(np.float64)), seed)


def distance(claim: Tensor, own: NDArray[np.floating], *, floor: float = 0.0) -> dict[str, float]:
    """`relative`: the largest over rows of ||claim - own|| / max(||own||, floor).

    Args:
        claim: f4 of the same shape as `own` ([n, ...], n rows). floor: from `calibrate_floor`, at least 0.

    Raises:
        Refused: another dtype or shape, empty, or not finite. ExpectedUnusable: our own tensor is not finite.
    """
    if not np.isfinite(own).all():
        raise ExpectedUnusable("a tensor that is not finite")
    theirs = claimed({"tensor": claim}, "tensor", "f4", own.ndim)
    if theirs.shape != own.shape:
        raise Refused("shape", f"tensor of {theirs.shape}, {own.shape} expected")
    ours = rows(own.astype(np.float64))
    off = np.linalg.norm(rows(theirs) - ours, axis=1)
    length = np.maximum(np.linalg.norm(ours, axis=1), floor)
    with np.errstate(over="ignore"):
        ratio = np.divide(off, length, out=np.where(off > 0, np.inf, 0.0), where=length > 0)
    return {"relative": bounded(float(ratio.max()))}


def drawn_rows(beacon: bytes, total: int, count: int) -> tuple[int, ...]:
    """Which rows are opened (`opening.check_rows`) where only some are compared."""
    return seeded.drawn(beacon, "tensor.rows", total, min(count, total))
