"""Executors that really cheat, to test the network's defences. Never enabled unless asked for by name.

Each does less or other work than it claims and shapes its answer and trace so that they look right. Re-checking stays
honest: these are cheating workers, not cheating jurors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from wire import codec
from wire.codec import Wire
from wire.errors import LocalError
from wire.job import EmbedInput, Expected, ImageInput, JobSpec, Output, TextInput, Trace
from wire.tensor import Tensor, from_numpy
from workloads import forgeries, inputs, noise, older
from workloads.executor import CancelCheck, Capabilities, Emit, Health, Progress, never
from workloads.image import answer
from workloads.local import LocalExecutor, Tensors
from workloads.text import TextModel
from workloads.text import answer as text_answer
from workloads.variants import Variant

CHEATS = {
    "fewer-steps": "images: half of the diffusion steps, the trajectory stretched to the claimed length",
    "one-step-less": "images: one diffusion step less, the trajectory stretched to the claimed length",
    "int8-weights": "all kinds: weights quantised to int8 per row",
    "bf16-weights": "all kinds: weights rounded to bfloat16",
    "wrong-seed": "images and sampled text: noise of another seed",
    "spliced-trajectory": "images: an honest first half, then the end of a run of the same class from another seed",
    "short-prompt": "text: only the last 16 characters of the prompt are read",
    "random-embedding": "embeddings: random unit vectors",
}
"""Those that every committed calibration must keep out."""

FURTHER = {
    "25-of-30-steps": "images: a sixth of the diffusion steps less, the trajectory stretched to the claimed length",
    "interpolated-trajectory": "images: four steps, and a straight line from the noise to the picture",
    "swapped-noise": "images: noise of another seed, with the right noise put in front of the trajectory",
    "int4-weights": "all kinds: weights quantised to four bits per row",
    "older-checkpoint": "all kinds: the weights of an older checkpoint (texts: a neighbouring one)",
    "other-model": "all kinds: the same network with its weights shuffled",
    "other-input": "all kinds: another class, prompt or text",
    "one-byte": "texts: one byte of the prompt, or of the first text, is another",
    "other-temperature": "sampled text: a temperature higher by a tenth",
    "other-sampler": "text: greedy where sampling or beams were asked for, sampling where greedy was",
    "cheap-then-prefill": "text: generated with int8 weights, then read once with the real ones for the sketch",
    "cheap-sketch": "text: the right tokens, with a sketch of the hidden states that bfloat16 weights give",
    "borrowed-sketch": "text: the right tokens and hidden states, sketched for another seed, with the right exponents",
    "flipped-sketch": "text: hidden states with their signs turned",
    "constant-sketch": "text: the mean hidden state at every position, scaled to the right length",
    "shifted-sketch": "text: every hidden state at the place of the one before it",
    "repeated-row": "text: one row's values of the sketch for every token, with the right exponents",
    "truncated": "all kinds: half of the text, or all but the last state or vector",
    "padded": "all kinds: the last token, state or vector twice",
    "empty": "all kinds: nothing at all",
    "nan": "all kinds: no numbers where numbers belong",
    "absurd": "all kinds: 1e30 where numbers belong",
    "copied-answer": "all kinds: the answer to the job before",
    "tiny-noise": "all kinds: honest work, off by two units in the last place; of a sketch, by one unit in one value",
}
"""Tried as well. `tiny-noise` lies within the tolerant thresholds by construction; the exact lane sees it."""

ALL = {**CHEATS, **FURTHER}

Alter = Callable[[Tensors], Tensors]
Build = Callable[[Alter | None], LocalExecutor]
"""Makes the executor that computes with altered weights, or with the published ones."""


class CheatingExecutor:
    """An `Executor` whose `run` cheats where the cheat applies to the kind, and is honest elsewhere.

    Args:
        variant: how to compute.
        cheat: a key of `ALL`.
        threads: within an operator.
        build: makes the executors; whoever tries many cheats shares them.

    Raises:
        LocalError: unknown cheat; names those that are known.
    """

    def __init__(self, variant: Variant, cheat: str, *, threads: int = 1, build: Build | None = None) -> None:
        if cheat not in ALL:
            raise LocalError(f"unknown cheat {cheat!r}; known: {', '.join(ALL)}")
        build = build or (lambda alter: LocalExecutor(variant, threads=threads, alter=alter))
        self._cheat = cheat
        self._before: dict[str, tuple[Output, Trace]] = {}
        self._honest = build(None)
        self._worker = build(ALTERED[cheat]) if cheat in ALTERED else self._honest
        self._cheap = build(truncate) if cheat == "cheap-sketch" else self._honest

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

    def recheck(
        self,
        spec: JobSpec,
        output: Output,
        trace: Trace,
        *,
        steps: Sequence[int] = (),
        cancelled: CancelCheck = never,
    ) -> Expected:
        """See `Executor`; honest."""
        return self._honest.recheck(spec, output, trace, steps=steps, cancelled=cancelled)

    def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        """See `Executor`; honest."""
        return self._honest.recompute(spec, step, state)

    def run(self, spec: JobSpec, *, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """See `Executor`; the answer is wrong."""
        given = inputs.check(spec)
        if isinstance(given, ImageInput) and self._cheat in LESS:
            return self._stretched(spec, given, max(1, LESS[self._cheat](given.steps)), emit, cancelled)
        if isinstance(given, ImageInput) and self._cheat == "interpolated-trajectory":
            short = _with_input(spec, ImageInput(given.label, min(4, given.steps)))
            return forgeries.straight_line(self._worker.run(short, emit=emit, cancelled=cancelled), given.steps)
        if isinstance(given, ImageInput) and self._cheat == "spliced-trajectory":
            mine = self._worker.run(spec, emit=emit, cancelled=cancelled)
            cached = self._worker.run(_other(spec, given, self._cheat), emit=_unheard, cancelled=cancelled)
            return forgeries.spliced(mine, cached, given.steps // 2)
        if isinstance(given, EmbedInput) and self._cheat == "random-embedding":
            return self._random(spec, given, emit)
        other = _other(spec, given, self._cheat)
        if isinstance(given, TextInput):
            return self._forged(spec, given, self._text(spec, given, other, emit, cancelled))
        return self._forged(spec, given, self._worker.run(other, emit=emit, cancelled=cancelled))

    def _forged(self, spec: JobSpec, given: Wire, answer: tuple[Output, Trace]) -> tuple[Output, Trace]:
        """What is claimed after the run."""
        if self._cheat in forgeries.FORGERIES and not (isinstance(given, TextInput) and self._cheat in forgeries.TEXT):
            return forgeries.FORGERIES[self._cheat](answer)
        if self._cheat == "tiny-noise":
            return forgeries.tiny_noise(answer, spec.seed)
        if self._cheat == "swapped-noise" and isinstance(given, ImageInput):
            return forgeries.swapped_noise(answer, noise.normal(spec.seed, *answer[0].tensors["pixels"].shape))
        if self._cheat == "copied-answer":
            answer, self._before[spec.kind] = self._before.get(spec.kind, answer), answer
        return answer

    def _text(
        self, spec: JobSpec, given: TextInput, other: JobSpec, emit: Emit, cancelled: CancelCheck
    ) -> tuple[Output, Trace]:
        """A run of the other job, sketched as if it were this one: only what was computed can give it away."""
        model, generated = _text_model(self._worker, other)
        with self._worker.marked(spec.id, cancelled) as stop:
            text = model.generate(generated, other.seed, emit, stop)
        if self._cheat in forgeries.TEXT:
            text = forgeries.TEXT[self._cheat](text)
        elif self._cheat in ("cheap-then-prefill", "cheap-sketch"):
            reader, _ = _text_model(self._honest if self._cheat == "cheap-then-prefill" else self._cheap, spec)
            text = text[0], reader.prefill(given, text[0], cancelled)[1]
        claimed = text_answer(given, spec.seed, *text)
        if self._cheat == "borrowed-sketch":
            return forgeries.other_values(claimed, text_answer(given, _another(spec.seed), *text))
        return claimed

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
        width = self._honest.run(spec, emit=_unheard, cancelled=never)[0].tensors["vectors"].shape[1]
        vectors = np.random.Generator(np.random.Philox(spec.seed)).normal(size=(len(given.texts), width))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        emit(Progress(len(given.texts), len(given.texts)))
        return Output({"vectors": from_numpy(vectors.astype(np.float32))}), Trace({})


def _text_model(executor: LocalExecutor, spec: JobSpec) -> tuple[TextModel, TextInput]:
    """The language model of this executor in the lane of the job, and the job's input."""
    given, runner = executor.prepare(spec)
    assert isinstance(runner, TextModel), "a job for a text"
    assert isinstance(given, TextInput), "a job for a text"
    return runner, given


def _another(seed: int) -> int:
    return (seed + 1) % (1 << 64)


def _unheard(event: object) -> None:
    """For runs that nobody follows."""


LESS: dict[str, Callable[[int], int]] = {
    "fewer-steps": lambda steps: steps // 2,
    "one-step-less": lambda steps: steps - 1,
    "25-of-30-steps": lambda steps: steps * 5 // 6,
}
"""How many of the claimed steps are done."""


def _other(spec: JobSpec, given: Wire, cheat: str) -> JobSpec:
    """The job that is run in place of the one asked for."""
    if cheat in ("wrong-seed", "swapped-noise", "spliced-trajectory"):
        return _replace(spec, seed=_another(spec.seed))
    changed: Wire = given
    if isinstance(given, ImageInput) and cheat == "other-input":
        changed = ImageInput((given.label + 1) % (inputs.LABEL_MAX + 1), given.steps)
    elif isinstance(given, EmbedInput) and cheat in ("other-input", "one-byte"):
        change = _next_byte if cheat == "one-byte" else _reversed
        changed = EmbedInput([change(given.texts[0]), *given.texts[1:]])
    elif isinstance(given, TextInput):
        changed = _other_text(given, cheat)
    return _with_input(spec, changed) if changed is not given else spec


def _other_text(given: TextInput, cheat: str) -> TextInput:
    change: dict[str, object] = {}
    if cheat == "short-prompt":
        change = {"prompt": given.prompt[-16:]}
    elif cheat in ("one-byte", "other-input"):
        change = {"prompt": (_next_byte if cheat == "one-byte" else _reversed)(given.prompt)}
    elif cheat == "other-temperature" and given.method == "sample":
        change = {"temperature": given.temperature * 1.1}
    elif cheat == "other-sampler":
        change = {"method": "sample" if given.method == "greedy" else "greedy"}
    return msgspec.structs.replace(given, **change) if change else given


def _next_byte(text: str) -> str:
    """The first letter replaced by the next in the alphabet; letters only, so that the text stays as long."""
    at = next((i for i, letter in enumerate(text) if letter.isascii() and letter.isalpha()), None)
    if at is None:
        return "a" + text[1:]
    return text[:at] + ("a" if text[at] in "zZ" else chr(ord(text[at]) + 1)) + text[at + 1 :]


def _reversed(text: str) -> str:
    return " ".join(reversed(text.split(" "))) + "?"


def shuffle(tensors: Tensors) -> Tensors:
    """Every matrix with its entries in another order: a model of the same size that learnt nothing."""
    generator = np.random.Generator(np.random.Philox(1))

    def one(value: NDArray[np.float32]) -> NDArray[np.float32]:
        return generator.permutation(value.ravel()).reshape(value.shape)

    return {name: one(value) if value.ndim > 1 else value for name, value in tensors.items()}


def quantise(tensors: Tensors, largest: int = 127) -> Tensors:
    """Matrices and convolutions through whole numbers up to `largest`, one scale per first index."""

    def one(value: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = value.reshape(len(value), -1)
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12) / largest
        whole: NDArray[np.float32] = (np.rint(rows / scale) * scale).astype(np.float32)
        return whole.reshape(value.shape)

    return {name: one(value) if value.ndim > 1 else value for name, value in tensors.items()}


def truncate(tensors: Tensors) -> Tensors:
    """Every weight rounded to bfloat16: to the nearest of the upper 16 bits."""

    def one(value: NDArray[np.float32]) -> NDArray[np.float32]:
        bits = (np.array(value).view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)

    return {name: one(value) for name, value in tensors.items()}


ALTERED: dict[str, Alter] = {
    "int8-weights": quantise,
    "int4-weights": partial(quantise, largest=7),
    "bf16-weights": truncate,
    "older-checkpoint": older.rewound,
    "other-model": shuffle,
    "cheap-then-prefill": quantise,
}
"""What these cheats do to the weights."""


def _replace(spec: JobSpec, **changes: object) -> JobSpec:
    return msgspec.structs.replace(spec, **changes)


def _with_input(spec: JobSpec, given: Wire) -> JobSpec:
    return _replace(spec, inputs=codec.encode(given))
