"""What a cheating worker does to an answer after the run: pure functions from one answer to another.

Each takes output and trace of a run and returns what is claimed instead; those in `TEXT` take the tokens and hidden
states of a text, from which a sketch is then made. Needs no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.job import Output, Trace
from wire.tensor import Tensor, from_numpy
from workloads import image

Answer = tuple[Output, Trace]
Array = NDArray[Any]

TINY = 2e-7
"""Relative size of the noise that hides under the thresholds: about two units in the last place of float32."""


def truncated(answer: Answer) -> Answer:
    """All but the last state or vector."""
    return _rows(answer, lambda value: value[:-1])


def padded(answer: Answer) -> Answer:
    """The last state or vector once more."""
    return _rows(answer, lambda value: np.concatenate([value, value[-1:]]))


def empty(_: Answer) -> Answer:
    """Nothing at all."""
    return Output({}), Trace({})


def nan(answer: Answer) -> Answer:
    """No numbers where numbers belong."""
    return _numbers(answer, np.nan, -128)


def absurd(answer: Answer) -> Answer:
    """Finite values far outside of any run's."""
    return _numbers(answer, 1e30, 127)


def repeated_row(answer: Answer) -> Answer:
    """One row's values for every token, as a constant polynomial stands for every window in TOPLOC.

    The exponents, of which few are likely, stay right: else they alone would give it away.
    """

    def repeat(rows: Array) -> Array:
        rows[:, :-1] = rows[len(rows) // 2, :-1]
        return rows

    return _sketch(answer, repeat)


def other_values(answer: Answer, other: Answer) -> Answer:
    """The values of another sketch of the same length under the right exponents."""
    values = other[1].tensors["sketch"].numpy().view(np.int8)[:, :-1]
    return _sketch(answer, lambda rows: np.concatenate([values, rows[:, -1:]], axis=1))


def one_unit(answer: Answer) -> Answer:
    """One value of a text's sketch off by one unit: as much as honest rounding may do."""

    def shift(rows: Array) -> Array:
        rows[0, 0] += 1 if rows[0, 0] < 0 else -1
        return rows

    return _sketch(answer, shift)


def tiny_noise(answer: Answer, seed: int) -> Answer:
    """Every float off by `TINY`, relatively; a sketch by one unit; pictures are decoded again, to fit their states."""
    if "sketch" in answer[1].tensors:
        return one_unit(answer)
    generator = np.random.Generator(np.random.Philox(seed))

    def shake(value: Array) -> Array:
        return (value * (1 + TINY * generator.standard_normal(value.shape))).astype(np.float32)

    shaken = _floats(answer, shake)
    latents = shaken[1].tensors.get("latents")
    if latents is None:
        return shaken
    states = latents.numpy().astype(np.float32)
    states[0] = answer[1].tensors["latents"].numpy()[0]  # the noise is compared with less tolerance
    return image.answer(states)


def straight_line(answer: Answer, steps: int) -> Answer:
    """States on the straight line from the first to the last, with the right ends and the right number."""
    latents = answer[1].tensors["latents"].numpy().astype(np.float64)
    share = np.linspace(0.0, 1.0, steps + 1)[:, None, None]
    return image.answer(((1 - share) * latents[0] + share * latents[-1]).astype(np.float32))


def swapped_noise(answer: Answer, noise: Array) -> Answer:
    """A trajectory from other noise whose first state is replaced by the right one."""
    latents = answer[1].tensors["latents"].numpy().astype(np.float32)
    latents[0] = noise
    return image.answer(latents)


def spliced(answer: Answer, other: Answer, at: int) -> Answer:
    """The run of `answer` up to the state after step `at`, then the states and the picture of `other`."""
    states, rest = (each[1].tensors["latents"].numpy().astype(np.float32) for each in (answer, other))
    return image.answer(np.concatenate([states[: at + 1], rest[at + 1 :]]))


def with_sketch(answer: Answer, sketch: Tensor) -> Answer:
    """The text with a sketch made by somebody else, or for another job."""
    return answer[0], Trace({"sketch": sketch})


def _rows(answer: Answer, change: Callable[[Array], Array]) -> Answer:
    """Change each tensor along its first axis; pictures stay as they are."""

    def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensor if name == "pixels" else from_numpy(change(tensor.numpy())) for name, tensor in tensors.items()
        }

    return Output(each(answer[0].tensors)), Trace(each(answer[1].tensors))


def _floats(answer: Answer, change: Callable[[Array], Array]) -> Answer:
    """Change every float tensor."""

    def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: from_numpy(change(tensor.numpy())) if tensor.dtype.startswith("f") else tensor
            for name, tensor in tensors.items()
        }

    return Output(each(answer[0].tensors)), Trace(each(answer[1].tensors))


def _sketch(answer: Answer, change: Callable[[Array], Array]) -> Answer:
    """Change the signed values i1[rows, 8] of a text's sketch; other kinds stay as they are."""
    sketch = answer[1].tensors.get("sketch")
    if sketch is None:
        return answer
    return with_sketch(answer, from_numpy(change(np.array(sketch.numpy()).view(np.int8)).view(np.uint8)))


def _numbers(answer: Answer, number: float, whole: int) -> Answer:
    """Every float, and every value of a sketch, replaced."""
    filled = _floats(answer, lambda value: np.full_like(value, number))
    return _sketch(filled, lambda rows: np.full_like(rows, whole))


Text = tuple[list[int], Array]
"""Tokens, and the hidden states f4[n, width] from which they were chosen."""


def half_text(text: Text) -> Text:
    """The first half."""
    half = max(1, len(text[0]) // 2)
    return text[0][:half], text[1][:half]


def longer_text(text: Text) -> Text:
    """The last token twice."""
    return [*text[0], text[0][-1]], np.concatenate([text[1], text[1][-1:]])


def flipped_states(text: Text) -> Text:
    """Hidden states with their signs turned: what a fingerprint of magnitudes would accept."""
    return text[0], -text[1]


def mean_state(text: Text) -> Text:
    """The direction of the mean of the true states, with the right length in each place."""
    mean = text[1].mean(axis=0)
    return text[0], mean * (np.linalg.norm(text[1], axis=1, keepdims=True) / np.linalg.norm(mean))


def shuffled_states(text: Text) -> Text:
    """The true states, each at the place of the one before it."""
    return text[0], np.roll(text[1], 1, axis=0)


TEXT: dict[str, Callable[[Text], Text]] = {
    "truncated": half_text,
    "padded": longer_text,
    "flipped-sketch": flipped_states,
    "constant-sketch": mean_state,
    "shifted-sketch": shuffled_states,
}
"""What is done to tokens and states before the sketch is made."""

FORGERIES: dict[str, Callable[[Answer], Answer]] = {
    "truncated": truncated,
    "padded": padded,
    "empty": empty,
    "nan": nan,
    "absurd": absurd,
    "repeated-row": repeated_row,
}
"""Those that need nothing but the answer; of a text, those in `TEXT` come first."""
