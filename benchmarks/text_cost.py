"""What checking a text costs on models of a realistic size: `python -m benchmarks.text_cost [--quick] [--gpu]`.

The shipped language model is so small that fixed costs weigh more than arithmetic. Here the same code runs transformers
of 8 layers made on the spot, with random weights (which cost the same as trained ones), on ONNX Runtime with a
key-value cache, or with `--gpu` on torch and CUDA. Building their graphs needs the package `onnx` (part of the extra
`train`). Medians of CPU time with one thread, of wall time with two or on a GPU; run and check in turn, so that the
machine's load falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.line import show
from verify.fingerprints import text_prefill
from wire.job import TextInput
from wire.text_sketch import windows
from workloads.executor import never
from workloads.ort import Options, TextNetwork
from workloads.text import TextModel

LAYERS, HEAD, VOCABULARY, WINDOW = 8, 64, 256, 1024
PROMPT = "The name of the list is " * 4


def made(width: int, layers: int, threads: int, *, gpu: bool = False) -> TextModel:
    """A language model with random weights that never ends a text by itself."""
    config = {"vocabulary": VOCABULARY, "width": width, "layers": layers, "heads": width // HEAD, "window": WINDOW}
    chance = np.random.Generator(np.random.Philox(1))
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (VOCABULARY, width)}
    for layer in range(layers):
        name = f"blocks.{layer}."
        shapes |= {name + "qkv.weight": (width, 3 * width), name + "out.weight": (width, width),
                   name + "up.weight": (width, 4 * width), name + "down.weight": (4 * width, width)}  # fmt: skip
    weights = {
        name: (chance.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in shapes.items()
    }
    for name in ("norm", *(f"blocks.{layer}.norm{i}" for layer in range(layers) for i in (1, 2))):
        weights[name + ".weight"], weights[name + ".bias"] = np.ones(width, np.float32), np.zeros(width, np.float32)
    weights["norm.bias"] += np.float32(0.1)
    weights["embed.weight"][0] = -10.0  # normalised states have a positive sum, so this logit is very low
    if gpu:
        from workloads import networks_torch  # here, so that the rest needs no torch

        network = networks_torch.TextNetwork(weights, config, np.float32, networks_torch.Options("cuda", threads))
        return TextModel(network, config, exact=False)
    from workloads.train import graphs  # here, so that the rest needs no `onnx`

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


@dataclass(frozen=True)
class Costs:
    """Seconds of a run, and shares of it.

    Attributes:
        checked: prefill, margins, projections and comparison. prefill: alone. drawn: a check up to one drawn window, on
            average.
    """

    seconds: float
    checked: float
    prefill: float
    drawn: float


def costs(model: TextModel, given: TextInput, seed: int, repeats: int, clock: Callable[[], float]) -> Costs:
    """Of a text that goes on to `tokens_max`."""
    answer = model.run(given, seed, lambda event: None, never)
    tokens: list[int] = answer[0].tensors["tokens"].numpy().tolist()
    assert len(tokens) == given.tokens_max, "a text that does not end early"

    def run() -> object:
        return model.run(given, seed, lambda event: None, never)

    def prefill() -> object:
        return model.prefill(given, tokens, never)

    def check(*drawn: int) -> object:
        own = model.recheck(given, seed, *answer, lambda event: None, never, drawn)
        found = text_prefill.compare(*answer, own, drawn)
        assert all(found[name] <= limit for name, limit in text_prefill.RESOLUTION.items()), found
        return found

    parts = [partial(check, window) for window in range(windows(len(tokens)))]
    whole, checked, filled, *drawn = medians(repeats, clock, run, check, prefill, *parts)
    return Costs(whole, checked / whole, filled / whole, statistics.mean(drawn) / whole)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one width, one length, one thread")
    parser.add_argument("--gpu", action="store_true", help="torch on a GPU")
    options = parser.parse_args()
    if options.gpu:
        for width, layers in ((512, 8), (1024, 24))[: 1 if options.quick else 2]:
            tell(made(width, layers, 1, gpu=True), f"{layers}x{width}.gpu", (128, 512), time.perf_counter)
        return
    for threads, clock in ((1, time.process_time), (2, time.perf_counter))[: 1 if options.quick else 2]:
        for width in (512,) if options.quick else (512, 768):
            lengths = (128,) if options.quick else (128, 512)
            tell(made(width, LAYERS, threads), f"{LAYERS}x{width}.t{threads}", lengths, clock)


def tell(model: TextModel, what: str, lengths: Sequence[int], clock: Callable[[], float]) -> None:
    """The figures of one model."""
    for count in lengths:
        found = costs(model, TextInput(PROMPT, count, "sample", temperature=1.0), 7, 3, clock)
        name = f"verify.cost.text.{what}.n{count}"
        show(name, found.checked, "share", better="lower", peer="prefill alone", peer_value=found.prefill)
        show(name + ".k1", found.drawn, "share", better="lower", peer="all", peer_value=found.checked)
        show(name + ".run", found.seconds / count, "s per token", better="lower")


if __name__ == "__main__":
    main()
