"""Numbers that follow from 32 bytes: what fingerprints draw once a beacon, or a job's id, is known.

Only raw Philox 4x64 words are taken from NumPy (their stream is fixed, NEP 19) and only integers, and float64
operations that IEEE 754 rounds exactly, are made of them, so every host draws the same numbers. `normal` is the
exception, and says so.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wire.hashing import digest

SEED_BYTES = 32


def words(seed: bytes, label: str, position: int, count: int) -> NDArray[np.uint64]:
    """u8[count] uniform words; equal arguments give equal words, other labels and positions independent ones.

    Args:
        seed: 32 bytes: a beacon, or a job's id.
        label: what they are for.
        position: 0..2**64-1, e.g. a token's.
    """
    assert len(seed) == SEED_BYTES, "a seed has 32 bytes"
    key = np.frombuffer(digest("fingerprint.words", label.encode(), seed)[:16], dtype="<u8").astype(np.uint64)
    counter = np.array([0, 0, 0, position], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def bits(seed: bytes, label: str, position: int, count: int) -> NDArray[np.uint8]:
    """u1[count] of 0 and 1; the first is the lowest bit of the first byte."""
    raw = words(seed, label, position, -(-count // 64)).astype("<u8")
    return np.unpackbits(raw.view(np.uint8), count=count, bitorder="little")


def unit(seed: bytes, label: str, position: int, count: int) -> NDArray[np.float64]:
    """f8[count] uniform in [0, 1), multiples of 2**-53."""
    raw = words(seed, label, position, count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: bytes, label: str, count: int) -> NDArray[np.float64]:
    """f8[count] standard normal, by Box and Muller; its last bits depend on the host's `log` and `cos`."""
    first, second = unit(seed, label, 0, count), unit(seed, label, 1, count)
    values: NDArray[np.float64] = np.sqrt(-2.0 * np.log(first + 2.0**-54)) * np.cos(2.0 * np.pi * second)
    return values


def field(seed: bytes, label: str, count: int, prime: int) -> NDArray[np.int64]:
    """i8[count] in 0..prime-1, prime < 2**31: 64-bit words reduced, so uniform to within 2**-33."""
    assert 1 < prime < 1 << 31, "products of two must fit 62 bits"
    return (words(seed, label, 0, count) % np.uint64(prime)).astype(np.int64)


def drawn(seed: bytes, label: str, total: int, count: int) -> tuple[int, ...]:
    """`count` different indices of 0..total-1, ascending; every set equally likely (to within 2**-50 for total <
    2**14).

    Raises:
        ValueError: more than there are, or fewer than none.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total}")
    left = list(range(total))
    for at, word in enumerate(words(seed, label, 0, count).tolist()):
        other = at + word % (total - at)
        left[at], left[other] = left[other], left[at]
    return tuple(sorted(left[:count]))


def chance(numerator: int, denominator: int) -> float:
    """An exact ratio, rounded once."""
    return float(Fraction(numerator, denominator))
