"""Writes `tests/vectors/rpc-v1.json`: python -m tests.wire.rpc_vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from wire.codec import Wire
from wire.errors import Malformed
from wire.rpc import frames, packet
from wire.rpc.frames import LAST, ZIPPED, Refusal


class Example(Wire, frozen=True):
    """Stands for any request."""

    text: str
    number: int


BODY = Example("hi", 7)
ARRAYS = [np.arange(3, dtype="<f4"), np.array([[True, False]]), np.zeros((0, 2), dtype="<i8")]


def _batches() -> dict[str, bytes]:
    message = b"".join(packet.encode(BODY))
    tensors = b"".join(packet.encode(BODY, ARRAYS))
    packed = frames.deflate(bytes(2000))
    assert packed is not None
    ask = frames.open_(1, b"example.ask", 1500) + frames.begin_head(LAST, 1, len(message), len(message)) + message
    return {
        "a request of one struct": ask,
        "an answer with tensors": frames.begin_head(LAST, 1, len(tensors), len(tensors)) + tensors,
        "a message in two chunks": frames.begin_head(0, 2, 5, 3) + b"abc" + frames.more_head(0, 2, 2) + b"de",
        "a compressed message": frames.begin_head(LAST | ZIPPED, 3, 2000, len(packed)) + packed,
        "close, credit, cancel": frames.close(4) + frames.credit(4, 3) + frames.cancel(5),
        "busy for two seconds": frames.error(6, Refusal("busy", "too many requests", 2000)),
        "nothing": b"",
        "a head cut off": frames.cancel(1)[:-1],
        "a payload cut off": frames.credit(1, 1)[:-1],
        "an unknown kind": b"\x08" + frames.cancel(1)[1:],
        "an unknown flag": b"\x86" + frames.cancel(1)[1:],
        "request 0": frames.cancel(0),
        "an empty chunk": frames.more_head(0, 1, 0),
        "an open without a name": frames.open_(1, b"", 5),
    }


def vectors() -> list[dict[str, Any]]:
    """What the file holds."""
    rows: list[dict[str, Any]] = []
    for name, raw in _batches().items():
        try:
            expect: Any = [[f.kind, f.flags, f.id, f.payload.hex()] for f in frames.split(raw)]
        except Malformed as exc:
            expect = str(exc)
        rows.append({"name": name, "hex": raw.hex(), "expect": expect})
    return rows


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "vectors" / "rpc-v1.json"
    path.write_text("[\n" + ",\n".join("  " + json.dumps(row) for row in vectors()) + "\n]\n")
