"""Derived noise and exact-lane answers against committed vectors: equal on every machine, or the lane is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workloads.make_vectors import states
from tests.workloads.specs import all_kinds
from wire import codec, text_sketch
from wire.hashing import digest
from wire.job import TextInput
from workloads import noise
from workloads.executor import never
from workloads.sampler import FORBIDDEN, Chooser
from workloads.variants import make_executor

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "workloads-v1.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["uniform"], ids=lambda v: v["name"])
def test_uniform_noise_vector(vector: dict[str, Any]) -> None:
    found = noise.uniform(int(vector["seed"]), vector["purpose"], vector["position"], len(vector["values"]))
    assert [value.hex() for value in found.tolist()] == vector["values"]


@pytest.mark.parametrize("index", range(5))
def test_exact_lane_vector(index: int) -> None:
    vector = VECTORS["exact"][index]
    job = all_kinds(lane="exact", steps=6)[index]
    assert job.id.hex() == vector["job"]
    output, trace = make_executor().run(job, emit=lambda event: None, cancelled=never)
    assert digest("output", codec.encode(output)).hex() == vector["output"]
    assert digest("trace", codec.encode(trace)).hex() == vector["trace"]


@pytest.mark.parametrize("vector", VECTORS["scores"], ids=lambda v: v["name"])
def test_score_vector(vector: dict[str, Any]) -> None:
    given = TextInput("", 4, "sample", vector["temperature"], vector["top_k"])
    chooser = Chooser(given, int(vector["seed"]))
    logits = np.array(vector["logits"], dtype=np.float32)
    found = [chooser.scores(position, logits).tolist() for position in range(len(vector["scores"]))]
    assert [[None if score == FORBIDDEN else score for score in row] for row in found] == vector["scores"]


@pytest.mark.parametrize("vector", VECTORS["sketches"], ids=lambda v: v["name"])
def test_sketch_vector(vector: dict[str, Any]) -> None:
    seed = text_sketch.seed_of(TextInput(**vector["input"]), int(vector["seed"]))
    assert seed.hex() == vector["sketch_seed"]
    assert text_sketch.sketch(states(vector["tokens"], vector["width"]), seed).tobytes().hex() == vector["sketch"]


def test_uniform_noise_stays_strictly_inside_the_unit_interval() -> None:
    values = noise.uniform(7, noise.TEXT, 0, 100_000)
    assert values.min() > 0
    assert values.max() < 1
    assert abs(values.mean() - 0.5) < 0.005


def test_gumbel_noise_turns_an_arg_max_into_a_sample() -> None:
    """Over many positions the token frequencies are the softmax probabilities."""
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    uniform = noise.uniforms(3, noise.TEXT, 0, 4000, 3)
    picks = (logits + noise.gumbel(uniform)).argmax(axis=1)
    assert np.bincount(picks, minlength=3) / 4000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_normal_noise_is_standard() -> None:
    values = np.stack([noise.normal(seed, 16, 16) for seed in range(100)])
    assert values.dtype == np.float32
    assert float(values.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(values.std()) == pytest.approx(1.0, abs=0.02)


def test_positions_and_seeds_have_noise_of_their_own() -> None:
    drawn = {noise.uniform(seed, noise.TEXT, position, 4).tobytes() for seed in range(5) for position in range(5)}
    assert len(drawn | {noise.uniform(0, noise.IMAGE, 0, 4).tobytes()}) == 26
