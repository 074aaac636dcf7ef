"""Which kernels run: compiled by numba where it is installed (extra `fast`), NumPy otherwise; equal results."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from wire.errors import LocalError

Backend = Literal["auto", "numba", "numpy"]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


class Kernels(Protocol):
    """What both `compiled` and `plain` provide. Codes come as columns uint64[w, n]; arguments are checked before."""

    def histogram(self, a: U64, b: U64, same: bool) -> I64:
        """Pairs at each distance 0..64 w; with `same` (a is b) only those with i < j."""
        ...

    def join(self, a: U64, b: U64, radius: int, limit: int, same: bool) -> tuple[I64, I64, U16, int]:
        """Pairs within `radius` in any order, the first `limit` that were met, and how many there are."""
        ...

    def nearest(self, a: U64, b: U64, k: int) -> tuple[I64, U16]:
        """For each of a, indices into b and distances [n, k], by (distance, index)."""
        ...

    def minhash(self, values: U64, offsets: I64, factors: U32, terms: U32) -> U32:
        """uint32[documents, permutations]."""
        ...

    def simhash(self, values: U64, offsets: I64) -> U64:
        """uint64[documents]."""
        ...

    def byte_shingles(self, text: U8, offsets: I64, width: int) -> tuple[U64, I64]:
        """Hashes and their offsets."""
        ...

    def word_shingles(self, text: U8, offsets: I64) -> tuple[U64, I64]:
        """Hashes and their offsets."""
        ...


@cache
def numba_there() -> bool:
    """Whether numba can be imported; does not import it."""
    return importlib.util.find_spec("numba") is not None


def kernels(backend: Backend) -> Kernels:
    """The kernels of that backend.

    Raises:
        LocalError: numba was asked for by name and is not installed.
    """
    if backend == "numba" and not numba_there():
        raise LocalError("numba is not installed: pip install 'quorate-node[fast]'")
    if backend == "numpy" or not numba_there():
        from verify.lsh import plain

        return plain
    from verify.lsh import compiled

    return compiled
