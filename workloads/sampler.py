"""Choosing tokens: greedy, Gumbel-max sampling with derivable noise, and beam search.

A sample is the arg max of logits + temperature * Gumbel noise, which has the softmax distribution at that temperature
(Gumbel-max; used for verification in Token-DiFR, arXiv 2511.20621). Scores are formed in float64 and rounded to
float32 before they are compared; equal scores go to the lowest token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wire.job import TextInput
from workloads import noise

END = 0
"""The token that begins a prompt and ends a text."""


def scores(given: TextInput, seed: int, position: int, logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """f4[vocabulary] in logit units: the allowed token with the highest score is emitted at `position`.

    Tokens outside the `top_k` highest logits score minus infinity.
    """
    rounded = logits.astype(np.float32)
    if given.method != "sample":
        return rounded
    perturbed = rounded.astype(np.float64) + given.temperature * noise.gumbel(seed, position, len(rounded))
    if 0 < given.top_k < len(rounded):
        order = np.argsort(-rounded, kind="stable")
        perturbed[order[given.top_k :]] = -np.inf
    return perturbed.astype(np.float32)


def deficit(given: TextInput, seed: int, position: int, logits: NDArray[np.floating], token: int) -> float:
    """By how much the score of `token` is below the best allowed one; 0 if it is the best; in logit units.

    A token outside the `top_k` highest logits counts with its own noise, plus what its logit lacks to be among them:
    at the border, where rounding decides who is in, both terms stay as small as the rounding.
    """
    allowed = scores(given, seed, position, logits)
    best = float(allowed.max())
    if np.isfinite(allowed[token]):
        return best - float(allowed[token])
    border = float(np.sort(logits)[-given.top_k])
    free = float(logits[token]) + given.temperature * float(noise.gumbel(seed, position, len(logits))[token])
    return max(0.0, best - free) + border - float(logits[token])


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log probabilities along the last axis, in float64 from logits rounded to float32."""
    rounded = logits.astype(np.float32).astype(np.float64)
    shifted = rounded - rounded.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


@dataclass
class Beam:
    """A partial text: its tokens, log probability and hidden-state sketches."""

    tokens: list[int]
    score: np.float32
    hidden: list[NDArray[np.floating]]


class BeamSearch:
    """The `width` most probable continuations; finished ones are set aside; total log probability decides.

    No network here: the caller feeds logits and sketches of the live beams and gets back which beam each new one grew
    from.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.live = [Beam([], np.float32(0), [])]
        self.finished: Beam | None = None

    def extend(self, logits: NDArray[np.floating], hidden: NDArray[np.floating]) -> list[int]:
        """Grow by one token.

        Args:
            logits: [live, vocabulary]. hidden: [live, 8] of the same positions.

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
