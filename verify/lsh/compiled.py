"""The kernels compiled by numba, with LLVM's population count; the same bytes as `plain`.

Codes lie word by word (structure of arrays), so that the inner loops become vector instructions. They run in tiles
that stay in the first-level cache. The global interpreter lock is released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.extending import intrinsic

from verify.lsh.backend import I64, U8, U16, U32, U64
from verify.lsh.mixing import BASE, MIX_1, MIX_2

Function = TypeVar("Function", bound=Callable[..., Any])

TILE = 1024
"""Codes of b that are compared with one group of rows at a time: 8 KiB per word."""
NEAR_TILE = 128
"""The same where a tile that holds anything of interest is gone through again."""
_30, _27, _31, _32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_MIX_1, _MIX_2, _BASE, _ONE = np.uint64(MIX_1), np.uint64(MIX_2), np.uint64(BASE), np.uint64(1)


def jit(function: Function) -> Function:
    """Compiled on first use, kept on disk."""
    return cast(Function, numba.njit(cache=True, nogil=True, boundscheck=False)(function))


def _popcount(typing: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return numba.types.uint64(numba.types.uint64), generate


popcount = cast(Callable[[np.uint64], np.uint64], intrinsic(_popcount))


@jit
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


@jit
def _bits1(a: U64, i: int, b: U64, j: int) -> np.uint64:
    return popcount(a[0, i] ^ b[0, j])


@jit
def _bits4(a: U64, i: int, b: U64, j: int) -> np.uint64:
    near = popcount(a[0, i] ^ b[0, j]) + popcount(a[1, i] ^ b[1, j])
    return near + popcount(a[2, i] ^ b[2, j]) + popcount(a[3, i] ^ b[3, j])


@jit
def _bits(a: U64, i: int, b: U64, j: int) -> np.uint64:
    return _bits1(a, i, b, j) if len(a) == 1 else _bits4(a, i, b, j)


@jit
def _least1(a: U64, i: int, b: U64, start: int, end: int) -> np.uint64:
    """The smallest distance of a[i..i+3] to b[start..end-1]."""
    x0, x1, x2, x3 = a[0, i], a[0, i + 1], a[0, i + 2], a[0, i + 3]
    codes = b[0]
    least = np.uint64(64)
    for j in range(start, end):
        y = codes[j]
        low = min(popcount(x0 ^ y), popcount(x1 ^ y))
        least = min(least, min(low, min(popcount(x2 ^ y), popcount(x3 ^ y))))
    return least


@jit
def _least4(a: U64, i: int, b: U64, start: int, end: int) -> np.uint64:
    """A lower bound of the distances of a[i..i+3] to b[start..end-1]: over the first two of their four words."""
    x0, x1, x2, x3 = a[0, i], a[0, i + 1], a[0, i + 2], a[0, i + 3]
    z0, z1, z2, z3 = a[1, i], a[1, i + 1], a[1, i + 2], a[1, i + 3]
    first, second = b[0], b[1]
    least = np.uint64(128)
    for j in range(start, end):
        y, v = first[j], second[j]
        low = min(popcount(x0 ^ y) + popcount(z0 ^ v), popcount(x1 ^ y) + popcount(z1 ^ v))
        high = min(popcount(x2 ^ y) + popcount(z2 ^ v), popcount(x3 ^ y) + popcount(z3 ^ v))
        least = min(least, min(low, high))
    return least


@jit
def _join(a: U64, b: U64, radius: np.uint64, limit: int, same: bool, left: I64, right: I64, distance: U16) -> int:
    n, m, found = a.shape[1], b.shape[1], 0
    for start in range(0, m, TILE):
        end = min(m, start + TILE)
        for i in range(0, n, 4):
            if same and end <= i + 1:
                break
            rows = min(4, n - i)
            if rows == 4:
                least = _least1(a, i, b, start, end) if len(a) == 1 else _least4(a, i, b, start, end)
                if least > radius:
                    continue
            for row in range(i, i + rows):
                for j in range(max(start, row + 1) if same else start, end):
                    bits = _bits(a, row, b, j)
                    if bits <= radius:
                        if found < limit:
                            left[found], right[found], distance[found] = row, j, np.uint16(bits)
                        found += 1
    return found


def join(a: U64, b: U64, radius: int, limit: int, same: bool) -> tuple[I64, I64, U16, int]:
    """See `Kernels`."""
    size = min(limit, a.shape[1] * b.shape[1])
    left, right, distance = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.uint16)
    found = _join(a, b, np.uint64(radius), size, same, left, right, distance)
    kept = min(found, size)
    return left[:kept].copy(), right[:kept].copy(), distance[:kept].copy(), found


@jit
def _histogram1(a: U64, b: U64, same: bool, counts: I64) -> None:
    """Two rows at a time: a pair of distances is one cell of `counts` (first + 65 second), so half the
    increments. No power of two as a stride: cells of neighbouring rows would fall into the same sets of the cache.
    """
    n, m = a.shape[1], b.shape[1]
    cells = np.empty(TILE, np.uint16)
    for start in range(0, m, TILE):
        for i in range(0, n - 1, 2):
            first = max(start, i + 2) if same else start
            size = min(m, start + TILE) - first
            if size <= 0:
                if same:
                    break
                continue
            x, z, codes = a[0, i], a[0, i + 1], b[0, first : first + size]
            for j in range(size):
                cells[j] = np.uint16(popcount(x ^ codes[j]) + popcount(z ^ codes[j]) * np.uint64(65))
            for j in range(size):
                counts[cells[j]] += 1


@jit
def _histogram4(a: U64, b: U64, same: bool, counts: I64) -> None:
    """As `_histogram1`, with cells first + 257 second."""
    n, m = a.shape[1], b.shape[1]
    cells = np.empty(TILE, np.uint32)
    for start in range(0, m, TILE):
        for i in range(0, n - 1, 2):
            first = max(start, i + 2) if same else start
            size = min(m, start + TILE) - first
            if size <= 0:
                if same:
                    break
                continue
            x0, x1, x2, x3 = a[0, i], a[1, i], a[2, i], a[3, i]
            z0, z1, z2, z3 = a[0, i + 1], a[1, i + 1], a[2, i + 1], a[3, i + 1]
            b0, b1 = b[0, first : first + size], b[1, first : first + size]
            b2, b3 = b[2, first : first + size], b[3, first : first + size]
            for j in range(size):
                y0, y1, y2, y3 = b0[j], b1[j], b2[j], b3[j]
                low = popcount(x0 ^ y0) + popcount(x1 ^ y1) + popcount(x2 ^ y2) + popcount(x3 ^ y3)
                high = popcount(z0 ^ y0) + popcount(z1 ^ y1) + popcount(z2 ^ y2) + popcount(z3 ^ y3)
                cells[j] = np.uint32(low + high * np.uint64(257))
            for j in range(size):
                counts[cells[j]] += 1


@jit
def _odd_pairs(a: U64, b: U64, same: bool, counts: I64) -> None:
    """What rows two by two leave out: the last of an odd number of rows, and with `same` the pair of each two rows."""
    n, m = a.shape[1], b.shape[1]
    if same:
        for i in range(0, n - 1, 2):
            counts[_bits(a, i, b, i + 1)] += 1
    elif n % 2:
        for j in range(m):
            counts[_bits(a, n - 1, b, j)] += 1


def histogram(a: U64, b: U64, same: bool) -> I64:
    """See `Kernels`."""
    bits = 64 * len(a)
    cells = np.zeros((bits + 1) ** 2, np.int64)
    (_histogram1 if len(a) == 1 else _histogram4)(a, b, same, cells)
    table = cells.reshape(bits + 1, bits + 1)
    counts: I64 = table.sum(axis=0) + table.sum(axis=1)
    _odd_pairs(a, b, same, counts)
    return counts


@jit
def _row1(a: U64, i: int, b: U64, start: int, end: int) -> np.uint64:
    """The smallest distance of a[i] to b[start..end-1]."""
    x, codes = a[0, i], b[0]
    least = np.uint64(64)
    for j in range(start, end):
        least = min(least, popcount(x ^ codes[j]))
    return least


@jit
def _row4(a: U64, i: int, b: U64, start: int, end: int) -> np.uint64:
    x0, x1, x2, x3 = a[0, i], a[1, i], a[2, i], a[3, i]
    b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
    least = np.uint64(256)
    for j in range(start, end):
        low = popcount(x0 ^ b0[j]) + popcount(x1 ^ b1[j])
        least = min(least, low + popcount(x2 ^ b2[j]) + popcount(x3 ^ b3[j]))
    return least


@jit
def _nearest(a: U64, b: U64, index: I64, distance: U16) -> None:
    n, m, k = a.shape[1], b.shape[1], index.shape[1]
    for i in range(n):
        worst, held = np.uint64(64 * len(a) + 1), 0
        for start in range(0, m, NEAR_TILE):
            end = min(m, start + NEAR_TILE)
            least = _row1(a, i, b, start, end) if len(a) == 1 else _row4(a, i, b, start, end)
            if least >= worst:
                continue
            for j in range(start, end):
                bits = _bits(a, i, b, j)
                if bits >= worst:
                    continue
                at = min(held, k - 1)
                while at > 0 and distance[i, at - 1] > bits:
                    distance[i, at], index[i, at] = distance[i, at - 1], index[i, at - 1]
                    at -= 1
                distance[i, at], index[i, at] = np.uint16(bits), j
                held = min(held + 1, k)
                if held == k:
                    worst = np.uint64(distance[i, k - 1])


def nearest(a: U64, b: U64, k: int) -> tuple[I64, U16]:
    """See `Kernels`."""
    index, distance = np.empty((a.shape[1], k), np.int64), np.empty((a.shape[1], k), np.uint16)
    _nearest(a, b, index, distance)
    return index, distance


@jit
def _minhash(values: U64, offsets: I64, factors: U32, terms: U32, found: U32) -> None:
    count = len(factors)
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        best = found[document]
        at = start
        while at < end:
            # Four at a time; the last is repeated where fewer are left, which does not change a minimum.
            x0 = np.uint32(_mix(values[at]) >> _32)
            x1 = np.uint32(_mix(values[min(at + 1, end - 1)]) >> _32)
            x2 = np.uint32(_mix(values[min(at + 2, end - 1)]) >> _32)
            x3 = np.uint32(_mix(values[min(at + 3, end - 1)]) >> _32)
            for p in range(count):
                a, b = factors[p], terms[p]
                low = min(np.uint32(a * x0 + b), np.uint32(a * x1 + b))
                high = min(np.uint32(a * x2 + b), np.uint32(a * x3 + b))
                best[p] = min(best[p], min(low, high))
            at += 4


def minhash(values: U64, offsets: I64, factors: U32, terms: U32) -> U32:
    """See `Kernels`."""
    found = np.full((len(offsets) - 1, len(factors)), 0xFFFFFFFF, np.uint32)
    _minhash(values, offsets, factors, terms, found)
    return found


@jit
def _simhash(values: U64, offsets: I64, codes: U64) -> None:
    ones = np.empty(64, np.uint64)
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        ones[:] = 0
        for at in range(start, end):
            z = _mix(values[at])
            for place in range(64):
                ones[place] += (z >> np.uint64(place)) & _ONE
        code, half = np.uint64(0), np.uint64(end - start)
        for place in range(64):
            if ones[place] + ones[place] > half:
                code |= _ONE << np.uint64(place)
        codes[document] = code


def simhash(values: U64, offsets: I64) -> U64:
    """See `Kernels`."""
    codes = np.empty(len(offsets) - 1, np.uint64)
    _simhash(values, offsets, codes)
    return codes


@jit
def _byte_shingles(text: U8, offsets: I64, width: int, ends: I64, values: U64) -> None:
    mask = (_ONE << np.uint64(8 * width)) - _ONE
    at = 0
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        taken = min(width, end - start)
        window = np.uint64(0)
        for place in range(taken):
            window |= np.uint64(text[start + place]) << np.uint64(8 * place)
        tag = np.uint64(taken) << np.uint64(56)
        if taken:
            values[at] = window | tag
            at += 1
        for place in range(start + taken, end):
            window = ((window >> np.uint64(8)) | (np.uint64(text[place]) << np.uint64(8 * (width - 1)))) & mask
            values[at] = window | tag
            at += 1
        ends[document + 1] = at


def byte_shingles(text: U8, offsets: I64, width: int) -> tuple[U64, I64]:
    """See `Kernels`."""
    ends, values = np.zeros(len(offsets), np.int64), np.empty(len(text), np.uint64)
    _byte_shingles(text, offsets, width, ends, values)
    return values[: ends[-1]].copy(), ends


@jit
def _word_shingles(text: U8, offsets: I64, ends: I64, values: U64) -> None:
    at = 0
    for document in range(len(offsets) - 1):
        word, inside = np.uint64(0), False
        for place in range(offsets[document], offsets[document + 1]):
            octet = text[place]
            if octet > 0x20:
                word = word * _BASE + np.uint64(octet) + _ONE
                inside = True
            elif inside:
                values[at] = word
                at += 1
                word, inside = np.uint64(0), False
        if inside:
            values[at] = word
            at += 1
        ends[document + 1] = at


def word_shingles(text: U8, offsets: I64) -> tuple[U64, I64]:
    """See `Kernels`."""
    ends, values = np.zeros(len(offsets), np.int64), np.empty((len(text) + 1) // 2 + len(offsets), np.uint64)
    _word_shingles(text, offsets, ends, values)
    return values[: ends[-1]].copy(), ends
