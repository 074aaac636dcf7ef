"""text.margin: was each token the seed's own choice? In whole units, so that every host gets the same numbers.

A sample is the arg max of logits + temperature * Gumbel noise (docs/spec/workloads.md). Both terms are rounded to
multiples of 2**-12 logits before they are added and compared. The noise needs a logarithm, which differs between maths
libraries: here it is a fixed sequence of +, -, *, / on float64, which IEEE 754 rounds in one way. Two hosts whose
logits differ by less than one unit get margins of at most two units for an honest token, whatever the temperature.
Token-DiFR (arXiv 2511.20621) has the idea; replaying a float sampler refuses honest tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints.base import Floats
from wire.job import TextInput

ID = "text.margin/gumbel-q12/1"

UNIT_BITS = 12
RESOLUTION = {"units": 2.0}
"""The chosen and the best token may each lie one unit higher or lower on another host."""

NOISE_PURPOSE = 1
_LN2_HIGH, _LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
_TERMS = 11
_NEXT_POSITION = 1 << 192
"""The position is the top word of the counter, which counts blocks of four words."""

_CLEAR = 1.0
"""Logits by which a score must lag to be left out: a maths library's logarithm is not wrong by that much."""


def log(values: Floats) -> Floats:
    """Natural logarithms of positive float64, the same on every host, within 4 units in the last place.

    2 * artanh((m - 1) / (m + 1)) by its series, m in sqrt(1/2)..sqrt(2), plus the exponent times ln 2 in two parts.
    """
    mantissa, power = np.frexp(values)
    low = mantissa < 0.70710678
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    whole = (power - low).astype(np.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    series = np.full_like(ratio, 1.0 / (2 * _TERMS + 1))
    for term in range(_TERMS - 1, -1, -1):
        series = series * square
        series = series + 1.0 / (2 * term + 1)
    fraction = 2.0 * ratio * series
    result: Floats = whole * _LN2_HIGH + (whole * _LN2_LOW + fraction)
    return result


def uniforms(seed: int, count: int, vocabulary: int) -> Floats:
    """f8[count, vocabulary]: the words of docs/spec/workloads.md, "Noise", for positions 0..count-1."""
    source = np.random.Philox(key=np.array([seed, NOISE_PURPOSE], dtype=np.uint64), counter=0)
    raw = np.empty((count, vocabulary), dtype=np.uint64)
    for position in range(count):
        raw[position] = source.random_raw(vocabulary)
        source.advance(_NEXT_POSITION - -(-vocabulary // 4))
    values: Floats = ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return values


def _whole(values: Floats) -> NDArray[np.int64]:
    return np.rint(values * 2.0**UNIT_BITS).astype(np.int64)


def _demand_logits(logits: NDArray[np.floating]) -> None:
    if logits.ndim != 2 or logits.size == 0 or not np.isfinite(logits).all() or np.abs(logits).max() > 2.0**40:
        raise ExpectedUnusable(f"logits of shape {logits.shape}, or not finite")


def scores(
    given: TextInput, seed: int, logits: NDArray[np.floating], tokens: NDArray[np.integer] | None = None
) -> NDArray[np.int64]:
    """i8[n, vocabulary] in units, before `top_k` is applied.

    Args:
        tokens: if given, scores that are certainly neither the best nor these tokens' may be replaced by lower ones.

    Raises:
        ExpectedUnusable: logits that are not finite.
    """
    _demand_logits(logits)
    units = _whole(logits.astype(np.float32).astype(np.float64))
    if given.method != "sample":
        return units
    uniform = np.minimum(uniforms(seed, *logits.shape), 1.0 - 2.0**-53)
    if tokens is None:
        return units + _whole(given.temperature * -log(-log(uniform)))
    near = _near(given, logits, uniform, tokens)
    result = np.full(units.shape, np.iinfo(np.int64).min // 2)
    result[near] = units[near] + _whole(given.temperature * -log(-log(uniform[near])))
    return result


def _near(
    given: TextInput, logits: NDArray[np.floating], uniform: Floats, tokens: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """Which scores can matter, by the fast logarithm of this host."""
    near: NDArray[np.bool_]
    if 0 < given.top_k < logits.shape[1]:
        near = logits > np.partition(logits, -given.top_k, axis=1)[:, [-given.top_k]] - _CLEAR
    else:
        rough = logits - given.temperature * np.log(-np.log(uniform))
        near = rough > rough.max(axis=1, keepdims=True) - _CLEAR
    near[np.arange(len(near)), tokens] = True
    return near


def margins(
    given: TextInput, seed: int, logits: NDArray[np.floating], tokens: NDArray[np.integer]
) -> NDArray[np.int64]:
    """i8[n]: by how many units each claimed token's score falls short of the best allowed one; 0 if it is the best.

    With `top_k`, whoever is within two units of the k-th highest logit may be chosen, and counts among the best only
    if it is surely among the k: the border is where hosts disagree. A token further outside gets, in addition, what it
    lacks.

    Args:
        given: greedy or sample (beam search is compared by agreement). seed: the job's.
        logits: [n, vocabulary], our own, by a teacher-forced prefill. tokens: the claimed ones.

    Raises:
        Refused: other than one token per position, or tokens outside the vocabulary.
        ExpectedUnusable: logits that are not finite.
    """
    if logits.ndim != 2 or tokens.shape != logits.shape[:1]:
        _demand_logits(logits)
        raise Refused("shape", f"{tokens.shape} tokens, {len(logits)} expected")
    if tokens.size and (tokens.min() < 0 or tokens.max() >= logits.shape[1]):
        raise Refused("range", "a token outside the vocabulary")
    total = scores(given, seed, logits, tokens)
    at = np.arange(len(tokens))
    chosen = total[at, tokens]
    if given.method != "sample" or not 0 < given.top_k < total.shape[1]:
        return np.asarray(total.max(axis=1) - chosen)
    units = _whole(logits.astype(np.float32).astype(np.float64))
    border = np.sort(units, axis=1)[:, -given.top_k]
    sure = np.where(units > border[:, None] + 2, total, np.iinfo(np.int64).min)
    best = np.where((units > border[:, None] + 2).any(axis=1), sure.max(axis=1), chosen)
    outside = np.maximum(border - 2 - units[at, tokens], 0)
    return np.asarray(np.maximum(best - chosen, 0) + outside)


def distance(
    given: TextInput, seed: int, logits: NDArray[np.floating], tokens: NDArray[np.integer]
) -> dict[str, float]:
    """`units`: the largest of `margins`; honest at 2 or less. Raises as `margins`."""
    return {"units": float(margins(given, seed, logits, tokens).max())}
