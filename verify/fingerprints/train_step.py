"""train.step: one optimizer step, replayed from a committed state that includes the optimizer's.

Training runs drift apart, one step does not. The juror takes the committed state before a drawn step, computes the
gradient of the job's batch itself, and judges the claimed state after it in three parts, none of which amplifies
rounding: the moments must hold *our* gradient, and the parameters must follow from the *claimed* moments. AdamW
divides by the root of the second moment, so comparing parameters with a full replay blows up rounding wherever a
gradient is near zero; that comparison (`replay`, with such elements masked) is informative only. Optimizers as in
PyTorch (torch.optim.SGD, AdamW; Loshchilov and Hutter, arXiv 1711.05101). Format: docs/spec/fingerprints.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints import opening
from verify.fingerprints.base import FAR, Floats, bounded
from wire.codec import Wire
from wire.tensor import Tensor, from_numpy

ID = "train.step/moments+update/1"

STILL = {"first": 2.0**-8, "second": 2.0**-12, "update": 2.0**-12}
"""What a step adds to a tensor is measured against at least this part of the tensor: float32 cannot hold it better."""

RESOLUTION = {measure: 2.0**-22 / share for measure, share in STILL.items()}
"""Four roundings to float32 of the tensor, where a step adds least."""

NEAR_EPSILON = 16.0
SMALL = 2.0**-7
"""AdamW elements whose root second moment is below 16 epsilons, or below 2**-7 of the tensor's root mean square, are
left out of `replay`: their update has the size of the learning rate whatever the gradient's last bits say."""

MASKED_MAX = 0.5


class Sgd(Wire, frozen=True, tag="sgd"):
    """torch.optim.SGD: momentum without dampening; 0 momentum keeps no moment that matters."""

    rate: float
    momentum: float = 0.9
    decay: float = 0.0


class AdamW(Wire, frozen=True, tag="adamw"):
    """torch.optim.AdamW, without amsgrad."""

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.01


Optimizer = Sgd | AdamW
Arrays = Mapping[str, NDArray[np.floating]]
PARTS = ("parameter", "first", "second")


class State:
    """Parameters and moments by name, after `steps` steps; `second` stays zero for SGD."""

    def __init__(self, steps: int, parameter: Arrays, first: Arrays, second: Arrays) -> None:
        self.steps = steps
        self.parts: dict[str, Arrays] = {"parameter": parameter, "first": first, "second": second}

    @classmethod
    def fresh(cls, parameter: Arrays) -> State:
        """Before the first step."""
        zeros = {name: np.zeros_like(value) for name, value in parameter.items()}
        return cls(0, parameter, zeros, zeros)

    def wide(self) -> State:
        """The same in float64, in which all distances are computed."""
        parts = [{name: value.astype(np.float64) for name, value in held.items()} for held in self.parts.values()]
        return State(self.steps, *parts)

    def rows(self) -> list[Tensor]:
        """What is committed: the step count, then each tensor, by part and ascending name, as f4."""
        tensors = [from_numpy(np.array([self.steps], dtype=np.int64))]
        for part in PARTS:
            held = self.parts[part]
            tensors += [from_numpy(held[name].astype(np.float32)) for name in sorted(held)]
        return tensors


def step(state: State, gradient: Arrays, optimizer: Optimizer) -> State:
    """The state after one step, in the dtype of its parameters; the reference implementation."""
    parameter: dict[str, NDArray[np.floating]] = {}
    first: dict[str, NDArray[np.floating]] = {}
    second: dict[str, NDArray[np.floating]] = {}
    for name, old in state.parts["parameter"].items():
        kind = old.dtype.type
        slope = gradient[name].astype(kind)
        m, v = state.parts["first"][name], state.parts["second"][name]
        if isinstance(optimizer, Sgd):
            slope = slope + kind(optimizer.decay) * old
            first[name], second[name] = kind(optimizer.momentum) * m + slope, v
        else:
            first[name] = kind(optimizer.beta1) * m + kind(1 - optimizer.beta1) * slope
            second[name] = kind(optimizer.beta2) * v + kind(1 - optimizer.beta2) * slope * slope
        parameter[name] = old + _update(old, first[name], second[name], state.steps + 1, optimizer)
    return State(state.steps + 1, parameter, first, second)


def _update(
    old: NDArray[np.floating], m: NDArray[np.floating], v: NDArray[np.floating], steps: int, optimizer: Optimizer
) -> NDArray[np.floating]:
    """What is added to the parameters, given the moments after the step."""
    kind = old.dtype.type
    if isinstance(optimizer, Sgd):
        return np.asarray(-kind(optimizer.rate) * m)
    mean = m / kind(1 - optimizer.beta1**steps)
    root = np.sqrt(v / kind(1 - optimizer.beta2**steps)) + kind(optimizer.epsilon)
    return np.asarray(-kind(optimizer.rate) * (mean / root + kind(optimizer.decay) * old))


def sketch(state: State, secret: bytes) -> opening.Rows:
    """The commitment to a state; one per step, so that any step can be drawn."""
    return opening.sketch("state", state.rows(), secret)


def open_state(state: State, secret: bytes) -> list[opening.Opening]:
    """Everything that `check` needs of a state."""
    tensors = state.rows()
    return opening.open_rows("state", tensors, secret, range(len(tensors)))


def check(commitment: opening.Rows, openings: Sequence[opening.Opening], like: Arrays, steps: int) -> State:
    """The opened state, in float64.

    Args:
        like: arrays with the names and shapes of the model's parameters. steps: how many it must have made.

    Raises:
        Refused: not this commitment, another step count, other shapes, values that are not finite, a negative second
        moment.
    """
    names = sorted(like)
    if len(openings) != 1 + len(PARTS) * len(names) or commitment.count != len(openings):
        raise Refused("length", f"{len(openings)} tensors, {1 + len(PARTS) * len(names)} expected")
    count = opening.check_rows(commitment, "state", openings[:1], [0], "i8", [1])
    if count[0][0] != steps:
        raise Refused("range", f"a state after {count[0][0]:.0f} steps, {steps} expected")
    parts: list[dict[str, Floats]] = [{}, {}, {}]
    for at, each in enumerate(openings[1:], start=1):
        part, name = divmod(at - 1, len(names))
        found = opening.check_rows(commitment, "state", [each], [at], "f4", list(like[names[name]].shape))
        parts[part][names[name]] = found[at]
    if any((value < 0).any() for value in parts[2].values()):
        raise Refused("range", "a negative second moment")
    return State(steps, *parts)


def distance(before: State, after: State, gradient: Arrays, optimizer: Optimizer) -> dict[str, float]:
    """How far one claimed step is from ours.

    Args:
        before, after: opened states (`check`). gradient: our own, at `before`'s parameters on the job's batch.

    Returns:
        first, second: largest over tensors of ||claimed - own moment|| / ||what our gradient adds to it||. update:
        largest of ||claimed change - change that the claimed moments give||, over its length. Informative: replay
        (parameters against a full replay, near-zero gradients masked), masked (share of elements masked; with more
        than half, nothing is).

    Raises:
        Refused: states that are not one step apart. ExpectedUnusable: our gradient, or the optimizer, is unfit.
    """
    if after.steps != before.steps + 1:
        raise Refused("range", f"states after {before.steps} and {after.steps} steps")
    _fit(optimizer)
    before, after = before.wide(), after.wide()
    own = step(before, _usable(before, gradient), optimizer)
    found = dict.fromkeys(("first", "second", "update"), 0.0)
    for name in own.parts["parameter"]:
        for measure, value in _tensor_distances(name, before, after, own, optimizer).items():
            found[measure] = max(found[measure], value)
    found["replay"], found["masked"] = _replay(before, after, own, optimizer)
    return found


def _fit(optimizer: Optimizer) -> None:
    """Raises: ExpectedUnusable if the job's optimizer cannot be computed with; no worker is to blame."""
    shares = [optimizer.momentum] if isinstance(optimizer, Sgd) else [optimizer.beta1, optimizer.beta2]
    sizes = [optimizer.rate] if isinstance(optimizer, Sgd) else [optimizer.rate, optimizer.epsilon]
    if not (all(0 <= share < 1 for share in shares) and all(0 < size <= 1e3 for size in (*sizes, 1 + optimizer.decay))):
        raise ExpectedUnusable(f"{optimizer}: rates of 0..1 and finite sizes are expected")


def _usable(before: State, gradient: Arrays) -> dict[str, Floats]:
    own: dict[str, Floats] = {}
    for name, value in before.parts["parameter"].items():
        if name not in gradient or gradient[name].shape != value.shape or not np.isfinite(gradient[name]).all():
            raise ExpectedUnusable(f"the gradient of {name!r} is missing, of another shape or not finite")
        own[name] = gradient[name].astype(np.float64)
    return own


def _norm(values: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(values.astype(np.float64).ravel()))


def _over(top: float, bottom: float) -> float:
    if top == 0.0:
        return 0.0
    return bounded(top / bottom) if bottom > 0.0 and np.isfinite(top) else FAR


def _tensor_distances(name: str, before: State, after: State, own: State, optimizer: Optimizer) -> dict[str, float]:
    claim = {part: after.parts[part][name] for part in PARTS}
    start = {part: before.parts[part][name] for part in PARTS}
    mine = {part: own.parts[part][name] for part in PARTS}
    kept = {"first": optimizer.momentum if isinstance(optimizer, Sgd) else optimizer.beta1}
    if isinstance(optimizer, AdamW):
        kept["second"] = optimizer.beta2
    found = {"second": 0.0 if "second" in kept else _over(_norm(claim["second"]), 0.0)}
    for part, share in kept.items():
        added = max(_norm(mine[part] - share * start[part]), STILL[part] * _norm(mine[part]))
        found[part] = _over(_norm(claim[part] - mine[part]), added)
    change = _update(start["parameter"], claim["first"], claim["second"], after.steps, optimizer)
    off = _norm(claim["parameter"] - start["parameter"] - change)
    found["update"] = _over(off, max(_norm(change), STILL["update"] * _norm(start["parameter"])))
    return found


def _replay(before: State, after: State, own: State, optimizer: Optimizer) -> tuple[float, float]:
    top = bottom = 0.0
    masked = elements = 0
    for name, mine in own.parts["parameter"].items():
        off = after.parts["parameter"][name] - mine
        change = mine - before.parts["parameter"][name]
        hidden = mask(own.parts["second"][name], own.steps, optimizer)
        hidden = hidden if hidden.mean() <= MASKED_MAX else np.zeros_like(hidden)
        masked, elements = masked + int(hidden.sum()), elements + hidden.size
        top, bottom = top + _norm(off[~hidden]) ** 2, bottom + _norm(change[~hidden]) ** 2
    return _over(top**0.5, bottom**0.5), masked / max(elements, 1)


def mask(second: NDArray[np.floating], steps: int, optimizer: Optimizer) -> NDArray[np.bool_]:
    """Elements whose update says nothing about the gradient's size: AdamW near epsilon, or near nothing."""
    if isinstance(optimizer, Sgd):
        return np.zeros(second.shape, dtype=np.bool_)
    root = np.sqrt(second / (1 - optimizer.beta2**steps))
    floor = max(NEAR_EPSILON * optimizer.epsilon, SMALL * float(np.sqrt((root * root).mean())))
    small: NDArray[np.bool_] = root < floor
    return small
