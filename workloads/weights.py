"""Weight files in the safetensors layout: 8-byte little-endian header length, JSON header, raw tensors.

Only float32 or float16 tensors, laid out in the order of their names without gaps, so that equal weights have equal
bytes (safetensors format, https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wire.errors import StorageError

HEADER_BYTES_MAX = 64 << 10
NAMES = {"<f4": "F32", "<f2": "F16"}
DTYPES = {name: np.dtype(code) for code, name in NAMES.items()}


def dump(tensors: Mapping[str, NDArray[np.float32]], dtype: Literal["<f4", "<f2"] = "<f4") -> bytes:
    """The file for `tensors`, stored as `dtype`."""
    header: dict[str, object] = {}
    chunks: list[bytes] = []
    at = 0
    for name, tensor in sorted(tensors.items()):
        chunk = np.ascontiguousarray(tensor, dtype=dtype).tobytes()
        header[name] = {"dtype": NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(chunk)]}
        chunks.append(chunk)
        at += len(chunk)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(chunks)


def load(raw: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors in a file as float32, read-only views if that is how they are stored.

    Raises:
        StorageError: not a weight file of this layout.
    """
    size = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or size > min(HEADER_BYTES_MAX, len(raw) - 8):
        raise StorageError("weight file: the header does not fit")
    body = memoryview(raw)[8 + size :]
    tensors: dict[str, NDArray[np.float32]] = {}
    try:
        for name, entry in json.loads(raw[8 : 8 + size]).items():
            start, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            dtype = DTYPES[entry["dtype"]]
            if not 0 <= start <= end <= len(body) or end - start != dtype.itemsize * math.prod(shape):
                raise StorageError(f"weight file: tensor {name!r} does not fit")
            tensors[name] = np.frombuffer(body[start:end], dtype=dtype).reshape(shape).astype(np.float32, copy=False)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StorageError(f"weight file: malformed header: {exc}") from exc
    return tensors


def layout(tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Dense weights as [in, out], as NumPy and ONNX multiply, or back; embeddings and convolutions stay."""
    return {
        name: value.T if value.ndim == 2 and name.endswith(".weight") and name != "embed.weight" else value
        for name, value in tensors.items()
    }
