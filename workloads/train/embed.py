"""Trains the sentence embedder: the first paragraph of a docstring should lie near the paragraphs that follow it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from workloads import ngrams, quality
from workloads.catalog import Model
from workloads.nets import Embedder
from workloads.train import corpus, publish

EPOCHS, BATCH, RATE, SEED, SCALE = 5, 256, 3e-3, 7, 16.0
OLDER = 0.85
"""Share of the steps after which the older checkpoint is taken."""

PACKAGES = ("numpy", "scipy", "sklearn", "torch")
CONFIG = {"buckets": 6144, "width": 64, "hidden": 256}


def network() -> Embedder:
    """An untrained network of the published shape."""
    return Embedder(CONFIG["buckets"], CONFIG["width"], CONFIG["hidden"])


def features(texts: list[str]) -> torch.Tensor:
    """f4[n, buckets]."""
    return torch.tensor(ngrams.features(texts, CONFIG["buckets"]), dtype=torch.float32)


def contrast(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE (arXiv 1807.03748) over the batch."""
    scores = SCALE * left @ right.T
    target = torch.arange(len(scores))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def recall(model: Embedder, pairs: list[tuple[str, str]]) -> float:
    """Share of summaries whose own body is the nearest of all bodies in `pairs`."""
    with torch.no_grad():
        left, right = (model(features([pair[side] for pair in pairs])) for side in (0, 1))
        return ((left @ right.T).argmax(1) == torch.arange(len(pairs))).float().mean().item()


def train(epochs: int = EPOCHS, *, older_only: bool = False) -> publish.Trained:
    """Train; the weights by name."""
    torch.manual_seed(SEED)
    pairs, held = corpus.pairs(PACKAGES)
    model = network()
    scale_table(model, [body for _, body in pairs])
    print("pairs", len(pairs), "untrained recall@1", recall(model, held[:400]), flush=True)
    table = [p for name, p in model.named_parameters() if name.startswith("table")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("table")]
    optimiser = torch.optim.Adam([{"params": table}, {"params": rest}], lr=RATE, betas=(0.9, 0.98))
    started, step, steps, older = time.monotonic(), 0, epochs * (len(pairs) // BATCH), {}
    for epoch in range(epochs):
        order = torch.randperm(len(pairs)).tolist()
        for at in range(0, len(pairs) - BATCH + 1, BATCH):
            if step == round(OLDER * steps):
                older = publish.copied(model)
                if older_only:
                    return publish.Trained({}, older)
            batch = [pairs[i] for i in order[at : at + BATCH]]
            loss = contrast(model(features([a for a, _ in batch])), model(features([b for _, b in batch])))
            for group in optimiser.param_groups:
                group["lr"] = (
                    RATE * min(1.0, (step + 1) / 20) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
        at_1, seconds = recall(model, held[:400]), time.monotonic() - started
        print(f"embed epoch {epoch} loss {loss.item():.3f} recall@1 {at_1:.3f} {seconds:.0f} s", flush=True)
    return publish.Trained(publish.copied(model), older)


def scale_table(model: Embedder, texts: list[str]) -> None:
    """Start from inverse document frequencies: rare n-grams say more."""
    seen = np.zeros(CONFIG["buckets"])
    for text in texts:
        seen[list(ngrams.buckets(text, CONFIG["buckets"]))] += 1
    weight = np.log((1 + len(texts)) / (1 + seen))
    with torch.no_grad():
        model.table.weight.mul_(torch.tensor(weight / weight.mean(), dtype=torch.float32))


def card(folder: Path) -> dict[str, Any]:
    """Write the evaluation pairs and return what the model card says."""
    _, held = corpus.pairs(PACKAGES)
    (folder / "heldout.json").write_text(json.dumps(held[::4][:200], indent=0) + "\n")
    names = {"sklearn": "scikit-learn"}
    versions = [f"{name} {importlib.metadata.version(names.get(name, name))}" for name in PACKAGES]
    return {
        "summary": "Hashed byte n-grams (words, 3- to 5-grams; 6,144 buckets), a table of width 64, a residual layer.",
        "data": f"Docstrings of Python {platform.python_version()}, {', '.join(versions)}: first paragraph and body",
        "data_licence": "PSF-2.0 (Python), BSD-3-Clause (the others)",
        "training": f"{EPOCHS} epochs, batches of {BATCH} pairs, InfoNCE, torch {torch.__version__}, one thread",
        "quality": {
            "name": "recall@1 among 200 held-out docstrings: first paragraph finds its own body",
            "value": round(quality.recall_at_1(Model(folder)), 4),
            "better": "higher",
        },
        "limits": "Knows the words of Python documentation; sees shared word parts, not meaning.",
    }
