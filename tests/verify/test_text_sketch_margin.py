"""The sampler's margin in whole units: the same on every host, never against honest work, always against others."""

from __future__ import annotations

import decimal
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks import full_states
from node.calibration_inputs import job_specs
from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints import text_margin
from wire import codec
from wire.job import JobSpec, TextInput
from workloads import sampler
from workloads.catalog import built_in
from workloads.executor import never

UNIT = 2.0**-12
LIMIT = text_margin.RESOLUTION["units"]
SAMPLE = TextInput("x", 32, "sample", temperature=0.8)


@functools.cache
def jobs() -> list[JobSpec]:
    cid = built_in().find("bytes-gpt").cid
    specs = job_specs("text.generate", "tolerant", cid, "f32", 96)[60:]
    return [spec for spec in specs if getattr(spec.input(), "method", "") != "beam"][:12]


def emitted(variant: str, spec: JobSpec, seed: int | None = None) -> list[int]:
    given, model = full_states.model(variant, spec)
    output, _ = model.run(given, spec.seed if seed is None else seed, lambda event: None, never)
    return [int(token) for token in output.tensors["tokens"].numpy()]


def logits(variant: str, spec: JobSpec, tokens: list[int]) -> NDArray[np.float32]:
    given, model = full_states.model(variant, spec)
    return model._teacher_forced(given, tokens, never)[0].astype(np.float32)


def units(spec: JobSpec, tokens: list[int], values: NDArray[np.float32]) -> float:
    given = spec.input()
    assert isinstance(given, TextInput)
    return text_margin.distance(given, spec.seed, values, np.array(tokens))["units"]


@pytest.mark.parametrize("worker", ["default", "ort-noopt", "numpy"])
@pytest.mark.parametrize("juror", ["default", "numpy-single"])
def test_no_honest_token_is_refused(worker: str, juror: str) -> None:
    for spec in jobs():
        tokens = emitted(worker, spec)
        assert units(spec, tokens, logits(juror, spec, tokens)) <= LIMIT


def test_it_agrees_with_the_float_margin_to_rounding() -> None:
    for spec in jobs():
        given = spec.input()
        assert isinstance(given, TextInput)
        tokens = [(token + 1) % 256 for token in emitted("default", spec)]
        values = logits("default", spec, tokens)
        whole = text_margin.margins(given, spec.seed, values, np.array(tokens)) * UNIT
        floats = [sampler.deficit(given, spec.seed, at, values[at], token) for at, token in enumerate(tokens)]
        # with top_k, what is within two units of the border counts as inside, and only what is surely inside as best
        assert np.abs(whole - floats).max() <= (3 * UNIT if not given.top_k else 0.2)


def test_another_seed_is_refused() -> None:
    for spec in jobs():
        given = spec.input()
        tokens = emitted("default", spec, spec.seed + 1)
        if isinstance(given, TextInput) and given.method == "sample" and tokens != emitted("default", spec):
            assert units(spec, tokens, logits("default", spec, tokens)) > 100 * LIMIT


def test_another_temperature_is_refused_once_it_changes_a_token() -> None:
    changed = 0
    for spec in jobs():
        given = spec.input()
        assert isinstance(given, TextInput)
        if given.method == "sample":
            warmer = TextInput(given.prompt, given.tokens_max, "sample", given.temperature * 1.1, given.top_k)
            other = type(spec)(
                **{**{f: getattr(spec, f) for f in spec.__struct_fields__}, "inputs": codec.encode(warmer)}
            )
            tokens = emitted("default", other)
            if tokens != emitted("default", spec):
                changed += 1
                assert units(spec, tokens, logits("default", spec, tokens)) > LIMIT
    assert changed


@given(st.integers(0, 2**64 - 1), st.integers(0, 999))
def test_hosts_whose_logits_differ_by_less_than_a_unit_agree(seed: int, which: int) -> None:
    """The guarantee behind the limit of two, at the worst difference it covers."""
    chance = np.random.Generator(np.random.Philox(which))
    theirs = (3 * chance.standard_normal((4, 64))).astype(np.float32)
    ours = theirs + np.float32(0.99 * UNIT) * chance.choice([-1, 1], theirs.shape).astype(np.float32)
    for top_k in (0, 5):
        given_ = TextInput("x", 8, "sample", temperature=1.3, top_k=top_k)
        tokens = np.array([sampler.scores(given_, seed, at, theirs[at]).argmax() for at in range(4)])
        assert text_margin.margins(given_, seed, ours, tokens).max() <= LIMIT


def test_the_logarithm_is_right_and_needs_no_maths_library() -> None:
    values = np.array([5e-324, 2.0**-1022, 1e-9, 0.1, 0.5, 0.70710678, 0.75, 1 - 2.0**-53, 1.0, 1.5, 36.7, 1e300])
    with decimal.localcontext() as context:
        context.prec = 40
        true = [float(decimal.Decimal(float(value)).ln()) for value in values]
    assert np.all(np.abs(text_margin.log(values) - true) <= 2 * np.spacing(np.abs(true)))


def test_scores_are_pinned() -> None:
    assert text_margin.scores(SAMPLE, 7, np.zeros((2, 4), dtype=np.float32)).tolist() == [
        [6813, 10, 1364, -322],
        [248, 884, -871, 2605],
    ]


@given(st.integers(0, 2**64 - 1), st.integers(0, 255), st.sampled_from([0.05, 1.0, 5.0]))
def test_leaving_out_hopeless_tokens_changes_no_margin(seed: int, token: int, temperature: float) -> None:
    chance = np.random.Generator(np.random.Philox(seed % 99))
    values = (5 * chance.standard_normal((3, 256))).astype(np.float32)
    given_, tokens = TextInput("x", 8, "sample", temperature=temperature), np.full(3, token)
    every = text_margin.scores(given_, seed, values)
    found = text_margin.margins(given_, seed, values, tokens)
    assert found.tolist() == (every.max(axis=1) - every[:, token]).tolist()


def test_the_words_are_the_samplers() -> None:
    from workloads.noise import TEXT, uniform

    assert text_margin.uniforms(11, 3, 16).tolist() == [uniform(11, TEXT, at, 16).tolist() for at in range(3)]


@pytest.mark.parametrize(
    ("tokens", "code"), [([0], "shape"), ([[0, 1]], "shape"), ([0, -1], "range"), ([0, 4], "range")]
)
def test_other_tokens_are_refused(tokens: list[int], code: str) -> None:
    with pytest.raises(Refused) as caught:
        text_margin.margins(SAMPLE, 7, np.zeros((2, 4), dtype=np.float32), np.array(tokens))
    assert caught.value.code == code


@pytest.mark.parametrize("bad", [np.full((2, 4), np.nan), np.zeros(4), np.zeros((0, 4)), np.full((2, 4), 1e30)])
def test_unfit_logits_are_our_own_fault(bad: NDArray[np.float64]) -> None:
    with pytest.raises(ExpectedUnusable):
        text_margin.margins(SAMPLE, 7, bad, np.array([0, 1]))
