"""Cheats beyond those of every calibration: each shows in what a juror computes, or hides and is known to."""

from __future__ import annotations

import pytest

from node.calibration_inputs import applies
from tests.workloads.specs import all_kinds, spec
from tests.workloads.test_executors import HONEST, distance, executor, label, run
from verify.fingerprints import text_prefill
from wire.errors import LocalError, Malformed
from wire.job import EmbedInput, ImageInput, JobSpec, Output, Trace
from workloads.cheats import ALL, CHEATS, FURTHER
from workloads.variants import make_executor

JOBS = all_kinds(steps=12)
CASES = [
    pytest.param(cheat, job, id=f"{cheat}-{label(job)}")
    for cheat in FURTHER
    if cheat not in ("copied-answer", "cheap-then-prefill", "tiny-noise")
    for job in JOBS
    if applies(cheat, job)
]


def visible(job: JobSpec, answer: tuple[Output, Trace]) -> bool:
    """Whether a juror's own computation differs from the claim by more than honest numerics, or cannot be done."""
    try:
        return distance(*answer, executor().recheck(job, *answer)) > 4 * HONEST
    except Malformed:
        return True


@pytest.mark.parametrize(("cheat", "job"), CASES)
def test_a_cheat_that_changes_the_answer_is_visible(cheat: str, job: JobSpec) -> None:
    answer = run(job, executor(cheat=cheat))
    assert answer == run(job) or visible(job, answer)


@pytest.mark.parametrize("cheat", [cheat for cheat in FURTHER if cheat != "copied-answer"])
def test_every_cheat_changes_some_answer(cheat: str) -> None:
    assert any(run(job, executor(cheat=cheat)) != run(job) for job in JOBS if applies(cheat, job))


@pytest.mark.parametrize("job", JOBS, ids=label)
def test_noise_in_the_last_places_hides_in_the_tolerant_lane_and_shows_in_the_exact_one(job: JobSpec) -> None:
    answer = run(job, executor(cheat="tiny-noise"))
    assert not visible(job, answer)
    (exact,) = [each for each in all_kinds(lane="exact", steps=4) if label(each) == label(job)]
    assert run(exact, executor(cheat="tiny-noise")) != run(exact)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (JOBS[0], JOBS[1]),
        (spec("image.generate", ImageInput(1, 12), seed=6), JOBS[3]),
        (spec("embed.text", EmbedInput(["another", "three", "texts"])), JOBS[4]),
    ],
    ids=["text", "image", "embed"],
)
def test_the_answer_to_the_job_before_is_visible(first: JobSpec, second: JobSpec) -> None:
    thief = make_executor(cheat="copied-answer")
    stolen = run(first, thief)
    assert run(second, thief) == stolen == run(first)
    assert visible(second, stolen)


def test_a_cheap_text_read_once_with_the_real_weights_has_a_true_sketch_and_a_margin() -> None:
    """Found on one of a few prompts: int8 weights mostly choose the same bytes, and then there is nothing to catch."""
    jobs = [spec("text.generate", JOBS[1].input(), seed=seed) for seed in range(40)]
    liar = executor(cheat="cheap-then-prefill")
    job = next(job for job in jobs if run(job, liar)[0] != run(job)[0])
    answer = run(job, liar)
    found = text_prefill.compare(*answer, executor().recheck(job, *answer))
    assert (found["token"], found["block"]) == (0.0, 0.0)
    assert found["units"] > text_prefill.RESOLUTION["units"]


def test_names_are_not_used_twice_and_unknown_ones_are_refused() -> None:
    assert len(ALL) == len(CHEATS) + len(FURTHER)
    with pytest.raises(LocalError, match="tiny-noise"):
        make_executor(cheat="nobody-cheats-like-this")
