"""The kernels in NumPy alone. They define the results; `compiled` must give the same bytes."""

from __future__ import annotations

import numpy as np

from verify.lsh.backend import I64, U8, U16, U32, U64
from verify.lsh.mixing import BASE, BASE_INVERSE, mix

CELLS = 1 << 18
"""Pairs that are compared at a time; bounds the memory of a call to a few MiB."""


def histogram(a: U64, b: U64, same: bool) -> I64:
    """See `Kernels`."""
    counts = np.zeros(64 * len(a) + 1, np.int64)
    for start, end in _blocks(a, b):
        block = _distances(a[:, start:end], b)
        near = block[_upper(start, block.shape)] if same else block.ravel()
        counts += np.bincount(near, minlength=len(counts))
    return counts


def join(a: U64, b: U64, radius: int, limit: int, same: bool) -> tuple[I64, I64, U16, int]:
    """See `Kernels`."""
    left, right, distance, found, kept = [], [], [], 0, 0
    for start, end in _blocks(a, b):
        block = _distances(a[:, start:end], b)
        near = block <= radius
        if same:
            near &= _upper(start, block.shape)
        i, j = np.nonzero(near)
        found += len(i)
        i, j = i[: limit - kept], j[: limit - kept]
        kept += len(i)
        left.append(i + start)
        right.append(j)
        distance.append(block[i, j])
    empty = np.zeros(0, np.int64)
    return (
        np.concatenate([empty, *left]).astype(np.int64),
        np.concatenate([empty, *right]).astype(np.int64),
        np.concatenate([empty, *distance]).astype(np.uint16),
        found,
    )


def nearest(a: U64, b: U64, k: int) -> tuple[I64, U16]:
    """See `Kernels`."""
    index, distance = np.empty((a.shape[1], k), np.int64), np.empty((a.shape[1], k), np.uint16)
    for start, end in _blocks(a, b):
        block = _distances(a[:, start:end], b)
        order = np.argsort(block, axis=1, kind="stable")[:, :k]
        index[start:end] = order
        distance[start:end] = np.take_along_axis(block, order, axis=1)
    return index, distance


def minhash(values: U64, offsets: I64, factors: U32, terms: U32) -> U32:
    """See `Kernels`."""
    short = (mix(values) >> np.uint64(32)).astype(np.uint32)
    found = np.full((len(offsets) - 1, len(factors)), 0xFFFFFFFF, np.uint32)
    for document, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        for at in range(start, end, 1024):
            some = short[at : min(at + 1024, end), None] * factors + terms
            np.minimum(found[document], some.min(axis=0), out=found[document])
    return found


def simhash(values: U64, offsets: I64) -> U64:
    """See `Kernels`."""
    codes = np.zeros(len(offsets) - 1, np.uint64)
    places = np.arange(64, dtype=np.uint64)
    for document, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        ones = np.zeros(64, np.int64)
        for at in range(start, end, 1024):
            bits = mix(values[at : min(at + 1024, end), None]) >> places & np.uint64(1)
            ones += bits.sum(axis=0, dtype=np.int64)
        codes[document] = ((2 * ones > end - start).astype(np.uint64) << places).sum(dtype=np.uint64)
    return codes


def byte_shingles(text: U8, offsets: I64, width: int) -> tuple[U64, I64]:
    """See `Kernels`."""
    lengths = np.diff(offsets)
    counts = np.where(lengths >= width, lengths - width + 1, np.minimum(lengths, 1))
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    document = np.repeat(np.arange(len(lengths)), counts)
    at = np.arange(ends[-1]) - ends[:-1][document] + offsets[:-1][document]
    taken = np.minimum(lengths[document], width)
    padded = np.concatenate([text, np.zeros(width, np.uint8)])
    values = taken.astype(np.uint64) << np.uint64(56)
    for place in range(width):
        octet = np.where(place < taken, padded[at + place], 0).astype(np.uint64)
        values |= octet << np.uint64(8 * place)
    return values, ends


def word_shingles(text: U8, offsets: I64) -> tuple[U64, I64]:
    """See `Kernels`. A word's polynomial hash is a difference of running sums, since the base has an inverse."""
    solid = text > 0x20
    edge = np.zeros(len(text) + 1, np.bool_)
    edge[offsets] = True
    before = np.concatenate([np.zeros(1, np.bool_), solid[:-1]])[: len(text)]
    starts = np.nonzero(solid & (~before | edge[:-1]))[0]
    after = np.concatenate([solid[1:], np.zeros(1, np.bool_)])[: len(text)]
    ends = np.nonzero(solid & (~after | edge[1:]))[0] + 1
    inverse = np.full(len(text), BASE_INVERSE, np.uint64)
    forward = np.full(len(text) + 1, BASE, np.uint64)
    inverse[:1] = forward[:1] = 1
    inverse = np.multiply.accumulate(inverse)
    forward = np.multiply.accumulate(forward)
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum((text + np.uint64(1)) * inverse, dtype=np.uint64)])
    values = (running[ends] - running[starts]) * forward[ends - 1] if len(starts) else np.zeros(0, np.uint64)
    return values, np.searchsorted(starts, offsets).astype(np.int64)


def _blocks(a: U64, b: U64) -> list[tuple[int, int]]:
    rows = max(1, CELLS // max(1, b.shape[1]))
    return [(start, min(start + rows, a.shape[1])) for start in range(0, a.shape[1], rows)]


def _distances(a: U64, b: U64) -> U16:
    """uint16[n, m] of columns [w, n] and [w, m]."""
    total = np.zeros((a.shape[1], b.shape[1]), np.uint16)
    for one, other in zip(a, b, strict=True):
        total += np.bitwise_count(one[:, None] ^ other)
    return total


def _upper(start: int, shape: tuple[int, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.arange(shape[1])[None, :] > (start + np.arange(shape[0]))[:, None]
