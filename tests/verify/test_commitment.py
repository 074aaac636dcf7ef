"""A commitment fixes every byte of output and trace, and hides them behind its salt."""

from __future__ import annotations

import numpy as np
import pytest

from verify.commitment import check_opening, check_output_leaf, commit, leaves, output_digest, prove_output
from wire import codec
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Output, Trace
from wire.merkle import tree_head
from wire.tensor import Tensor, from_numpy

JOB = bytes(32)
SALT = b"s" * 32
OUTPUT = Output({"pixels": from_numpy(np.arange(6, dtype=np.uint8).reshape(2, 3))})
TRACE = Trace({"latents": from_numpy(np.zeros((2, 2, 3), np.float32)), "aux": from_numpy(np.ones(3, np.float32))})


def test_leaves_follow_the_specification() -> None:
    tensors = {"output/pixels": OUTPUT.tensors["pixels"]}
    tensors |= {"trace/aux": TRACE.tensors["aux"], "trace/latents": TRACE.tensors["latents"]}
    first = digest("leaf", SALT, b"output", digest("output", codec.encode(OUTPUT)))
    rest = [digest("leaf", SALT, name.encode(), codec.encode(tensor)) for name, tensor in tensors.items()]
    assert leaves(OUTPUT, TRACE, SALT) == [first, *rest]
    assert commit(JOB, OUTPUT, TRACE, SALT).root == tree_head([first, *rest])


def test_what_was_committed_opens() -> None:
    check_opening(commit(JOB, OUTPUT, TRACE, SALT), OUTPUT, TRACE, SALT)


@pytest.mark.parametrize(
    ("output", "trace", "salt"),
    [
        (Output({"pixels": from_numpy(np.zeros((2, 3), np.uint8))}), TRACE, SALT),
        (Output({"image": OUTPUT.tensors["pixels"]}), TRACE, SALT),
        (OUTPUT, Trace({"latents": TRACE.tensors["latents"]}), SALT),
        (OUTPUT, TRACE, b"t" * 32),
        (OUTPUT, TRACE, b"s" * 31),
        (Output({"pixels": Tensor("u1", [2, 4], bytes(6))}), TRACE, SALT),
    ],
    ids=["other values", "other name", "tensor withheld", "other salt", "short salt", "ill-formed tensor"],
)
def test_anything_else_does_not_open(output: Output, trace: Trace, salt: bytes) -> None:
    with pytest.raises(Malformed):
        check_opening(commit(JOB, OUTPUT, TRACE, SALT), output, trace, salt)


def test_the_output_digest_is_proven_by_its_audit_path_alone() -> None:
    commitment = commit(JOB, OUTPUT, TRACE, SALT)
    proof = prove_output(OUTPUT, TRACE, SALT)
    assert check_output_leaf(commitment, output_digest(OUTPUT), SALT, proof)
    assert not check_output_leaf(commitment, bytes(32), SALT, proof)
    assert not check_output_leaf(commitment, output_digest(OUTPUT), bytes(32), proof)
    assert not check_output_leaf(commitment, output_digest(OUTPUT), SALT, proof[:-1])


def test_a_salt_hides_equal_answers() -> None:
    assert commit(JOB, OUTPUT, TRACE, SALT).root != commit(JOB, OUTPUT, TRACE, b"t" * 32).root
