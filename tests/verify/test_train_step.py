"""One step of training replayed: honest arithmetic passes, a cheat in any part of the step does not.

The network is a small one that predicts the next byte of this project's licence, in float32 and float64 NumPy with
several orders of summation, and in PyTorch where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.training_step import (
    ADAMW,
    CHEATS,
    HIDDEN,
    SGD,
    Arrays,
    faster,
    gradient,
    judged,
    network,
    trained,
)
from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints import opening, train_step
from verify.fingerprints.base import FAR
from verify.fingerprints.train_step import AdamW, Optimizer, Sgd, State, check, distance, open_state, sketch, step
from wire.tensor import from_numpy

SECRET = bytes(range(32))
LIMITS = train_step.RESOLUTION
OPTIMIZERS = pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])


def worst(found: Mapping[str, float]) -> float:
    """Above 1 is a reject."""
    return max(found[measure] / limit for measure, limit in LIMITS.items())


@OPTIMIZERS
@pytest.mark.parametrize("done", [0, 1, 20, 200])
@pytest.mark.parametrize("parts", [1, 4, 64])
def test_an_honest_step_passes(optimizer: Optimizer, done: int, parts: int) -> None:
    before = trained(optimizer, done)
    after = step(before, gradient(before.parts["parameter"], done, parts), optimizer)
    assert worst(judged(before, after, optimizer, done)) < 0.5


@OPTIMIZERS
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_refused(optimizer: Optimizer, cheat: Callable[[State, Optimizer, int], State]) -> None:
    before = trained(optimizer, 50)
    assert worst(judged(before, cheat(before, optimizer, 50), optimizer, 50)) > 5


def test_judging_moments_separates_what_a_masked_replay_does_not() -> None:
    """AdamW: 2 % of learning rate against rounding, by the decisive measures and by the replay."""
    before = trained(ADAMW, 50)
    honest = judged(before, step(before, gradient(before.parts["parameter"], 50, 64), ADAMW), ADAMW, 50)
    fast = judged(before, faster(before, ADAMW, 50), ADAMW, 50)
    assert fast["update"] / honest["update"] > 1000
    assert fast["replay"] == pytest.approx(0.02, rel=0.1)


def test_near_epsilon_is_masked() -> None:
    second = np.array([1.0, 1e-2, 1e-6, 0.0])
    assert train_step.mask(second, 10_000, ADAMW).tolist() == [False, False, True, True]
    assert not train_step.mask(second, 10_000, SGD).any()


def test_a_mostly_masked_tensor_is_not_masked() -> None:
    """Else a worker whose second moments are nearly all nothing would be measured by what is left."""
    one = {"w": np.array([1.0, 0.0, 0.0, 0.0])}
    before = State.fresh(one)
    after = step(before, {"w": np.array([1.0, 0.0, 0.0, 0.0])}, ADAMW)
    assert distance(before, after, {"w": np.array([1.0, 0.0, 0.0, 0.0])}, ADAMW)["masked"] == 0.0


@OPTIMIZERS
def test_the_reference_is_pytorchs(optimizer: Optimizer) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is needed only to make the models")
    state = State.fresh(network())
    held = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in network().items()}
    if isinstance(optimizer, Sgd):
        theirs = torch.optim.SGD(
            held.values(), lr=optimizer.rate, momentum=optimizer.momentum, weight_decay=optimizer.decay
        )
    else:
        betas = (optimizer.beta1, optimizer.beta2)
        theirs = torch.optim.AdamW(
            held.values(), lr=optimizer.rate, betas=betas, eps=optimizer.epsilon, weight_decay=optimizer.decay
        )
    for index in range(10):
        slopes = gradient(state.parts["parameter"], index)
        for name, parameter in held.items():
            parameter.grad = torch.tensor(slopes[name])
        theirs.step()
        before, state = state, step(state, slopes, optimizer)
        after = State(
            index + 1,
            {name: p.detach().numpy().copy() for name, p in held.items()},
            *map(state.parts.get, ("first", "second")),
        )
        for name in held:
            own = state.parts["parameter"][name]
            assert np.linalg.norm(after.parts["parameter"][name] - own) < 5e-7 * np.linalg.norm(own)
        assert worst(judged(before, after, optimizer, index)) < 0.5


# What travels


@OPTIMIZERS
def test_a_committed_step_is_opened_and_judged(optimizer: Optimizer) -> None:
    before = trained(optimizer, 3)
    after = step(before, gradient(before.parts["parameter"], 3), optimizer)
    opened = [
        check(sketch(state, SECRET), open_state(state, SECRET), network(), state.steps) for state in (before, after)
    ]
    assert worst(judged(opened[0], opened[1], optimizer, 3)) < 0.5


def altered(state: State, part: str, name: str, value: NDArray[np.floating]) -> State:
    parts = {each: dict(held) for each, held in state.parts.items()}
    parts[part][name] = value
    return State(state.steps, *parts.values())


@pytest.mark.parametrize(
    ("part", "value", "code"),
    [
        ("parameter", np.full(HIDDEN, np.nan), "nonfinite"),
        ("parameter", np.zeros(HIDDEN + 1), "shape"),
        ("first", np.zeros((HIDDEN, 1)), "shape"),
        ("second", np.full(HIDDEN, -1.0), "range"),
    ],
)
def test_an_unfit_state_is_refused(part: str, value: NDArray[np.float64], code: str) -> None:
    state = altered(trained(ADAMW, 1), part, "bias", value)
    with pytest.raises(Refused) as caught:
        check(sketch(state, SECRET), open_state(state, SECRET), network(), 1)
    assert caught.value.code == code


def test_a_state_of_another_step_or_commitment_is_refused() -> None:
    state = trained(ADAMW, 1)
    openings = open_state(state, SECRET)
    cases = [
        (sketch(state, SECRET), openings, 2, "range"),
        (sketch(trained(ADAMW, 2), SECRET), openings, 1, "proof"),
        (sketch(state, SECRET), openings[:-1], 1, "length"),
        (opening.Rows(bytes(32), 99), openings, 1, "length"),
        (sketch(state, SECRET), [openings[0], *openings[2:], openings[1]], 1, "index"),
    ]
    for commitment, shown, steps, code in cases:
        with pytest.raises(Refused) as caught:
            check(commitment, shown, network(), steps)
        assert caught.value.code == code


def test_states_must_be_one_step_apart() -> None:
    with pytest.raises(Refused):
        distance(trained(SGD, 1), trained(SGD, 3), gradient(network(), 1), SGD)


@pytest.mark.parametrize("bad", [{}, {"bias": np.zeros(3)}, {"bias": np.full(HIDDEN, np.inf)}])
def test_our_own_gradient_must_be_fit(bad: Arrays) -> None:
    before = trained(SGD, 1)
    slopes = {name: value for name, value in gradient(network(), 1).items() if name != "bias"}
    with pytest.raises(ExpectedUnusable):
        distance(before, trained(SGD, 2), {**slopes, **bad}, SGD)


@pytest.mark.parametrize("bad", [AdamW(1e-3, beta1=1.0), AdamW(float("nan")), AdamW(1e-3, epsilon=0.0), Sgd(0.1, 2.0)])
def test_an_impossible_optimizer_is_not_the_workers_fault(bad: Optimizer) -> None:
    with pytest.raises(ExpectedUnusable):
        distance(trained(SGD, 1), trained(SGD, 2), gradient(network(), 1), bad)


@OPTIMIZERS
def test_absurd_sizes_are_far_and_do_not_crash(optimizer: Optimizer) -> None:
    before = trained(optimizer, 1)
    huge = altered(trained(optimizer, 2), "first", "bias", np.full(HIDDEN, 3e38, dtype=np.float32))
    found = judged(before, huge, optimizer, 1)
    assert all(0 <= value <= FAR for value in found.values())
    assert worst(found) > 1e3


def test_a_state_is_committed_in_one_order() -> None:
    state = State(
        2, {"b": np.zeros(1), "a": np.ones(2)}, {"b": np.zeros(1), "a": np.ones(2)}, {"a": np.ones(2), "b": np.zeros(1)}
    )
    shapes = [tensor.shape for tensor in state.rows()]
    assert shapes == [[1], [2], [1], [2], [1], [2], [1]]
    assert state.rows()[0] == from_numpy(np.array([2], dtype=np.int64))
