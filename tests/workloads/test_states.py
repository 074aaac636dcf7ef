"""Single steps of a run: each follows from the one before, on any backend, and nothing else passes for one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.workloads.specs import spec, text
from verify.bisection import latent_states, step_distance, token_states
from wire.errors import LocalError, Malformed
from wire.job import EmbedInput, ImageInput, JobSpec
from wire.tensor import Tensor, from_numpy
from workloads.executor import never
from workloads.service import open_pool
from workloads.variants import make_executor

STEPS = 5
IMAGE = {lane: spec("image.generate", ImageInput(3, STEPS), lane=lane) for lane in ("tolerant", "exact")}
TEXTS = {
    "greedy": spec("text.generate", text(tokens_max=9), lane="exact"),
    "sample": spec("text.generate", text(tokens_max=9, method="sample", temperature=0.9), lane="exact"),
}


def states_of(job: JobSpec) -> list[Tensor]:
    output, trace = make_executor("numpy").run(job, emit=lambda event: None, cancelled=never)
    if job.kind == "image.generate":
        return latent_states(trace)
    return token_states(output.tensors["tokens"].numpy().tolist(), 10)


@pytest.mark.parametrize("method", TEXTS)
def test_each_token_follows_from_those_before_it(method: str) -> None:
    states = states_of(TEXTS[method])
    other = make_executor("numpy-shifted")
    assert [other.recompute(TEXTS[method], step, state) for step, state in enumerate(states[:-1])] == states[1:]


def test_nothing_follows_the_end_of_a_text() -> None:
    ended = from_numpy(np.array([65, 0], dtype=np.int32))
    assert make_executor().recompute(TEXTS["greedy"], 2, ended) == ended
    assert make_executor().recompute(TEXTS["greedy"], 8, ended) == ended


def test_each_latent_follows_from_the_one_before_it() -> None:
    states = states_of(IMAGE["exact"])
    other = make_executor("numpy-shifted")
    assert [other.recompute(IMAGE["exact"], step, state) for step, state in enumerate(states[:-1])] == states[1:]
    states = states_of(IMAGE["tolerant"])
    own = [make_executor("default").recompute(IMAGE["tolerant"], step, state) for step, state in enumerate(states[:-1])]
    far = [step_distance(*pair) for pair in zip(states[:-1], states[1:], own, strict=True)]
    assert max(far) < 1e-4


NO_STATE = {
    "a step past the end": (IMAGE["exact"], STEPS, np.zeros((16, 16), np.float32)),
    "a step before the first": (IMAGE["exact"], -1, np.zeros((16, 16), np.float32)),
    "another shape": (IMAGE["exact"], 0, np.zeros((16, 15), np.float32)),
    "another type": (IMAGE["exact"], 0, np.zeros((16, 16), np.float64)),
    "no number": (IMAGE["exact"], 0, np.full((16, 16), np.nan, np.float32)),
    "fewer tokens than steps": (TEXTS["greedy"], 2, np.array([65], np.int32)),
    "more tokens than steps": (TEXTS["greedy"], 0, np.array([65], np.int32)),
    "tokens after the end": (TEXTS["greedy"], 2, np.array([0, 65], np.int32)),
    "no byte": (TEXTS["greedy"], 1, np.array([256], np.int32)),
    "a step past the last token": (TEXTS["greedy"], 9, np.array([65] * 9, np.int32)),
    "a table of tokens": (TEXTS["greedy"], 1, np.array([[65]], np.int32)),
}


@pytest.mark.parametrize("name", NO_STATE)
def test_what_no_run_has_there_is_malformed(name: str) -> None:
    job, step, state = NO_STATE[name]
    with pytest.raises(Malformed):
        make_executor().recompute(job, step, from_numpy(state))


@pytest.mark.parametrize(
    "job",
    [
        spec("embed.text", EmbedInput(["a"])),
        spec("text.generate", text(tokens_max=9)),
        spec("text.generate", text(tokens_max=9, method="beam"), lane="exact"),
    ],
    ids=["embedding", "tolerant text", "beams"],
)
def test_jobs_without_steps_say_so(job: JobSpec) -> None:
    with pytest.raises(LocalError, match="steps"):
        make_executor().recompute(job, 0, from_numpy(np.zeros(0, np.int32)))


async def test_a_child_recomputes_what_this_process_would() -> None:
    start = states_of(IMAGE["exact"])[2]
    async with open_pool() as pool:
        assert await pool.recompute(IMAGE["exact"], 2, start) == make_executor().recompute(IMAGE["exact"], 2, start)
        with pytest.raises(Malformed):
            await pool.recompute(IMAGE["exact"], STEPS, start)
