"""Older checkpoints: there is one per model, small, near the published weights, and no part of the model."""

from __future__ import annotations

import numpy as np
import pytest

from wire.errors import StorageError
from workloads import older, weights
from workloads.catalog import built_in

MODELS = list(built_in().models.values())


def published(name: str) -> older.Tensors:
    return weights.load(built_in().find(name).read("weights.safetensors"))


@pytest.mark.parametrize("model", MODELS, ids=[model.manifest.name for model in MODELS])
def test_the_older_checkpoint_of_a_model_has_its_shapes_and_other_values(model: object) -> None:
    name = model.manifest.name  # type: ignore[attr-defined]  # parametrised by Model
    own, past = published(name), older.rewound(published(name))
    assert {key: value.shape for key, value in past.items()} == {key: value.shape for key, value in own.items()}
    assert all(value.dtype == np.float32 for value in past.values())
    apart = {key: float(np.linalg.norm(past[key] - own[key]) / np.linalg.norm(own[key])) for key in own}
    assert 1e-4 < max(apart.values()) < 2
    assert (older.FOLDER / f"{name}.safetensors").stat().st_size < 1 << 20


def test_other_weights_have_no_older_checkpoint() -> None:
    with pytest.raises(StorageError, match="no older checkpoint"):
        older.rewound({"x": np.zeros(2, np.float32)})


def test_differences_are_stored_in_half_the_bytes() -> None:
    now = {"x": np.linspace(-1, 1, 64, dtype=np.float32)}
    then = {"x": now["x"] * np.float32(1.01), "not learnt": now["x"]}
    stored = weights.load(older.dump(then, now))
    assert list(stored) == ["x"]
    assert stored["x"].dtype == np.float32
    assert np.abs(stored["x"] - (then["x"] - now["x"])).max() < 1e-5
