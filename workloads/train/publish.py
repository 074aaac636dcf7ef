"""Turns trained weights into a published model: ONNX graphs, evaluation data, card and manifest."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire import cid, codec
from wire.job import Kind
from workloads import older, weights
from workloads.catalog import FileEntry, Manifest
from workloads.train import graphs

MODELS = Path(__file__).resolve().parent.parent / "models"
NAMES: dict[str, tuple[str, Kind]] = {
    "text": ("bytes-gpt", "text.generate"),
    "image": ("digits-ddim", "image.generate"),
    "embed": ("ngram-embed", "embed.text"),
}

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Trained:
    """The weights at the end, and those of the older checkpoint, as torch lays them out."""

    final: Weights
    older: Weights


def copied(model: Any) -> dict[str, NDArray[np.float32]]:
    """A torch module's weights by name, as they are now."""
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def published(model: str) -> Weights:
    """The published weights, as torch lays them out."""
    return weights.layout(weights.load((folder(model) / "weights.safetensors").read_bytes()))


def write_older(model: str, trained: Trained) -> None:
    """Write the older checkpoint, as differences to the published weights."""
    shipped = weights.load((folder(model) / "weights.safetensors").read_bytes())
    older.FOLDER.mkdir(exist_ok=True)
    path = older.FOLDER / f"{NAMES[model][0]}.safetensors"
    path.write_bytes(older.dump(weights.layout(trained.older), shipped))


def folder(model: str) -> Path:
    """Where the model lives."""
    return MODELS / NAMES[model][0]


def publish(model: str) -> None:
    """Write everything but the weights: graphs, manifest, then evaluation data and the card that measures them."""
    module = importlib.import_module(f"workloads.train.{model}")
    name, kind = NAMES[model]
    target = folder(model)
    tensors = weights.load((target / "weights.safetensors").read_bytes())
    for file, graph in graphs.build(model, module.CONFIG, tensors).items():
        (target / file).write_bytes(graph)
    files = {
        path.name: FileEntry(path.stat().st_size, hashlib.sha256(path.read_bytes()).digest())
        for path in sorted(target.iterdir())
        if path.suffix in (".safetensors", ".onnx") and path.name != "classifier.safetensors"
    }
    manifest = codec.encode(Manifest(1, name, kind, module.CONFIG, files))
    (target / "manifest").write_bytes(manifest)
    card: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "cid": cid.of(manifest),
        "parameters": sum(value.size for value in tensors.values()),
        "bytes": sum(entry.size for entry in files.values()),
        "retrain": f"python -m workloads.train {model}",
        "licence": "Apache-2.0",
        **module.card(target),
    }
    (target / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))
