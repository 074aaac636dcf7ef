"""Fingerprints measure what they say, and nothing that a worker sends can crash them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints.base import FAR, Fingerprint
from verify.fingerprints.registry import FINGERPRINTS, fingerprint_for
from verify.verdict import judge
from wire.codec import Wire
from wire.errors import LocalError
from wire.job import EmbedInput, Expected, ImageInput, Kind, Lane, Output, TextInput, Trace
from wire.tensor import Tensor, from_numpy
from wire.text_sketch import pack, project, sketch

F4 = np.float32
RNG = np.random.Generator(np.random.Philox(3))
HIDDEN = RNG.standard_normal((6, 8)).astype(F4)


def floats(tensor: Tensor) -> NDArray[np.float32]:
    """The tensor's values as float32."""
    return tensor.numpy().astype(F4)


class Claim:
    """A well-formed answer of one kind, with what an executor that agrees would compute."""

    def __init__(self, kind: Kind, lane: Lane, inputs: Wire, output: Output, trace: Trace, expected: Expected) -> None:
        self.fingerprint: Fingerprint = fingerprint_for(kind, lane)
        self.inputs, self.output, self.trace, self.expected = inputs, output, trace, expected

    def distances(self, output: Output | None = None, trace: Trace | None = None) -> dict[str, float]:
        output, trace = output or self.output, trace or self.trace
        self.fingerprint.admit(self.inputs, output, trace)
        return self.fingerprint.compare(output, trace, self.expected)


def t(array: NDArray[np.generic]) -> Tensor:
    return from_numpy(array)


def image(lane: Lane = "tolerant") -> Claim:
    latents = RNG.standard_normal((4, 5, 5)).astype(F4)
    pixels = RNG.integers(0, 256, (5, 5), dtype=np.uint8)
    own = {"noise": t(latents[0]), "steps": t(latents[1:]), "pixels": t(pixels)}
    exact = {"latents": t(latents), "pixels": t(pixels)}
    expected = Expected(own if lane == "tolerant" else exact)
    return Claim(
        "image.generate",
        lane,
        ImageInput(3, 3),
        Output({"pixels": t(pixels)}),
        Trace({"latents": t(latents)}),
        expected,
    )


def text(lane: Lane = "tolerant") -> Claim:
    tokens, (values, dither) = np.arange(6, dtype=np.int32), project(HIDDEN, bytes(32))
    sketch = t(pack(values, dither))
    own = {"margin": t(np.zeros(6, np.int64)), "projections": t(values), "dither": t(dither)}
    expected = Expected(own if lane == "tolerant" else {"tokens": t(tokens), "sketch": sketch})
    return Claim(
        "text.generate", lane, TextInput("hi", 6), Output({"tokens": t(tokens)}), Trace({"sketch": sketch}), expected
    )


def embed(lane: Lane = "tolerant") -> Claim:
    vectors = RNG.standard_normal((3, 8)).astype(F4)
    same = Output({"vectors": t(vectors)})
    return Claim("embed.text", lane, EmbedInput(["a", "b", "c"]), same, Trace({}), Expected(dict(same.tensors)))


CLAIMS: list[Callable[[Lane], Claim]] = [image, text, embed]
LANES: list[Lane] = ["tolerant", "exact"]


@pytest.mark.parametrize("make", CLAIMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("lane", LANES)
def test_equality_is_distance_zero(make: Callable[[Lane], Claim], lane: Lane) -> None:
    assert set(make(lane).distances().values()) == {0.0}


def test_every_kind_has_a_fingerprint_in_every_lane() -> None:
    kinds: list[Kind] = ["text.generate", "image.generate", "embed.text"]
    assert set(FINGERPRINTS) == {(kind, lane) for kind in kinds for lane in LANES}


def test_an_unknown_lane_is_our_callers_fault() -> None:
    with pytest.raises(LocalError):
        fingerprint_for("embed.text", "perceptual")  # type: ignore[arg-type]  # the point of the test


def test_ids_name_algorithm_parameters_and_version() -> None:
    assert all(each.id.count("/") == 2 and each.id.rsplit("/", 1)[1].isdigit() for each in FINGERPRINTS.values())


def with_tensor(claim: Claim, name: str, tensor: Tensor | None) -> tuple[Output, Trace]:
    """The claim with one tensor replaced, or withheld if None."""
    output, trace = dict(claim.output.tensors), dict(claim.trace.tensors)
    side = output if name in output else trace
    side.pop(name)
    if tensor is not None:
        side[name] = tensor
    return Output(output), Trace(trace)


def bad(claim: Claim, name: str) -> dict[str, Tensor | None]:
    """Every way in which one tensor can be unfit for comparison, by the code of the refusal."""
    good = {**claim.output.tensors, **claim.trace.tensors}[name]
    values = good.numpy()
    ways: dict[str, Tensor | None] = {
        "missing": None,
        "dtype": t(values.astype(np.float64)),
        "shape": t(values.reshape(1, *values.shape)),
        "shape of bytes": Tensor(good.dtype, [side + 1 for side in good.shape], good.data),
        "empty": t(values[:0]),
    }
    if good.dtype == "f4":
        for word in ("nan", "inf", "-inf"):
            poisoned = values.copy()
            poisoned.flat[-1] = float(word)
            ways[f"nonfinite {word}"] = t(poisoned)
    return ways


CASES = [
    (make, lane, name, code)
    for make in CLAIMS
    for lane in LANES
    for name in (*make("tolerant").output.tensors, *make("tolerant").trace.tensors)
    for code in bad(make("tolerant"), name)
]


@pytest.mark.parametrize(("make", "lane", "name", "code"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_what_cannot_be_compared_is_refused_by_name(
    make: Callable[[Lane], Claim], lane: Lane, name: str, code: str
) -> None:
    claim = make(lane)
    output, trace = with_tensor(claim, name, bad(claim, name)[code])
    with pytest.raises(Refused) as caught:
        claim.fingerprint.admit(claim.inputs, output, trace)
    assert caught.value.code == code.split()[0]


@pytest.mark.parametrize(("make", "lane", "name", "code"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_juror_that_skips_admission_still_rejects(
    make: Callable[[Lane], Claim], lane: Lane, name: str, code: str
) -> None:
    claim = make(lane)
    output, trace = with_tensor(claim, name, bad(claim, name)[code])
    thresholds = dict.fromkeys(claim.fingerprint.resolution, 1e-3)
    assert judge(claim.fingerprint, thresholds, output, trace, claim.expected).verdict == "reject"


@pytest.mark.parametrize("make", CLAIMS, ids=lambda f: f.__name__)
def test_extra_tensors_are_refused(make: Callable[[Lane], Claim]) -> None:
    claim = make("tolerant")
    extra = {**claim.trace.tensors, "padding": t(np.zeros(4, F4))}
    with pytest.raises(Refused) as caught:
        claim.distances(trace=Trace(extra))
    assert caught.value.code == "extra"


@pytest.mark.parametrize(
    ("claim", "inputs"),
    [
        (image(), ImageInput(3, 4)),
        (image(), ImageInput(3, 2)),
        (text(), TextInput("hi", 5)),
        (embed(), EmbedInput(["a"])),
    ],
    ids=["fewer steps than asked", "more steps than asked", "more tokens than asked", "more vectors than texts"],
)
def test_a_length_that_the_input_does_not_allow_is_refused(claim: Claim, inputs: Wire) -> None:
    with pytest.raises(Refused) as caught:
        claim.fingerprint.admit(inputs, claim.output, claim.trace)
    assert caught.value.code == "length"


@pytest.mark.parametrize("make", CLAIMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("lane", LANES)
def test_an_executor_that_returns_nonsense_is_our_own_fault(make: Callable[[Lane], Claim], lane: Lane) -> None:
    """The juror then says `inconclusive`: the worker is not rejected for it."""
    claim = make(lane)
    thresholds = dict.fromkeys(claim.fingerprint.resolution, 1e-3)
    for name in claim.expected.tensors:
        rest = {key: value for key, value in claim.expected.tensors.items() if key != name}
        for own in (Expected(rest), Expected({**rest, name: Tensor("f4", [9], b"")})):
            with pytest.raises(ExpectedUnusable):
                claim.fingerprint.compare(claim.output, claim.trace, own)
            assert judge(claim.fingerprint, thresholds, claim.output, claim.trace, own).verdict == "inconclusive"


def test_a_nan_of_our_own_is_our_own_fault() -> None:
    claim = embed()
    own = Expected({"vectors": t(np.full((3, 8), np.nan, F4))})
    with pytest.raises(ExpectedUnusable):
        claim.fingerprint.compare(claim.output, claim.trace, own)


def test_the_exact_lane_sees_one_bit_and_the_sign_of_zero() -> None:
    claim = embed("exact")
    values = claim.output.tensors["vectors"].numpy().copy()
    values.flat[0] = np.nextafter(values.flat[0], F4(9))
    assert claim.distances(Output({"vectors": t(values)})) == {"mismatch": 1.0}
    zeros, negative = np.zeros((3, 8), F4), np.full((3, 8), -0.0, F4)
    compared = claim.fingerprint.compare(Output({"vectors": t(zeros)}), Trace({}), Expected({"vectors": t(negative)}))
    assert compared == {"mismatch": 1.0}


def test_the_exact_lane_compares_the_trace_too() -> None:
    claim = text("exact")
    rows = claim.trace.tensors["sketch"].numpy().copy()
    rows.flat[3] ^= 1
    assert claim.distances(trace=Trace({"sketch": t(rows)})) == {"mismatch": 0.5}


def test_step_errors_are_relative_to_the_step() -> None:
    claim = image()
    latents = claim.trace.tensors["latents"].numpy().copy()
    step = latents[2] - latents[1]
    latents[2] += F4(0.01) * step
    assert claim.distances(trace=Trace({"latents": t(latents)}))["step"] == pytest.approx(0.01, rel=1e-4)


def test_a_wrong_start_is_seen_in_the_noise() -> None:
    claim = image()
    latents = claim.trace.tensors["latents"].numpy().copy()
    latents[0] *= F4(1.5)
    assert claim.distances(trace=Trace({"latents": t(latents)}))["noise"] == pytest.approx(0.5, rel=1e-5)


def test_a_repeated_state_is_a_whole_step_off() -> None:
    claim = image()
    latents = claim.trace.tensors["latents"].numpy().copy()
    latents[2] = latents[1]
    assert claim.distances(trace=Trace({"latents": t(latents)}))["step"] == pytest.approx(1.0)


def test_pixels_count_in_grey_levels() -> None:
    claim = image()
    pixels = claim.output.tensors["pixels"].numpy().astype(np.int64)
    changed = np.where(pixels > 128, pixels - 7, pixels + 7).astype(np.uint8)
    assert claim.distances(Output({"pixels": t(changed)}))["pixels"] == 7.0


def test_drawn_steps_are_compared_and_no_others() -> None:
    claim = image()
    latents = claim.trace.tensors["latents"].numpy().astype(F4)
    latents[2] = latents[1]
    forged = Trace({"latents": t(latents)})

    def found(*steps: int) -> float:
        own = Expected({**claim.expected.tensors, "steps": t(floats(claim.expected.tensors["steps"])[list(steps)])})
        return claim.fingerprint.distances(claim.output, forged, own, steps)["step"]

    assert found(0) == 0.0
    assert found(1) == found(0, 1) == pytest.approx(1.0)
    assert found(0, 1, 2) == claim.distances(trace=forged)["step"]


def test_steps_that_are_not_there_or_not_as_many_as_we_computed() -> None:
    claim = image()
    with pytest.raises(Refused, match="no such step"):
        claim.fingerprint.distances(claim.output, claim.trace, claim.expected, (3,))
    with pytest.raises(ExpectedUnusable):
        claim.fingerprint.distances(claim.output, claim.trace, claim.expected, (0, 1))


@pytest.mark.parametrize("claim", [embed(), image("exact")], ids=["embed", "exact"])
def test_what_is_compared_whole_knows_no_steps(claim: Claim) -> None:
    """Our own fault: no spec that passes its checks asks for it."""
    with pytest.raises(ExpectedUnusable, match="single steps"):
        claim.fingerprint.distances(claim.output, claim.trace, claim.expected, (0,))


def test_the_worst_token_decides() -> None:
    claim = text()
    margin = np.zeros(6, np.int64)
    margin[4] = 75
    own = Expected({**claim.expected.tensors, "margin": t(margin)})
    assert claim.fingerprint.compare(claim.output, claim.trace, own)["units"] == 75.0


def test_a_token_that_the_sampler_forbids_is_far_away() -> None:
    claim = text()
    own = Expected({**claim.expected.tensors, "margin": t(np.full(6, 1 << 60))})
    assert claim.fingerprint.compare(claim.output, claim.trace, own)["units"] == FAR


def test_a_constant_sketch_is_far_from_any_hidden_state() -> None:
    """The forgery that polynomial sketches let through: values of the right size without the model."""
    claim = text()
    rows = claim.trace.tensors["sketch"].numpy()
    assert claim.distances(trace=Trace({"sketch": t(np.broadcast_to(rows[:1], rows.shape))}))["block"] > 0.5


def test_flipped_signs_are_seen() -> None:
    claim = text()
    flipped = t(sketch(-HIDDEN, bytes(32)))
    assert claim.distances(trace=Trace({"sketch": flipped}))["block"] == pytest.approx(2.0, rel=0.25)


def test_a_scaled_vector_points_the_same_way_but_is_not_the_same() -> None:
    claim = embed()
    twice = floats(claim.output.tensors["vectors"]) * F4(2)
    distances = claim.distances(Output({"vectors": t(twice)}))
    assert distances["cosine"] < 1e-13
    assert distances["relative"] == pytest.approx(1.0)


def test_vectors_of_zero_are_far() -> None:
    claim = embed()
    distances = claim.distances(Output({"vectors": t(np.zeros((3, 8), F4))}))
    assert distances == pytest.approx({"cosine": 0.5, "relative": 1.0})


def test_vectors_of_another_width_are_refused_not_excused() -> None:
    with pytest.raises(Refused) as caught:
        embed().distances(Output({"vectors": t(np.ones((3, 4), F4))}))
    assert caught.value.code == "shape"


def test_a_threshold_that_is_missing_means_abstain() -> None:
    claim = embed()
    assert judge(claim.fingerprint, {"cosine": 1.0}, claim.output, claim.trace, claim.expected).verdict == "abstain"


SIZES = st.lists(st.integers(0, 4), max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any tensor that can arrive: also one whose bytes do not fill its shape."""
    dtype = draw(st.sampled_from(["u1", "i4", "i8", "f4", "f8"]))
    shape = draw(SIZES)
    size = math.prod(shape) * {"u1": 1, "i4": 4, "i8": 8, "f4": 4, "f8": 8}[dtype]
    data = draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=16))
    return Tensor(dtype, shape, data)  # type: ignore[arg-type]  # drawn from the list


NAMES = st.sampled_from(["tokens", "sketch", "pixels", "latents", "vectors"])


@given(
    make=st.sampled_from(CLAIMS),
    lane=st.sampled_from(LANES),
    output=st.dictionaries(NAMES, tensors(), max_size=2),
    trace=st.dictionaries(NAMES, tensors(), max_size=2),
)
def test_any_tensors_are_refused_or_measured_and_never_crash(
    make: Callable[[Lane], Claim], lane: Lane, output: dict[str, Tensor], trace: dict[str, Tensor]
) -> None:
    claim = make(lane)
    finding = judge(
        claim.fingerprint,
        dict.fromkeys(claim.fingerprint.resolution, 0.0),
        Output(output),
        Trace(trace),
        claim.expected,
    )
    assert finding.verdict in ("reject", "inconclusive")
    assert all(math.isfinite(value) and value >= 0 for value in finding.distances.values())


@given(scale=st.floats(0, 2.0**127, width=32), sign=st.sampled_from([-1.0, 1.0]))
def test_extreme_but_finite_values_give_finite_distances(scale: float, sign: float) -> None:
    claim = image()
    latents = np.full((4, 5, 5), sign * scale, F4)
    distances = claim.distances(trace=Trace({"latents": t(latents)}))
    assert all(0 <= value <= FAR for value in distances.values())
