"""The vectors of the receipt's specification, and the answer that their receipts are about."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wire import codec
from wire.job import Output
from wire.tensor import from_numpy

PATH = Path(__file__).parents[1] / "vectors/receipt-v1.json"
VECTORS: list[dict[str, str]] = json.loads(PATH.read_bytes())["vectors"]
BY_NAME = {vector["name"]: bytes.fromhex(vector["hex"]) for vector in VECTORS}
ACCEPTED = BY_NAME["three jurors accept"]
ANSWER = codec.encode(Output({"vectors": from_numpy(np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8))}))
