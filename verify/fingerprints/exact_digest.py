"""exact.digest: every byte of output and trace equals our own full re-run in the exact numeric class.

Needs an arithmetic whose rounding does not depend on the machine (float64 compute rounded to float32 before it is
compared or fed back). No threshold is involved: one differing byte is a reject.
"""

from __future__ import annotations

import hashlib

from verify.faults import ExpectedUnusable
from wire.errors import Malformed
from wire.job import Expected, Output, Trace
from wire.tensor import Tensor

ID = "exact.digest/sha256/1"
RESOLUTION = {"mismatch": 0.0}


def compare(output: Output, trace: Trace, expected: Expected) -> dict[str, float]:
    """`mismatch`: the share of tensors that are missing or whose dtype, shape or bytes differ (0 is equality).

    Raises:
        ExpectedUnusable: our own run lacks one of the tensors, or returned an ill-formed one.
    """
    if not expected.tensors:
        raise ExpectedUnusable("the executor returned nothing")
    pairs = list(output.tensors.items()) + list(trace.tensors.items())
    absent = set(expected.tensors) - {name for name, _ in pairs}
    differing = len(absent)
    for name, tensor in pairs:
        if name not in expected.tensors:
            raise ExpectedUnusable(f"the executor returned no {name!r}")
        own = expected.tensors[name]
        try:
            own.check()
        except Malformed as exc:
            raise ExpectedUnusable(f"{name}: {exc}") from exc
        differing += _sha256(tensor) != _sha256(own)
    return {"mismatch": differing / (len(pairs) + len(absent))}


def _sha256(tensor: Tensor) -> bytes:
    head = f"{tensor.dtype}{list(tensor.shape)}".encode()
    return hashlib.sha256(head + tensor.data).digest()
