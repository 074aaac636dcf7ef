"""Trains the digits diffusion model and the classifier that measures it (scikit-learn's digits, 16x16)."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from workloads import diffusion, quality, weights
from workloads.catalog import Model
from workloads.nets import UNet
from workloads.train import publish

STEPS, BATCH, RATE, SEED = 3000, 64, 2e-3, 7
OLDER = 0.85
"""Share of the steps after which the older checkpoint is taken."""

CONFIG = {
    "features": 42,
    "condition": 96,
    "fine": 24,
    "middle": 48,
    "coarse": 72,
    "groups": 8,
    "height": 16,
    "width": 16,
    "jitter_percent": 50,
}


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(train images, train labels, test images, test labels); images f4[n, 1, 16, 16] in -1..1; every fifth is test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images / 8.0 - 1.0, dtype=torch.float32)[:, None]
    images = F.interpolate(images, size=(16, 16), mode="bilinear", align_corners=False)
    labels = torch.tensor(data.target)
    test = torch.arange(len(labels)) % 5 == 0
    return images[~test], labels[~test], images[test], labels[test]


def network() -> UNet:
    """An untrained network of the published shape."""
    channels = (CONFIG["fine"], CONFIG["middle"], CONFIG["coarse"])
    return UNet(CONFIG["features"], CONFIG["condition"], channels, CONFIG["groups"])


def _average(mean: nn.Module, model: nn.Module, step: int) -> None:
    keep = min(0.998, (1 + step) / (20 + step))
    with torch.no_grad():
        for target, source in zip(mean.parameters(), model.parameters(), strict=True):
            target.lerp_(source, 1 - keep)


def train(steps: int = STEPS, *, older_only: bool = False) -> publish.Trained:
    """Train; the averaged weights by name."""
    torch.manual_seed(SEED)
    images, labels, _, _ = digits()
    model = network()
    mean = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    started, running, older = time.monotonic(), 0.0, {}
    for step in range(steps):
        if step == round(OLDER * steps):
            older = publish.copied(mean)
            if older_only:
                return publish.Trained({}, older)
        pick = torch.randint(len(labels), (BATCH,))
        # One time per stratum of 0..1: less variance than independent draws.
        t = (torch.arange(BATCH) + torch.rand(BATCH)) / BATCH
        noise = torch.randn(BATCH, 1, 16, 16)
        a, s = (f(t * math.pi / 2)[:, None, None, None] for f in (torch.cos, torch.sin))
        told = torch.tensor(diffusion.features(t.double().numpy(), labels[pick].numpy()), dtype=torch.float32)
        loss = F.mse_loss(model(a * images[pick] + s * noise, told), a * noise - s * images[pick])
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, step / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        _average(mean, model, step)
        running = 0.98 * running + 0.02 * loss.item() if step else loss.item()
        if step % 100 == 0:
            print(f"image step {step} loss {running:.4f} {time.monotonic() - started:.0f} s", flush=True)
    return publish.Trained(publish.copied(mean), older)


def classifier(steps: int = 1500) -> tuple[dict[str, NDArray[np.float32]], float]:
    """A small network that reads real digits, and its accuracy on the held-out ones."""
    torch.manual_seed(SEED)
    images, labels, test_images, test_labels = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(steps):
        pick = torch.randint(len(labels), (128,))
        noisy = images[pick] + 0.1 * torch.randn(128, 1, 16, 16)
        loss = F.cross_entropy(model(noisy), labels[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        accuracy = (model(test_images).argmax(1) == test_labels).float().mean().item()
    names = {"1.weight": "hidden.weight", "1.bias": "hidden.bias", "3.weight": "out.weight", "3.bias": "out.bias"}
    return {
        names[name]: value.T.numpy() if value.ndim == 2 else value.numpy() for name, value in model.state_dict().items()
    }, accuracy


def card(folder: Path) -> dict[str, Any]:
    """Train the classifier, write it and a contact sheet, and return what the model card says."""
    from PIL import Image

    reader, accuracy = classifier()
    (folder / "classifier.safetensors").write_bytes(weights.dump(reader))
    pixels, _ = quality.generated(Model(folder), 100)
    cells = np.pad(pixels, ((0, 0), (1, 1), (1, 1)), constant_values=96).reshape(10, 10, 18, 18)
    sheet = Image.fromarray(cells.transpose(0, 2, 1, 3).reshape(180, 180))
    sheet.resize((540, 540), Image.Resampling.NEAREST).save(folder / "samples.png", optimize=True)
    return {
        "summary": "Class-conditional diffusion U-Net (16, 8, 4; 24, 48, 72 channels), predicts v; DDIM, moved times.",
        "data": "scikit-learn's copy of the UCI optical digits (1,797 images of 8x8), upsampled to 16x16, four fifths",
        "data_licence": "CC-BY-4.0 (UCI, https://archive.ics.uci.edu/dataset/80); scikit-learn BSD-3-Clause",
        "training": f"{STEPS} steps of {BATCH} images, AdamW, averaged weights, torch {torch.__version__}, one thread",
        "quality": {
            "name": "share of 400 generated images (30 steps) in which a classifier of real digits reads the label",
            "value": round(quality.image_accuracy(Model(folder), 400), 4),
            "better": "higher",
            "classifier_on_real_digits": round(accuracy, 4),
        },
        "limits": "Draws digits of one size, nothing else.",
    }
