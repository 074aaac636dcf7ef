"""All pairs of two sets of codes: how far apart, which are near, which is nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verify.lsh.backend import I64, U16, Backend, kernels
from verify.lsh.codes import WORD_BITS, Codes, Columns, columns
from wire.errors import LocalError

PAIRS_MAX = 1 << 20
NEAREST_MAX = 1024


@dataclass(frozen=True)
class Pairs:
    """Near pairs, ascending by (left, right): `left` int64[m] into a, `right` int64[m] into b, `distance` uint16[m]."""

    left: I64
    right: I64
    distance: U16


def distances(a: Codes, b: Codes) -> U16:
    """Hamming distance of a[i] to b[i], uint16[n].

    Raises:
        LocalError: ill-formed codes, or not equally many.
    """
    left, right = _both(a, b)
    if left.shape != right.shape:
        raise LocalError(f"{len(a)} codes against {len(b)}")
    bits: U16 = np.bitwise_count(left ^ right).sum(axis=0, dtype=np.uint16)
    return bits


def histogram(a: Codes, b: Codes, *, backend: Backend = "auto") -> I64:
    """How many of the len(a) * len(b) pairs lie at each distance: int64[bits + 1].

    Raises:
        LocalError: ill-formed codes, or of different widths.
    """
    left, right = _both(a, b)
    return kernels(backend).histogram(left, right, False)


def histogram_self(codes: Codes, *, backend: Backend = "auto") -> I64:
    """`histogram` over the n (n - 1) / 2 unordered pairs of one set."""
    one = columns(codes)
    return kernels(backend).histogram(one, one, True)


def join(a: Codes, b: Codes, radius: int, *, limit: int = PAIRS_MAX, backend: Backend = "auto") -> Pairs:
    """All pairs at most `radius` apart.

    Args:
        radius: bits, inclusive.
        limit: the most pairs that are returned.

    Raises:
        LocalError: ill-formed codes, or more than `limit` pairs: says how many.
    """
    left, right = _both(a, b)
    return _join(left, right, radius, limit, False, backend)


def join_self(codes: Codes, radius: int, *, limit: int = PAIRS_MAX, backend: Backend = "auto") -> Pairs:
    """`join` over the unordered pairs of one set: left < right."""
    one = columns(codes)
    return _join(one, one, radius, limit, True, backend)


def nearest(a: Codes, b: Codes, k: int, *, backend: Backend = "auto") -> tuple[I64, U16]:
    """The k codes of b nearest to each of a, by (distance, index).

    Returns:
        indices int64[len(a), k], distances uint16[len(a), k].

    Raises:
        LocalError: ill-formed codes; k outside 1..min(len(b), 1024).
    """
    left, right = _both(a, b)
    if not 1 <= k <= min(len(b), NEAREST_MAX):
        raise LocalError(f"k is 1..{min(len(b), NEAREST_MAX)}, not {k}")
    return kernels(backend).nearest(left, right, k)


def _both(a: Codes, b: Codes) -> tuple[Columns, Columns]:
    left, right = columns(a), columns(b)
    if len(left) != len(right):
        raise LocalError(f"codes of {len(left) * WORD_BITS} bits against {len(right) * WORD_BITS}")
    return left, right


def _join(a: Columns, b: Columns, radius: int, limit: int, same: bool, backend: Backend) -> Pairs:
    if not 0 <= radius <= len(a) * WORD_BITS:
        raise LocalError(f"radius is 0..{len(a) * WORD_BITS}, not {radius}")
    left, right, distance, found = kernels(backend).join(a, b, radius, limit, same)
    if found > limit:
        raise LocalError(f"{found} pairs within {radius} bits; at most {limit}")
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], distance[order])
