"""Writes tests/vectors/workloads-v1.json: `python -m tests.workloads.make_vectors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.workloads.specs import all_kinds
from wire import codec, text_sketch
from wire.hashing import digest
from wire.job import TextInput
from workloads import noise
from workloads.executor import never
from workloads.sampler import FORBIDDEN, Chooser
from workloads.variants import make_executor

PATH = Path(__file__).parents[1] / "vectors" / "workloads-v1.json"


def states(tokens: int, width: int) -> NDArray[np.float32]:
    """f4[tokens, width], evenly from -1 to 1, times 1, 2, 4... by row."""
    rows = np.linspace(-1, 1, tokens * width, dtype=np.float32).reshape(tokens, width)
    return rows * np.float32(2) ** np.arange(tokens, dtype=np.float32)[:, None]


def uniform() -> list[dict[str, Any]]:
    """Words of the generator as numbers."""
    cases = [("zero", 0, 1, 0), ("text-position-3", 5, 1, 3), ("image", 5, 2, 0), ("image-times", 5, 2, 1)]
    cases.append(("largest-seed", 2**64 - 1, 1, 255))
    return [
        {"name": name, "seed": str(seed), "purpose": purpose, "position": position,
         "values": [v.hex() for v in noise.uniform(seed, purpose, position, 4).tolist()]}
        for name, seed, purpose, position in cases
    ]  # fmt: skip


def scores() -> list[dict[str, Any]]:
    """Scores of three positions in units; null where a token is not allowed."""
    logits = [0.0, 1.5, -2.25, 1.5, 0.0001, 7.0]
    cases = []
    for seed, temperature, top_k in ((7, 0.8, 0), (2**63, 5.0, 3), (1, 0.05, 1)):
        chooser = Chooser(TextInput("", 4, "sample", temperature, top_k), seed)
        rows = [chooser.scores(position, np.array(logits, dtype=np.float32)).tolist() for position in range(3)]
        cases.append({"name": f"temperature {temperature} top_k {top_k}", "seed": str(seed), "temperature": temperature,
                      "top_k": top_k, "logits": logits,
                      "scores": [[None if s == FORBIDDEN else s for s in row] for row in rows]})  # fmt: skip
    return cases


def sketches() -> list[dict[str, Any]]:
    """Sketches of `states`, and the seeds that inputs give."""
    cases = []
    for tokens, width, seed in ((2, 12, 7), (33, 96, 2**64 - 1)):
        given = TextInput("Hi", 48, "sample", 0.5, 40)
        made = text_sketch.seed_of(given, seed)
        cases.append({"name": f"{tokens} tokens of width {width}", "input": msgspec.structs.asdict(given),
                      "seed": str(seed), "tokens": tokens, "width": width, "sketch_seed": made.hex(),
                      "sketch": text_sketch.sketch(states(tokens, width), made).tobytes().hex()})  # fmt: skip
    return cases


def exact() -> list[dict[str, Any]]:
    """Hashes of exact-lane answers."""
    cases = []
    names = ("greedy", "sample", "beam", "image.generate", "embed.text")
    for job, name in zip(all_kinds(lane="exact", steps=6), names, strict=True):
        output, trace = make_executor().run(job, emit=lambda event: None, cancelled=never)
        hashes = {"output": digest("output", codec.encode(output)), "trace": digest("trace", codec.encode(trace))}
        cases.append({"name": name, "job": job.id.hex(), **{key: value.hex() for key, value in hashes.items()}})
    return cases


if __name__ == "__main__":
    made = {"uniform": uniform(), "scores": scores(), "sketches": sketches(), "exact": exact()}
    PATH.write_text(json.dumps(made, indent=1) + "\n")
