"""PDQ: the 256-bit perceptual hash that Facebook published, with its quality, in integers.

After "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm" (2019): luma, two passes of a box
filter along each axis (a Jarosz filter), 64 x 64 samples, 16 x 16 cosine frequencies without the constant one, and one
bit for each above the median. Integers in place of floats differ from the published code in bits next to the median.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.fingerprints.image_hash import ImageHash, Matrix, balanced, checked
from verify.fingerprints.image_hash_rows import Bands, Pixels, reduce_rows
from verify.lsh.backend import Backend
from verify.lsh.codes import Codes, pack

PDQ = ImageHash("image.pdq/16x16-jarosz64/1", 256)

SAMPLES, SIDE, PASSES = 64, 16, 2
SIDE_MIN = 5
"""Of a picture that has a hash; a smaller one has code 0 and quality 0."""
QUALITY_MIN = 50
"""Below this the publishers advise against a comparison."""
DISTANCE_MAX = 31
"""Bits; up to this the publishers call two pictures the same."""

LUMA_SHIFT, LUMA_BITS = 10, 6
"""Luma counts in 1/64 of a level."""
TAP_BITS = 16
COSINE_BITS = 15
QUALITY_DIVISOR = 90


@dataclass(frozen=True)
class Pdq:
    """A code uint64[1, 4] and the quality 0..100: how much there was in the picture to tell it by."""

    code: Codes
    quality: int


def pdq(pixels: Pixels, *, backend: Backend = "auto") -> Pdq:
    """Hash a picture. Bit 16 i + j of the code belongs to frequency i + 1 down and j + 1 across.

    Args:
        pixels: uint8[h, w] (grey) or uint8[h, w, 3] (RGB).

    Raises:
        Refused: no such picture, or huge; see `image_hash.checked`.
    """
    checked(pixels)
    height, width = pixels.shape[:2]
    if min(height, width) < SIDE_MIN:
        return Pdq(np.zeros((1, 4), np.uint64), 0)
    rows = reduce_rows(pixels, _taps(height), LUMA_SHIFT, backend)
    samples = np.floor(rows @ _wide(width) * 2.0 ** -(2 * TAP_BITS - 8))  # in 2^-14 levels, below 2^22
    cosine = _cosine()
    half = np.floor(cosine @ samples * 2.0**-COSINE_BITS)
    frequencies = half @ cosine.T
    bits = frequencies > np.sort(frequencies, axis=None)[SIDE * SIDE // 2 - 1]
    return Pdq(pack(bits.reshape(1, -1)), _quality(samples * 2.0**-8))


def _quality(samples: Matrix) -> int:
    """From the differences of neighbours, in whole hundredths of the range, `samples` in 1/64 of a level."""
    steps = sum(np.floor(np.abs(np.diff(samples, axis=axis)) * 100 / (255 * 64)).sum() for axis in (0, 1))
    return min(100, int(steps / QUALITY_DIVISOR))


@functools.lru_cache(maxsize=16)
def _taps(length: int) -> Bands:
    """What each of the 64 samples takes of `length` values, as integers that sum to 2^16."""
    places = ((np.arange(SAMPLES) + 0.5) * length / SAMPLES).astype(np.int64)
    chosen = np.zeros((SAMPLES, length))
    chosen[np.arange(SAMPLES), places] = 1
    for _ in range(PASSES if length != SAMPLES else 0):
        chosen = _boxed(chosen)
    return Bands(_summing(np.rint(chosen * 2.0**TAP_BITS).astype(np.int64), 1 << TAP_BITS))


@functools.lru_cache(maxsize=16)
def _wide(length: int) -> Matrix:
    return _taps(length).weights.T.astype(np.float64)


def _boxed(taps: Matrix) -> Matrix:
    """Taps [samples, length] on means over a window of about 1/128 of the length, as taps on what the means are of.

    The window is narrower at the ends. Each tap spreads evenly over its window: a step up and a step down, summed.
    """
    length = taps.shape[1]
    window = (length + 2 * SAMPLES - 1) // (2 * SAMPLES)
    ahead = (window + 2) // 2
    place = np.arange(length)
    low, high = np.maximum(place + ahead - window, 0), np.minimum(place + ahead, length)
    steps = np.zeros((length + 1, len(taps)))
    share = (taps / (high - low)).T
    np.add.at(steps, low, share)
    np.subtract.at(steps, high, share)
    return np.cumsum(steps, axis=0)[:length].T


def _summing(weights: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Weights whose rows sum to exactly `total`; the largest takes what rounding left over."""
    rows = np.arange(len(weights))
    weights[rows, weights.argmax(axis=1)] += total - weights.sum(axis=1)
    return weights


@functools.cache
def _cosine() -> Matrix:
    """Whole numbers, rows sum to 0: the frequencies 1..16 of 64 samples."""
    frequency, place = np.arange(1, SIDE + 1)[:, None], np.arange(SAMPLES)
    cosine = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SAMPLES))
    whole = balanced(np.rint(cosine * 2.0**COSINE_BITS).astype(np.int64), np.ones(SIDE, np.bool_))
    return whole.astype(np.float64)
