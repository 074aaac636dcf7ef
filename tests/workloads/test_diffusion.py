"""The sampler rotates states as DDIM does, at times that depend on the seed, so that no step fits two seeds."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.workloads.specs import spec
from wire.job import ImageInput
from workloads import diffusion, noise
from workloads.executor import never
from workloads.image import ImageModel
from workloads.local import LocalExecutor
from workloads.variants import find

STEPS = 30
JOB = ImageInput(3, STEPS)
THRESHOLD = 1.8e-5
"""About the calibrated threshold of a step; the record itself is `verify`'s."""


@functools.cache
def model(lane: Any = "tolerant") -> ImageModel:
    runner = LocalExecutor(find("numpy")).prepare(spec("image.generate", JOB, lane=lane))[1]
    assert isinstance(runner, ImageModel)
    return runner


@functools.cache
def states(seed: int) -> NDArray[np.float32]:
    """An honest run."""
    _, trace = model().run(JOB, seed, lambda event: None, never)
    return trace.tensors["latents"].numpy().astype(np.float32)


def lengths(moves: NDArray[np.floating]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.linalg.norm(moves.astype(np.float64).reshape(len(moves), -1), axis=1)
    return found


@given(st.integers(1, 100), st.integers(0, 2**64 - 1), st.floats(0, 0.99))
def test_times_descend_from_noise_to_image_and_stay_near_even_ones(steps: int, seed: int, jitter: float) -> None:
    found = diffusion.times(steps, seed, jitter)
    assert (len(found), found[0], found[-1]) == (steps + 1, 1.0, 0.0)
    assert (np.diff(found) < 0).all()
    even = 1.0 - np.arange(steps + 1) / steps
    assert abs(found - even).max() <= jitter / 2 / steps + 1e-12


def test_seeds_have_times_of_their_own() -> None:
    assert len({diffusion.times(12, seed, 0.5).tobytes() for seed in range(100)}) == 100
    assert diffusion.times(12, 1, 0.0).tobytes() == diffusion.times(12, 2, 0.0).tobytes()


@given(st.floats(0.01, 1), st.floats(0, 0.99))
def test_a_perfect_prediction_leads_along_the_straight_path(now: float, share: float) -> None:
    """With the true v the state at any time is signal and noise mixed for that time."""
    image, start = (noise.normal(seed, 4, 4).astype(np.float64)[None] for seed in (1, 2))

    def mixed(time: float) -> NDArray[np.float64]:
        state: NDArray[np.float64] = np.cos(time * np.pi / 2) * image + np.sin(time * np.pi / 2) * start
        return state

    v = np.cos(now * np.pi / 2) * start - np.sin(now * np.pi / 2) * image
    found = diffusion.step(mixed(now), v, np.array([now]), np.array([now * share]))
    assert found == pytest.approx(mixed(now * share), abs=1e-12)


@pytest.mark.parametrize("other", range(1, 5))
def test_every_step_of_a_run_is_wrong_under_another_seed(other: int) -> None:
    """The first and the last included: they end and begin at a moved time."""
    claimed = states(other)
    own = model().steps(claimed[:-1], JOB, 0, range(STEPS))
    assert (lengths(claimed[1:] - own) > 100 * THRESHOLD * lengths(own - claimed[:-1])).all()
    right = model().steps(claimed[:-1], JOB, other, range(STEPS))
    assert (lengths(claimed[1:] - right) < THRESHOLD * lengths(right - claimed[:-1])).all()


def test_what_the_network_said_in_another_run_does_not_help() -> None:
    """A worker that jumps to a state of an old run and takes the old v from there, moved to its own times, saves the
    evaluation of that step and of the one before, which is wrong anyway; the step itself is wrong too, but the first:
    its time is 1 for all, and there the noise gives the worker away."""
    off = []
    for other in range(1, 5):
        claimed = states(other)
        theirs, mine = (diffusion.times(STEPS, seed, model().jitter) for seed in (other, 0))
        old = model().network(claimed[:-1], diffusion.features(theirs[:-1], np.full(STEPS, JOB.label)))
        moved = diffusion.step(claimed[:-1], old, mine[:-1], mine[1:])
        own = model().steps(claimed[:-1], JOB, 0, range(STEPS))
        off.append((lengths(moved - own) / lengths(own - claimed[:-1]))[1:])
    assert np.min(off) > 2 * THRESHOLD
    assert np.median(off) > 100 * THRESHOLD


def test_the_exact_lane_takes_the_same_times() -> None:
    claimed = states(1)
    own = model("exact").steps(claimed[:-1], JOB, 1, range(STEPS))
    assert (lengths(claimed[1:] - own) < THRESHOLD * lengths(own - claimed[:-1])).all()
