"""Randomness that a juror can derive again: Philox 4x64 (Salmon et al., SC'11), keyed by seed and purpose.

Only raw 64-bit words are taken from NumPy (`Philox.random_raw`, whose stream is fixed); everything after that is a few
float64 operations written out here, because NumPy does not promise its distributions across versions (NEP 19).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TEXT, IMAGE = 1, 2
"""Purposes: the second word of the key."""
NOISE, TIMES = 0, 1
"""Positions of purpose `IMAGE`: the state from which a run starts, and its times."""

_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_TERMS = 11


def uniform(seed: int, purpose: int, position: int, count: int) -> NDArray[np.float64]:
    """f8[count] strictly between 0 and 1; `position` is the top word of the counter, so positions never overlap."""
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, position], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(count)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def uniforms(seed: int, purpose: int, first: int, positions: int, count: int) -> NDArray[np.float64]:
    """f8[positions, count]: `uniform` of the positions from `first` on."""
    source = np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64), counter=0)
    fresh = source.state
    raw = np.empty((positions, count), dtype=np.uint64)
    for position in range(positions):
        fresh["state"]["counter"][3] = first + position
        source.state = fresh
        raw[position] = source.random_raw(count)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithms of positive float64, the same on every host, within 4 units in the last place.

    2 * artanh((m - 1) / (m + 1)) by its series, m in sqrt(1/2)..sqrt(2), plus the exponent times ln 2 in two parts: a
    fixed sequence of +, -, *, / on float64, which IEEE 754 rounds in one way. Maths libraries differ in their last
    bits.
    """
    mantissa, power = np.frexp(values)
    low = mantissa < 0.70710678
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    whole = (power - low).astype(np.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    series = np.full_like(ratio, 1.0 / (2 * _TERMS + 1))
    for term in range(_TERMS - 1, -1, -1):
        series *= square
        series += 1.0 / (2 * term + 1)
    fraction = 2.0 * ratio * series
    result: NDArray[np.float64] = whole * _LN2_HIGH + (whole * _LN2_LOW + fraction)
    return result


def gumbel(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard Gumbel noise from uniform numbers: the arg max of logits plus it is a sample. The same on every host."""
    return -log(-log(np.minimum(uniform, 1.0 - 2.0**-53)))


def normal(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """f4[height, width] standard normal noise, by Box and Muller's transform in float64."""
    count = height * width
    u = uniform(seed, IMAGE, NOISE, 2 * count)
    values = np.sqrt(-2.0 * np.log(u[:count])) * np.cos(2.0 * np.pi * u[count:])
    return values.astype(np.float32).reshape(height, width)
