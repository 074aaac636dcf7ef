"""Margins in whole units: 0 for one's own choice, the same on every host, never against honest work."""

from __future__ import annotations

import decimal
import functools

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.calibration_inputs import job_specs
from tests.workloads.specs import text_model
from wire.errors import LocalError
from wire.job import JobSpec, TextInput
from workloads import noise
from workloads.catalog import built_in
from workloads.executor import never
from workloads.sampler import BORDER, FORBIDDEN, Chooser, margins

LIMIT = 2
SAMPLE = TextInput("x", 32, "sample", temperature=0.8)


@functools.cache
def jobs() -> list[JobSpec]:
    cid = built_in().find("bytes-gpt").cid
    specs = job_specs("text.generate", "tolerant", cid, "f32", 96)[60:]
    return [spec for spec in specs if getattr(spec.input(), "method", "") != "beam"][:12]


def emitted(variant: str, spec: JobSpec, **changes: float) -> list[int]:
    given_, model = text_model(spec, variant)
    seed = int(changes.pop("seed", spec.seed))
    return model.generate(msgspec.structs.replace(given_, **changes), seed, lambda event: None, never)[0]


def logits(variant: str, spec: JobSpec, tokens: list[int]) -> NDArray[np.floating]:
    given_, model = text_model(spec, variant)
    return model.prefill(given_, tokens, never)[0]


def units(spec: JobSpec, tokens: list[int], values: NDArray[np.floating]) -> int:
    given_ = spec.input()
    assert isinstance(given_, TextInput)
    return int(margins(given_, spec.seed, values, np.array(tokens)).max())


@pytest.mark.parametrize("worker", ["default", "ort-noopt", "numpy"])
@pytest.mark.parametrize("juror", ["default", "numpy-single"])
def test_no_honest_token_is_refused(worker: str, juror: str) -> None:
    for spec in jobs():
        tokens = emitted(worker, spec)
        assert units(spec, tokens, logits(juror, spec, tokens)) <= LIMIT


@pytest.mark.parametrize("top_k", [0, 1, 5, 300])
@pytest.mark.parametrize("method", ["greedy", "sample"])
@given(seed=st.integers(0, 2**64 - 1), temperature=st.sampled_from([0.05, 1.0, 5.0]))
def test_ones_own_choice_has_no_margin(method: str, top_k: int, seed: int, temperature: float) -> None:
    """Worker and juror compute the same scores from the same logits, so nothing is left to rounding."""
    chance = np.random.Generator(np.random.Philox(seed))
    values = (5 * chance.standard_normal((3, 256))).astype(np.float32)
    given_ = TextInput("x", 8, method, temperature=temperature, top_k=top_k)  # type: ignore[arg-type]  # from the list
    chooser = Chooser(given_, seed)
    tokens = np.array([chooser.choose(at, row) for at, row in enumerate(values)])
    assert margins(given_, seed, values, tokens).tolist() == [0, 0, 0]


def test_a_rerun_on_the_same_host_has_no_margin() -> None:
    for spec in jobs():
        tokens = emitted("ort-single", spec)
        assert units(spec, tokens, logits("ort-single", spec, tokens)) == 0


def test_another_seed_is_refused() -> None:
    for spec in jobs():
        tokens = emitted("default", spec, seed=spec.seed + 1)
        if tokens != emitted("default", spec):
            assert units(spec, tokens, logits("default", spec, tokens)) > 100 * LIMIT


def test_another_temperature_is_refused_once_it_changes_a_token() -> None:
    changed = 0
    for spec in jobs():
        given_ = spec.input()
        assert isinstance(given_, TextInput)
        tokens = emitted("default", spec, temperature=given_.temperature * 1.1)
        if tokens != emitted("default", spec):
            changed += 1
            assert units(spec, tokens, logits("default", spec, tokens)) > LIMIT
    assert changed


@given(st.integers(0, 2**64 - 1), st.integers(0, 999))
def test_hosts_whose_logits_differ_by_less_than_a_unit_agree(seed: int, which: int) -> None:
    """The guarantee behind the limit of two, at the worst difference it covers."""
    chance = np.random.Generator(np.random.Philox(which))
    theirs = (3 * chance.standard_normal((4, 64))).astype(np.float32)
    ours = theirs + np.float32(0.99 / 4096) * chance.choice([-1, 1], theirs.shape).astype(np.float32)
    for top_k in (0, 5):
        given_ = TextInput("x", 8, "sample", temperature=1.3, top_k=top_k)
        chooser = Chooser(given_, seed)
        tokens = np.array([chooser.choose(at, row) for at, row in enumerate(theirs)])
        assert margins(given_, seed, ours, tokens).max() <= LIMIT


def test_the_logarithm_is_right_and_needs_no_maths_library() -> None:
    values = np.array([5e-324, 2.0**-1022, 1e-9, 0.1, 0.5, 0.70710678, 0.75, 1 - 2.0**-53, 1.0, 1.5, 36.7, 1e300])
    with decimal.localcontext() as context:
        context.prec = 40
        true = [float(decimal.Decimal(float(value)).ln()) for value in values]
    assert np.all(np.abs(noise.log(values) - true) <= 2 * np.spacing(np.abs(true)))


def test_noise_in_blocks_is_the_noise_of_each_position() -> None:
    block = noise.uniforms(11, noise.TEXT, 2, 3, 17)
    assert block.tolist() == [noise.uniform(11, noise.TEXT, at, 17).tolist() for at in (2, 3, 4)]
    chooser = Chooser(SAMPLE, 7)
    values = np.zeros(300, dtype=np.float32)
    forwards = [chooser.scores(at, values).tolist() for at in range(40)]
    backwards = [chooser.scores(at, values).tolist() for at in reversed(range(40))]
    assert forwards == backwards[::-1]


@given(st.integers(0, 2**64 - 1), st.integers(0, 255), st.sampled_from([0.05, 1.0, 5.0]))
def test_leaving_out_hopeless_tokens_changes_no_margin(seed: int, token: int, temperature: float) -> None:
    chance = np.random.Generator(np.random.Philox(seed % 99))
    values = (5 * chance.standard_normal((3, 256))).astype(np.float32)
    given_, tokens = TextInput("x", 8, "sample", temperature=temperature), np.full(3, token)
    chooser = Chooser(given_, seed)
    every = np.stack([chooser.scores(at, row) for at, row in enumerate(values)])
    found = margins(given_, seed, values, tokens)
    assert found.tolist() == (every.max(axis=1) - every[:, token]).tolist()


def test_at_the_border_of_the_top_k_either_token_may_be_chosen() -> None:
    """Two hosts disagree about who is third; neither choice is held against a worker, the fourth token's is."""
    given_ = TextInput("x", 8, "sample", temperature=0.05, top_k=3)
    unit = np.float32(1 / 4096)
    values = np.array([[5, 4, 1, 1 - unit, 1 - 3 * unit, -9]], dtype=np.float32)
    best = margins(given_, 3, values, np.array([0]))
    assert best.tolist() == [0]
    inside, outside = (margins(given_, 3, values, np.array([token]))[0] for token in (3, 4))
    noise_units = Chooser(TextInput("x", 8, "sample", temperature=0.05), 3).scores(0, np.zeros(6, np.float32))
    plain = np.rint(values[0] * 4096).astype(np.int64)
    free = int((plain + noise_units)[:2].max())
    assert inside == free - plain[3] - noise_units[3]
    assert outside == free - plain[4] - noise_units[4] + (plain[2] - BORDER - plain[4])


def test_only_the_top_k_may_be_chosen() -> None:
    scores = Chooser(TextInput("x", 8, "sample", temperature=5.0, top_k=2), 1).scores(0, np.array([1.0, 3.0, 2.0, 3.0]))
    assert (scores == FORBIDDEN).tolist() == [True, False, True, False]


@pytest.mark.parametrize("bad", [np.full((2, 4), np.nan), np.full((2, 4), np.inf), np.full((2, 4), 1e30)])
@pytest.mark.parametrize("method", ["greedy", "sample"])
def test_unfit_logits_are_our_own_fault(bad: NDArray[np.float64], method: str) -> None:
    given_ = TextInput("x", 8, method)  # type: ignore[arg-type]  # from the list
    with pytest.raises(LocalError):
        margins(given_, 7, bad, np.array([0, 1]))
    with pytest.raises(LocalError):
        Chooser(given_, 7).choose(0, bad[0])
