"""What a claimed answer must look like before anything is computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.errors import Malformed
from wire.job import Output, Trace
from wire.tensor import Tensor


def only(answer: Output | Trace, *names: str) -> Mapping[str, Tensor]:
    """The tensors of an answer that must have exactly these names.

    Raises:
        Malformed: others, or ill-formed tensors.
    """
    answer.check()
    if set(answer.tensors) != set(names):
        given = ", ".join(sorted(name[:20] for name in answer.tensors)) or "none"
        raise Malformed(f"tensors {given}; expected {', '.join(names) or 'none'}")
    return answer.tensors


def array(tensor: Tensor, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The finite values of a claimed tensor.

    Raises:
        Malformed: another dtype or shape, or a value that is not finite.
    """
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise Malformed(f"{name} is {tensor.dtype}{tensor.shape}; expected {dtype}{list(shape)}")
    values = tensor.numpy()
    if dtype.startswith("f") and not np.isfinite(values).all():
        raise Malformed(f"{name} holds values that are not finite")
    return values
