"""Executors that really cheat, to test the network's defences. Never enabled unless asked for by name.

Each does less or other work than it claims and shapes its answer and trace so that they look right. Re-checking stays
honest: these are cheating workers, not cheating jurors.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from wire import codec
from wire.errors import LocalError
from wire.job import EmbedInput, Expected, ImageInput, JobSpec, Output, TextInput, Trace
from wire.tensor import from_numpy
from workloads import inputs
from workloads.executor import CancelCheck, Capabilities, Emit, Health, Progress, never
from workloads.image import answer
from workloads.local import LocalExecutor, Tensors
from workloads.variants import Variant

CHEATS = {
    "fewer-steps": "images: half of the diffusion steps, the trajectory stretched to the claimed length",
    "one-step-less": "images: one diffusion step less, the trajectory stretched to the claimed length",
    "int8-weights": "all kinds: weights quantised to int8 per row",
    "bf16-weights": "all kinds: weights rounded to bfloat16",
    "wrong-seed": "images and sampled text: noise of another seed",
    "short-prompt": "text: only the last 16 characters of the prompt are read",
    "random-embedding": "embeddings: random unit vectors",
}


class CheatingExecutor:
    """An `Executor` whose `run` cheats where the cheat applies to the kind, and is honest elsewhere.

    Args:
        variant: how to compute.
        cheat: a key of `CHEATS`.
        threads: within an operator.

    Raises:
        LocalError: unknown cheat; names those that are known.
    """

    def __init__(self, variant: Variant, cheat: str, *, threads: int = 1) -> None:
        if cheat not in CHEATS:
            raise LocalError(f"unknown cheat {cheat!r}; known: {', '.join(CHEATS)}")
        alter = {"int8-weights": quantise, "bf16-weights": truncate}.get(cheat)
        self._cheat = cheat
        self._honest = LocalExecutor(variant, threads=threads)
        self._worker = LocalExecutor(variant, threads=threads, alter=alter)

    def capabilities(self) -> Capabilities:
        """See `Executor`."""
        return self._honest.capabilities()

    def health(self) -> Health:
        """See `Executor`."""
        return self._worker.health()

    def cancel(self, job: bytes) -> None:
        """See `Executor`."""
        self._honest.cancel(job)
        self._worker.cancel(job)

    def recheck(self, spec: JobSpec, output: Output, trace: Trace, *, cancelled: CancelCheck = never) -> Expected:
        """See `Executor`; honest."""
        return self._honest.recheck(spec, output, trace, cancelled=cancelled)

    def run(self, spec: JobSpec, *, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """See `Executor`; the answer is wrong."""
        given = inputs.check(spec)
        if isinstance(given, ImageInput) and self._cheat in ("fewer-steps", "one-step-less"):
            less = given.steps // 2 if self._cheat == "fewer-steps" else given.steps - 1
            return self._stretched(spec, given, max(1, less), emit, cancelled)
        if isinstance(given, EmbedInput) and self._cheat == "random-embedding":
            return self._random(spec, given, emit)
        if self._cheat == "wrong-seed":
            spec = _replace(spec, seed=(spec.seed + 1) % (1 << 64))
        if isinstance(given, TextInput) and self._cheat == "short-prompt":
            spec = _with_input(spec, msgspec.structs.replace(given, prompt=given.prompt[-16:]))
        return self._worker.run(spec, emit=emit, cancelled=cancelled)

    def _stretched(
        self, spec: JobSpec, given: ImageInput, steps: int, emit: Emit, cancelled: CancelCheck
    ) -> tuple[Output, Trace]:
        """The latents of fewer steps, interpolated linearly in time."""

        def claim(event: object) -> None:
            if isinstance(event, Progress):
                emit(Progress(event.done * given.steps // steps, given.steps))

        short = _with_input(spec, ImageInput(given.label, steps))
        _, trace = self._worker.run(short, emit=claim, cancelled=cancelled)
        latents = trace.tensors["latents"].numpy().astype(np.float64)
        at = np.arange(given.steps + 1) * steps / given.steps
        low = np.minimum(at.astype(int), steps - 1)
        part = (at - low)[:, None, None]
        return answer(((1 - part) * latents[low] + part * latents[low + 1]).astype(np.float32))

    def _random(self, spec: JobSpec, given: EmbedInput, emit: Emit) -> tuple[Output, Trace]:
        self._worker.prepare(spec)
        width = self._honest.run(spec, emit=lambda event: None, cancelled=lambda: False)[0].tensors["vectors"].shape[1]
        vectors = np.random.Generator(np.random.Philox(spec.seed)).normal(size=(len(given.texts), width))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        emit(Progress(len(given.texts), len(given.texts)))
        return Output({"vectors": from_numpy(vectors.astype(np.float32))}), Trace({})


def quantise(tensors: Tensors) -> Tensors:
    """Matrices and convolutions through int8, one scale per first index."""

    def one(value: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = value.reshape(len(value), -1)
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / 127
        whole: NDArray[np.float32] = (np.rint(rows / scale) * scale).astype(np.float32)
        return whole.reshape(value.shape)

    return {name: one(value) if value.ndim > 1 and name != "sketch" else value for name, value in tensors.items()}


def truncate(tensors: Tensors) -> Tensors:
    """Every weight rounded to bfloat16: to the nearest of the upper 16 bits."""

    def one(value: NDArray[np.float32]) -> NDArray[np.float32]:
        bits = (np.array(value).view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)

    return {name: one(value) if name != "sketch" else value for name, value in tensors.items()}


def _replace(spec: JobSpec, **changes: object) -> JobSpec:
    return msgspec.structs.replace(spec, **changes)


def _with_input(spec: JobSpec, given: TextInput | ImageInput) -> JobSpec:
    return _replace(spec, inputs=codec.encode(given))
