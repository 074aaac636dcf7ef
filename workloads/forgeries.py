"""What a cheating worker does to an answer after the run: pure functions from one answer to another.

Each takes output and trace of a run and returns what is claimed instead. Needs no model.
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
    """Half of the tokens, or all but the last state or vector."""

    def cut(name: str, value: Array) -> Array:
        return value[: max(1, len(value) // 2)] if name in ("tokens", "hidden") else value[:-1]

    return _rows(answer, cut)


def padded(answer: Answer) -> Answer:
    """The last token, state or vector once more."""
    return _rows(answer, lambda _, value: np.concatenate([value, value[-1:]]))


def empty(_: Answer) -> Answer:
    """Nothing at all."""
    return Output({}), Trace({})


def nan(answer: Answer) -> Answer:
    """No numbers where numbers belong."""
    return _floats(answer, lambda value: np.full_like(value, np.nan))


def absurd(answer: Answer) -> Answer:
    """Finite values far outside of any run's."""
    return _floats(answer, lambda value: np.full_like(value, 1e30))


def flipped_sketch(answer: Answer) -> Answer:
    """The hidden states with their signs turned: what a fingerprint of magnitudes would accept."""
    return _floats(answer, np.negative)


def constant_sketch(answer: Answer) -> Answer:
    """One vector for every position, the mean of the true ones: right in distribution, wrong in each place."""
    return _floats(answer, lambda value: np.broadcast_to(value.mean(axis=0), value.shape).copy())


def tiny_noise(answer: Answer, seed: int) -> Answer:
    """Every float off by `TINY`, relatively; pictures are decoded again, so that they fit their states."""
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


def with_hidden(answer: Answer, hidden: Tensor) -> Answer:
    """The answer with hidden states computed by somebody else."""
    return answer[0], Trace({"hidden": hidden})


def _rows(answer: Answer, change: Callable[[str, Array], Array]) -> Answer:
    """Change each tensor along its first axis; pictures stay as they are."""

    def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensor if name == "pixels" else from_numpy(change(name, tensor.numpy()))
            for name, tensor in tensors.items()
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


FORGERIES: dict[str, Callable[[Answer], Answer]] = {
    "truncated": truncated,
    "padded": padded,
    "empty": empty,
    "nan": nan,
    "absurd": absurd,
    "flipped-sketch": flipped_sketch,
    "constant-sketch": constant_sketch,
}
"""Those that need nothing but the answer."""
