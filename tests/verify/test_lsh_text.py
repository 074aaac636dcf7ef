"""MinHash, SimHash, hyperplanes and the banded index: exact where defined, near the formula where random."""

from __future__ import annotations

from collections.abc import Callable
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.verify import lsh_oracle
from verify.faults import Refused
from verify.lsh import (
    Backend,
    BandedIndex,
    Hyperplanes,
    MinHash,
    Shingles,
    byte_shingles,
    distances,
    jaccard,
    recall,
    simhash,
    unpack,
    word_shingles,
)
from wire.errors import Busy, LocalError

BACKENDS: list[Backend] = ["numba", "numpy"]
each = pytest.mark.parametrize("backend", BACKENDS)
texts = st.lists(st.one_of(st.binary(max_size=40), st.text(" ab\n", max_size=30).map(str.encode)), max_size=6)


def random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def per_document(shingles: Shingles) -> list[list[int]]:
    shingles.check()
    return [part.tolist() for part in np.split(shingles.values, shingles.offsets[1:-1])][: len(shingles.offsets) - 1]


@each
@given(texts, st.integers(1, 7))
@settings(max_examples=60)
def test_shingles_are_as_defined(backend: Backend, some: list[bytes], width: int) -> None:
    assert per_document(byte_shingles(some, width, backend=backend)) == [
        lsh_oracle.byte_shingles(text, width) for text in some
    ]
    assert per_document(word_shingles(some, backend=backend)) == [lsh_oracle.word_shingles(text) for text in some]


@each
@given(texts, st.integers(1, 17), st.integers(0, 1 << 40))
@settings(max_examples=40)
def test_signatures_and_codes_are_as_defined(backend: Backend, some: list[bytes], permutations: int, seed: int) -> None:
    raw = np.random.Philox(key=seed).random_raw(permutations).tolist()
    factors, terms = [word >> 32 | 1 for word in raw], [word & lsh_oracle.M32 for word in raw]
    shingles = byte_shingles(some, 3, backend=backend)
    values = [lsh_oracle.byte_shingles(text, 3) for text in some]
    assert MinHash(permutations, seed).signatures(shingles, backend=backend).tolist() == [
        lsh_oracle.minhash(one, factors, terms) for one in values
    ]
    assert simhash(shingles, backend=backend)[:, 0].tolist() == [lsh_oracle.simhash(one) for one in values]


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=30))
def test_neither_order_nor_repetition_changes_a_signature(values: list[int]) -> None:
    def signature(some: list[int]) -> list[int]:
        shingles = Shingles(np.array(some, np.uint64), np.array([0, len(some)]))
        return MinHash(32).signatures(shingles)[0].tolist()

    assert signature(sorted(values) * 2) == signature(values)


@pytest.mark.parametrize("common", [0, 20, 50, 90, 100])
def test_minhash_estimates_jaccard_without_bias(common: int) -> None:
    """200 pairs of sets of 100, 128 permutations: mean within 4 standard errors, spread as the binomial's."""
    sets = random(common).integers(0, 1 << 64, (400, 100), np.uint64)
    sets[1::2, :common] = sets[::2, :common]
    shingles = Shingles(sets.reshape(-1), np.arange(401) * 100)
    signatures = MinHash(seed=7).signatures(shingles)
    estimates = np.array([jaccard(*pair) for pair in signatures.reshape(200, 2, 128)])
    true = common / (200 - common)
    spread = sqrt(true * (1 - true) / 128)
    assert abs(estimates.mean() - true) <= 4 * spread / sqrt(200)
    assert spread * 0.8 <= estimates.std() <= spread * 1.25


def test_simhash_brings_similar_texts_near() -> None:
    words = [b"w%d" % n for n in range(300)]
    edited = [*words[:290], *(b"other%d" % n for n in range(10))]
    strange = [b"s%d" % n for n in range(300)]
    codes = simhash(word_shingles([b" ".join(text) for text in (words, edited, strange)]))
    near, far = distances(codes[[0, 0]], codes[[1, 2]]).tolist()
    assert near <= 12 < 20 <= far


def test_a_tie_is_0() -> None:
    """One shingle and its complement: no bit has a majority."""
    one = unmix(0x0123456789ABCDEF)
    other = unmix(0x0123456789ABCDEF ^ lsh_oracle.M64)
    assert lsh_oracle.mix(one) == 0x0123456789ABCDEF
    both = Shingles(np.array([one, other], np.uint64), np.array([0, 2, 2]))
    for backend in BACKENDS:
        assert simhash(both, backend=backend).tolist() == [[0], [0]]


def unmix(z: int) -> int:
    """Undoes `lsh_oracle.mix`."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
        whole = z
        for _ in range(2):
            whole = z ^ whole >> shift
        z = whole * pow(factor, -1, 1 << 64) & lsh_oracle.M64
    return z


@pytest.mark.parametrize("degrees", [0, 5, 30, 60, 90, 150, 180])
def test_hyperplanes_part_vectors_by_their_angle(degrees: int) -> None:
    """Mean distance of 400 pairs in 96 dimensions against 256 t / pi, within 5 standard errors."""
    one, other = random(degrees).standard_normal((2, 400, 96))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other -= (one * other).sum(axis=1, keepdims=True) * one
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    turned = np.cos(np.radians(degrees)) * one + np.sin(np.radians(degrees)) * other
    planes = Hyperplanes(96, seed=3)
    found = distances(planes.codes(one.astype(np.float32)), planes.codes(turned.astype(np.float32)))
    share = degrees / 180
    # All pairs share the planes, so their errors are not independent: at least those of 96 dimensions remain.
    allowed = 5 * 256 * sqrt(share * (1 - share) / 256) * sqrt(1 / 400 + 1 / 96)
    assert abs(found.mean() - 256 * share) <= allowed


def test_hyperplane_ties_and_scale() -> None:
    planes = Hyperplanes(5)
    one = np.array([[1, -2, 0.5, 3, 0]], np.float32)
    assert planes.codes(np.zeros((2, 5), np.float32)).tolist() == [[0] * 4] * 2
    for scale in (2.0**-140, 2.0**-40, 2.0**100):
        assert planes.codes((one * scale).astype(np.float32)).tolist() == planes.codes(one).tolist()
    assert (unpack(planes.codes(-one)) != unpack(planes.codes(one))).all()


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (np.full((1, 4), np.nan, np.float32), "nonfinite"),
        (np.full((1, 4), -np.inf, np.float32), "nonfinite"),
        (np.zeros((1, 3), np.float32), "shape"),
        (np.zeros(4, np.float32), "shape"),
        (np.zeros((1, 4)), "dtype"),
    ],
)
def test_other_vectors_are_refused(bad: NDArray[np.float32], code: str) -> None:
    with pytest.raises(Refused) as refusal:
        Hyperplanes(4).codes(bad)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    "make",
    [
        lambda: byte_shingles([b"x"], 0),
        lambda: byte_shingles([b"x"], 8),
        lambda: MinHash(0),
        lambda: MinHash(1025),
        lambda: Hyperplanes(0),
        lambda: Hyperplanes(1 << 14),
        lambda: simhash(Shingles(np.zeros(2, np.uint64), np.array([0, 3]))),
        lambda: simhash(Shingles(np.zeros(2, np.uint64), np.array([0, 2, 1, 2]))),
        lambda: MinHash().signatures(Shingles(np.zeros(2), np.array([0, 2]))),
        lambda: jaccard(np.zeros(3, np.uint32), np.zeros(4, np.uint32)),
        lambda: BandedIndex(64, 65),
        lambda: BandedIndex(63, 3),
        lambda: BandedIndex(64, 3, lane_bits=32),
        lambda: BandedIndex(64, 4, capacity=0),
        lambda: recall(64, 5, 1),
        lambda: recall(64, 4, 65),
    ],
)
def test_parameters_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(LocalError):
        make()


# the banded index


def code_of(value: int) -> bytes:
    return value.to_bytes(32, "little")


@given(st.integers(1, 20), st.integers(0, 24), st.data())
@settings(max_examples=100)
def test_everything_nearer_than_there_are_bands_is_found(bands: int, flips: int, data: st.DataObject) -> None:
    """Fewer differing bits than bands leave a band whole. What is farther than the radius is never returned."""
    places = data.draw(st.lists(st.integers(0, 255), min_size=flips, max_size=flips, unique=True))
    base = data.draw(st.integers(0, (1 << 256) - 1))
    index = BandedIndex(256, bands)
    index.add(b"it", code_of(base ^ sum(1 << place for place in places)))
    found = index.query(code_of(base), 24)
    if flips < bands:
        assert found.near == ((b"it", flips),)
    assert found.near in ((), ((b"it", flips),))
    assert index.query(code_of(base), flips - 1).near == ()


@pytest.mark.parametrize(("bands", "distance"), [(8, 8), (8, 20), (16, 24), (16, 40), (32, 60)])
def test_recall_is_what_the_formula_says(bands: int, distance: int) -> None:
    """2,000 codes at that distance; found within 4.5 standard deviations of the binomial."""
    n, draws = 2000, random(bands * distance)
    index = BandedIndex(256, bands)
    for number in range(n):
        places = draws.choice(256, distance, replace=False).tolist()
        index.add(b"%d" % number, code_of(sum(1 << place for place in places)))
    found = len(index.query(code_of(0), 256).near)
    expected = recall(256, bands, distance)
    assert 0 < expected < 1
    assert abs(found / n - expected) <= 4.5 * sqrt(expected * (1 - expected) / n)


def test_recall_by_enumeration() -> None:
    """All ways to place 3 differing lanes among 6 in 3 bands of 2."""
    whole = sum(
        any(not {2 * band, 2 * band + 1} & {a, b, c} for band in range(3))
        for a in range(6) for b in range(a) for c in range(b)
    )  # fmt: skip
    assert recall(6, 3, 3) == whole / comb(6, 3)
    assert [recall(6, 3, d) for d in (0, 1, 2)] == [1.0, 1.0, 1.0]
    assert recall(6, 3, 5) == 0.0


def test_an_index_of_signatures_counts_lanes() -> None:
    words = [b"w%d" % n for n in range(200)]
    texts = [b" ".join(words), b" ".join([*words[:195], b"a", b"b", b"c", b"d", b"e"]), b"something else"]
    signatures = MinHash().signatures(word_shingles(texts))
    index = BandedIndex(128 * 32, 32, lane_bits=32)
    for key, signature in zip((b"one", b"two", b"three"), signatures, strict=True):
        index.add(key, signature.astype("<u4").tobytes())
    found = index.query(signatures[0].astype("<u4").tobytes(), 64)
    assert [key for key, _ in found.near] == [b"one", b"two"]
    assert found.near[1][1] == round(128 * (1 - jaccard(signatures[0], signatures[1])))


def test_the_index_is_bounded() -> None:
    index = BandedIndex(256, 4, capacity=5, candidates_max=3)
    for number in range(5):
        index.add(b"%d" % number, code_of(number))
    with pytest.raises(Busy, match="5 keys are held"):
        index.add(b"more", code_of(9))
    found = index.query(code_of(0), 256)
    assert (len(found.near), found.truncated) == (3, True)
    index.remove(b"0")
    index.remove(b"never there")
    index.add(b"more", code_of(9))
    assert len(index) == 5
    with pytest.raises(LocalError, match="31 bytes"):
        index.query(bytes(31), 0)


def test_a_key_moves_with_its_code() -> None:
    index = BandedIndex(256, 4, capacity=1)
    index.add(b"it", code_of(0))
    index.add(b"it", code_of((1 << 256) - 1))
    assert index.query(code_of(0), 256).near == ()
    assert index.query(code_of((1 << 256) - 1), 0).near == ((b"it", 0),)
    index.remove(b"it")
    assert (len(index), index.query(code_of(0), 256).near) == (0, ())
