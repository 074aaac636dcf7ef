"""256 bytes per 32 tokens that only the true hidden states give: real states of bytes-gpt, and wide synthetic ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node.calibration_inputs import job_specs
from tests.workloads.specs import text_model
from verify.faults import Refused
from verify.fingerprints import text_sketch
from verify.fingerprints.base import FAR
from wire import seeded
from wire.errors import LocalError
from wire.job import JobSpec, TextInput
from wire.tensor import Tensor, from_numpy
from wire.text_sketch import project, rows_per_token, seed_of, sketch
from workloads.catalog import built_in
from workloads.executor import never

SEED, OTHER_SEED = bytes(range(32)), bytes(32)
TOLERANT = text_sketch.RESOLUTION
States = NDArray[np.float32]


@functools.cache
def jobs() -> list[JobSpec]:
    cid = built_in().find("bytes-gpt").cid
    return [spec for spec in job_specs("text.generate", "tolerant", cid, "f32", 60)[40:] if len(own(spec)[0]) > 8][:4]


@functools.cache
def worker(spec: JobSpec, variant: str = "default", cheat: str | None = None) -> tuple[list[int], States]:
    """What a worker has: the tokens it emits and their states."""
    given_, model = text_model(spec, variant, cheat)
    return model.generate(given_, spec.seed, lambda event: None, never)


def own(spec: JobSpec, tokens: list[int] | None = None) -> tuple[list[int], States]:
    """What a juror has: the states of these tokens by one pass."""
    tokens = tokens if tokens is not None else worker(spec)[0]
    given_, model = text_model(spec)
    return tokens, model.prefill(given_, tokens, never)[1]


def compare(claimed: Tensor, states: NDArray[np.floating], seed: bytes = SEED) -> dict[str, float]:
    return text_sketch.distance(text_sketch.admit(claimed, len(states)), *project(states, seed), len(states))


def wide(tokens: int = 64, width: int = 4096, seed: int = 5) -> States:
    """States as large models have them: a few channels of a hundred times the size of the others."""
    chance = np.random.Generator(np.random.Philox(seed))
    states = chance.standard_normal((tokens, width))
    states[:, :4] *= 100.0
    return states.astype(np.float32)


def claim(states: States, seed: bytes = SEED) -> Tensor:
    return from_numpy(sketch(states, seed))


def passes(forged: Tensor, states: States, seed: bytes = SEED) -> bool:
    found = compare(forged, states, seed)
    return all(found[measure] <= limit for measure, limit in TOLERANT.items())


@pytest.mark.parametrize(("tokens", "most"), [(32, 256), (33, 264), (256, 2048), (1, 256), (20, 160), (5, 240)])
def test_it_takes_at_most_256_bytes_per_32_tokens(tokens: int, most: int) -> None:
    raw = sketch(wide(tokens, 64), SEED).tobytes()
    assert len(raw) <= most
    assert len(raw) <= 258 * -(-tokens // 32)


@pytest.mark.parametrize("variant", ["default", "ort-noopt", "numpy"])
def test_honest_variants_pass(variant: str) -> None:
    """The worker decodes with a cache, in its variant; the juror prefills in one pass, in the default one."""
    for spec in jobs():
        tokens, states = worker(spec, variant)
        assert compare(claim(states), own(spec, tokens)[1]) == {"token": 0.0, "block": 0.0}


@pytest.mark.parametrize(("cheat", "gap"), [("bf16-weights", 4.0), ("int8-weights", 15.0)])
def test_changed_weights_are_refused(cheat: str, gap: float) -> None:
    for spec in jobs():
        tokens, states = worker(spec, cheat=cheat)
        found = compare(claim(states), own(spec, tokens)[1])
        assert found["block"] > gap * TOLERANT["block"]


@pytest.mark.parametrize("cheat", ["bf16-weights", "int8-weights"])
def test_it_tracks_the_relative_l2_of_whole_states(cheat: str) -> None:
    for spec in jobs():
        tokens, states = worker(spec, cheat=cheat)
        mine = own(spec, tokens)[1]
        true = np.linalg.norm(states - mine, axis=1) / np.linalg.norm(mine, axis=1)
        found = compare(claim(states), mine)["block"]
        assert 1 / 1.4 <= found / float(np.sqrt((true**2).mean())) <= 1.4


def constant(states: States) -> Tensor:
    """One value for everything, as the constant polynomial that TOPLOC accepts."""
    rows = sketch(states, SEED)
    return from_numpy(np.broadcast_to(rows[:1], rows.shape).copy())


def sign_flipped(states: States) -> Tensor:
    return claim(-states)


def permuted(states: States) -> Tensor:
    return claim(np.roll(states, 1, axis=0))


def other_seed(states: States) -> Tensor:
    """A sketch prepared before the seed was known."""
    return claim(states, OTHER_SEED)


def distribution(states: States) -> Tensor:
    """Right mean and spread of every channel, drawn anew."""
    chance = np.random.Generator(np.random.Philox(9))
    drawn = states.mean(axis=0) + states.std(axis=0) * chance.standard_normal(states.shape)
    return claim(drawn.astype(np.float32))


def magnitudes(states: States) -> Tensor:
    """The right sizes of all values with signs drawn by chance."""
    chance = np.random.Generator(np.random.Philox(9))
    return claim(states * chance.choice([-1.0, 1.0], states.shape).astype(np.float32))


def huge_exponent(states: States) -> Tensor:
    """Under a huge unit every value rounds to nearly nothing, on both sides."""
    rows = sketch(states, SEED).view(np.int8).copy()
    rows[:, :7], rows[:, 7] = 0, 120
    return from_numpy(rows.view(np.uint8))


def nothing(states: States) -> Tensor:
    return claim(np.zeros_like(states))


FORGERIES: list[Callable[[States], Tensor]] = [
    constant, sign_flipped, permuted, other_seed, distribution, magnitudes, huge_exponent, nothing,
]  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forgery_of_real_states_is_refused(forge: Callable[[States], Tensor]) -> None:
    for spec in jobs():
        states = own(spec)[1]
        found = compare(forge(states), states)
        assert found["block"] > 100 * TOLERANT["block"]


@pytest.mark.parametrize("forge", FORGERIES)
@pytest.mark.parametrize("width", [1024, 4096])
def test_a_forgery_of_wide_states_is_refused(forge: Callable[[States], Tensor], width: int) -> None:
    states = wide(width=width)
    assert compare(forge(states), states)["block"] > 100 * TOLERANT["block"]


def test_states_of_another_prompt_are_refused() -> None:
    first, second = jobs()[:2]
    states, replayed = own(first)[1], worker(second)[1]
    count = min(len(states), len(replayed))
    assert not passes(claim(replayed[:count]), states[:count])


def test_one_forged_token_is_refused() -> None:
    for states in (own(jobs()[0])[1], wide()):
        forged = states.copy()
        forged[3] = -forged[3]
        assert compare(claim(forged), states)["token"] > 100 * TOLERANT["token"]


def test_float64_states_give_the_same_sketch_as_their_float32() -> None:
    states = wide(40, 96)
    assert sketch(states, SEED).tobytes() == sketch(states.astype(np.float64), SEED).tobytes()


def test_an_honest_exponent_next_to_a_power_of_two_is_not_refused() -> None:
    """A last bit decides between two exponents; both sides may take either."""
    states = wide(32, 128)
    lower, upper = states * np.float32(1 - 2.0**-20), states * np.float32(1 + 2.0**-20)
    for factor in np.float32(2.0) ** np.linspace(0, 1, 65, dtype=np.float32):
        assert passes(claim(lower * factor), upper * factor)


def test_silence_equals_silence() -> None:
    zeros = np.zeros((4, 96), dtype=np.float32)
    assert compare(claim(zeros), zeros) == {"token": 0.0, "block": 0.0}
    assert compare(claim(zeros + 1), zeros)["block"] == FAR


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Tensor("f4", [32, 2], bytes(256)), "dtype"),
        (Tensor("u1", [256], bytes(256)), "shape"),
        (Tensor("u1", [31, 8], bytes(248)), "shape"),
        (Tensor("u1", [0], b""), "empty"),
        (Tensor("u1", [32, 8], bytes(255)), "shape"),
        (Tensor("u1", [32, 8], b"\x80" * 256), "range"),
    ],
)
def test_a_malformed_sketch_is_refused(bad: Tensor, code: str) -> None:
    with pytest.raises(Refused) as caught:
        compare(bad, wide(32, 96))
    assert caught.value.code == code


@given(st.binary(min_size=256, max_size=256))
def test_any_bytes_are_compared_or_refused(raw: bytes) -> None:
    try:
        found = compare(Tensor("u1", [32, 8], raw), wide(32, 96))
    except Refused:
        return
    assert max(found.values()) > TOLERANT["block"]


@pytest.mark.parametrize("states", [np.full((2, 8), np.nan), np.zeros((0, 8)), np.zeros(8), np.full((2, 8), 1e35)])
def test_our_own_states_must_be_fit(states: NDArray[np.float64]) -> None:
    with pytest.raises(LocalError):
        sketch(states, SEED)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 40), st.integers(-90, 80))
def test_projections_are_exact_sums_whatever_the_order(which: int, tokens: int, width: int, power: int) -> None:
    """Against whole numbers of any size: not one bit depends on how a host adds."""
    chance = np.random.Generator(np.random.Philox(which))
    wide_range = 10.0 ** chance.integers(-3, 4, width)
    states = (chance.standard_normal((tokens, width)) * wide_range * 2.0**power).astype(np.float32)
    values, _ = project(states, SEED)
    rows = rows_per_token(tokens)
    stride = -(-7 * width // 64) * 64
    signs = 2 * seeded.bits(SEED, "text.signs", 0, tokens * rows * stride).reshape(-1, stride).astype(int) - 1
    for at in range(0, tokens * rows, rows):
        state = [Fraction(float(value)) for value in states[at // rows]]
        top = math.frexp(max(abs(float(value)) for value in state))[1]
        unit = Fraction(2) ** (top - 52 + (width - 1).bit_length())
        whole = [round(value / unit) for value in state]
        for dimension in range(7):
            mine = signs[at, dimension * width : (dimension + 1) * width].tolist()
            total = sum(sign * value for sign, value in zip(mine, whole, strict=True))
            assert Fraction(float(values[at, dimension])) == total * unit


def test_every_input_and_seed_has_signs_of_its_own() -> None:
    base = TextInput("Hi", 32)
    seeds = {seed_of(base, 1), seed_of(base, 2), seed_of(TextInput("Hj", 32), 1), seed_of(TextInput("Hi", 33), 1)}
    assert len(seeds) == 4
