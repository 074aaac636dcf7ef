"""Job specs for the tests: only what an executor looks at varies."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from wire import codec
from wire.job import EmbedInput, ImageInput, JobSpec, Kind, TextInput
from wire.peer import PeerId
from workloads.cheats import quantise, truncate
from workloads.local import LocalExecutor, Tensors
from workloads.text import TextModel
from workloads.variants import find

NUMERIC = {"tolerant": "f32", "exact": "f64r32"}
NAMES: dict[Kind, str] = {"text.generate": "bytes-gpt", "image.generate": "digits-ddim", "embed.text": "ngram-embed"}


def spec(kind: Any, given: Any, *, lane: Any = "tolerant", seed: int = 5, **changes: Any) -> JobSpec:
    """A spec of this kind for the built-in model."""
    fields: dict[str, Any] = {
        "version": 1,
        "kind": kind,
        "model": NAMES.get(kind, "nobody"),
        "inputs": codec.encode(given),
        "lane": lane,
        "numeric": NUMERIC.get(lane, "f32"),
        "fingerprint": "test",
        "calibration": bytes(32),
        "seed": seed,
        "jury_size": 3,
        "spots": 0,
        "price_micro": 1,
        "fee_micro": 1,
        "requester": PeerId(bytes(32)),
        "pool": bytes(32),
        "beacon_hash": bytes(32),
        "nonce": bytes(16),
        "created_ms": 0,
        "deadline_ms": 1,
    }
    return JobSpec(**{**fields, **changes})


def text(prompt: str = "Return the ", tokens_max: int = 24, **fields: Any) -> TextInput:
    """A text input."""
    return TextInput(prompt, tokens_max, **fields)


def all_kinds(*, lane: Any = "tolerant", steps: int = 10) -> list[JobSpec]:
    """One job of each kind and of each sampling method."""
    return [
        spec("text.generate", text(), lane=lane),
        spec("text.generate", text(method="sample", temperature=0.8, top_k=40), lane=lane),
        spec("text.generate", text(method="beam", beams=3), lane=lane),
        spec("image.generate", ImageInput(3, steps), lane=lane),
        spec("embed.text", EmbedInput(["open a file", "Return the mean of the array.", "Ünï"]), lane=lane),
    ]


ALTER: dict[str | None, Callable[[Tensors], Tensors] | None] = {
    None: None, "int8-weights": quantise, "bf16-weights": truncate,
}  # fmt: skip


@functools.cache
def _executor(variant: str, cheat: str | None) -> LocalExecutor:
    return LocalExecutor(find(variant), alter=ALTER[cheat])


def text_model(job: JobSpec, variant: str = "default", cheat: str | None = None) -> tuple[TextInput, TextModel]:
    """The decoded input of a text job, and the language model in this variant."""
    given, runner = _executor(variant, cheat).prepare(job)
    return cast(TextInput, given), cast(TextModel, cast(Any, runner))
