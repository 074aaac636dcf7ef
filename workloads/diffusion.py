"""Deterministic DDIM sampling (arXiv 2010.02502, eta = 0) of a v-predicting network (arXiv 2202.00512).

Time runs from 1 (noise) to 0 (image) with signal cos(pi t / 2) and noise sin(pi t / 2). Every coefficient is computed
in float64; the arithmetic on latents is plain multiply and add in the lane's dtype, which IEEE 754 fixes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = np.float32 | np.float64
LABELS = 10
FREQUENCIES = np.pi * 2.0 ** np.linspace(-1.0, 6.0, 16)


def times(steps: int) -> NDArray[np.float64]:
    """f8[steps + 1]: from 1 down to 0."""
    return 1.0 - np.arange(steps + 1) / steps


def features(time: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the network is told: f8[n, 42], sines and cosines of the time and the label one-hot."""
    angles = time[:, None] * FREQUENCIES
    return np.concatenate([np.sin(angles), np.cos(angles), np.eye(LABELS)[labels]], axis=1)


def step(
    x: NDArray[np.floating], v: NDArray[np.floating], now: NDArray[np.float64], then: NDArray[np.float64]
) -> NDArray[np.floating]:
    """Latents at time `then` from latents `x` [n, h, w] at time `now` and the predicted v; times are f8[n]."""

    def column(value: NDArray[np.float64]) -> NDArray[np.floating]:
        return value.astype(x.dtype)[:, None, None]

    a, s = column(np.cos(now * np.pi / 2)), column(np.sin(now * np.pi / 2))
    image, noise = a * x - s * v, s * x + a * v
    stepped: NDArray[np.floating] = column(np.cos(then * np.pi / 2)) * image + column(np.sin(then * np.pi / 2)) * noise
    return stepped


def pixels(latent: NDArray[np.floating]) -> NDArray[np.uint8]:
    """u1[h, w] grey levels (0 background, 255 ink) of a final latent [h, w]."""
    grey = np.rint((latent.astype(np.float64) + 1.0) * 127.5)
    levels: NDArray[np.uint8] = np.clip(np.nan_to_num(grey), 0, 255).astype(np.uint8)
    return levels
