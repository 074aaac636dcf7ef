"""Older checkpoints of the embedded models: what a worker has that did not fetch the last one.

Images and embeddings: the state of the training run, repeated with the same script and seed, after 85 % of its steps.
Texts: a neighbour of the run, the published weights trained on for 40 steps at that point's learning rate, because the
repeated run ends elsewhere; it is nearer than an earlier checkpoint. See `workloads.train`.
`checkpoints/<name>.safetensors` holds float16 differences to the published weights: off by 2**-11 of the difference,
not of the weight. It is no part of the model: no manifest lists it, only the cheat `older-checkpoint` reads it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wire.errors import StorageError
from workloads import weights

FOLDER = Path(__file__).resolve().parent / "checkpoints"

Tensors = Mapping[str, NDArray[np.float32]]


def dump(older: Tensors, published: Tensors) -> bytes:
    """The file for the weights `older`."""
    learnt = {name: older[name] - published[name] for name in older if name in published}
    return weights.dump(learnt, dtype="<f2")


def rewound(tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """The older checkpoint of the embedded model that has these weights; what it did not learn stays.

    Raises:
        StorageError: no such model ships.
    """
    for difference in _differences():
        if all(name in tensors and tensors[name].shape == value.shape for name, value in difference.items()):
            learnt = {name: (tensors[name] + value).astype(np.float32) for name, value in difference.items()}
            return {**tensors, **learnt}
    raise StorageError("no older checkpoint of this model")


@functools.cache
def _differences() -> tuple[dict[str, NDArray[np.float32]], ...]:
    return tuple(weights.load(path.read_bytes()) for path in sorted(FOLDER.glob("*.safetensors")))
