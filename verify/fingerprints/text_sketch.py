"""text.sketch: eight signed bytes per token that a juror can only match by computing the token's hidden state.

Two honest sides share the dither, so their integers differ only where a rounding border lies between them: the
*number* of differing units estimates the relative L2 of the whole states far below one unit (subtractive dither:
Lipshitz, Wannamaker and Vanderkooy, J. Audio Eng. Soc. 40, 1992; random signs keep lengths: Achlioptas, JCSS 66, 2003).
Unlike TOPLOC (arXiv 2501.16007) it sees signs, has no modulus and no values that a constant could satisfy. How a sketch
is made: `wire.text_sketch`. Format: docs/spec/fingerprints.md.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from verify.faults import Refused
from verify.fingerprints.base import FAR, Floats, bounded
from wire.errors import Malformed
from wire.tensor import Tensor
from wire.text_sketch import BLOCK, DIMENSIONS, NOTHING, PEAK, ROW_BYTES, SMALLEST, quantise, rows_per_token

SLACK = 3
"""Differing units that cost nothing, per token and per window: honest rounding next to a border. Four in one window
need, at the largest honest distance seen (4.4e-6), a chance of about 1e-6."""

BORDER = 2.0**-4
"""How far the claimed exponent's range may be passed: two honest sides may stand on either side of a power of two."""

RESOLUTION = {"token": 2.0**-8, "block": 2.0**-11}
"""One unit is 0.8 to 1.6 % of the largest projection: some 0.3 % of a token's length, and 1e-4 of a window's."""

_PER_UNIT = math.sqrt(math.pi / 2) / DIMENSIONS


def admit(claim: Tensor, tokens: int) -> NDArray[np.int8]:
    """The claimed sketch of this many tokens, at least one, as i1[rows, 8].

    Raises:
        Refused: another dtype or length, or values that no honest sketch has.
    """
    if claim.dtype != "u1":
        raise Refused("dtype", f"sketch: {claim.dtype}, u1 expected")
    if 0 in claim.shape:
        raise Refused("empty", "sketch")
    shape = [tokens * rows_per_token(tokens), ROW_BYTES]
    if claim.shape != shape:
        raise Refused("shape", f"sketch of {claim.shape[:9]}, {shape} expected")
    try:
        values = claim.numpy().view(np.int8)
    except Malformed as exc:
        raise Refused("shape", f"sketch: {exc}") from exc
    if (values[:, :DIMENSIONS] == -128).any():
        raise Refused("range", "sketch: -128 is no value")
    return values


def distance(claim: NDArray[np.int8], values: Floats, dither: Floats, tokens: int) -> dict[str, float]:
    """How far the claimed states are from our own.

    Args:
        claim: what `admit` returned. values, dither: of our own states (`wire.text_sketch.project`), f8[rows, 7].
        tokens: how many there are.

    Returns:
        token: largest estimate over single tokens, block: over windows of 32 rows, of the relative L2.
    """
    packed = claim.astype(np.int64)
    theirs, powers = packed[:, :DIMENSIONS], packed[:, DIMENSIONS]
    top = np.abs(values).max(axis=1)
    nothing = top < SMALLEST
    peak = np.ldexp(top, -powers)
    fits = (peak >= PEAK / 2 * (1 - BORDER)) & (peak < PEAK * (1 + BORDER)) & ~nothing & (powers != NOTHING)
    fits |= nothing & (powers == NOTHING) & (theirs == 0).all(axis=1)
    if not fits.all():
        return {"token": FAR, "block": FAR}
    units = np.abs(theirs - quantise(values, dither, powers)).sum(axis=1)
    if not units.any():
        return {"token": 0.0, "block": 0.0}
    length = np.sqrt((values * values).mean(axis=1))
    weight = np.divide(np.ldexp(1.0, powers), length, out=np.zeros(len(length)), where=~nothing)
    ends = [*range(BLOCK, len(units) - BLOCK + 1, BLOCK), len(units)]
    starts = [0, *ends[:-1]]
    windows = [_estimate(units[a:b], weight[a:b]) for a, b in zip(starts, ends, strict=True)]
    each = rows_per_token(tokens)
    beyond = np.flatnonzero(units.reshape(-1, each).sum(axis=1) > SLACK) * each
    singles = [_estimate(units[i : i + each], weight[i : i + each]) for i in beyond]
    return {"token": max(singles, default=0.0), "block": max(windows)}


def _estimate(units: NDArray[np.int64], weight: Floats) -> float:
    """Relative L2 from differing units, were the difference in all directions alike."""
    total = int(units.sum())
    if total <= SLACK:
        return 0.0
    return bounded(_PER_UNIT * float((units * weight).sum()) / len(units) * (total - SLACK) / total)
