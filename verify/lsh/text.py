"""Near-duplicate texts: shingles, MinHash and SimHash.

MinHash: A. Broder, "On the resemblance and containment of documents" (1997). The share of equal places of two
signatures estimates the Jaccard similarity of the shingle sets, with standard deviation sqrt(J (1 - J) / permutations).
SimHash: M. Charikar, "Similarity estimation techniques from rounding algorithms" (2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verify.lsh.backend import I64, U8, U32, U64, Backend, kernels
from wire.errors import LocalError

TEXT_MAX = 1 << 30
PERMUTATIONS_MAX = 1024
SHINGLE_MAX = 7


@dataclass(frozen=True)
class Shingles:
    """The features of documents: those of document i are `values[offsets[i] : offsets[i + 1]]`.

    Attributes:
        values: uint64, any.
        offsets: int64[documents + 1], ascending from 0.
    """

    values: U64
    offsets: I64

    def check(self) -> None:
        """Raises: LocalError unless dtypes are right and offsets run from 0 to the number of values."""
        values, offsets = self.values, self.offsets
        if values.dtype != np.uint64 or values.ndim != 1 or offsets.dtype != np.int64 or offsets.ndim != 1:
            raise LocalError("shingles are uint64[n] with offsets int64[documents + 1]")
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
            raise LocalError(f"offsets must ascend from 0 to {len(values)}")


def byte_shingles(texts: Sequence[bytes], width: int = 5, *, backend: Backend = "auto") -> Shingles:
    """Every run of `width` bytes; a shorter text is one shingle, an empty one none.

    Raises:
        LocalError: width outside 1..7, or more than 1 GiB of text.
    """
    if not 1 <= width <= SHINGLE_MAX:
        raise LocalError(f"width is 1..{SHINGLE_MAX}, not {width}")
    return Shingles(*kernels(backend).byte_shingles(*_joined(texts), width))


def word_shingles(texts: Sequence[bytes], *, backend: Backend = "auto") -> Shingles:
    """Every word: a run of bytes above 0x20 (of UTF-8, that is between ASCII spaces and controls).

    Raises:
        LocalError: more than 1 GiB of text.
    """
    return Shingles(*kernels(backend).word_shingles(*_joined(texts)))


class MinHash:
    """Signatures of uint32[permutations]; the maps are x -> a x + b modulo 2^32, a odd, over mixed shingles.

    Args:
        permutations: 1..1024.
        seed: of the Philox stream that draws the maps.

    Raises:
        LocalError: too few or too many permutations.
    """

    def __init__(self, permutations: int = 128, seed: int = 0) -> None:
        if not 1 <= permutations <= PERMUTATIONS_MAX:
            raise LocalError(f"permutations are 1..{PERMUTATIONS_MAX}, not {permutations}")
        raw = np.random.Philox(key=seed).random_raw(permutations)
        self.id = f"minhash/{permutations}-seed{seed}/1"
        self._factors: U32 = (raw >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
        self._terms: U32 = raw.astype(np.uint32)

    def signatures(self, shingles: Shingles, *, backend: Backend = "auto") -> U32:
        """uint32[documents, permutations]; all ones for a document without shingles.

        Raises:
            LocalError: ill-formed shingles.
        """
        shingles.check()
        return kernels(backend).minhash(shingles.values, shingles.offsets, self._factors, self._terms)


def jaccard(left: U32, right: U32) -> float:
    """The estimate of two signatures: their share of equal places, 0..1.

    Raises:
        LocalError: of different lengths.
    """
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise LocalError(f"signatures of {left.shape} and {right.shape}")
    return float(np.mean(left == right))


def simhash(shingles: Shingles, *, backend: Backend = "auto") -> U64:
    """Codes uint64[documents, 1]: a bit is set if it is set in more than half of the document's mixed shingles.

    A tie is 0, so a document without shingles is 0. Repeated shingles count as often as they occur.

    Raises:
        LocalError: ill-formed shingles.
    """
    shingles.check()
    return kernels(backend).simhash(shingles.values, shingles.offsets)[:, None]


def _joined(texts: Sequence[bytes]) -> tuple[U8, I64]:
    lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    if lengths.sum() > TEXT_MAX:
        raise LocalError(f"{lengths.sum()} bytes of text; at most {TEXT_MAX}")
    return np.frombuffer(b"".join(texts), np.uint8), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
