"""The one pass over the pixels that perceptual hashes share: luma, and weighted sums of rows, in integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verify.lsh.backend import Backend, kernels, numba_there

Pixels = NDArray[np.uint8]

RED, GREEN, BLUE = 19595, 38470, 7471
"""ITU-R 601 luma as multiples of 2^-16, as in Pillow; they sum to 2^16."""
GROUP = 4
"""Rows that are taken together."""


class Bands:
    """Integer weights [outputs, length] of a reduction along one axis, and where each is not zero.

    Attributes:
        weights: int32[outputs, length padded with zeros to whole groups], read-only.
        first, last: int64[groups]; only outputs first <= k < last have weights in that group of rows.
    """

    def __init__(self, weights: NDArray[np.int64]) -> None:
        outputs, length = weights.shape
        groups = -(-length // GROUP)
        padded = np.zeros((outputs, groups * GROUP), np.int32)
        padded[:, :length] = weights
        self.weights: NDArray[np.int32] = padded[:, :length]
        self.padded: NDArray[np.int32] = padded
        used = (padded.reshape(outputs, groups, GROUP) != 0).any(axis=2)
        any_used = used.any(axis=0)
        self.first: NDArray[np.int64] = np.where(any_used, used.argmax(axis=0), 0)
        self.last: NDArray[np.int64] = np.where(any_used, outputs - used[::-1].argmax(axis=0), 0)
        for array in (self.weights, self.padded, self.first, self.last):
            array.flags.writeable = False


def reduce_rows(pixels: Pixels, bands: Bands, shift: int, backend: Backend) -> NDArray[np.int32]:
    """Sums over rows of weight times luma: int32[outputs, w].

    Args:
        pixels: uint8[h, w] or uint8[h, w, 3].
        shift: luma counts in units of 2^(shift - 16) levels, rounded.
    """
    kernels(backend)  # refuses a backend that is not there
    if backend == "numpy" or not numba_there():
        whole = luma(pixels, shift).astype(np.float64)
        # Every product and sum is a whole number below 2^53, so this is exact in whatever order BLAS adds.
        return (bands.weights.astype(np.float64) @ whole).astype(np.int32)
    from verify.fingerprints.image_hash_compiled import reduce_grey, reduce_rgb

    sums = np.zeros((len(bands.padded), pixels.shape[1]), np.int32)
    run = reduce_grey if pixels.ndim == 2 else reduce_rgb
    run(np.ascontiguousarray(pixels), bands.padded, bands.first, bands.last, shift, sums)
    return sums


def luma(pixels: Pixels, shift: int) -> NDArray[np.int32]:
    """int32[h, w] in units of 2^(shift - 16) levels, rounded half up."""
    wide = pixels.astype(np.int32)
    if pixels.ndim == 2:
        return wide << (16 - shift)
    half = (1 << shift) >> 1
    weighted: NDArray[np.int32] = wide[..., 0] * RED + wide[..., 1] * GREEN + wide[..., 2] * BLUE + half
    return weighted >> shift
