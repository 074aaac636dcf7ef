"""What a worker promises before its jury exists: one Merkle root over the salted tensors of output and trace.

Leaf 0 covers the digest of the whole output, so that a receipt can bind an answer with one short audit path;
the other leaves cover one tensor each (`output/<name>`, then `trace/<name>`, names ascending). The 32-byte salt hides
what could be guessed. The tree is RFC 6962's. Format: docs/spec/verify.md.
"""

from __future__ import annotations

from wire import codec
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Commitment, Output, Trace
from wire.merkle import inclusion_proof, tree_head, verify_inclusion
from wire.tensor import Tensor

OUTPUT_LEAF = "output"
SALT_BYTES = 32


def output_digest(output: Output) -> bytes:
    """The 32 bytes that name an output, in leaf 0 and in the receipt."""
    return digest("output", codec.encode(output))


def output_leaf(salt: bytes, output: bytes) -> bytes:
    """Data of leaf 0, from the 32-byte salt and the 32-byte output digest."""
    return digest("leaf", salt, OUTPUT_LEAF.encode(), output)


def _tensor_leaves(salt: bytes, prefix: str, tensors: dict[str, Tensor]) -> list[bytes]:
    return [digest("leaf", salt, f"{prefix}/{name}".encode(), codec.encode(tensors[name])) for name in sorted(tensors)]


def leaves(output: Output, trace: Trace, salt: bytes) -> list[bytes]:
    """Leaf data in order; `salt` has 32 bytes."""
    assert len(salt) == SALT_BYTES, "a salt has 32 bytes"
    return [
        output_leaf(salt, output_digest(output)),
        *_tensor_leaves(salt, "output", output.tensors),
        *_tensor_leaves(salt, "trace", trace.tensors),
    ]


def commit(job: bytes, output: Output, trace: Trace, salt: bytes) -> Commitment:
    """The commitment that the worker signs in an envelope of domain "commitment".

    Args:
        job: 32-byte job id.
        output, trace: what `workloads` produced.
        salt: 32 secret bytes, handed over together with output and trace.
    """
    data = leaves(output, trace, salt)
    return Commitment(job, tree_head(data), len(data))


def prove_output(output: Output, trace: Trace, salt: bytes) -> list[bytes]:
    """Audit path of leaf 0: what goes into `Receipt.proof`."""
    return inclusion_proof(leaves(output, trace, salt), 0)


def check_output_leaf(commitment: Commitment, output: bytes, salt: bytes, proof: list[bytes]) -> bool:
    """Whether the output with this 32-byte digest stands at leaf 0 of the commitment."""
    if len(output) != 32 or len(salt) != SALT_BYTES:
        return False
    return verify_inclusion(output_leaf(salt, output), 0, commitment.leaves, proof, commitment.root)


def check_opening(commitment: Commitment, output: Output, trace: Trace, salt: bytes) -> None:
    """Check that exactly this output and trace were committed.

    Raises:
        Malformed: ill-formed tensors, a salt of another length, another number of leaves or another root.
    """
    output.check()
    trace.check()
    if len(salt) != SALT_BYTES:
        raise Malformed(f"a salt of {len(salt)} bytes, {SALT_BYTES} expected")
    data = leaves(output, trace, salt)
    if len(data) != commitment.leaves:
        raise Malformed(f"{len(data)} leaves, {commitment.leaves} were committed")
    if tree_head(data) != commitment.root:
        raise Malformed("output, trace and salt do not open the commitment")
