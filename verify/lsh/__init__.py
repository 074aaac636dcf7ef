"""Locality-sensitive hashing: near things have codes that differ in few bits.

Codes are uint64[n, w]: w = 1 (64 bits) or 4 (256 bits); bit k of a code is bit k % 64 of word k // 64. Every function
gives the same bytes with numba and with NumPy alone (hyperplanes excepted: they round like the BLAS that is installed).
Definitions: docs/spec/lsh.md.
"""

from verify.lsh.backend import Backend
from verify.lsh.bands import BandedIndex, Found, recall
from verify.lsh.codes import Codes, pack, unpack
from verify.lsh.hamming import Pairs, distances, histogram, histogram_self, join, join_self, nearest
from verify.lsh.hyperplanes import Hyperplanes
from verify.lsh.text import MinHash, Shingles, byte_shingles, jaccard, simhash, word_shingles

__all__ = [
    "Backend",
    "BandedIndex",
    "Codes",
    "Found",
    "Hyperplanes",
    "MinHash",
    "Pairs",
    "Shingles",
    "byte_shingles",
    "distances",
    "histogram",
    "histogram_self",
    "jaccard",
    "join",
    "join_self",
    "nearest",
    "pack",
    "recall",
    "simhash",
    "unpack",
    "word_shingles",
]
