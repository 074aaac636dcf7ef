"""What a requester sees of a claim without running the model, and which step a juror accuses."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from node.market.chains import accusation, has_steps, states_of, terms_of
from tests.workloads.specs import spec, text
from verify.bisection import StateBook, accusing_leaves, state_leaf
from wire.job import EmbedInput, Expected, ImageInput, JobSpec, Output, Trace
from wire.peer import PeerId
from wire.tensor import Tensor, from_numpy
from workloads.executor import never
from workloads.variants import make_executor

WORKER, JUROR, ROOT = PeerId(bytes([1]) * 32), PeerId(bytes([2]) * 32), bytes([3]) * 32
LIMITS = {"tolerant": {"noise": 1e-5, "step": 1e-4, "pixels": 1.0}, "exact": {"mismatch": 0.0}}
STEPS = 6


@functools.cache
def image(lane: Any) -> tuple[JobSpec, Output, Trace]:
    job = spec("image.generate", ImageInput(3, STEPS), lane=lane)
    return job, *make_executor("numpy").run(job, emit=lambda event: None, cancelled=never)


@functools.cache
def story() -> tuple[JobSpec, Output, Trace]:
    job = spec("text.generate", text(tokens_max=8), lane="exact")
    return job, *make_executor("numpy").run(job, emit=lambda event: None, cancelled=never)


def with_latents(trace: Trace, change: Mapping[int, float]) -> Trace:
    """A trace in which some states are shifted."""
    latents = trace.tensors["latents"].numpy().copy()
    for at, by in change.items():
        latents[at] += np.float32(by)
    return Trace({"latents": from_numpy(latents)})


def recheck(job: JobSpec, output: Output, trace: Trace) -> Expected:
    return make_executor("numpy-shifted").recheck(job, output, trace)


LANES = pytest.mark.parametrize("lane", ["tolerant", "exact"])


@LANES
def test_an_honest_claim_has_no_flaw_and_nobody_to_accuse_it(lane: str) -> None:
    job, output, trace = image(lane)
    terms = terms_of(job, ROOT, WORKER, JUROR, output, trace, LIMITS[lane])
    states = states_of(job, output, trace)
    assert (terms.flaw, terms.count, terms.first) == ("", STEPS + 1, states[0])
    assert terms.pinned == StateBook.of(job.id, ROOT, states).head
    assert accusation(job, output, trace, recheck(job, output, trace), LIMITS[lane]) is None


FLAWS: dict[str, tuple[str, Any]] = {
    "another start": ("dispute.first", lambda output, trace: (output, with_latents(trace, {0: 1.0}))),
    "another picture": (
        "dispute.answer",
        lambda output, trace: (Output({"pixels": from_numpy(255 - output.tensors["pixels"].numpy())}), trace),
    ),
    "no picture": ("dispute.answer", lambda output, trace: (Output({}), trace)),
    "a state too few": (
        "dispute.answer",
        lambda output, trace: (output, Trace({"latents": from_numpy(trace.tensors["latents"].numpy()[1:])})),
    ),
    "a smaller picture": (
        "dispute.answer",
        lambda output, trace: (
            Output({"pixels": from_numpy(output.tensors["pixels"].numpy()[:8])}),
            Trace({"latents": from_numpy(trace.tensors["latents"].numpy()[:, :8])}),
        ),
    ),
    "no number": ("dispute.answer", lambda output, trace: (output, with_latents(trace, {2: float("nan")}))),
}


@LANES
@pytest.mark.parametrize("what", FLAWS)
def test_a_claim_that_shows_by_itself_that_it_is_wrong(what: str, lane: str) -> None:
    job, output, trace = image(lane)
    fault, change = FLAWS[what]
    assert terms_of(job, ROOT, WORKER, JUROR, *change(output, trace), LIMITS[lane]).flaw == fault


@LANES
@pytest.mark.parametrize("at", [1, 3, STEPS - 1])
def test_a_juror_accuses_a_step_that_is_wrong(at: int, lane: str) -> None:
    """State `at` is shifted, so that the steps to and from it do not follow; in the exact lane the first is taken."""
    job, output, honest = image(lane)
    trace = with_latents(honest, {at: 0.5})
    leaves = accusation(job, output, trace, recheck(job, output, trace), LIMITS[lane])
    states = states_of(job, output, trace)
    accused = [accusing_leaves(states, step) for step in (at - 1, at)]
    assert leaves in (accused[:1] if lane == "exact" else accused)


def test_a_juror_accuses_a_drawn_step_or_none() -> None:
    job, output, honest = image("tolerant")
    trace = with_latents(honest, {4: 0.5})
    states = states_of(job, output, trace)
    executor = make_executor("numpy-shifted")
    for drawn, step in ((2, 3), 3), ((4,), 4), ((0, 1, 5), None):
        expected = executor.recheck(job, output, trace, steps=drawn)
        leaves = accusation(job, output, trace, expected, LIMITS["tolerant"], drawn)
        assert leaves == (None if step is None else accusing_leaves(states, step))


def test_a_juror_accuses_the_first_token_that_differs() -> None:
    job, output, trace = story()
    tokens = output.tensors["tokens"].numpy().copy()
    tokens[4] = (tokens[4] + 1) % 200 + 1
    claim = Output({"tokens": from_numpy(tokens)})
    leaves = accusation(job, claim, trace, recheck(job, claim, trace), LIMITS["exact"])
    assert leaves == accusing_leaves(states_of(job, claim, trace), 4)
    assert leaves is not None
    assert leaves[4] == state_leaf(4, from_numpy(tokens[:4]))
    assert terms_of(job, ROOT, WORKER, JUROR, claim, trace, LIMITS["exact"]).flaw == ""
    assert accusation(job, output, trace, recheck(job, output, trace), LIMITS["exact"]) is None


def test_a_text_that_ends_too_early_shows_by_itself_that_it_is_wrong() -> None:
    """Its juror could accuse no step: what it computes ends where the claim does."""
    job, output, trace = story()
    sketch = trace.tensors["sketch"].numpy()
    rows = len(sketch) // len(output.tensors["tokens"].numpy())
    short = Output({"tokens": from_numpy(output.tensors["tokens"].numpy()[:5])})
    terms = terms_of(
        job, ROOT, WORKER, JUROR, short, Trace({"sketch": from_numpy(sketch[: 5 * rows])}), LIMITS["exact"]
    )
    assert terms.flaw == "dispute.answer"


def test_which_jobs_have_steps() -> None:
    jobs = {
        True: [image("tolerant")[0], image("exact")[0], story()[0]],
        False: [
            spec("text.generate", text()),
            spec("text.generate", text(method="beam"), lane="exact"),
            spec("embed.text", EmbedInput(["a"])),
            spec("embed.text", EmbedInput(["a"]), lane="exact"),
        ],
    }
    assert {answer: [has_steps(job) for job in of] for answer, of in jobs.items()} == {
        True: [True] * 3,
        False: [False] * 4,
    }
    embedding = jobs[False][2]
    vectors: dict[str, Tensor] = {"vectors": from_numpy(np.zeros((1, 4), np.float32))}
    assert accusation(embedding, Output(vectors), Trace({}), Expected(vectors), {"cosine": 0.0}) is None
