"""Weight files in the safetensors layout: 8-byte little-endian header length, JSON header, raw tensors.

Only float32 tensors, laid out in the order of their names without gaps, so that equal weights have equal bytes
(safetensors format, https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from wire.errors import StorageError

HEADER_BYTES_MAX = 64 << 10


def dump(tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The file for `tensors`."""
    header: dict[str, object] = {}
    chunks: list[bytes] = []
    at = 0
    for name, tensor in sorted(tensors.items()):
        chunk = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + len(chunk)]}
        chunks.append(chunk)
        at += len(chunk)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + b"".join(chunks)


def load(raw: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors in a file, as read-only views.

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
            if entry["dtype"] != "F32" or not 0 <= start <= end <= len(body) or end - start != 4 * math.prod(shape):
                raise StorageError(f"weight file: tensor {name!r} does not fit")
            tensors[name] = np.frombuffer(body[start:end], dtype="<f4").reshape(shape)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StorageError(f"weight file: malformed header: {exc}") from exc
    return tensors
