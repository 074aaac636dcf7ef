"""text.sketch: eight signed bytes per token that a juror can only match by computing the token's hidden state.

Each hidden state is projected onto seven random sign vectors of its own, drawn from the job's beacon or id together
with a dither, and rounded to eight bits under the token's own power of two. Two honest sides share the dither, so their
integers differ only where a rounding border lies between them: the *number* of differing units estimates the
relative L2 of the whole states far below one unit (subtractive dither: Lipshitz, Wannamaker and Vanderkooy,
J. Audio Eng. Soc. 40, 1992; random signs keep lengths: Achlioptas, JCSS 66, 2003). Unlike TOPLOC (arXiv 2501.16007) it
sees signs, has no modulus and no values that a constant could satisfy. Format: docs/spec/fingerprints.md.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints import seeded
from verify.fingerprints.base import FAR, Floats, bounded, relative_l2
from wire.errors import Malformed
from wire.tensor import Tensor

ID = "text.sketch/signs7-i8-dither/1"

DIMENSIONS = 7
ROW_BYTES = 8
"""Seven signed values and one signed exponent: 256 bytes per 32 tokens."""

BLOCK = 32
"""Rows per window of `block`; a shorter rest joins the window before it."""

PEAK = 126
SLACK = 3
"""Differing units that cost nothing, per token and per window: honest rounding next to a border. Four in one window
need, at the largest honest distance seen (4.4e-6), a chance of about 1e-6."""

BORDER = 2.0**-4
"""How far the claimed exponent's range may be passed: two honest sides may stand on either side of a power of two."""

NOTHING = -128
"""The exponent of a state whose projections are all zero."""

RESOLUTION = {"token": 2.0**-8, "block": 2.0**-11}
"""One unit is 0.8 to 1.6 % of the largest projection: some 0.3 % of a token's length, and 1e-4 of a window's."""

_PER_UNIT = math.sqrt(math.pi / 2) / DIMENSIONS


def rows_per_token(tokens: int) -> int:
    """A text of fewer than 32 tokens spends its 256 bytes on several rows per token, each with signs of its own."""
    return max(1, BLOCK // tokens)


def _project(hidden: Floats, seed: bytes) -> tuple[Floats, Floats]:
    """Projections and dither, both f8[n, 7]."""
    count, width = hidden.shape
    states = hidden.astype(np.float64)
    values, dither = np.empty((count, DIMENSIONS)), np.empty((count, DIMENSIONS))
    for start in range(0, count, BLOCK):
        part = states[start : start + BLOCK]
        stride = -(-DIMENSIONS * width // 64) * 64
        raw = seeded.bits(seed, "text.signs", start, BLOCK * stride).reshape(BLOCK, stride)
        signs = raw[: len(part), : DIMENSIONS * width].reshape(len(part), DIMENSIONS, width)
        chosen = np.matmul(signs.astype(np.float64), part[:, :, None])[:, :, 0]
        values[start : start + BLOCK] = 2.0 * chosen - part.sum(axis=1)[:, None]
        uniform = seeded.unit(seed, "text.dither", start, BLOCK * DIMENSIONS).reshape(BLOCK, DIMENSIONS)
        dither[start : start + BLOCK] = uniform[: len(part)]
    return values, dither


def _round(values: Floats, dither: Floats, exponents: NDArray[np.int64]) -> NDArray[np.int64]:
    scaled = np.floor(np.ldexp(values, -exponents[:, None]) + dither)
    return np.clip(scaled, -127, 127).astype(np.int64)


def _exponents(values: Floats) -> NDArray[np.int64]:
    """The power of two under which a token's largest projection is in 63..126."""
    peak = np.abs(values).max(axis=1)
    _, powers = np.frexp(peak / PEAK)
    return np.where(peak < 2.0**-100, NOTHING, powers).astype(np.int64)


def _usable(hidden: NDArray[np.floating]) -> Floats:
    if hidden.ndim != 2 or hidden.size == 0:
        raise ExpectedUnusable(f"hidden states of shape {hidden.shape}")
    if not np.isfinite(hidden).all() or np.abs(hidden).max() > 2.0**100:
        raise ExpectedUnusable("hidden states that are not finite")
    return np.repeat(hidden.astype(np.float64), rows_per_token(len(hidden)), axis=0)


def sketch(hidden: NDArray[np.floating], seed: bytes) -> NDArray[np.uint8]:
    """What a worker commits to.

    Args:
        hidden: [n, width], the last hidden state from which each token was chosen.
        seed: 32 bytes that nobody could know before the job: its beacon, or its id (which holds the requester's nonce).

    Returns:
        u1[n * rows_per_token(n), 8]: seven values and the exponent, two's complement; a token's rows are neighbours.

    Raises:
        ExpectedUnusable: no states, or states that are not finite.
    """
    values, dither = _project(_usable(hidden), seed)
    exponents = _exponents(values)
    whole = np.where(exponents[:, None] == NOTHING, 0, _round(values, dither, exponents))
    packed = np.concatenate([whole, exponents[:, None]], axis=1).astype(np.int8)
    return packed.view(np.uint8)


def admit(claim: Tensor, tokens: int) -> NDArray[np.int8]:
    """The claimed sketch of this many tokens, at least one, as i1[rows, 8].

    Raises:
        Refused: another dtype or length, or values that no honest sketch has.
    """
    if claim.dtype != "u1":
        raise Refused("dtype", f"sketch: {claim.dtype}, u1 expected")
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


def distance(claim: Tensor, hidden: NDArray[np.floating], seed: bytes) -> dict[str, float]:
    """How far the claimed states are from our own.

    Args:
        claim: the worker's sketch. hidden: our own states [n, width], by a teacher-forced prefill. seed: as in
        `sketch`.

    Returns:
        token: largest estimate over single tokens, block: over windows of 32 tokens, of the relative L2.

    Raises:
        Refused: the claim cannot be compared. ExpectedUnusable: our own states cannot.
    """
    own_states = _usable(hidden)
    packed = admit(claim, len(hidden)).astype(np.int64)
    values, dither = _project(own_states, seed)
    theirs, exponents = packed[:, :DIMENSIONS], packed[:, DIMENSIONS]
    nothing = _exponents(values) == NOTHING
    peak = np.ldexp(np.abs(values).max(axis=1), -exponents)
    fits = (peak >= PEAK / 2 * (1 - BORDER)) & (peak < PEAK * (1 + BORDER)) & ~nothing & (exponents != NOTHING)
    fits |= nothing & (exponents == NOTHING) & (theirs == 0).all(axis=1)
    if not fits.all():
        return {"token": FAR, "block": FAR}
    units = np.abs(theirs - np.where(nothing[:, None], 0, _round(values, dither, exponents))).sum(axis=1)
    length = np.sqrt((values * values).mean(axis=1))
    weight = np.divide(np.ldexp(1.0, exponents), length, out=np.zeros(len(length)), where=~nothing)
    ends = [*range(BLOCK, len(units) - BLOCK + 1, BLOCK), len(units)]
    starts = [0, *ends[:-1]]
    windows = [_estimate(units[a:b], weight[a:b]) for a, b in zip(starts, ends, strict=True)]
    each = rows_per_token(len(hidden))
    beyond = np.flatnonzero(units.reshape(-1, each).sum(axis=1) > SLACK) * each
    tokens = [_estimate(units[i : i + each], weight[i : i + each]) for i in beyond]
    return {"token": max(tokens, default=0.0), "block": max(windows)}


def _estimate(units: NDArray[np.int64], weight: Floats) -> float:
    """Relative L2 from differing units, were the difference in all directions alike."""
    total = int(units.sum())
    if total <= SLACK:
        return 0.0
    return bounded(_PER_UNIT * float((units * weight).sum()) / len(units) * (total - SLACK) / total)


def compare_rows(opened: Floats, own: Floats) -> float:
    """Largest relative L2 of opened full states [k, width] (`opening.check_rows`) to our own of the same tokens."""
    if opened.shape != own.shape:
        raise Refused("shape", f"states of {opened.shape}, {own.shape} expected")
    return relative_l2(opened - own, own)
