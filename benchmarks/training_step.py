"""A small training run for the fingerprint of a step, honest and cheating: used by the tests and by the benchmark.

The network predicts the next byte of this project's licence from four: embedding, tanh layer, softmax; gradients by
hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from verify.fingerprints import train_step
from verify.fingerprints.train_step import AdamW, Optimizer, Sgd, State, distance, step

Arrays = dict[str, NDArray[np.floating]]
TEXT = np.frombuffer((Path(__file__).parents[1] / "LICENSE").read_bytes(), dtype=np.uint8).astype(np.int64) % 128
CONTEXT, HIDDEN, BATCH = 4, 32, 64
SGD, ADAMW = Sgd(0.1, 0.9, 1e-4), AdamW(3e-3)


def batch(index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Contexts i8[64, 4] and the bytes that follow them."""
    at = np.random.Generator(np.random.Philox(index)).integers(0, len(TEXT) - CONTEXT - 1, BATCH)
    return TEXT[at[:, None] + np.arange(CONTEXT)], TEXT[at + CONTEXT]


def network() -> Arrays:
    chance = np.random.Generator(np.random.Philox(1))
    shapes = {"embed": (128, 8), "up": (8 * CONTEXT, HIDDEN), "bias": (HIDDEN,), "out": (HIDDEN, 128)}
    return {name: (chance.standard_normal(shape) * 0.2).astype(np.float32) for name, shape in shapes.items()}


def gradient(held: Mapping[str, NDArray[np.floating]], index: int, parts: int = 1, kind: type = np.float32) -> Arrays:
    """The mean cross entropy's gradient on a batch, summed over `parts` pieces of it."""
    inputs, targets = batch(index)
    w = {name: value.astype(kind) for name, value in held.items()}
    total: Arrays = {name: np.zeros_like(value) for name, value in w.items()}
    for piece in np.array_split(np.arange(BATCH), parts):
        x = w["embed"][inputs[piece]].reshape(len(piece), -1)
        h = np.tanh(x @ w["up"] + w["bias"])
        logits = h @ w["out"]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(piece)), targets[piece]] -= 1
        p /= kind(BATCH)
        back = (p @ w["out"].T) * (1 - h * h)
        spread = (back @ w["up"].T).reshape(len(piece), CONTEXT, -1)
        np.add.at(total["embed"], inputs[piece], spread)
        for name, add in (("up", x.T @ back), ("bias", back.sum(axis=0)), ("out", h.T @ p)):
            total[name] = total[name] + add
    return total


def trained(optimizer: Optimizer, steps: int) -> State:
    state = State.fresh(network())
    for index in range(steps):
        state = step(state, gradient(state.parts["parameter"], index), optimizer)
    return state


def judged(before: State, after: State, optimizer: Optimizer, index: int) -> dict[str, float]:
    """What a juror finds who computes in float64."""
    return distance(before, after, gradient(before.parts["parameter"], index, kind=np.float64), optimizer)


def faster(before: State, optimizer: Optimizer, index: int) -> State:
    """A learning rate 2 % too high."""
    quick = msgspec.structs.replace(optimizer, rate=optimizer.rate * 1.02)
    return step(before, gradient(before.parts["parameter"], index), quick)


def other_batch(before: State, optimizer: Optimizer, index: int) -> State:
    return step(before, gradient(before.parts["parameter"], index + 1), optimizer)


def half_batch(before: State, optimizer: Optimizer, index: int) -> State:
    """Half of the batch computed, the rest assumed alike."""
    slopes = gradient(before.parts["parameter"], index)
    inputs, _ = batch(index)
    slopes["embed"][inputs[BATCH // 2 :]] = 0
    return step(before, slopes, optimizer)


def skipped(before: State, optimizer: Optimizer, index: int) -> State:
    return State(before.steps + 1, *(before.parts[part] for part in train_step.PARTS))


def stale(before: State, optimizer: Optimizer, index: int) -> State:
    """Parameters moved, moments left as they were."""
    after = step(before, gradient(before.parts["parameter"], index), optimizer)
    return State(after.steps, after.parts["parameter"], before.parts["first"], before.parts["second"])


def forgotten(before: State, optimizer: Optimizer, index: int) -> State:
    """The optimizer's state lost and begun anew."""
    fresh = State.fresh(before.parts["parameter"])
    fresh.steps = before.steps
    return step(fresh, gradient(before.parts["parameter"], index), optimizer)


def rounded(before: State, optimizer: Optimizer, index: int) -> State:
    """Gradients computed from float16 parameters."""
    half = {name: value.astype(np.float16).astype(np.float32) for name, value in before.parts["parameter"].items()}
    return step(before, gradient(half, index), optimizer)


CHEATS: list[Callable[[State, Optimizer, int], State]] = [
    faster,
    other_batch,
    half_batch,
    skipped,
    stale,
    forgotten,
    rounded,
]


def distances() -> dict[str, dict[str, float]]:
    """Largest honest distances over steps and orders of summation, and those of each cheat, by optimizer."""
    found: dict[str, dict[str, float]] = {}
    optimizers: dict[str, Optimizer] = {"sgd": SGD, "adamw": ADAMW}
    for name, optimizer in optimizers.items():
        honest: dict[str, float] = {}
        for done in (0, 1, 20, 200):
            before = trained(optimizer, done)
            for parts in (1, 4, 64):
                after = step(before, gradient(before.parts["parameter"], done, parts), optimizer)
                for measure, value in judged(before, after, optimizer, done).items():
                    honest[measure] = max(honest.get(measure, 0.0), value)
        found[f"{name}.honest"] = honest
        before = trained(optimizer, 50)
        for cheat in CHEATS:
            found[f"{name}.{cheat.__name__}"] = judged(before, cheat(before, optimizer, 50), optimizer, 50)
    return found
