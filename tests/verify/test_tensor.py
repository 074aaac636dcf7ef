"""Tensors, products and hyperplanes: honest arithmetic passes, the smallest cheats that can be told do not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints import embed_planes, tensor_freivalds, tensor_l2
from verify.fingerprints.base import FAR
from verify.fingerprints.registry import FINGERPRINTS, PARTS
from verify.fingerprints.tensor_freivalds import PRIME, exact, missed, missed_exact
from wire.job import EmbedInput
from wire.tensor import Tensor, from_numpy
from workloads.catalog import built_in
from workloads.cheats import quantise, truncate
from workloads.local import LocalExecutor, Tensors
from workloads.ngrams import features
from workloads.variants import find
from workloads.weights import load

BEACON = bytes(range(32))
F4 = np.float32
Matrix = NDArray[np.float32]


def chance(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_every_part_has_an_id_that_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/spec/fingerprints.md").read_text()
    assert [name for name in PARTS if f"| `{name}` |" not in page] == []
    assert set(PARTS).isdisjoint(each.id for each in FINGERPRINTS.values())


# Relative L2


def test_rows_are_measured_against_their_own_length() -> None:
    own = np.array([[3.0, 4.0], [300.0, 400.0]], dtype=F4)
    assert tensor_l2.distance(from_numpy(own + F4([[0.0, 0.5], [0.0, 5.0]])), own) == {"relative": 0.1}


def test_the_floor_is_the_smallest_that_admits_the_honest_runs() -> None:
    """A product that cancels leaves rounding noise in a row without length, in an order of summation of its own."""
    left, right = chance(1).standard_normal((16, 512)).astype(F4), chance(2).standard_normal((512, 8)).astype(F4)
    left[3, 256:], right[256:] = -left[3, :256], right[:256]  # row 3 of the product is zero
    order = chance(3).permutation(512)
    left, right = left[:, order], right[order]
    pairs = [(left @ right, (left[:, ::-1] @ right[::-1])), (left @ right, (left.astype(float) @ right).astype(F4))]
    worst = max(tensor_l2.distance(from_numpy(np.ascontiguousarray(a)), b)["relative"] for a, b in pairs)
    assert worst > tensor_l2.RESOLUTION["relative"]
    floor = tensor_l2.calibrate_floor([(a.astype(float), b.astype(float)) for a, b in pairs])
    found = [tensor_l2.distance(from_numpy(np.ascontiguousarray(a)), b, floor=floor)["relative"] for a, b in pairs]
    assert max(found) == pytest.approx(tensor_l2.RESOLUTION["relative"], rel=1e-6)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (from_numpy(np.zeros((2, 3))), "dtype"),
        (from_numpy(np.zeros((3, 2), dtype=F4)), "shape"),
        (from_numpy(np.zeros(6, dtype=F4)), "shape"),
        (from_numpy(np.zeros((0, 3), dtype=F4)), "empty"),
        (from_numpy(np.full((2, 3), np.inf, dtype=F4)), "nonfinite"),
        (Tensor("f4", [2, 3], b""), "shape"),
    ],
)
def test_what_is_no_such_tensor_is_refused(bad: Tensor, code: str) -> None:
    with pytest.raises(Refused) as caught:
        tensor_l2.distance(bad, np.ones((2, 3), dtype=F4))
    assert caught.value.code == code


def test_something_where_there_is_nothing_is_far() -> None:
    assert tensor_l2.distance(from_numpy(np.ones((2, 3), dtype=F4)), np.zeros((2, 3), dtype=F4)) == {"relative": FAR}
    with pytest.raises(ExpectedUnusable):
        tensor_l2.distance(from_numpy(np.ones((2, 3), dtype=F4)), np.full((2, 3), np.nan, dtype=F4))


def test_a_sketch_stands_for_a_tensor_too_long_to_send() -> None:
    values = chance(3).standard_normal((64, 5, 7)).astype(F4)
    assert tensor_l2.sketch(values, BEACON).shape == (64, 8)
    assert len(tensor_l2.drawn_rows(BEACON, 64, 5)) == 5


# Freivalds, in floats


@functools.cache
def real() -> tuple[Matrix, Matrix]:
    """A layer of the embedder on real sentences: counts of n-grams, and the table."""
    model = built_in().find("ngram-embed")
    weights = load(model.read("weights.safetensors"))
    texts = [f"{word} checks the work of peer {index}" for index in range(16) for word in ("One", "Another", "No")]
    return features(texts, model.manifest.config["buckets"]).astype(F4), np.array(weights["table.weight"])


def by_blocks(a: Matrix, b: Matrix) -> Matrix:
    total = np.zeros((a.shape[0], b.shape[1]), dtype=F4)
    for start in range(0, a.shape[1], 64):
        total += a[:, start : start + 64] @ b[start : start + 64]
    return total


def backwards(a: Matrix, b: Matrix) -> Matrix:
    return np.ascontiguousarray(a[:, ::-1]) @ np.ascontiguousarray(b[::-1])


def one_by_one(a: Matrix, b: Matrix) -> Matrix:
    return np.asarray(np.einsum("ij,jk->ik", a, b))


def in_double(a: Matrix, b: Matrix) -> Matrix:
    return (a.astype(float) @ b.astype(float)).astype(F4)


@pytest.mark.parametrize("multiply", [np.matmul, by_blocks, backwards, one_by_one, in_double])
@pytest.mark.parametrize("inner", [0, 256, 1024])
def test_every_order_of_summation_passes(multiply: Callable[[Matrix, Matrix], Matrix], inner: int) -> None:
    if inner:
        a, b = chance(4).standard_normal((96, inner)).astype(F4), chance(5).standard_normal((inner, 64)).astype(F4)
    else:
        a, b = real()
    found = tensor_freivalds.distance(a, b, multiply(a, b), BEACON)
    assert all(found[measure] < limit / 3 for measure, limit in tensor_freivalds.RESOLUTION.items())


@pytest.mark.parametrize(("cheat", "gap"), [(quantise, 500), (truncate, 100)])
def test_rounded_weights_are_refused(cheat: Callable[[Tensors], Tensors], gap: float) -> None:
    a, b = real()
    found = tensor_freivalds.distance(a, b, a @ cheat({"b": b})["b"], BEACON)
    assert found["rms"] > gap * tensor_freivalds.RESOLUTION["rms"]


def test_half_precision_inputs_are_refused() -> None:
    a, b = chance(4).standard_normal((256, 256)).astype(F4), chance(5).standard_normal((256, 256)).astype(F4)
    found = tensor_freivalds.distance(a, b, a.astype(np.float16).astype(F4) @ b, BEACON)
    assert found["rms"] > 20 * tensor_freivalds.RESOLUTION["rms"]


def test_one_wrong_value_in_sixty_thousand_is_refused() -> None:
    a, b = chance(4).standard_normal((256, 256)).astype(F4), chance(5).standard_normal((256, 256)).astype(F4)
    c = a @ b
    c[17, 101] += F4(0.01) * np.abs(c).mean()
    assert tensor_freivalds.distance(a, b, c, BEACON, rounds=4)["row"] > tensor_freivalds.RESOLUTION["row"]


def test_an_error_prepared_for_another_beacon_is_refused() -> None:
    """Whoever knew the vector could hide any error orthogonal to it: hence the draw after the commitment."""
    from wire.seeded import normal

    a, b = chance(4).standard_normal((64, 64)).astype(F4), chance(5).standard_normal((64, 64)).astype(F4)
    known = normal(BEACON, "freivalds.float", 64)
    error = chance(6).standard_normal((64, 64))
    error -= np.outer(error @ known, known) / (known @ known)
    c = (a.astype(float) @ b + 0.05 * error).astype(F4)
    assert tensor_freivalds.distance(a, b, c, BEACON, rounds=1)["rms"] < tensor_freivalds.RESOLUTION["rms"]
    assert tensor_freivalds.distance(a, b, c, bytes(32), rounds=1)["rms"] > 100 * tensor_freivalds.RESOLUTION["rms"]


def test_the_bound_on_misses_holds() -> None:
    """A row's residual is normal: the share of draws within a tolerance is under the stated bound, and near."""
    from wire.seeded import normal

    error = chance(7).standard_normal(32)
    error /= np.linalg.norm(error)
    inside = [abs(normal(index.to_bytes(32, "big"), "x", 32) @ error) < 0.25 for index in range(4000)]
    assert 0.85 * missed(1.0, 0.25, 1) < np.mean(inside) < 1.1 * missed(1.0, 0.25, 1)
    assert missed(1.0, 0.25, 3) == pytest.approx(missed(1.0, 0.25, 1) ** 3)
    assert missed(1.0, 100.0, 3) == 1.0


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_extreme_sizes_neither_crash_nor_pass(size: float) -> None:
    a = chance(4).standard_normal((8, 8)).astype(F4)
    wrong = np.full((8, 8), size, dtype=F4)
    found = tensor_freivalds.distance(a * F4(size), a, wrong, BEACON)
    assert all(0 <= value <= FAR for value in found.values())
    assert found["rms"] > tensor_freivalds.RESOLUTION["rms"]


def test_matrices_that_do_not_fit_are_refused() -> None:
    a = np.ones((4, 5), dtype=F4)
    cases: list[tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic], str]] = [
        (a, a, a, "shape"),
        (a, a.T, np.ones((4, 5), dtype=F4), "shape"),
        (a, a.T, np.ones(16, dtype=F4), "shape"),
        (a[:0], a.T, np.ones((0, 4), dtype=F4), "empty"),
        (a, a.T, np.ones((4, 4)), "dtype"),
        (a, a.T, np.full((4, 4), np.nan, dtype=F4), "nonfinite"),
    ]
    for left, right, product, code in cases:
        with pytest.raises(Refused) as caught:
            tensor_freivalds.distance(left, right, product, BEACON)  # type: ignore[arg-type]  # hostile on purpose
        assert caught.value.code == code


# Freivalds, in whole numbers


def whole(rows: int = 40, inner: int = 300, columns: int = 50) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    a = chance(8).integers(-128, 128, (rows, inner), dtype=np.int8)
    return a, chance(9).integers(-128, 128, (inner, columns), dtype=np.int8)


def product(a: NDArray[np.int8], b: NDArray[np.int8]) -> NDArray[np.int32]:
    return np.asarray(a.astype(np.int32) @ b.astype(np.int32))


@pytest.mark.parametrize("shape", [(40, 300, 50), (1, 1, 1), (130, 7, 3)])
def test_a_true_integer_product_passes(shape: tuple[int, int, int]) -> None:
    a, b = whole(*shape)
    assert exact(a, b, product(a, b), BEACON) == {"mismatch": 0.0}


def test_extreme_integers_pass() -> None:
    a, b = np.full((2, 65535), -128, dtype=np.int8), np.full((65535, 2), -128, dtype=np.int8)
    assert exact(a, b, product(a, b), BEACON) == {"mismatch": 0.0}


@given(
    st.integers(0, 39),
    st.integers(0, 49),
    st.integers(-(2**20), 2**20).filter(bool),
    st.binary(min_size=32, max_size=32),
)
def test_any_single_wrong_integer_is_found(row: int, column: int, off: int, beacon: bytes) -> None:
    a, b = whole()
    c = product(a, b)
    c[row, column] += off
    assert exact(a, b, c, beacon, rounds=1) == {"mismatch": 1 / 40}


def test_being_off_by_the_prime_is_found() -> None:
    """Equal modulo the prime, yet no value that such a product can have."""
    a, b = whole()
    c = product(a, b).astype(np.int64)
    c[3, 4] += PRIME if c[3, 4] < 0 else -PRIME
    assert exact(a, b, c.astype(np.int32), BEACON) == {"mismatch": 1 / 40}


def test_the_bound_in_whole_numbers() -> None:
    assert missed_exact(1) < 4.7e-10
    assert missed_exact(2) < 2.2e-19


def test_integers_of_other_types_or_sides_are_refused() -> None:
    a, b = whole()
    for left, right, claim in ((a.astype(np.int16), b, product(a, b)), (a, b, product(a, b).astype(np.int64))):
        with pytest.raises(Refused):
            exact(left, right, claim, BEACON)  # type: ignore[arg-type]  # hostile on purpose
    long = np.zeros((1, 1 << 16), dtype=np.int8)
    with pytest.raises(Refused):
        exact(long, long.T, np.zeros((1, 1), dtype=np.int32), BEACON)


# Hyperplanes


@functools.cache
def vectors(variant: str) -> NDArray[np.float32]:
    executor = LocalExecutor(find(variant))
    info = built_in().find("ngram-embed").info
    from node.calibration_inputs import job_specs

    rows = []
    for spec in job_specs("embed.text", "tolerant", info.cid, "f32", 30):
        assert isinstance(spec.input(), EmbedInput)
        output, _ = executor.run(spec, emit=lambda _: None, cancelled=lambda: False)
        rows.append(output.tensors["vectors"].numpy().astype(F4))
    return np.concatenate(rows)


def test_256_bits_are_the_same_in_every_variant() -> None:
    own = vectors("default")
    for variant in ("ort-noopt", "numpy"):
        assert embed_planes.distance(from_numpy(embed_planes.sketch(vectors(variant))), own) == {"bits": 0.0}


def test_bits_tell_the_angle() -> None:
    own = vectors("default")
    packed = embed_planes.sketch(own)
    pairs = [(i, j) for i in range(0, 90, 7) for j in range(i + 1, 90, 5)]
    guessed = [embed_planes.angle(float(embed_planes.hamming(packed[i], packed[j]))) for i, j in pairs]
    true = [float(np.arccos(np.clip(own[i] @ own[j], -1, 1))) for i, j in pairs]
    assert abs(np.mean(guessed) - np.mean(true)) < 0.03
    assert max(abs(g - t) for g, t in zip(guessed, true, strict=True)) < 4 * np.pi * 0.5 / 16


PLANES = [[208, 14, -381], [-172, -140, 113], [343, -225, 165]]


def test_planes_are_pinned() -> None:
    assert embed_planes.planes(3)[:, :3].astype(int).tolist() == PLANES


@pytest.mark.parametrize(
    "bad",
    [
        Tensor("u1", [2, 31], bytes(62)),
        Tensor("u1", [64], bytes(64)),
        Tensor("u1", [2, 32], b""),
        Tensor("i4", [2, 8], bytes(64)),
    ],
)
def test_other_than_256_bits_is_refused(bad: Tensor) -> None:
    with pytest.raises(Refused):
        embed_planes.distance(bad, np.ones((2, 3)))


def test_planes_of_unfit_vectors_are_our_own_fault() -> None:
    for vectors in (np.ones(3), np.ones((2, 0)), np.full((2, 3), np.nan), np.ones((1, 1 << 15))):
        with pytest.raises(ExpectedUnusable):
            embed_planes.sketch(vectors)
