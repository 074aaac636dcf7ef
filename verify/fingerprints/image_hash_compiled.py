"""`image_hash_rows.reduce_rows` compiled by numba; the same integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verify.fingerprints.image_hash_rows import BLUE, GREEN, GROUP, RED, Pixels
from verify.lsh.compiled import jit

_R, _G, _B = np.int32(RED), np.int32(GREEN), np.int32(BLUE)
Sums = NDArray[np.int32]
Places = NDArray[np.int64]


@jit
def _add(buffer: Sums, weights: Sums, group: int, first: int, last: int, sums: Sums) -> None:
    """Add four rows of luma to the outputs that take any of them."""
    l0, l1, l2, l3 = buffer[0], buffer[1], buffer[2], buffer[3]
    for k in range(first, last):
        at = group * GROUP
        w0, w1, w2, w3 = weights[k, at], weights[k, at + 1], weights[k, at + 2], weights[k, at + 3]
        out = sums[k]
        for x in range(len(out)):
            out[x] += np.int32(w0 * l0[x] + w1 * l1[x] + w2 * l2[x] + w3 * l3[x])


@jit
def reduce_grey(pixels: Pixels, weights: Sums, first: Places, last: Places, shift: int, sums: Sums) -> None:
    """uint8[h, w] into sums int32[outputs, w], which begin as zeros."""
    height, width = pixels.shape
    buffer = np.zeros((GROUP, width), np.int32)
    up = np.int32(16 - shift)
    for group in range(len(first)):
        rows = min(GROUP, height - group * GROUP)
        for row in range(rows):
            line, out = pixels[group * GROUP + row], buffer[row]
            for x in range(width):
                out[x] = np.int32(line[x]) << up
        _add(buffer, weights, group, first[group], last[group], sums)


@jit
def reduce_rgb(pixels: Pixels, weights: Sums, first: Places, last: Places, shift: int, sums: Sums) -> None:
    """uint8[h, w, 3] into sums int32[outputs, w], which begin as zeros."""
    height, width = pixels.shape[:2]
    buffer = np.zeros((GROUP, width), np.int32)
    down, half = np.int32(shift), np.int32((1 << shift) >> 1)
    for group in range(len(first)):
        if first[group] == last[group]:
            continue
        rows = min(GROUP, height - group * GROUP)
        for row in range(rows):
            line, out = pixels[group * GROUP + row].reshape(-1), buffer[row]
            for x in range(width):
                red, green, blue = np.int32(line[3 * x]), np.int32(line[3 * x + 1]), np.int32(line[3 * x + 2])
                out[x] = np.int32(red * _R + green * _G + blue * _B + half) >> down
        _add(buffer, weights, group, first[group], last[group], sums)
