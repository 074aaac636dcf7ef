"""A message: one typed struct and the tensors that go with it (docs/spec/rpc.md, "Messages").

The tensors are sent as they lie in memory and read as views on what was received: nothing is copied, and no view is
made before dtype and shape were checked against the bytes that are there. A message has one encoding: tensors stand one
behind the other, each at the next multiple of 16, with zeros between.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from wire import codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed
from wire.limits import FRAME_BYTES_MAX, TENSORS_MAX
from wire.rpc.frames import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T", bound=Wire)
Buffer = bytes | memoryview

ALIGN = 16
DIMENSIONS_MAX = 8
DTYPES = ("?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8", "c8", "c16")
"""As in NumPy's array interface without byte order, little-endian; a dtype is its index here."""
ITEM_BYTES = (1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 16)
BOOL = DTYPES.index("?")

_BODY = struct.Struct(">BI")


@dataclass(frozen=True, slots=True)
class Packet(Generic[T]):
    """What one message says.

    Attributes:
        body: the struct.
        tensors: arrays beside it; received ones are read-only views, valid for as long as they are referenced.
    """

    body: T
    tensors: tuple[NDArray[np.generic], ...] = ()


def encode(body: Wire, tensors: Sequence[NDArray[np.generic]] = ()) -> list[Buffer]:
    """The message as buffers to be sent one behind the other; those of contiguous little-endian tensors are views.

    Raises:
        TypeError: a dtype that cannot be sent.
        LocalError: too many tensors or dimensions, or longer than `MESSAGE_BYTES_MAX`.
    """
    raw = codec.encode(body)
    if not tensors:
        if len(raw) >= MESSAGE_BYTES_MAX:
            raise LocalError(f"a message of {len(raw)} bytes")
        return [b"\0" + raw]
    return _with_tensors(raw, tensors)


def _with_tensors(raw: bytes, tensors: Sequence[NDArray[np.generic]]) -> list[Buffer]:
    import numpy as np

    if len(tensors) > TENSORS_MAX or any(array.ndim > DIMENSIONS_MAX for array in tensors):
        raise LocalError(f"{len(tensors)} tensors; at most {TENSORS_MAX}, of {DIMENSIONS_MAX} dimensions")
    head = bytearray(_BODY.pack(len(tensors), len(raw)))
    head += raw
    data: list[NDArray[np.generic]] = []
    for array in tensors:
        if math.prod(side or 1 for side in array.shape) > MESSAGE_BYTES_MAX:
            raise LocalError(f"a tensor of shape {list(array.shape)}")
        dtype = array.dtype.newbyteorder("<")
        name = "?" if dtype.kind == "b" else dtype.str[1:]
        if name not in DTYPES:
            raise TypeError(f"dtype {array.dtype} cannot be sent")
        head += struct.pack(f">BB{array.ndim}I", DTYPES.index(name), array.ndim, *array.shape)
        data.append(np.ascontiguousarray(array, dtype=dtype).reshape(-1))
    buffers: list[Buffer] = [bytes(head)]
    at = len(head)
    for flat in data:
        if at % ALIGN:
            buffers.append(bytes(-at % ALIGN))
            at += -at % ALIGN
        if flat.nbytes:
            buffers.append(flat.view(np.uint8).data.toreadonly())
            at += flat.nbytes
    if at > MESSAGE_BYTES_MAX:
        raise LocalError(f"a message of {at} bytes")
    return buffers


def decode(kind: type[T], raw: bytes | bytearray) -> Packet[T]:
    """Read a message.

    Args:
        kind: type of its struct.
        raw: the whole message; must not change any more, for tensors are views on it.

    Raises:
        Malformed: no such struct, tensors that do not fill the message exactly, or any other encoding than `encode`
            gives.
    """
    if not raw:
        raise Malformed("an empty message")
    count = raw[0]
    if not count:
        return Packet(codec.decode(kind, bytes(memoryview(raw)[1:]), bytes_max=MESSAGE_BYTES_MAX))
    if count > TENSORS_MAX or len(raw) < _BODY.size:
        raise Malformed(f"{count} tensors in {len(raw)} bytes")
    _, size = _BODY.unpack_from(raw)
    view = memoryview(raw).toreadonly()
    at = _BODY.size + size
    if at > len(raw):
        raise Malformed("a struct cut off")
    body = codec.decode(kind, bytes(view[_BODY.size : at]), bytes_max=FRAME_BYTES_MAX)
    shapes: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(count):
        number, dimensions = _pair(view, at)
        at += 2 + 4 * dimensions
        if number >= len(DTYPES) or dimensions > DIMENSIONS_MAX or at > len(view):
            raise Malformed(f"a tensor of dtype {number} and {dimensions} dimensions")
        shapes.append((number, struct.unpack_from(f">{dimensions}I", view, at - 4 * dimensions)))
    return Packet(body, tuple(_views(view, at, shapes)))


def _pair(view: memoryview, at: int) -> tuple[int, int]:
    if at + 2 > len(view):
        raise Malformed("a tensor cut off")
    return view[at], view[at + 1]


def _views(view: memoryview, at: int, shapes: Sequence[tuple[int, tuple[int, ...]]]) -> list[NDArray[np.generic]]:
    import numpy as np

    spans: list[tuple[int, int, tuple[int, ...], int]] = []
    for number, shape in shapes:
        start = at + -at % ALIGN
        size = math.prod(shape) * ITEM_BYTES[number]
        if math.prod(side or 1 for side in shape) > MESSAGE_BYTES_MAX:
            raise Malformed(f"an empty tensor of shape {list(shape)}")  # no array of that shape exists
        if any(view[at:start]) or start + size > len(view):
            raise Malformed(f"{DTYPES[number]}{list(shape)} is not there")
        if number == BOOL and bytes(view[start : start + size]).strip(b"\0\1"):
            raise Malformed("a truth value that is neither")
        spans.append((start, size, shape, number))
        at = start + size
    if at != len(view):
        raise Malformed("bytes behind the last tensor")
    return [
        np.frombuffer(view[start : start + size], dtype="<" + DTYPES[number]).reshape(shape)
        for start, size, shape, number in spans
    ]
