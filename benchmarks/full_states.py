"""Whole hidden states of the embedded language model, and costs of its passes: `workloads.text` exports only a
projection.

The model multiplies its last hidden state by a weight named `sketch`, [96, 8]. Running it with the identity in that
place, eight columns at a time (the graph fixes the width), gives the states themselves, from every numeric variant.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wire.job import JobSpec, TextInput
from workloads.cheats import quantise, truncate
from workloads.executor import never
from workloads.local import LocalExecutor, Tensors
from workloads.text import SKETCH, TextModel
from workloads.variants import find

WIDTH = 96
ALTER = {"int8-weights": quantise, "bf16-weights": truncate}


@functools.cache
def executor(variant: str, cheat: str | None, first: int) -> LocalExecutor:
    """An executor whose sketch is the columns first..first+7 of the identity."""

    def alter(tensors: Tensors) -> Tensors:
        changed = ALTER[cheat](tensors) if cheat else tensors
        return {**changed, "sketch": np.eye(WIDTH, dtype=np.float32)[:, first : first + SKETCH]}

    return LocalExecutor(find(variant), alter=alter)


def model(variant: str, spec: JobSpec, cheat: str | None = None, first: int = 0) -> tuple[TextInput, TextModel]:
    """The decoded input and the loaded model."""
    given, runner = executor(variant, cheat, first).prepare(spec)
    return cast(TextInput, given), cast(TextModel, cast(Any, runner))


def run(variant: str, spec: JobSpec, cheat: str | None = None) -> tuple[list[int], NDArray[np.float32]]:
    """What a worker has: the tokens it emits and their states f4[n, 96]."""
    parts = []
    tokens: list[int] = []
    for first in range(0, WIDTH, SKETCH):
        given, text = model(variant, spec, cheat, first)
        output, trace = text.run(given, spec.seed, lambda event: None, never)
        tokens = output.tensors["tokens"].numpy().astype(np.int64).tolist()
        parts.append(trace.tensors["hidden"].numpy().astype(np.float32))
    return tokens, np.concatenate(parts, axis=1)


def prefill(
    variant: str, spec: JobSpec, tokens: list[int], cheat: str | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a juror has: logits f4[n, 256] and states f4[n, 96] of these tokens, by one teacher-forced pass."""
    parts = []
    logits: NDArray[np.floating] = np.zeros(0, dtype=np.float32)
    for first in range(0, WIDTH, SKETCH):
        given, text = model(variant, spec, cheat, first)
        logits, part = text._teacher_forced(given, tokens, never)
        parts.append(part)
    return logits.astype(np.float32), np.concatenate(parts, axis=1)
