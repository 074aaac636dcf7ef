"""Which jobs can be run: every field of a spec that matters to an executor, checked with what is allowed named.

Pure and free of NumPy, so that a node can refuse a job before any process is started.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from wire.codec import Wire
from wire.errors import LocalError, Malformed
from wire.job import INPUTS, EmbedInput, ImageInput, JobSpec, TextInput, check_spots, parts
from workloads.executor import NUMERICS

METHODS = ("greedy", "beam", "sample")
TOKENS_MAX = 256
PROMPT_BYTES_MAX = 1024
TEMPERATURES = (0.05, 5.0)
TOP_K_MAX = 256
BEAMS_MAX = 8
LABEL_MAX = 9
STEPS_MAX = 100
TEXTS_MAX = 64
TEXT_BYTES_MAX = 4096
SEED_MAX = (1 << 64) - 1


def check(spec: JobSpec) -> Wire:
    """The decoded input of a job that can be run.

    Raises:
        LocalError: some field is out of range; names the field and what is allowed.
    """
    if spec.kind not in INPUTS:
        raise LocalError(f"unknown kind {spec.kind!r}; known: {', '.join(INPUTS)}")
    if spec.lane not in NUMERICS:
        raise LocalError(f"unknown lane {spec.lane!r}; known: {', '.join(NUMERICS)}")
    if spec.numeric != NUMERICS[spec.lane]:
        raise LocalError(f"numeric {spec.numeric!r}: lane {spec.lane} needs {NUMERICS[spec.lane]!r}")
    _within("seed", spec.seed, 0, SEED_MAX)
    try:
        given = spec.input()
    except Malformed as exc:
        raise LocalError(f"inputs of {spec.kind} do not decode: {exc}") from exc
    check_input(given)
    try:
        check_spots(spec)
    except Malformed as exc:
        raise LocalError(str(exc)) from exc
    return given


def check_steps(spec: JobSpec, given: Wire, steps: Sequence[int]) -> None:
    """The parts of a run (`wire.job.parts`) that a re-check is asked to look at; none means all.

    Raises:
        LocalError: they do not ascend, are not parts of this run, or the job is checked whole.
    """
    if not steps:
        return
    if not (count := parts(spec.lane, given)):
        raise LocalError(f"{spec.kind} in lane {spec.lane} is checked whole, not at {len(steps)} steps")
    _within("first step", steps[0], 0, count - 1)
    _within("last step", steps[-1], 0, count - 1)
    if any(one >= other for one, other in pairwise(steps)):
        raise LocalError("steps to check must ascend")


def check_input(given: Wire) -> None:
    """The input of a job, by itself.

    Raises:
        LocalError: a value is out of range; names it and what is allowed.
    """
    if isinstance(given, TextInput):
        _check_text(given)
    elif isinstance(given, ImageInput):
        _within("label", given.label, 0, LABEL_MAX)
        _within("steps", given.steps, 1, STEPS_MAX)
    else:
        assert isinstance(given, EmbedInput)
        _within("number of texts", len(given.texts), 1, TEXTS_MAX)
        for text in given.texts:
            _within("bytes of a text", len(text.encode(errors="replace")), 1, TEXT_BYTES_MAX)


def _check_text(given: TextInput) -> None:
    if given.method not in METHODS:
        raise LocalError(f"unknown method {given.method!r}; known: {', '.join(METHODS)}")
    _within("tokens_max", given.tokens_max, 1, TOKENS_MAX)
    _within("bytes of the prompt", len(given.prompt.encode(errors="replace")), 0, PROMPT_BYTES_MAX)
    if "\0" in given.prompt:
        raise LocalError("the prompt holds a NUL, which marks the end of a text")
    if not math.isfinite(given.temperature):
        raise LocalError("temperature is not a number")
    _within("temperature", given.temperature, *TEMPERATURES)
    _within("top_k", given.top_k, 0, TOP_K_MAX)
    _within("beams", given.beams, 1, BEAMS_MAX)


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise LocalError(f"{name} {value}: {least} to {most} is allowed")
