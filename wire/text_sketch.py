"""The sketch of a text: eight signed bytes per token that follow from the hidden states it was chosen from.

Each hidden state is projected onto seven random sign vectors of its own, drawn from the job's input and seed together
with a dither, and rounded to eight bits under the token's own power of two. The worker's executor packs a sketch, the
jurors' executors project their own states, `verify.fingerprints.text_sketch` compares. States are rounded to whole
multiples of a power of two before they are summed, so that sums are exact whatever the order: equal float32 states give
equal bytes on every host. Format: docs/spec/fingerprints.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wire import codec, seeded
from wire.errors import LocalError
from wire.hashing import digest
from wire.job import TextInput
from wire.limits import WINDOW_TOKENS

Floats = NDArray[np.float64]

DIMENSIONS = 7
ROW_BYTES = 8
"""Seven signed values and one signed exponent: 256 bytes per 32 tokens."""

BLOCK = WINDOW_TOKENS
"""Rows whose signs are drawn together; a text shorter than this spends its bytes on several rows per token."""

PEAK = 126
"""The exponent is that under which the largest projection is in 63..126 units."""

NOTHING = -128
"""The exponent of a state whose projections are all (next to) zero: below `SMALLEST`."""

SMALLEST = 2.0**-100
LARGEST = 2.0**100
SUM_BITS = 52
"""Sums of whole numbers below 2**52 are exact in float64, in any order."""


def rows_per_token(tokens: int) -> int:
    """A text of fewer than 32 tokens spends its 256 bytes on several rows per token, each with signs of its own."""
    return max(1, BLOCK // tokens)


def windows(tokens: int) -> int:
    """Into how many parts of 32 tokens a text falls, of which some may be drawn; the last takes the rest."""
    return max(1, tokens // BLOCK)


def prefix(tokens: int, drawn: Sequence[int]) -> int:
    """How many tokens a juror reads who was drawn these windows: all up to the end of the last one. All if none.

    Raises:
        LocalError: a window that is not there.
    """
    if not drawn:
        return tokens
    if not 0 <= min(drawn) <= max(drawn) < windows(tokens):
        raise LocalError(f"windows {list(drawn)[:9]} of {windows(tokens)}")
    end = max(drawn) + 1
    return tokens if end == windows(tokens) else end * BLOCK


def seed_of(given: TextInput, seed: int) -> bytes:
    """The 32 bytes that a job's signs and dither are drawn from: those of its input and of its seed.

    Not the job's id: all levels of an escalation, and canaries, ask about one answer under several ids.
    """
    return digest("text.sketch", codec.encode(given), seed.to_bytes(8, "big"))


def project(hidden: NDArray[np.floating], seed: bytes) -> tuple[Floats, Floats]:
    """Projections and dither, both f8[n * rows_per_token(n), 7]; a token's rows are neighbours.

    Args:
        hidden: [n, width], the last hidden state from which each token was chosen; taken as float32.
        seed: see `seed_of`.

    Raises:
        LocalError: no states, or states that are not finite.
    """
    if hidden.ndim != 2 or hidden.size == 0:
        raise LocalError(f"hidden states of shape {hidden.shape}")
    single = hidden.astype(np.float32, copy=False)
    if not max(single.max(), -single.min()) <= LARGEST:
        raise LocalError("hidden states that are not finite")
    of_row = np.repeat(np.arange(len(single)), rows_per_token(len(single)))
    values, dither = np.empty((len(of_row), DIMENSIONS)), np.empty((len(of_row), DIMENSIONS))
    for start in range(0, len(of_row), BLOCK):  # by blocks also because small arrays stay in the cache
        rows = slice(start, start + BLOCK)
        values[rows], dither[rows] = _block(single[of_row[rows]].astype(np.float64), seed, start)
    return values, dither


def _block(states: Floats, seed: bytes, start: int) -> tuple[Floats, Floats]:
    """Projections and dither of up to 32 rows, the first of which is row `start`.

    Each state becomes whole numbers times a power of two of its own, of so many bits that sums of a row stay exact.
    """
    count, width = states.shape
    _, top = np.frexp(np.abs(states).max(axis=1))
    powers = top.astype(np.int64) - SUM_BITS + (width - 1).bit_length()
    whole = np.rint(states * np.ldexp(1.0, -powers)[:, None])
    stride = -(-DIMENSIONS * width // 64) * 64
    raw = seeded.bits(seed, "text.signs", start, count * stride).reshape(count, stride)
    plus = raw[:, : DIMENSIONS * width].reshape(count, DIMENSIONS, width).astype(np.float64)
    values = 2.0 * np.matmul(plus, whole[:, :, None])[:, :, 0] - whole.sum(axis=1)[:, None]
    dither = seeded.unit(seed, "text.dither", start, count * DIMENSIONS).reshape(count, DIMENSIONS)
    return values * np.ldexp(1.0, powers)[:, None], dither


def exponents(values: Floats) -> NDArray[np.int64]:
    """The power of two under which each row's largest projection is in 63..126."""
    peak = np.abs(values).max(axis=1)
    _, powers = np.frexp(peak / PEAK)
    return np.where(peak < SMALLEST, NOTHING, powers).astype(np.int64)


def quantise(values: Floats, dither: Floats, powers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Dithered whole numbers in -127..127 under these exponents; zero where the exponent is `NOTHING`."""
    scaled = np.floor(values * np.ldexp(1.0, -powers)[:, None] + dither)
    return np.where(powers[:, None] == NOTHING, 0, np.clip(scaled, -127, 127)).astype(np.int64)


def pack(values: Floats, dither: Floats) -> NDArray[np.uint8]:
    """What a worker commits to: u1[rows, 8], seven values and the exponent in two's complement."""
    powers = exponents(values)
    packed = np.concatenate([quantise(values, dither, powers), powers[:, None]], axis=1).astype(np.int8)
    return packed.view(np.uint8)


def sketch(hidden: NDArray[np.floating], seed: bytes) -> NDArray[np.uint8]:
    """`pack` of `project`; raises as the latter."""
    return pack(*project(hidden, seed))
