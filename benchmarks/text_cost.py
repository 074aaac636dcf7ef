"""What checking a text costs on models of a realistic size: `python -m benchmarks.text_cost [--quick]`.

The shipped language model is so small that fixed costs weigh more than arithmetic. Here the same code runs transformers
of 8 layers made on the spot, with random weights (which cost the same as trained ones), on ONNX Runtime with a
key-value cache. Building their graphs needs the package `onnx` (part of the extra `train`). Medians of CPU time with
one thread, of wall time with two; run and check in turn, so that the machine's load falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.line import show
from verify.fingerprints import text_prefill
from wire.job import TextInput
from workloads.executor import never
from workloads.ort import Options, TextNetwork
from workloads.text import TextModel
from workloads.train import graphs

LAYERS, HEAD, VOCABULARY, WINDOW = 8, 64, 256, 1024
PROMPT = "The name of the list is " * 4


def made(width: int, threads: int) -> TextModel:
    """A language model with random weights that never ends a text by itself."""
    config = {"vocabulary": VOCABULARY, "width": width, "layers": LAYERS, "heads": width // HEAD, "window": WINDOW}
    chance = np.random.Generator(np.random.Philox(1))
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (VOCABULARY, width)}
    for layer in range(LAYERS):
        name = f"blocks.{layer}."
        shapes |= {name + "qkv.weight": (width, 3 * width), name + "out.weight": (width, width),
                   name + "up.weight": (width, 4 * width), name + "down.weight": (4 * width, width)}  # fmt: skip
    weights = {
        name: (chance.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in shapes.items()
    }
    for name in ("norm", *(f"blocks.{layer}.norm{i}" for layer in range(LAYERS) for i in (1, 2))):
        weights[name + ".weight"], weights[name + ".bias"] = np.ones(width, np.float32), np.zeros(width, np.float32)
    weights["norm.bias"] += np.float32(0.1)
    weights["embed.weight"][0] = -10.0  # normalised states have a positive sum, so this logit is very low
    graph = graphs.build("text", config, weights)["graph.onnx"]
    return TextModel(TextNetwork(graph, weights, np.float32, Options(threads)), config, exact=False)


def medians(repeats: int, clock: Callable[[], float], *actions: Callable[[], object]) -> list[float]:
    """Median seconds of each, run in turn."""
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for action, taken in zip(actions, seconds, strict=True):
            began = clock()
            action()
            taken.append(clock() - began)
    return [statistics.median(taken) for taken in seconds]


def costs(model: TextModel, count: int, repeats: int, clock: Callable[[], float]) -> tuple[float, float, float]:
    """Seconds of a run of `count` sampled tokens; shares of it that the check takes, and its prefill alone."""
    given = TextInput(PROMPT, count, "sample", temperature=1.0)
    answer = model.run(given, 7, lambda event: None, never)
    tokens: list[int] = answer[0].tensors["tokens"].numpy().tolist()
    assert len(tokens) == count, "made never to end early"

    def run() -> object:
        return model.run(given, 7, lambda event: None, never)

    def prefill() -> Any:
        return model.prefill(given, tokens, never)

    def check() -> object:
        own = model.recheck(given, 7, *answer, lambda event: None, never)
        found = text_prefill.compare(*answer, own)
        assert all(found[name] <= limit for name, limit in text_prefill.RESOLUTION.items()), found
        return found

    whole, checked, filled = medians(repeats, clock, run, check, prefill)
    return whole, checked / whole, filled / whole


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one width, one length, one thread")
    quick = parser.parse_args().quick
    for threads, clock in ((1, time.process_time), (2, time.perf_counter))[: 1 if quick else 2]:
        for width in (512,) if quick else (512, 768):
            model = made(width, threads)
            for count in (128,) if quick else (128, 512):
                whole, share, prefill = costs(model, count, 3, clock)
                name = f"verify.cost.text.{LAYERS}x{width}.n{count}.t{threads}"
                show(name, share, "share", better="lower", peer="prefill alone", peer_value=prefill)
                show(name + ".run", whole / count, "s per token", better="lower")


if __name__ == "__main__":
    main()
