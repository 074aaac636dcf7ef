"""Randomness that a juror can derive again: Philox 4x64 (Salmon et al., SC'11), keyed by seed and purpose.

Only raw 64-bit words are taken from NumPy (`Philox.random_raw`, whose stream is fixed); everything after that is a few
float64 operations written out here, because NumPy does not promise its distributions across versions (NEP 19).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TEXT, IMAGE = 1, 2
"""Purposes: the second word of the key."""


def uniform(seed: int, purpose: int, position: int, count: int) -> NDArray[np.float64]:
    """f8[count] strictly between 0 and 1; `position` is the top word of the counter, so positions never overlap."""
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, position], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(count)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def gumbel(seed: int, position: int, count: int) -> NDArray[np.float64]:
    """f8[count] standard Gumbel noise for the token at `position`: the arg max of logits plus it is a sample."""
    noise: NDArray[np.float64] = -np.log(-np.log(uniform(seed, TEXT, position, count)))
    return noise


def normal(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """f4[height, width] standard normal noise, by Box and Muller's transform in float64."""
    count = height * width
    u = uniform(seed, IMAGE, 0, 2 * count)
    values = np.sqrt(-2.0 * np.log(u[:count])) * np.cos(2.0 * np.pi * u[count:])
    return values.astype(np.float32).reshape(height, width)
