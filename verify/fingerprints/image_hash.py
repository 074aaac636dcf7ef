"""Perceptual hashes of pictures: pHash in 64 and 256 bits, and those of the imagehash library as reference.

They tell one picture from another; they say nothing about how a picture was computed. All arithmetic of `phash` is in
integers, so that every machine and backend gives the same bits: luma as Pillow rounds it, then one matrix per axis
that reduces with a Lanczos window (as Pillow's resize) and takes the lowest frequencies of the cosine transform in one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from verify.faults import Refused
from verify.fingerprints.image_hash_rows import Bands, Pixels, reduce_rows
from verify.lsh.backend import Backend
from verify.lsh.codes import Codes, pack
from wire.errors import LocalError

SIDE_MAX = 1 << 14
PIXELS_MAX = 1 << 26

LUMA_SHIFT = 16
"""Luma is rounded to whole levels."""
WEIGHT_BITS = 16
"""Weights are multiples of 2^-16: sums over a column of levels stay below 2^31, products of both axes below 2^53."""
OVERSAMPLING = 4
"""As in imagehash: the picture is reduced to 4 times the side of the hash before the transform."""
LANCZOS_LOBES = 3

Reference = Literal["phash", "phash256", "dhash", "ahash", "whash", "colorhash"]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class ImageHash:
    """A way to hash a picture.

    Attributes:
        id: `<name>/<parameters>/<version>`; any change of a bit that it can return is a new version.
        bits: of the code.
    """

    id: str
    bits: int


PHASH64 = ImageHash("image.phash/8x8-lanczos32/1", 64)
PHASH256 = ImageHash("image.phash/16x16-lanczos64/1", 256)


def phash(pixels: Pixels, kind: ImageHash = PHASH64, *, backend: Backend = "auto") -> Codes:
    """The code uint64[1, bits / 64]: bit k is set if frequency (k // side, k % side) is above the median of all.

    Args:
        pixels: uint8[h, w] (grey) or uint8[h, w, 3] (RGB).
        kind: `PHASH64` or `PHASH256`.

    Raises:
        Refused: no such picture: dtype, shape, empty, or huge (a side above 16384, or more than 2^26 pixels).
    """
    checked(pixels)
    side = {PHASH64.id: 8, PHASH256.id: 16}[kind.id]
    height, width = pixels.shape[:2]
    across = _bands(height, side)
    rows = reduce_rows(pixels, across, LUMA_SHIFT, backend)
    frequencies = rows.astype(np.float64) @ _bands(width, side).weights.astype(np.float64).T
    middle = np.sort(frequencies, axis=None)[side * side // 2 - 1 : side * side // 2 + 1].sum()
    return pack((2 * frequencies > middle).reshape(1, -1))


def checked(pixels: Pixels) -> None:
    """Raises: Refused unless uint8[h, w] or uint8[h, w, 3] of a bearable size."""
    if pixels.dtype != np.uint8:
        raise Refused("dtype", f"pixels: {pixels.dtype}, uint8 expected")
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise Refused("shape", f"pixels of {pixels.shape}, [h, w] or [h, w, 3] expected")
    if pixels.size == 0:
        raise Refused("empty", "pixels")
    if max(pixels.shape) > SIDE_MAX or pixels.shape[0] * pixels.shape[1] > PIXELS_MAX:
        raise Refused("range", f"pixels of {pixels.shape}: sides up to {SIDE_MAX}, {PIXELS_MAX} in all")


def reference(name: Reference) -> ImageHash:
    """A hash of the installed imagehash library; its bits depend on Pillow's resize, so both versions are in the id.

    Raises:
        LocalError: no such hash.
    """
    import imagehash  # lazily, here and below: it brings SciPy and PyWavelets
    import PIL

    if name not in _REFERENCE_BITS:
        raise LocalError(f"no hash {name!r}; there are {sorted(_REFERENCE_BITS)}")
    versions = f"imagehash-{imagehash.__version__}+pillow-{PIL.__version__}"
    return ImageHash(f"image.reference.{name}/{_REFERENCE_BITS[name]}/{versions}", _REFERENCE_BITS[name])


def reference_code(name: Reference, pixels: Pixels) -> Codes:
    """The code that imagehash gives, uint64[1, w]; its rows of bits in order, zeros up to a whole number of words.

    Raises:
        Refused: as `phash`. LocalError: no such hash.
    """
    import imagehash
    from PIL import Image

    checked(pixels)
    kind = reference(name)
    image = Image.fromarray(pixels)
    if name == "whash":
        found = imagehash.whash(image)
    elif name == "colorhash":
        found = imagehash.colorhash(image.convert("RGB"))
    elif name == "dhash":
        found = imagehash.dhash(image)
    elif name == "ahash":
        found = imagehash.average_hash(image)
    else:
        found = imagehash.phash(image, hash_size=16 if name == "phash256" else 8)
    bits = np.zeros((1, -(-kind.bits // 64) * 64), np.bool_)
    bits[0, : kind.bits] = found.hash.reshape(-1)
    return pack(bits)


_REFERENCE_BITS = {"phash": 64, "phash256": 256, "dhash": 64, "ahash": 64, "whash": 64, "colorhash": 42}


@functools.lru_cache(maxsize=16)
def _bands(length: int, side: int) -> Bands:
    """The lowest `side` frequencies of `length` values reduced to OVERSAMPLING * side, as integer weights."""
    reduced = OVERSAMPLING * side
    frequency, place = np.arange(side)[:, None], np.arange(reduced)
    cosine = np.cos(np.pi * frequency * (2 * place + 1) / (2 * reduced))
    weights = np.rint(cosine @ lanczos(length, reduced) * 2.0**WEIGHT_BITS).astype(np.int64)
    return Bands(balanced(weights, np.arange(side) > 0))


def lanczos(length: int, reduced: int) -> Matrix:
    """Resampling as Pillow does it: [reduced, length], rows sum to 1; the window widens where the picture shrinks."""
    scale = length / reduced
    widen = max(scale, 1.0)
    matrix = np.zeros((reduced, length))
    for row in range(reduced):
        center = (row + 0.5) * scale
        low = max(int(center - LANCZOS_LOBES * widen + 0.5), 0)
        high = min(int(center + LANCZOS_LOBES * widen + 0.5), length)
        x = (np.arange(low, high) - center + 0.5) / widen
        window = np.where(np.abs(x) < LANCZOS_LOBES, np.sinc(x) * np.sinc(x / LANCZOS_LOBES), 0.0)
        matrix[row, low:high] = window / window.sum()
    return matrix


def balanced(weights: NDArray[np.int64], rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Weights whose marked rows sum to exactly 0, so that a flat picture has no frequency but the lowest.

    What rounding left over is taken from the largest weights of a row, one unit each, first come first.
    """
    even = weights.copy()
    for row in np.nonzero(rows)[0]:
        excess = int(even[row].sum())
        units, rest = divmod(abs(excess), even.shape[1])
        sign = 1 if excess > 0 else -1
        even[row] -= sign * units
        largest = np.argsort(-np.abs(weights[row]), kind="stable")[:rest]
        even[row, largest] -= sign
    return even
