"""embed.planes: 256 bits that say on which side of random hyperplanes a vector lies; an index, never a verdict.

Two vectors at angle t differ in t / pi of the bits (Charikar, STOC 2002). The planes' coefficients are sums of four
signed bytes, close to normal and whole numbers, so that every host has the same planes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from wire import seeded
from wire.errors import Malformed
from wire.hashing import digest
from wire.tensor import Tensor

ID = "embed.planes/256/1"

PLANES = 256
SKETCH_BYTES = PLANES // 8
WIDTH_MAX = 1 << 14


@lru_cache(maxsize=8)
def planes(width: int) -> NDArray[np.float64]:
    """f8[width, 256], whole numbers in -512..508; the same for everyone."""
    raw = seeded.words(digest("fingerprint.planes", width.to_bytes(4, "big")), "embed.planes", 0, width * PLANES // 2)
    steps = raw.astype("<u8").view(np.int8).reshape(width, PLANES, 4)
    whole: NDArray[np.float64] = steps.sum(axis=2, dtype=np.int64).astype(np.float64)
    return whole


def sketch(vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
    """u1[n, 32]: bit j (lowest first) is set where the vector lies on the positive side of plane j, or on it.

    Raises:
        ExpectedUnusable: not [n, width] with width up to 16,384, or values that are not finite.
    """
    if vectors.ndim != 2 or not 0 < vectors.shape[1] <= WIDTH_MAX or not np.isfinite(vectors).all():
        raise ExpectedUnusable(f"vectors of shape {vectors.shape}, or not finite")
    sides = vectors.astype(np.float64) @ planes(vectors.shape[1]) >= 0
    return np.packbits(sides, axis=1, bitorder="little")


def admit(claim: Tensor, count: int) -> NDArray[np.uint8]:
    """A claimed index entry as u1[count, 32].

    Raises:
        Refused: another dtype or shape.
    """
    if claim.dtype != "u1":
        raise Refused("dtype", f"planes: {claim.dtype}, u1 expected")
    if claim.shape != [count, SKETCH_BYTES]:
        raise Refused("shape", f"planes of {claim.shape[:9]}, {[count, SKETCH_BYTES]} expected")
    try:
        return claim.numpy().view(np.uint8)
    except Malformed as exc:
        raise Refused("shape", f"planes: {exc}") from exc


def distance(claim: Tensor, vectors: NDArray[np.floating]) -> dict[str, float]:
    """`bits`: the largest number of differing bits of a vector, 0..256.

    Raises:
        Refused: the claim cannot be compared. ExpectedUnusable: our own vectors cannot.
    """
    theirs = admit(claim, len(vectors))
    return {"bits": float(hamming(theirs, sketch(vectors)).max(initial=0))}


def hamming(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Differing bits along the last axis."""
    count: NDArray[np.int64] = np.bitwise_count(left ^ right).sum(axis=-1, dtype=np.int64)
    return count


def angle(bits: float) -> float:
    """The angle (radians) at which this many of the 256 bits differ on average."""
    return float(np.pi) * bits / PLANES
