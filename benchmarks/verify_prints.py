"""What fingerprints cost and how finely they see: `python -m benchmarks.verify_prints [--quick]`.

Costs are shares of the run that is checked, on the embedded models, in process: medians of CPU time, the
checked run and the check in turn, so that the machine's load falls on both.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import msgspec
import numpy as np

from benchmarks import training_step
from benchmarks.line import show
from benchmarks.text_cost import costs
from node.calibration_inputs import job_specs
from verify.fingerprints import tensor_freivalds, text_sketch, train_step
from wire import codec
from wire.job import ImageInput, JobSpec, Kind, TextInput
from wire.tensor import from_numpy
from wire.text_sketch import project, sketch
from workloads.catalog import built_in
from workloads.cheats import quantise, truncate
from workloads.executor import never
from workloads.local import LocalExecutor
from workloads.text import TextModel
from workloads.variants import find

SEED = bytes(range(32))


def spec_of(kind: Kind, given: ImageInput | TextInput, seed: int = 7) -> JobSpec:
    """A job in the tolerant lane."""
    (cid,) = [info.cid for info in built_in().capabilities().models if info.kind == kind]
    (first,) = job_specs(kind, "tolerant", cid, "f32", 1)
    return msgspec.structs.replace(first, inputs=codec.encode(given), seed=seed)


def medians(repeats: int, *actions: Callable[[], object]) -> list[float]:
    """Median CPU seconds of each, run in turn: wall time would measure who else is on the machine."""
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(repeats):
        for action, taken in zip(actions, seconds, strict=True):
            began = time.process_time()
            action()
            taken.append(time.process_time() - began)
    return [statistics.median(taken) for taken in seconds]


def texts(repeats: int) -> None:
    """verify.cost.text: what a juror does (prefill, margins, projections, comparison) against the run.

    On models of a realistic size: `benchmarks.text_cost`.
    """
    for count in (32, 128, 256):
        given = TextInput("The name of the", count, "sample", temperature=1.0)
        candidates = (spec_of("text.generate", given, seed) for seed in range(99))
        spec = next(spec for spec in candidates if len(generated(spec)[0]) == count)
        found = costs(language_model(spec), given, spec.seed, repeats, time.process_time)
        name = f"verify.cost.text.n{count}"
        show(name, found.checked, "share", better="lower", peer="prefill alone", peer_value=found.prefill)
        show(name + ".k1", found.drawn, "share", better="lower", peer="all", peer_value=found.checked)
        if count == 256:
            show("verify.cost.text", found.checked, "share", better="lower", peer="VeriLLM", peer_value=0.01,
                 source="published")  # fmt: skip


@functools.cache
def _executor(variant: str, cheat: str | None) -> LocalExecutor:
    return LocalExecutor(find(variant), alter={"int8-weights": quantise, "bf16-weights": truncate}.get(cheat or ""))


def language_model(spec: JobSpec, variant: str = "default", cheat: str | None = None) -> TextModel:
    """The shipped language model in this variant."""
    return cast(TextModel, cast(Any, _executor(variant, cheat).prepare(spec)[1]))


def generated(
    spec: JobSpec, variant: str = "default", cheat: str | None = None
) -> tuple[list[int], np.ndarray[Any, Any]]:
    """Tokens that a worker emits, and their hidden states."""
    given = cast(TextInput, spec.input())
    return language_model(spec, variant, cheat).generate(given, spec.seed, lambda event: None, never)


def sketches() -> None:
    """verify.sketch_bytes, and how well the sketch's distance tracks that of the whole states."""
    chance = np.random.Generator(np.random.Philox(1))
    raw = sketch(chance.standard_normal((32, 4096)).astype(np.float32), SEED).tobytes()
    show(
        "verify.sketch_bytes", len(raw), "bytes per 32 tokens", better="lower", peer="TOPLOC", peer_value=258,
        source="published",
    )  # fmt: skip
    cid = built_in().find("bytes-gpt").cid
    specs = job_specs("text.generate", "tolerant", cid, "f32", 24)
    for variant, cheat in (("ort-noopt", None), ("default", "bf16-weights"), ("default", "int8-weights")):
        found, true = [], []
        for spec in specs:
            tokens, states = generated(spec, variant, cheat)
            _, own = language_model(spec).prefill(cast(TextInput, spec.input()), tokens, never)
            claim = text_sketch.admit(from_numpy(sketch(states, SEED)), len(tokens))
            found.append(text_sketch.distance(claim, *project(own, SEED), len(tokens))["block"])
            off = np.linalg.norm(states - own, axis=1) / np.linalg.norm(own, axis=1)
            true.append(float(np.sqrt((off**2).mean())))
        name = cheat or f"honest.{variant}"
        pick = min if cheat else max
        show(f"verify.sketch.{name}", pick(found), "relative L2", better="higher" if cheat else "lower",
             peer="whole states", peer_value=pick(true))  # fmt: skip


def products(repeats: int, sides: Sequence[int]) -> None:
    """verify.freivalds: the product's seconds over one round's."""
    for side in sides:
        float_product(repeats, side)
        whole_product(repeats, side)


def float_product(repeats: int, side: int) -> None:
    """float32, and the distances of an honest product and of one with fp16 inputs."""
    chance = np.random.Generator(np.random.Philox(2))
    a, b = (chance.standard_normal((side, side)).astype(np.float32) for _ in range(2))
    c = a @ b
    product, check = medians(repeats, lambda: a @ b, lambda: tensor_freivalds.distance(a, b, c, SEED, rounds=1))
    show(f"verify.freivalds.f32.{side}", product / check, "times faster", better="higher")
    found = tensor_freivalds.distance(a, b, c, SEED, rounds=4)
    half = tensor_freivalds.distance(a, b, a.astype(np.float16).astype(np.float32) @ b, SEED, rounds=4)
    gap = half["rms"] / found["rms"]
    show(f"verify.freivalds.gap.{side}", gap, "fp16 inputs / honest", better="higher")


def whole_product(repeats: int, side: int) -> None:
    """int8, exactly; the product itself in float64, the fastest way that NumPy has."""
    chance = np.random.Generator(np.random.Philox(3))
    a, b = (chance.integers(-128, 128, (side, side), dtype=np.int8) for _ in range(2))

    def multiply() -> np.ndarray[Any, Any]:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)

    c = multiply()
    product, check = medians(repeats, multiply, lambda: tensor_freivalds.exact(a, b, c, SEED, rounds=1))
    show(f"verify.freivalds.int8.{side}", product / check, "times faster", better="higher")


def training() -> None:
    """The largest distance of one step, as a multiple of what the data types can carry: above 1 is told from
    rounding."""
    for name, distances in training_step.distances().items():
        worst = max(distances[measure] / limit for measure, limit in train_step.RESOLUTION.items())
        better: Literal["higher", "lower"] = "lower" if name.endswith(".honest") else "higher"
        show(f"verify.train.{name}", worst, "times the limit", better=better)
        if name.startswith("adamw"):
            show(f"verify.train.{name}.replay", distances["replay"], "relative, masked", better=better)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    sketches()
    texts(10 if quick else 50)
    products(5 if quick else 20, (512, 1024) if quick else (512, 1024, 2048))
    training()


if __name__ == "__main__":
    main()
