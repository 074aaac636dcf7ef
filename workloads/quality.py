"""The quality figures of the model cards, measured from the evaluation data beside the weights.

Needs neither torch nor scikit-learn: training writes its figures with these functions, and the tests measure a sample
of each again.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workloads import diffusion, forward, ngrams, noise, weights
from workloads.catalog import Model
from workloads.forward import Floats
from workloads.sampler import log_softmax
from workloads.text import Decoder

WINDOW = 256
STEPS = 30


def bits_per_byte(model: Model, windows: int) -> float:
    """Mean negative log2 likelihood of held-out text, over windows of 256 bytes that start cold."""
    text = (model.folder / "heldout.txt").read_bytes()
    rows = np.frombuffer(text, dtype=np.uint8)[: windows * WINDOW].reshape(-1, WINDOW).astype(np.int64)
    network = forward.TextNetwork(weights.load(model.read("weights.safetensors")), model.manifest.config, np.float32)
    total = 0.0
    for row in rows:
        logits, _ = Decoder(network, model.manifest.config, np.dtype(np.float32)).read(row[None, :-1])
        total -= float(log_softmax(logits[0])[np.arange(WINDOW - 1), row[1:]].sum())
    return total / (len(rows) * (WINDOW - 1)) / float(np.log(2))


def generated(model: Model, count: int, steps: int = STEPS) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures u1[count, h, w] from seeds 0..count - 1, and their labels: 0..9 in turn."""
    config = model.manifest.config
    network = forward.ImageNetwork(weights.load(model.read("weights.safetensors")), config, np.float32)
    labels = np.arange(count) % diffusion.LABELS
    x: Floats = np.stack([noise.normal(seed, config["height"], config["width"]) for seed in range(count)])
    times = np.stack([diffusion.times(steps, seed, config["jitter_percent"] / 100) for seed in range(count)])
    for i in range(steps):
        now, then = times[:, i], times[:, i + 1]
        x = diffusion.step(x, network(x, diffusion.features(now, labels)), now, then)
    return np.stack([diffusion.pixels(latent) for latent in x]), labels


def read_digits(folder: Path, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What the classifier that was trained on real digits reads in pictures u1[n, h, w]."""
    w = weights.load((folder / "classifier.safetensors").read_bytes())
    flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 127.5 - 1.0
    hidden = np.maximum(flat @ w["hidden.weight"] + w["hidden.bias"], 0)
    labels: NDArray[np.int64] = (hidden @ w["out.weight"] + w["out.bias"]).argmax(axis=1)
    return labels


def image_accuracy(model: Model, count: int) -> float:
    """Share of generated pictures in which the classifier reads the label that was asked for."""
    pixels, labels = generated(model, count)
    return float((read_digits(model.folder, pixels) == labels).mean())


def recall_at_1(model: Model) -> float:
    """Share of held-out summaries whose own body is the nearest of all held-out bodies."""
    pairs = json.loads((model.folder / "heldout.json").read_text())
    config = model.manifest.config
    network = forward.EmbedNetwork(weights.load(model.read("weights.safetensors")), config, np.float32)
    left, right = (network(ngrams.features([pair[side] for pair in pairs], config["buckets"])) for side in (0, 1))
    return float(((left @ right.T).argmax(axis=1) == np.arange(len(pairs))).mean())
