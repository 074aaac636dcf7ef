"""Hamming kernels: the oracle in plain Python, NumPy and numba say the same; distances are a metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.verify import lsh_oracle
from verify.lsh import (
    Backend,
    Codes,
    distances,
    histogram,
    histogram_self,
    join,
    join_self,
    nearest,
    pack,
    unpack,
)
from verify.lsh.backend import kernels, numba_there
from wire.errors import LocalError

BACKENDS: list[Backend] = ["numba", "numpy"]
each = pytest.mark.parametrize("backend", BACKENDS)
wide = pytest.mark.parametrize("words", [1, 4])


def draw(seed: int, n: int, words: int) -> Codes:
    """Codes, some of them near one another: every other one is a neighbour of its predecessor."""
    random = np.random.Generator(np.random.Philox(key=seed))
    codes = random.integers(0, 1 << 64, (n, words), np.uint64)
    flips = np.uint64(1) << random.integers(0, 64, (n // 2, words), np.uint64)
    codes[1::2] = codes[: n // 2 * 2 : 2] ^ flips
    return codes


def all_distances(a: Codes, b: Codes) -> list[list[int]]:
    return [[lsh_oracle.distance(x, y) for y in b.tolist()] for x in a.tolist()]


sizes = st.integers(0, 13)
seeds = st.integers(0, 1 << 30)


def test_numba_is_installed_for_the_tests() -> None:
    """Otherwise the tests below would compare NumPy with itself."""
    assert numba_there()
    assert kernels("auto") is kernels("numba") is not kernels("numpy")


@each
@wide
@given(seed=seeds, n=sizes, m=sizes)
@settings(max_examples=40)
def test_a_histogram_counts_every_pair(backend: Backend, words: int, seed: int, n: int, m: int) -> None:
    a, b = draw(seed, n, words), draw(seed + 1, m, words)
    expected = np.zeros(64 * words + 1, np.int64)
    for row in all_distances(a, b):
        for bits in row:
            expected[bits] += 1
    assert histogram(a, b, backend=backend).tolist() == expected.tolist()


@each
@wide
@given(seed=seeds, n=sizes)
@settings(max_examples=40)
def test_a_set_against_itself_counts_each_pair_once(backend: Backend, words: int, seed: int, n: int) -> None:
    codes = draw(seed, n, words)
    both = histogram(codes, codes, backend=backend)
    both[0] -= n
    assert (2 * histogram_self(codes, backend=backend)).tolist() == both.tolist()


@each
@wide
@given(seed=seeds, n=sizes, m=sizes, share=st.floats(0, 0.6))
@settings(max_examples=40)
def test_a_join_finds_all_near_pairs_in_order(
    backend: Backend, words: int, seed: int, n: int, m: int, share: float
) -> None:
    a, b = draw(seed, n, words), np.concatenate([draw(seed, m, words), draw(seed + 1, m, words)])
    radius = int(64 * words * share)
    cells = all_distances(a, b)
    expected = [(i, j, bits) for i, row in enumerate(cells) for j, bits in enumerate(row) if bits <= radius]
    pairs = join(a, b, radius, backend=backend)
    found = list(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.distance.tolist(), strict=True))
    assert found == expected
    own = join_self(b, radius, backend=backend)
    cross = join(b, b, radius, backend=backend)
    upper = cross.left < cross.right
    assert own.left.tolist() == cross.left[upper].tolist()
    assert own.right.tolist() == cross.right[upper].tolist()


@each
@wide
@given(seed=seeds, n=sizes, m=st.integers(1, 13), k=st.integers(1, 13))
@settings(max_examples=40)
def test_the_nearest_are_ordered_by_distance_then_place(
    backend: Backend, words: int, seed: int, n: int, m: int, k: int
) -> None:
    a, b = draw(seed, n, words), draw(seed, m, words)
    b = np.concatenate([b, b])
    k = min(k, len(b))
    expected = [sorted((bits, j) for j, bits in enumerate(row))[:k] for row in all_distances(a, b)]
    index, distance = nearest(a, b, k, backend=backend)
    pairs = [list(zip(*row, strict=True)) for row in zip(distance.tolist(), index.tolist(), strict=True)]
    assert pairs == expected


@wide
@pytest.mark.parametrize("n", [1023, 1024, 1025, 2050])
def test_backends_agree_across_tiles(words: int, n: int) -> None:
    a, b = draw(n, 131, words), draw(n + 1, n, words)
    b[n - 1], b[1000] = a[130], a[0]
    one, other = (histogram(a, b, backend=backend) for backend in BACKENDS)
    assert (one.tolist(), one.sum()) == (other.tolist(), 131 * n)
    one, other = (histogram_self(b, backend=backend) for backend in BACKENDS)
    assert (one.tolist(), one.sum()) == (other.tolist(), n * (n - 1) // 2)
    for left, right in (
        [join(a, b, 18 * words, backend=backend) for backend in BACKENDS],
        [join_self(b, 18 * words, backend=backend) for backend in BACKENDS],
    ):
        assert len(left.left) > 0
        assert (left.left.tolist(), left.right.tolist()) == (right.left.tolist(), right.right.tolist())
        assert left.distance.tolist() == right.distance.tolist()
    near = [nearest(a[:40], b, 17, backend=x) for x in BACKENDS]
    assert near[0][0].tolist() == near[1][0].tolist()
    assert near[0][1].tolist() == near[1][1].tolist()


@given(st.integers(0, 5), st.sampled_from([64, 256]), seeds)
def test_packing_is_undone_and_bit_k_is_in_word_k_of_64(n: int, bits: int, seed: int) -> None:
    given_bits = np.random.Generator(np.random.Philox(key=seed)).random((n, bits)) < 0.5
    codes = pack(given_bits)
    assert unpack(codes).tolist() == given_bits.tolist()
    for row, code in zip(given_bits.tolist(), codes.tolist(), strict=True):
        assert [code[k // 64] >> k % 64 & 1 for k in range(bits)] == row


@wide
@given(seeds)
@settings(max_examples=50)
def test_distances_are_a_metric(words: int, seed: int) -> None:
    a, b, c = (draw(seed + part, 8, words).astype(np.uint64) for part in range(3))
    near, far, across = (distances(*two).astype(int) for two in ((a, b), (b, c), (a, c)))
    assert distances(a, a).tolist() == [0] * 8
    assert distances(b, a).tolist() == near.tolist()
    assert (across <= near + far).all()
    assert near.tolist() == [lsh_oracle.distance(*two) for two in zip(a.tolist(), b.tolist(), strict=True)]


@each
@wide
@given(seeds, seeds)
@settings(max_examples=20)
def test_order_does_not_matter_to_a_histogram(backend: Backend, words: int, seed: int, shuffle: int) -> None:
    """Nor does moving the same bits of all codes, nor flipping them."""
    codes = draw(seed, 12, words)
    random = np.random.Generator(np.random.Philox(key=shuffle))
    moved = pack(unpack(codes)[random.permutation(12)][:, random.permutation(64 * words)])
    flipped = moved ^ random.integers(0, 1 << 64, words, np.uint64)
    before = histogram_self(codes, backend=backend).tolist()
    assert histogram_self(moved, backend=backend).tolist() == before
    assert histogram_self(flipped, backend=backend).tolist() == before


GOOD = np.zeros((3, 1), np.uint64)


@each
@pytest.mark.parametrize(
    "bad",
    [GOOD.astype(np.int64), GOOD[:, 0], np.zeros((3, 2), np.uint64), np.zeros((3, 4), np.uint64), np.zeros((3, 1))],
    ids=["signed", "flat", "128 bits", "other width", "float"],
)
def test_other_codes_are_refused(backend: Backend, bad: Codes) -> None:
    with pytest.raises(LocalError):
        histogram(GOOD, bad, backend=backend)
    with pytest.raises(LocalError):
        join(bad, GOOD, 1, backend=backend)
    with pytest.raises(LocalError):
        nearest(GOOD, bad, 1, backend=backend)


@each
def test_a_join_that_finds_too_much_says_so(backend: Backend) -> None:
    assert len(join(GOOD, GOOD, 0, limit=9, backend=backend).left) == 9
    with pytest.raises(LocalError, match="9 pairs within 0 bits; at most 8"):
        join(GOOD, GOOD, 0, limit=8, backend=backend)
    assert len(join(GOOD, GOOD[:0], 0, limit=0, backend=backend).left) == 0


@pytest.mark.parametrize("radius", [-1, 65])
def test_a_radius_that_no_code_has_is_refused(radius: int) -> None:
    with pytest.raises(LocalError, match="radius"):
        join(GOOD, GOOD, radius)


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_there_are_are_refused(k: int) -> None:
    with pytest.raises(LocalError, match="k is"):
        nearest(GOOD, GOOD, k)


def test_without_numba_everything_runs_on_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify.lsh.backend.numba_there", lambda: False)
    assert kernels("auto") is kernels("numpy")
    with pytest.raises(LocalError, match="numba is not installed"):
        kernels("numba")
