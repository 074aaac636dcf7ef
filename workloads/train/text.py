"""Trains the byte-level GPT on the Python language reference and the standard library's docstrings."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from workloads import attention, quality
from workloads.catalog import Model
from workloads.nets import Gpt
from workloads.train import corpus, publish

STEPS, BATCH, LENGTH, RATE, SEED = 5200, 12, 256, 3e-3, 7
OLDER, ON = 0.85, 40
"""Share of the steps after which the older checkpoint is taken. If only that is wanted, the published weights are
trained on from there for so many steps: a neighbour of the same run, in a minute instead of an hour."""

CONFIG = {"vocabulary": 256, "width": 96, "layers": 4, "heads": 4, "window": 128}


def tokens(documents: list[str]) -> torch.Tensor:
    """i8[n]: the documents' bytes, each document after a NUL that marks its beginning."""
    return torch.tensor(list(b"".join(b"\0" + text.encode() for text in documents) + b"\0"))


def network() -> Gpt:
    """An untrained network of the published shape."""
    return Gpt(CONFIG["vocabulary"], CONFIG["width"], CONFIG["layers"], CONFIG["heads"])


def positions(length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotary cosines and sines, and the mask, for `length` positions from 0."""
    cos, sin = attention.rotary(0, length, CONFIG["width"] // CONFIG["heads"] // 2)
    mask = attention.mask(0, length, CONFIG["window"])
    return torch.tensor(cos).float(), torch.tensor(sin).float(), torch.tensor(mask).float()


def bits_per_byte(model: Gpt, text: torch.Tensor) -> float:
    """Mean negative log2 likelihood of held-out bytes, read in windows of `LENGTH` from a cold start."""
    rows = text[: (len(text) - 1) // LENGTH * LENGTH].view(-1, LENGTH)
    with torch.no_grad():
        logits = torch.cat([model(part[:, :-1], *positions(LENGTH - 1)) for part in rows.split(16)])
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item() / math.log(2)


def train(steps: int = STEPS, *, older_only: bool = False) -> publish.Trained:
    """Train; the weights by name."""
    torch.manual_seed(SEED)
    train_texts, held_texts = corpus.documents()
    text, held = tokens(train_texts), tokens(held_texts)
    model = network()
    print("parameters", sum(p.numel() for p in model.parameters()), "bytes", len(text), flush=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.05)
    where, told = torch.arange(LENGTH), positions(LENGTH)
    started, running, older = time.monotonic(), 5.5, {}
    first, last = 0, steps
    if older_only:
        first, last = round(OLDER * steps), round(OLDER * steps) + ON
        model.load_state_dict({name: torch.tensor(value) for name, value in publish.published("text").items()})
    for step in range(first, last):
        if step == round(OLDER * steps):
            older = publish.copied(model)
        rows = text[torch.randint(len(text) - LENGTH - 1, (BATCH, 1)) + torch.arange(LENGTH + 1)]
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, step / 100) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        logits = model(rows[:, where], *told)
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        running = 0.98 * running + 0.02 * loss.item()
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(f"text step {step} bits/byte {running / math.log(2):.3f} {seconds:.0f} s", flush=True)
    print(f"held-out bits/byte {bits_per_byte(model, held):.3f}", flush=True)
    if older_only:
        return publish.Trained({}, publish.copied(model))
    return publish.Trained(publish.copied(model), older)


def card(folder: Path) -> dict[str, Any]:
    """Write the evaluation text and return what the model card says."""
    train_texts, held_texts = corpus.documents()
    held = b"".join(b"\0" + text.encode() for text in held_texts)
    (folder / "heldout.txt").write_bytes(held[: 64 * LENGTH])
    corpus_bytes = b"".join(b"\0" + text.encode() for text in train_texts)
    return {
        "summary": "Byte-level GPT: 4 layers of width 96, 4 heads, rotary positions, local attention over 128 bytes.",
        "data": f"Topics of pydoc_data and docstrings of the standard library of Python {platform.python_version()}",
        "data_licence": "PSF-2.0",
        "data_bytes": len(corpus_bytes),
        "data_sha256": hashlib.sha256(corpus_bytes).hexdigest(),
        "training": f"{STEPS} steps of {BATCH} x {LENGTH} bytes, AdamW, torch {torch.__version__}, one thread",
        "quality": {
            "name": "bits per byte of held-out documents (64 windows of 256 bytes)",
            "value": round(quality.bits_per_byte(Model(folder), 64), 4),
            "better": "lower",
        },
        "limits": "Writes plausible fragments of Python documentation, knows nothing; greedy text soon repeats itself.",
    }
