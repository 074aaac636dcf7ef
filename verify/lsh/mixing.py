"""The hash that shingles pass through, in NumPy; `compiled` repeats it with the same constants.

`mix` is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
It is no defence against somebody who chooses the text: near-duplicate search, not authentication.
"""

from __future__ import annotations

import numpy as np

from verify.lsh.backend import U64

MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
BASE = 0x9E3779B97F4A7C15
"""Base of the polynomial hash of a word, modulo 2^64: odd, so that it has an inverse."""
BASE_INVERSE = pow(BASE, -1, 1 << 64)


def mix(values: U64) -> U64:
    """A bijection of uint64 in which every bit of the result depends on all of the argument's."""
    z = values ^ (values >> np.uint64(30))
    z = z * np.uint64(MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(MIX_2)
    result: U64 = z ^ (z >> np.uint64(31))
    return result
