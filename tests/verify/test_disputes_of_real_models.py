"""Disputes over the diffusion model that ships: the referee recomputes one DDIM step, and evidence convinces."""

from __future__ import annotations

import functools

import pytest

from benchmarks.verify_juries import StepReferee, person, picture, rejected, step_opening
from tests.verify.test_bisection import Honest, Liar, play
from verify.bisection import (
    Dispute,
    Ruling,
    StateBook,
    Terms,
    accusing_leaves,
    exact_distance,
    latent_states,
    rounds_max,
    step_distance,
)
from verify.calibrated import calibrations
from verify.commitment import commit
from verify.evidence import Tensors, build, check, decode
from wire.job import JobSpec, Lane, Output, Trace
from wire.tensor import Tensor, from_numpy
from workloads import noise

CHEATS = ["fewer-steps", "one-step-less", "int8-weights"]
SALT = bytes(32)


@functools.cache
def run(lane: Lane, cheat: str | None) -> tuple[JobSpec, Output, Trace]:
    return picture(lane, cheat, index=1)


@functools.cache
def referee(variant: str) -> StepReferee:
    return StepReferee(variant)


def first_of(spec: JobSpec, like: Tensor) -> Tensor:
    return from_numpy(noise.normal(spec.seed, *like.shape))


def dispute(lane: Lane, worker: str | None, accusing: list[bytes], variant: str = "numpy") -> Ruling:
    """The worker's run (cheating or not) against a challenger's list, before a referee on another backend."""
    spec, output, trace = run(lane, worker)
    states = latent_states(trace)
    root = commit(spec.id, output, trace, SALT).root
    defender, challenger = (Liar(states, []), Honest(2)) if worker else (Honest(2), Liar(states, []))
    defender.book = StateBook.of(spec.id, root, states)
    challenger.book = StateBook(spec.id, root, accusing)
    measure = "step" if lane == "tolerant" else "mismatch"
    terms = Terms(
        job=spec.id,
        root=root,
        defender=defender.who.peer,
        challenger=challenger.who.peer,
        count=len(states),
        first=first_of(spec, states[0]),
        threshold=calibrations()[spec.calibration].thresholds[measure],
        distance=step_distance if lane == "tolerant" else exact_distance,
        pinned=defender.book.head,
    )
    sides = {defender.who.peer: defender, challenger.who.peer: challenger}
    ruling = play(Dispute(terms), sides, lambda state, step: referee(variant).recompute(spec, step, state))
    assert ruling.rounds <= rounds_max(len(states))
    assert (ruling.loser == defender.who.peer) == (worker is not None)
    return ruling


def bad_step(lane: Lane, cheat: str) -> int:
    """The first step that a juror of its own backend finds beyond the threshold."""
    spec, _, trace = run(lane, cheat)
    states = latent_states(trace)
    limit = calibrations()[spec.calibration].thresholds["step"]
    own = (referee("default").recompute(spec, step, state) for step, state in enumerate(states[:-1]))
    far = (step_distance(states[step], states[step + 1], each) > limit for step, each in enumerate(own))
    return next(step for step, over in enumerate(far) if over)


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_loses_over_one_step(cheat: str) -> None:
    step = bad_step("tolerant", cheat)
    accused = accusing_leaves(latent_states(run("tolerant", cheat)[2]), step)
    ruling = dispute("tolerant", cheat, accused)
    assert (ruling.fault, ruling.step) == ("dispute.step", step)


@pytest.mark.parametrize("cheat", CHEATS)
def test_in_the_exact_lane_an_own_run_is_enough(cheat: str) -> None:
    """The search finds the first state that differs; the referee's bytes, of another library, are the challenger's."""
    own = StateBook.of(bytes(32), bytes(32), latent_states(run("exact", None)[2]))
    ruling = dispute("exact", cheat, own.leaves, variant="numpy-shifted")
    assert (ruling.fault, ruling.distance) == ("dispute.step", 1.0)


@pytest.mark.parametrize("step", [0, 7, 19])
def test_honest_work_is_not_convicted_whichever_step_is_accused(step: int) -> None:
    spec, _, trace = run("tolerant", None)
    step = min(step, spec.input().steps - 1)  # type: ignore[attr-defined]  # an image's
    for variant in ("numpy", "numpy-shifted", "ort-noopt"):
        ruling = dispute("tolerant", None, accusing_leaves(latent_states(trace), step), variant)
        assert (ruling.fault, ruling.step) == ("dispute.unfounded", step)


def test_a_run_from_another_seed_loses_before_any_search() -> None:
    spec, _, trace = run("tolerant", "wrong-seed")
    ruling = dispute("tolerant", "wrong-seed", accusing_leaves(latent_states(trace), 1))
    assert (ruling.fault, ruling.rounds) == ("dispute.first", 0)
    assert spec.seed >= 0


@pytest.mark.parametrize("lane", ["tolerant", "exact"])
def test_evidence_of_a_real_cheat_convinces_on_another_backend(lane: Lane) -> None:
    receipt, juror, measure, book, output, trace = rejected(lane, "one-step-less")
    sizes = []
    for shown in (Tensors(output, trace), step_opening(book, 4)):
        raw = build(receipt, juror, measure, shown)
        found = check(decode(raw), referee("numpy"), calibrations())
        assert (found.peer, found.measure) == (person("worker").peer, measure)
        assert found.distance > found.threshold
        sizes.append(len(raw))
    assert sizes[1] < 10_000 < sizes[0] < 60_000
