"""Choosing tokens: greedy, Gumbel-max sampling with derivable noise, and beam search; and judging what was chosen.

A sample is the arg max of logits + temperature * Gumbel noise, which has the softmax distribution at that temperature
(Gumbel-max; used for verification in Token-DiFR, arXiv 2511.20621). Both terms are rounded to whole units of 2**-12
logits before they are added and compared, and the noise is the same on every host. So a worker's own choice has a
margin of 0 on its own host, and of at most two units on a host whose logits differ by less than one unit, whatever the
temperature; replaying a float sampler refuses honest tokens. Equal scores go to the lowest token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.errors import LocalError
from wire.job import TextInput
from workloads import noise

END = 0
"""The token that begins a prompt and ends a text."""

UNIT_BITS = 12

BORDER = 2
"""Units within which two hosts may disagree about who is among the `top_k`."""

FORBIDDEN = np.iinfo(np.int64).min // 2
"""The score of a token that may not, or cannot, be chosen."""

NOISE_VALUES = 1 << 13
"""How many noise values are computed at a time: many calls on short rows cost more than the arithmetic."""

CLEAR = 1.0
"""Logits by which a score must lag to be left out: a maths library's logarithm is not wrong by that much."""

Units = NDArray[np.int64]


def units(logits: NDArray[np.floating]) -> Units:
    """Logits, taken as float32, in whole units of 2**-12.

    Raises:
        LocalError: not finite.
    """
    single = logits.astype(np.float32)
    if not np.abs(single).max(initial=0) <= 2.0**40:
        raise LocalError("logits that are not finite")
    return _whole(single.astype(np.float64))


def _whole(values: NDArray[np.float64]) -> Units:
    return np.rint(values * 2.0**UNIT_BITS).astype(np.int64)


class Chooser:
    """Chooses the tokens of one job, greedy or sampled, one position after the other."""

    def __init__(self, given: TextInput, seed: int) -> None:
        self._given, self._seed = given, seed
        self._first, self._noise = 0, np.empty((0, 0), dtype=np.int64)

    def scores(self, position: int, logits: NDArray[np.floating]) -> Units:
        """i8[vocabulary] in units, `FORBIDDEN` outside the `top_k` highest logits."""
        total = units(logits)
        if self._given.method != "sample":
            return total
        free = total + self._row(position, len(total))
        if self._given.top_k > 0:
            free[np.argsort(-total, kind="stable")[self._given.top_k :]] = FORBIDDEN
        return free

    def choose(self, position: int, logits: NDArray[np.floating]) -> int:
        """The allowed token with the highest score."""
        return int(self.scores(position, logits).argmax())

    def _row(self, position: int, count: int) -> Units:
        if not self._first <= position < self._first + len(self._noise):
            rows = max(1, NOISE_VALUES // count)
            uniform = noise.uniforms(self._seed, noise.TEXT, position, rows, count)
            self._first, self._noise = position, _whole(self._given.temperature * noise.gumbel(uniform))
        row: Units = self._noise[position - self._first]
        return row


def margins(
    given: TextInput, seed: int, logits: NDArray[np.floating], tokens: NDArray[np.integer]
) -> NDArray[np.int64]:
    """i8[n]: by how many units each claimed token's score falls short of the best allowed one; 0 if it is the best.

    With `top_k`, whoever is within `BORDER` of the k-th highest logit may be chosen, and counts among the best only if
    it is surely among the k: the border is where hosts disagree. A token further outside gets, in addition, what it
    lacks.

    Args:
        given: greedy or sample (beam search is compared by agreement). seed: the job's.
        logits: [n, vocabulary], our own, by a teacher-forced prefill. tokens: the claimed ones, in the vocabulary.

    Raises:
        LocalError: logits that are not finite.
    """
    plain, at = units(logits), np.arange(len(tokens))
    if given.method != "sample":
        return np.asarray(plain.max(axis=1) - plain[at, tokens])
    total = _near_scores(given, seed, logits, plain, tokens)
    chosen = total[at, tokens]
    if not 0 < given.top_k < total.shape[1]:
        return np.asarray(total.max(axis=1) - chosen)
    border = np.partition(plain, -given.top_k, axis=1)[:, -given.top_k]
    sure = np.where(plain > border[:, None] + BORDER, total, FORBIDDEN).max(axis=1)
    outside = np.maximum(border - BORDER - plain[at, tokens], 0)
    return np.asarray(np.maximum(sure - chosen, 0) + outside)


def _near_scores(
    given: TextInput, seed: int, logits: NDArray[np.floating], plain: Units, tokens: NDArray[np.integer]
) -> Units:
    """i8[n, vocabulary], `FORBIDDEN` where a score is certainly neither the best nor that of a claimed token.

    Which can matter is found with this host's fast logarithm, before `top_k` is applied.
    """
    uniform = noise.uniforms(seed, noise.TEXT, 0, *logits.shape)
    if 0 < given.top_k < logits.shape[1]:
        near = logits > np.partition(logits, -given.top_k, axis=1)[:, [-given.top_k]] - CLEAR
    else:
        rough = logits - given.temperature * np.log(-np.log(np.minimum(uniform, 1.0 - 2.0**-53)))
        near = rough > rough.max(axis=1, keepdims=True) - CLEAR
    near[np.arange(len(near)), tokens] = True
    result = np.full(plain.shape, FORBIDDEN)
    result[near] = plain[near] + _whole(given.temperature * noise.gumbel(uniform[near]))
    return result


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log probabilities along the last axis, in float64 from logits rounded to float32."""
    rounded = logits.astype(np.float32).astype(np.float64)
    shifted = rounded - rounded.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


@dataclass
class Beam:
    """A partial text: its tokens, log probability and hidden states."""

    tokens: list[int]
    score: np.float32
    hidden: list[NDArray[np.floating]]


class BeamSearch:
    """The `width` most probable continuations; finished ones are set aside; total log probability decides.

    No network here: the caller feeds logits and hidden states of the live beams and gets back which beam each new one
    grew from.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.live = [Beam([], np.float32(0), [])]
        self.finished: Beam | None = None

    def extend(self, logits: NDArray[np.floating], hidden: NDArray[np.floating]) -> list[int]:
        """Grow by one token.

        Args:
            logits: [live, vocabulary]. hidden: [live, width] of the same positions.

        Returns:
            For each new live beam the index of its parent.
        """
        base = np.array([beam.score for beam in self.live], dtype=np.float64)[:, None]
        totals = (base + log_softmax(logits)).astype(np.float32)
        order = np.argsort(-totals.ravel(), kind="stable")[: self.width]
        grown: list[Beam] = []
        parents: list[int] = []
        for flat in order.tolist():
            parent, token = divmod(flat, totals.shape[1])
            old = self.live[parent]
            beam = Beam([*old.tokens, token], totals[parent, token], [*old.hidden, hidden[parent]])
            if token != END:
                grown.append(beam)
                parents.append(parent)
            elif self.finished is None or beam.score > self.finished.score:
                self.finished = beam
        self.live = grown
        return parents

    @property
    def done(self) -> bool:
        """Whether no live beam can overtake the finished one: log probabilities only fall."""
        return not self.live or (self.finished is not None and bool(self.finished.score >= self.live[0].score))

    @property
    def best(self) -> Beam:
        """The most probable text so far."""
        if self.finished is not None and (not self.live or self.finished.score >= self.live[0].score):
            return self.finished
        return self.live[0]
