"""embed.cosine: the vectors point where ours point, and are as long.

1 - cos is computed as half the squared distance of the unit vectors, which keeps its precision near 0.
"""

from __future__ import annotations

import numpy as np

from verify.faults import Refused
from verify.fingerprints.base import Floats, bounded, claimed, computed, only, relative_l2
from wire.codec import Wire
from wire.job import EmbedInput, Expected, Output, Trace

ID = "embed.cosine/f64/1"

RESOLUTION = {"cosine": 2.0**-46, "relative": 2.0**-23}
"""float32 rounding, and its square for 1 - cos."""


def admit(inputs: Wire, output: Output, trace: Trace) -> None:
    """Raises: Refused unless vectors f4[n, d] for n texts are all that is there, and finite."""
    assert isinstance(inputs, EmbedInput), "registered for embed.text"
    only(output.tensors, "vectors")
    only(trace.tensors)
    vectors = claimed(output.tensors, "vectors", "f4", 2)
    if len(vectors) != len(inputs.texts):
        raise Refused("length", f"{len(vectors)} vectors, {len(inputs.texts)} expected")


def compare(output: Output, trace: Trace, expected: Expected) -> dict[str, float]:
    """Distances between the claimed vectors and our own.

    Returns:
        cosine: largest 1 - cos. relative: largest relative L2.

    Raises:
        Refused: the claim cannot be compared. ExpectedUnusable: our own result cannot.
    """
    vectors = claimed(output.tensors, "vectors", "f4", 2)
    own_tensor = expected.tensors.get("vectors")
    if own_tensor is not None and len(own_tensor.shape) == 2 and own_tensor.shape[1] != vectors.shape[1]:
        raise Refused("shape", f"vectors of width {vectors.shape[1]}, {own_tensor.shape[1]} expected")
    own = computed(expected, "vectors", "f4", vectors.shape)
    difference = _unit(vectors) - _unit(own)
    return {
        "cosine": bounded(float((difference * difference).sum(axis=1).max() / 2)),
        "relative": relative_l2(vectors - own, own),
    }


def _unit(vectors: Floats) -> Floats:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    return unit
