"""256-bit codes of vectors: on which side of random hyperplanes they lie.

Two vectors at angle t differ in a bit with probability t / pi (Charikar, 2002). The hyperplanes are the same on
every machine and with every NumPy: sums of integers from raw Philox words, near enough to normal. The product is
float32 as BLAS rounds it, so a vector that lies almost in a hyperplane may have another bit elsewhere: an index, not
a proof.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verify.faults import Refused
from verify.lsh.codes import Codes, pack
from wire.errors import LocalError

BITS = 256
WIDTH_MAX = 1 << 13
PARTS = 12
"""Uniform 16-bit integers per number (Irwin-Hall): variance PARTS * 2^32 / 12, all sums exact in float32."""


class Hyperplanes:
    """256 random hyperplanes for vectors of one width.

    Args:
        width: dimensions of the vectors, 1..8192.
        seed: of the Philox stream.

    Raises:
        LocalError: a width out of range.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        if not 1 <= width <= WIDTH_MAX:
            raise LocalError(f"width is 1..{WIDTH_MAX}, not {width}")
        words = np.random.Philox(key=seed).random_raw(width * BITS * PARTS // 4)
        whole = words.astype("<u8").view("<u2").reshape(width, BITS, PARTS).sum(axis=2, dtype=np.int64)
        self.id = f"hyperplanes/{width}x{BITS}-seed{seed}/1"
        self.width = width
        # Twice the sum less its mean is an integer below 2^21, exact in float32; the power of two makes the variance 1.
        self._planes: NDArray[np.float32] = ((2 * whole - PARTS * 0xFFFF) * 2.0**-17).astype(np.float32)

    def codes(self, vectors: NDArray[np.float32]) -> Codes:
        """uint64[n, 4] of float32[n, width]: bit k is set if the product with plane k is above 0; a tie is 0.

        Raises:
            Refused: another dtype or shape, NaN or infinite.
        """
        if vectors.dtype != np.float32:
            raise Refused("dtype", f"vectors: {vectors.dtype}, float32 expected")
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise Refused("shape", f"vectors of {vectors.shape}, [n, {self.width}] expected")
        if not np.isfinite(vectors).all():
            raise Refused("nonfinite", "vectors")
        # Only the direction counts: dividing by a power of two is exact and keeps the products from overflowing.
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        scaled = np.ldexp(vectors, -np.frexp(largest)[1])
        bits: NDArray[np.bool_] = (scaled @ self._planes) > 0
        return pack(bits)
