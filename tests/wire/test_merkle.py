"""RFC 6962 trees: the roots of Certificate Transparency's reference leaves, and proofs of every leaf to 64."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.merkle import inclusion_proof, leaf_hash, node_hash, tree_head, verify_inclusion

# certificate-transparency, merkletree/merkle_tree_test.cc: the inputs and the root of each prefix.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _leaves(count: int) -> list[bytes]:
    return [b"leaf %d" % n for n in range(count)]


@pytest.mark.parametrize("size", range(9))
def test_the_roots_of_the_reference(size: int) -> None:
    assert ROOTS[size] == tree_head(LEAVES[:size]).hex()


def test_a_path_of_the_reference() -> None:
    """RFC 6962, section 2.1.3: the path of leaf 0 of 7 is its sibling, then the two subtrees to its right."""
    assert inclusion_proof(LEAVES[:7], 0) == [
        leaf_hash(LEAVES[1]),
        node_hash(leaf_hash(LEAVES[2]), leaf_hash(LEAVES[3])),
        tree_head(LEAVES[4:7]),
    ]


@pytest.mark.parametrize("size", range(1, 65))
def test_every_leaf_is_proven_at_its_place_only(size: int) -> None:
    leaves = _leaves(size)
    head = tree_head(leaves)
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(leaves, index)
        assert verify_inclusion(leaf, index, size, proof, head)
        assert not verify_inclusion(b"another", index, size, proof, head)
        assert not verify_inclusion(leaf, (index + 1) % size, size, proof, head) or size == 1
        assert not verify_inclusion(leaf, index, size, [*proof, b"\x00" * 32], head)
        assert not proof or not verify_inclusion(leaf, index, size, proof[:-1], head)


@settings(max_examples=100)
@given(st.integers(2, 40), st.data())
def test_an_altered_proof_is_refused(size: int, data: st.DataObject) -> None:
    leaves = _leaves(size)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(leaves, index)
    level = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = (int.from_bytes(proof[level], "big") ^ 1 << bit).to_bytes(32, "big")
    altered = [*proof[:level], flipped, *proof[level + 1 :]]
    assert not verify_inclusion(leaves[index], index, size, altered, tree_head(leaves))


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0), (7, 3)])
def test_places_outside_the_tree_are_refused(index: int, size: int) -> None:
    leaves = _leaves(3)
    assert not verify_inclusion(leaves[0], index, size, inclusion_proof(leaves, 0), tree_head(leaves))
    with pytest.raises(IndexError):
        inclusion_proof(_leaves(size), index)


def test_a_leaf_is_never_a_node() -> None:
    """The second-preimage attack that the prefixes stop: a node's two children offered as one leaf."""
    leaves = _leaves(2)
    pair = leaf_hash(leaves[0]) + leaf_hash(leaves[1])
    assert not verify_inclusion(pair, 0, 1, [], tree_head(leaves))
    assert leaf_hash(pair) == hashlib.sha256(b"\x00" + pair).digest()
