"""What checking an image costs: `python -m benchmarks.verify_images [--quick]`.

What a juror does for a job of the market: open the commitment, draw steps, admit the claim, recompute, compare; seals,
signatures and transport, which do not depend on the model, are left out. As a share of the run that is checked, in
process, one thread: medians of CPU time, run and checks in turn, so that the machine's load falls on both.

    verify.cost.image.<wide,shipped>.t<steps>.k<drawn>   the share; its peer is a check of all steps
    verify.cost.image, verify.cost.image.shipped         30 steps, one drawn
    verify.step_ms.<wide,shipped>                        one step of a run
    verify.spot.<cheat>.<wrong_steps,k1,mildest>         steps of 30 beyond the threshold, what one draw finds, and the
                                                         mildest of these steps in thresholds

*shipped* is the embedded model, whose step takes about two milliseconds, so that fixed costs weigh most. *wide* is a
network of the same code with random weights, 32x32 and 48, 96 and 144 channels, in NumPy: what it draws is noise, what
it costs is not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.line import show
from benchmarks.verify_prints import medians, spec_of
from verify.calibrated import calibration_for
from verify.commitment import check_opening, commit
from verify.fingerprints import opening
from verify.fingerprints.registry import fingerprint_for
from verify.verdict import judge
from wire.job import ImageInput, JobSpec, Output, Trace
from workloads.cheats import CHEATS
from workloads.executor import never
from workloads.forward import ImageNetwork
from workloads.image import ImageModel
from workloads.local import LocalExecutor
from workloads.variants import environment, find, make_executor

BEACON = SALT = bytes(range(32))
STEPS = 30
DRAWN = (1, 2, 3, 9)
WIDE = {
    "features": 42, "condition": 96, "fine": 48, "middle": 96, "coarse": 144, "groups": 8, "height": 32, "width": 32,
    "jitter_percent": 50,
}  # fmt: skip


@dataclass
class Case:
    """One run of a diffusion model and a juror's work on it."""

    given: ImageInput
    spec: JobSpec
    model: ImageModel
    output: Output
    trace: Trace

    @classmethod
    def make(cls, model: ImageModel, steps: int) -> Case:
        """An honest run."""
        given = ImageInput(3, steps)
        spec = spec_of("image.generate", given)
        return cls(given, spec, model, *model.run(given, spec.seed, lambda event: None, never))

    def run(self) -> object:
        """What the worker did."""
        return self.model.run(self.given, self.spec.seed, lambda event: None, never)

    def check(self, count: int) -> Callable[[], None]:
        """What a juror does where `count` steps are drawn."""
        fingerprint = fingerprint_for("image.generate", "tolerant")
        limits = calibration_for("image.generate", self.spec.model, "tolerant", "f32").thresholds
        promise = commit(self.spec.id, self.output, self.trace, SALT)

        def check() -> None:
            check_opening(promise, self.output, self.trace, SALT)
            drawn = opening.drawn_steps(BEACON, self.given.steps, count)
            fingerprint.admit(self.given, self.output, self.trace)
            own = self.model.recheck_steps(self.given, self.spec.seed, self.output, self.trace, drawn)
            judge(fingerprint, limits, self.output, self.trace, own, drawn)

        return check


def shipped() -> ImageModel:
    """The embedded model, by ONNX Runtime."""
    _, runner = LocalExecutor(find("default")).prepare(spec_of("image.generate", ImageInput(3, STEPS)))
    return cast(ImageModel, cast(Any, runner))


def shapes(config: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of `workloads.forward.ImageNetwork` with these channels."""
    told, fine, middle, coarse = (config[name] for name in ("condition", "fine", "middle", "coarse"))
    found: dict[str, tuple[int, ...]] = {}

    def add(name: str, shape: tuple[int, ...], *, bias: int) -> None:
        found.update({f"{name}.weight": shape, f"{name}.bias": (bias,)})

    for name, width in (("cond1", config["features"]), ("cond2", told)):
        add(name, (width, told), bias=told)
    for name, left, right in (("head", 1, fine), ("down1", fine, middle), ("down2", middle, coarse), ("tail", fine, 1)):
        add(name, (right, left, 3, 3), bias=right)
    add("norm", (fine,), bias=fine)
    ends = [(fine, fine), (middle, middle), (coarse, coarse), (coarse, coarse)]
    ends += [(coarse + middle, middle), (middle + fine, fine)]
    for number, (left, right) in enumerate(ends, start=1):
        name = f"res{number}"
        add(f"{name}.norm1", (left,), bias=left)
        add(f"{name}.norm2", (right,), bias=right)
        add(f"{name}.cond", (told, right), bias=right)
        add(f"{name}.conv1", (right, left, 3, 3), bias=right)
        add(f"{name}.conv2", (right, right, 3, 3), bias=right)
        if left != right:
            add(f"{name}.skip", (right, left, 1, 1), bias=right)
    return found


def wide() -> ImageModel:
    """A network of a size that is used, with weights that were never trained."""
    chance = np.random.Generator(np.random.Philox(1))

    def weight(shape: Sequence[int]) -> NDArray[np.float32]:
        spread = 1.0 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.05
        return (spread * chance.standard_normal(shape)).astype(np.float32)

    weights = {name: weight(shape) for name, shape in shapes(WIDE).items()}
    return ImageModel(ImageNetwork(weights, WIDE, np.float32), WIDE, exact=False)


def costs(name: str, model: ImageModel, steps: int, repeats: int) -> float:
    """Shares of the run, for each number of drawn steps; returns that of one."""
    case = Case.make(model, steps)
    whole, *checks = medians(repeats, case.run, *map(case.check, DRAWN))
    again, everything = medians(max(3, repeats // 3), case.run, case.check(steps))
    for count, seconds in zip(DRAWN, checks, strict=True):
        show(f"verify.cost.image.{name}.t{steps}.k{count}", seconds / whole, "share", better="lower", peer="all steps",
             peer_value=everything / again)  # fmt: skip
    show(f"verify.step_ms.{name}", 1000 * whole / steps, "ms", better="lower")
    return checks[0] / whole


def wrong_steps() -> Iterator[tuple[str, NDArray[np.float64]]]:
    """For each cheat that concerns images and keeps the noise right: its steps' distances over the threshold."""
    model = shipped()
    case = Case.make(model, STEPS)
    limit = calibration_for("image.generate", case.spec.model, "tolerant", "f32").thresholds["step"]
    for cheat in CHEATS:
        output, trace = make_executor("default", cheat=cheat).run(case.spec, emit=lambda event: None, cancelled=never)
        own = model.recheck(case.given, case.spec.seed, output, trace, lambda event: None, never)
        latents = trace.tensors["latents"].numpy().astype(np.float64)
        steps = own.tensors["steps"].numpy().astype(np.float64)
        off = np.linalg.norm((latents[1:] - steps).reshape(STEPS, -1), axis=1)
        length = np.linalg.norm((steps - latents[:-1]).reshape(STEPS, -1), axis=1)
        yield cheat, off / (limit * length)


def detections() -> None:
    """How many of the 30 steps are past the threshold for each cheat, and what one draw finds."""
    for cheat, scores in wrong_steps():
        wrong = scores[scores > 1]
        if len(wrong):
            show(f"verify.spot.{cheat}.wrong_steps", len(wrong), "of 30", better="higher")
            show(f"verify.spot.{cheat}.k1", opening.detection(STEPS, len(wrong), 1), "chance", better="higher")
            show(f"verify.spot.{cheat}.mildest", float(wrong.min()), "times the threshold", better="higher")


def main() -> None:
    """Command line; starts itself again with one thread, which NumPy takes only at its start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    single: Mapping[str, str] = environment(find("default"), 1)
    if os.environ.get("OPENBLAS_NUM_THREADS") != single["OPENBLAS_NUM_THREADS"]:
        subprocess.run([sys.executable, "-m", "benchmarks.verify_images", *sys.argv[1:]], check=True, env=single)
        return
    published = {"peer": "OGONG", "peer_value": 0.034, "source": "published"}
    for name, model, repeats in (("shipped", shipped(), 30 if quick else 100), ("wide", wide(), 5 if quick else 15)):
        for steps in (30, 50, 100):
            share = costs(name, model, steps, repeats)
            if steps == STEPS:
                figure = "verify.cost.image" + ("" if name == "wide" else ".shipped")
                show(figure, share, "share", better="lower", **cast(Any, published))
    detections()


if __name__ == "__main__":
    main()
