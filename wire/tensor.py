"""Dense tensors as messages: little-endian, C order, with dtype and shape checked against the bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, cast

from wire.codec import Wire
from wire.errors import Malformed
from wire.limits import TENSOR_BYTES_MAX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Dtype = Literal["u1", "i4", "i8", "f4", "f8"]
_ITEM_BYTES = {"u1": 1, "i4": 4, "i8": 8, "f4": 4, "f8": 8}


class Tensor(Wire, frozen=True):
    """`dtype` as in NumPy's array interface without byte order; `data` holds prod(shape) items."""

    dtype: Dtype
    shape: list[int]
    data: bytes

    def check(self) -> None:
        """Raises: Malformed if shape, dtype and data disagree or the tensor is too large."""
        if len(self.shape) > 8 or any(not 0 <= side <= TENSOR_BYTES_MAX for side in self.shape):
            raise Malformed(f"shape {self.shape[:9]}")
        if len(self.data) > TENSOR_BYTES_MAX or math.prod(self.shape) * _ITEM_BYTES[self.dtype] != len(self.data):
            raise Malformed(f"{len(self.data)} bytes do not fill {self.dtype}{self.shape}")

    def numpy(self) -> NDArray[np.generic]:
        """A read-only view on the data.

        Raises:
            Malformed: as `check`.
        """
        import numpy as np

        self.check()
        return np.frombuffer(self.data, dtype="<" + self.dtype).reshape(self.shape)


def from_numpy(array: NDArray[np.generic]) -> Tensor:
    """A tensor of the array's values; the dtype must be one of `Dtype`."""
    import numpy as np

    dtype = array.dtype.newbyteorder("<")
    if dtype.str[1:] not in _ITEM_BYTES:
        raise TypeError(f"dtype {array.dtype} cannot be sent")
    name = cast(Dtype, dtype.str[1:])
    tensor = Tensor(name, list(array.shape), np.ascontiguousarray(array, dtype=dtype).tobytes())
    tensor.check()
    return tensor
