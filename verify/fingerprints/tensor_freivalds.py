"""tensor.freivalds: is C = A B? Three matrix-vector products instead of a matrix product.

r is drawn from a beacon after C was committed, and A (B r) is compared with C r (Freivalds, MFCS 1979). Whole numbers:
exact modulo the prime 2**31 - 1; one round misses a wrong product with chance at most 2**-31 + 2**-60. Floats: r is
Gaussian, so the residual of a row whose error has length e is normal with deviation e, and one round stays within t of
zero with chance at most sqrt(2 / pi) * t / e. The tolerance t covers honest rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verify.faults import Refused
from verify.fingerprints.base import FAR, Floats, bounded
from wire import seeded

ID_FLOAT = "tensor.freivalds/gaussian-f32/1"
ID_EXACT = "tensor.freivalds/mod-2^31-1/1"

PRIME = (1 << 31) - 1
LIMB_BITS = 16
INNER_MAX = 1 << 20
"""Longest inner side: sums of int8 times 16-bit limbs stay below 2**53, and of 31-bit residues below 2**63."""

RESOLUTION = {"rms": 2.0**-17, "row": 2.0**-19}
"""Honest float32 products in five orders of summation, inner side up to 2048: at most 1.2e-6 and 2.2e-7."""

ROWS_AT_A_TIME = 128
"""So that a float64 copy of a part of a matrix stays in the cache."""


def _sides(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> None:
    if a.ndim != 2 or b.ndim != 2 or c.ndim != 2:
        raise Refused("shape", "three matrices are expected")
    if a.shape[1] != b.shape[0] or c.shape != (a.shape[0], b.shape[1]):
        raise Refused("shape", f"{c.shape} is no product of {a.shape} and {b.shape}")
    if min(a.size, b.size, c.size) == 0:
        raise Refused("empty", "a matrix without values")
    if a.shape[1] > INNER_MAX or b.shape[1] > INNER_MAX:
        raise Refused("length", f"sides above {INNER_MAX}")


def distance(
    a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32], beacon: bytes, *, rounds: int = 2
) -> dict[str, float]:
    """How far the claimed float32 product is from A B.

    Args:
        a, b: [m, k], [k, n], known to both sides. c: the claimed [m, n].
        beacon: 32 bytes fixed after `c` was committed. rounds: independent vectors.

    Returns:
        rms: estimate of ||C - A B|| / ||A B||. row: largest residual of a row, over ||A_i|| ||B||, which bounds its
        length. Both are the largest over the rounds.

    Raises:
        Refused: not three float32 matrices that fit, or values that are not finite.
    """
    if not a.dtype == b.dtype == c.dtype == np.float32:
        raise Refused("dtype", f"{a.dtype}, {b.dtype}, {c.dtype}; float32 expected")
    _sides(a, b, c)
    if not np.isfinite(c).all():
        raise Refused("nonfinite", "product")
    draws = seeded.normal(beacon, "freivalds.float", rounds * b.shape[1]).reshape(rounds, -1).T.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        own = (a @ (b @ draws)).astype(np.float64)
        residual = np.abs((c @ draws).astype(np.float64) - own)
    if not (np.isfinite(own).all() and np.isfinite(residual).all()):
        return {"rms": FAR, "row": FAR}
    return {
        "rms": _ratio(np.sqrt((residual**2).mean(axis=0)), np.sqrt((own**2).mean(axis=0))),
        "row": _ratio(residual.max(axis=1), _lengths(a) * np.linalg.norm(_lengths(b))),
    }


def _lengths(matrix: NDArray[np.float32]) -> Floats:
    """The length of each row; in float32 unless it overflows or vanishes there."""
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", matrix, matrix).astype(np.float64)
    if not np.isfinite(squares).all() or squares.min() < 2.0**-100:
        squares = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64, casting="safe")
    return np.asarray(np.sqrt(squares))


def _ratio(top: Floats, bottom: Floats) -> float:
    return bounded(float(np.divide(top, bottom, out=np.where(top > 0, FAR, 0.0), where=bottom > 0).max()))


def missed(error: float, tolerance: float, rounds: int) -> float:
    """Bound on the chance that a row whose error has length `error` stays within `tolerance` in every round."""
    return min(1.0, math.sqrt(2 / math.pi) * tolerance / error) ** rounds


def missed_exact(rounds: int) -> float:
    """Bound on the chance that any wrong integer product passes."""
    return (2.0**-31 + 2.0**-60) ** rounds


def exact(
    a: NDArray[np.int8], b: NDArray[np.int8], c: NDArray[np.int32], beacon: bytes, *, rounds: int = 2
) -> dict[str, float]:
    """`mismatch`: the share of rows of an int8 product whose residual is not zero; 0 if C = A B.

    A value that no product of this inner side can have is a mismatch; the others differ from the true ones by less
    than the prime, so that equality modulo the prime is equality.

    Raises:
        Refused: not int8, int8 and int32 matrices that fit, or an inner side whose product could pass int32.
    """
    if a.dtype != np.int8 or b.dtype != np.int8 or c.dtype != np.int32:
        raise Refused("dtype", f"{a.dtype}, {b.dtype}, {c.dtype}; int8, int8, int32 expected")
    _sides(a, b, c)
    if a.shape[1] >= 1 << 16:
        raise Refused("length", "an inner side of 65,536 or more may pass 31 bits")
    draws = seeded.field(beacon, "freivalds.exact", rounds * b.shape[1], PRIME).reshape(rounds, -1).T
    own = _times(a, _times(b, draws))
    most = 128 * 128 * a.shape[1]
    absurd = (c.max(axis=1) > most) | (c.min(axis=1) < -most)
    return {"mismatch": float((absurd | (_times(c, draws) != own).any(axis=1)).mean())}


def _times(matrix: NDArray[Any], vectors: NDArray[np.int64]) -> NDArray[np.int64]:
    """matrix @ vectors modulo the prime; vectors in 0..prime-1.

    In float64 (which BLAS multiplies fast), by 16-bit limbs of the vectors, and of the matrix if it is int32: products
    are below 2**32 and sums of up to 2**20 of them below 2**53, so nothing is rounded.
    """
    limbs = [(vectors >> shift & 0xFFFF).astype(np.float64) for shift in (0, LIMB_BITS)]
    stacked = np.concatenate(limbs, axis=1)
    parts = [(matrix, 0)] if matrix.dtype == np.int8 else [(matrix & 0xFFFF, 0), (matrix >> LIMB_BITS, LIMB_BITS)]
    total = np.zeros((len(matrix), vectors.shape[1]), dtype=np.int64)
    for part, shift in parts:
        low, high = np.split(_product(part, stacked).astype(np.int64) % PRIME, 2, axis=1)
        value = (low + (high << LIMB_BITS) % PRIME) % PRIME
        total = (total + (value << shift) % PRIME) % PRIME
    return total


def _product(matrix: NDArray[Any], stacked: Floats) -> Floats:
    product = np.empty((len(matrix), stacked.shape[1]))
    for start in range(0, len(matrix), ROWS_AT_A_TIME):
        part = slice(start, start + ROWS_AT_A_TIME)
        np.matmul(matrix[part].astype(np.float64), stacked, out=product[part])
    return product
