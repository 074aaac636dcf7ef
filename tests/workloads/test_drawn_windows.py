"""A juror who was drawn some windows of a text reads up to the end of the last one, and sees what is wrong there."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.workloads.specs import spec, text, text_model
from verify.faults import ExpectedUnusable
from verify.fingerprints.registry import FINGERPRINTS
from wire.errors import LocalError
from wire.job import Expected, JobSpec, Lane, Output, Trace, parts
from wire.tensor import from_numpy
from wire.text_sketch import prefix, windows
from workloads.executor import never
from workloads.local import LocalExecutor
from workloads.text import answer as text_answer
from workloads.variants import find

LANES: list[Lane] = ["tolerant", "exact"]
COUNT = 100
EXECUTOR = LocalExecutor(find("default"))


@functools.cache
def job(lane: Lane, method: str = "sample") -> JobSpec:
    """A text of 100 tokens: three windows, the last of 36."""
    jobs = (
        spec("text.generate", text("Return the ", COUNT, method=method, beams=2), lane=lane, seed=s) for s in range(99)
    )
    return next(each for each in jobs if len(answer(each)[0].tensors["tokens"].data) == 4 * COUNT)


@functools.cache
def answer(each: JobSpec) -> tuple[Output, Trace]:
    given, model = text_model(each)
    return model.run(given, each.seed, lambda event: None, never)


def recheck(each: JobSpec, claim: tuple[Output, Trace], steps: tuple[int, ...]) -> Expected:
    return EXECUTOR.recheck(each, *claim, steps=steps)


def passes(each: JobSpec, claim: tuple[Output, Trace], steps: tuple[int, ...]) -> bool:
    fingerprint = FINGERPRINTS[each.kind, each.lane]
    found = fingerprint.distances(*claim, recheck(each, claim, steps), steps)
    return all(found[name] <= limit for name, limit in fingerprint.resolution.items())


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (63, 1), (64, 2), (95, 2), (96, 3), (256, 8)])
def test_the_last_window_takes_the_rest(tokens: int, count: int) -> None:
    assert windows(tokens) == count
    assert prefix(tokens, ()) == prefix(tokens, (count - 1,)) == tokens
    assert [prefix(tokens, (0, at)) for at in range(count - 1)] == [32 * (at + 1) for at in range(count - 1)]
    with pytest.raises(LocalError):
        prefix(tokens, (count,))
    with pytest.raises(LocalError):
        prefix(tokens, (-1, 0))


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("steps", [(0,), (1,), (0, 1), (2,), ()])
def test_honest_texts_pass_and_only_what_was_drawn_is_computed(lane: Lane, steps: tuple[int, ...]) -> None:
    own = recheck(job(lane), answer(job(lane)), steps)
    count = own.tensors["margin" if lane == "tolerant" else "tokens"].shape
    assert count == [prefix(COUNT, steps)]
    assert passes(job(lane), answer(job(lane)), steps)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("window", [0, 1, 2])
def test_an_edited_token_is_seen_from_the_window_on_in_which_it_is(lane: Lane, window: int) -> None:
    output, trace = answer(job(lane))
    tokens = np.array(output.tensors["tokens"].numpy())
    tokens[32 * window + 5] = ord("Z")
    claim = Output({"tokens": from_numpy(tokens)}), trace
    assert [passes(job(lane), claim, (drawn,)) for drawn in range(3)] == [drawn < window for drawn in range(3)]


@pytest.mark.parametrize("cheat", ["bf16-weights", "int8-weights"])
@pytest.mark.parametrize("lane", LANES)
def test_a_sketch_of_other_weights_is_seen_in_every_window(lane: Lane, cheat: str) -> None:
    given, model = text_model(job(lane), cheat=cheat)
    tokens = answer(job(lane))[0].tensors["tokens"].numpy().tolist()
    claim = text_answer(given, job(lane).seed, tokens, model.prefill(given, tokens, never)[1])
    assert [passes(job(lane), claim, (drawn,)) for drawn in range(3)] == [False] * 3


@pytest.mark.parametrize("lane", LANES)
def test_of_a_beam_search_and_of_a_text_that_ends_early_everything_is_computed(lane: Lane) -> None:
    name = "margin" if lane == "tolerant" else "tokens"
    beam = job(lane, "beam")
    assert parts(beam.lane, beam.input()) == 0
    given, model = text_model(beam)
    whole = model.recheck(given, beam.seed, *answer(beam), lambda event: None, never, (0,))
    assert whole.tensors[name].shape == [COUNT]
    longer = spec("text.generate", text("Return the ", COUNT + 1, method="sample"), lane=lane, seed=job(lane).seed)
    output, trace = answer(job(lane))
    tokens = np.array(output.tensors["tokens"].numpy())
    tokens[-1] = 0
    cut = Output({"tokens": from_numpy(tokens)}), trace
    assert recheck(longer, cut, (0,)).tensors[name].shape == [COUNT]


@pytest.mark.parametrize("lane", LANES)
def test_a_prefix_of_another_length_is_our_own_fault(lane: Lane) -> None:
    claim, own = answer(job(lane)), recheck(job(lane), answer(job(lane)), (1,))
    fingerprint = FINGERPRINTS["text.generate", lane]
    assert max(fingerprint.distances(*claim, own, (0, 1)).values()) == 0
    for steps in ((0,), (2,), (5,), ()):
        with pytest.raises(ExpectedUnusable):
            fingerprint.distances(*claim, own, steps)
    for count in (0, 31, 33, 96):
        first = {name: from_numpy(np.resize(t.numpy(), (count, *t.shape[1:]))) for name, t in own.tensors.items()}
        with pytest.raises(ExpectedUnusable):
            fingerprint.distances(*claim, Expected(first), (1,))
