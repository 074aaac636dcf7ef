"""The embedded models, many jobs at a time: the same arithmetic as the executor's, row by row.

A job of the study is (index): its label or prompt and its seed follow from the index alone, so that anybody can
make any row again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from node.detection import fresh_jobs
from wire.job import Kind, TextInput
from workloads import cheats, diffusion, noise, older
from workloads.catalog import built_in
from workloads.image import ImageModel
from workloads.local import LocalExecutor, Tensors
from workloads.sampler import END, Chooser
from workloads.text import Decoder, TextModel, prompt_tokens
from workloads.variants import find

SEED_IMAGES, SEED_TEXTS = 1_000_000, 2_000_000
PROMPT_BYTES = 24
BATCH = 16

Pixels = NDArray[np.uint8]
Tokens = NDArray[np.uint8]
Alter = Callable[[Tensors], Tensors] | None


@dataclass(frozen=True)
class Way:
    """How a row is made: honestly, or as one of the cheats.

    Attributes:
        variant: numeric variant. alter: changes the weights. shift: added to the seed. other: another class or prompt.
        steps: images: done of the steps asked for. temperature, greedy: texts.
    """

    variant: str = "default"
    alter: str = ""
    shift: int = 0
    other: bool = False
    steps: Callable[[int], int] = lambda steps: steps
    temperature: float = 0.8
    greedy: bool = False


ALTER: dict[str, Alter] = {
    "": None,
    "int8": cheats.quantise,
    "int4": partial(cheats.quantise, largest=7),
    "bf16": cheats.truncate,
    "older": older.rewound,
}

HONEST = {"honest, unoptimised graph": Way("ort-noopt"), "honest, NumPy": Way("numpy-shifted")}

IMAGE_CHEATS = {
    "29 of 30 steps": Way(steps=lambda steps: steps - 1),
    "25 of 30 steps": Way(steps=lambda steps: steps * 5 // 6),
    "15 of 30 steps": Way(steps=lambda steps: steps // 2),
    "bfloat16 weights": Way(alter="bf16"),
    "int8 weights": Way(alter="int8"),
    "4-bit weights": Way(alter="int4"),
    "older checkpoint": Way(alter="older"),
    "other class": Way(other=True),
    "other seed": Way(shift=500_000_000),
}

TEXT_CHEATS = {
    "bfloat16 weights": Way(alter="bf16"),
    "int8 weights": Way(alter="int8"),
    "4-bit weights": Way(alter="int4"),
    "older checkpoint": Way(alter="older"),
    "temperature + 10 %": Way(temperature=0.88),
    "greedy instead": Way(greedy=True),
    "one prompt byte": Way(other=True),
    "other seed": Way(shift=500_000_000),
}


@cache
def _model(kind: Kind, variant: str, alter: str) -> ImageModel | TextModel:
    executor = LocalExecutor(find(variant), alter=ALTER[alter])
    (job,) = fresh_jobs(kind, "tolerant", 1)
    return cast("ImageModel | TextModel", executor.prepare(job)[1])


def label_of(index: int) -> int:
    """The class of image `index`."""
    return index % diffusion.LABELS


def images(indices: range, steps: int, way: Way) -> Pixels:
    """Pictures u1[n, h, w] of these jobs."""
    parts = [_images(indices[at : at + BATCH], steps, way) for at in range(0, len(indices), BATCH)]
    return np.concatenate(parts)


def _images(indices: range, steps: int, way: Way) -> Pixels:
    model = _model("image.generate", way.variant, way.alter)
    assert isinstance(model, ImageModel)
    labels = np.array([(label_of(i) + way.other) % diffusion.LABELS for i in indices])
    seeds = [SEED_IMAGES + i + way.shift for i in indices]
    x: NDArray[np.floating] = np.stack([noise.normal(seed, *model.size) for seed in seeds])
    times = np.stack([diffusion.times(way.steps(steps), seed, model.jitter) for seed in seeds], axis=1)
    for now, then in pairwise(times):
        v = model.network(x, diffusion.features(now, labels))
        x = diffusion.step(x, v, now, then).astype(np.float32)
    return np.stack([diffusion.pixels(latent) for latent in x])


@cache
def _corpus() -> str:
    """Held-out text of the language model, ASCII only."""
    raw = (built_in().find("bytes-gpt").folder / "heldout.txt").read_bytes()
    return "".join(chr(byte) if 32 <= byte < 127 else " " for byte in raw)


def prompt_of(index: int) -> str:
    """The prompt of text `index`: 24 characters of held-out text, from a place that strides through all of it."""
    text = _corpus()
    at = index * 7919 % (len(text) - PROMPT_BYTES)
    return text[at : at + PROMPT_BYTES]


def text_input(index: int, tokens_max: int, way: Way) -> TextInput:
    """The job of text `index`."""
    prompt = prompt_of(index)
    if way.other:
        prompt = prompt[:12] + ("a" if prompt[12] != "a" else "e") + prompt[13:]
    return TextInput(prompt, tokens_max, "greedy" if way.greedy else "sample", way.temperature, top_k=40)


def texts(indices: range, tokens_max: int, way: Way) -> Tokens:
    """Tokens u1[n, tokens_max] of these jobs, zeros after the end mark."""
    size = 4 * BATCH
    parts = [_texts(indices[at : at + size], tokens_max, way) for at in range(0, len(indices), size)]
    return np.concatenate(parts)


def _texts(indices: range, tokens_max: int, way: Way) -> Tokens:
    model = _model("text.generate", way.variant, way.alter)
    assert isinstance(model, TextModel)
    given = [text_input(i, tokens_max, way) for i in indices]
    choosers = [Chooser(each, SEED_TEXTS + i + way.shift) for i, each in zip(indices, given, strict=True)]
    decoder = Decoder(model.network, model.config, model.dtype)
    decoder.past = decoder.past.repeat(len(given), axis=1)
    logits = decoder.read(np.array([prompt_tokens(each) for each in given], dtype=np.int64))[0][:, -1]
    tokens = np.zeros((len(given), tokens_max), np.uint8)
    live = np.ones(len(given), np.bool_)
    for position in range(tokens_max):
        for row in np.nonzero(live)[0]:
            token = choosers[row].choose(position, logits[row])
            tokens[row, position] = token
            live[row] = token != END
        if position + 1 == tokens_max or not live.any():
            break
        logits = decoder.read(tokens[:, position : position + 1].astype(np.int64))[0][:, -1]
    return tokens
