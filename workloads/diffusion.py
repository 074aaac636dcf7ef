"""DDIM sampling (arXiv 2010.02502, eta = 0) of a v-predicting network (arXiv 2202.00512) at times that the seed moves.

Time runs from 1 (noise) to 0 (image) with signal cos(pi t / 2) and noise sin(pi t / 2). The times between are not
evenly spaced but moved by random amounts that follow from the job's seed: what the network said in one run answers no
question of another, so that no step of a run is right under another seed. Every coefficient is computed in float64;
the arithmetic on latents is plain multiply and add in the lane's dtype, which IEEE 754 fixes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workloads import noise

Float = np.float32 | np.float64
Times = NDArray[np.float64]
LABELS = 10
FREQUENCIES = np.pi * 2.0 ** np.linspace(-1.0, 6.0, 16)


def times(steps: int, seed: int, jitter: float) -> Times:
    """f8[steps + 1]: from 1 down to 0, each one between moved by up to jitter / 2 of an even step, either way.

    Args:
        seed: the job's. jitter: 0 (evenly spaced) up to, not including, 1 (steps may vanish).
    """
    assert 0 <= jitter < 1, "times descend"
    moved = np.arange(steps + 1, dtype=np.float64)
    if steps > 1:
        moved[1:-1] += jitter * (noise.uniform(seed, noise.IMAGE, noise.TIMES, steps - 1) - 0.5)
    return 1.0 - moved / steps


def features(time: Times, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the network is told: f8[n, 42], sines and cosines of the time and the label one-hot."""
    angles = time[:, None] * FREQUENCIES
    return np.concatenate([np.sin(angles), np.cos(angles), np.eye(LABELS)[labels]], axis=1)


def step(x: NDArray[np.floating], v: NDArray[np.floating], now: Times, then: Times) -> NDArray[np.floating]:
    """Latents at time `then` from latents `x` [n, h, w] at time `now` and the predicted v; times are f8[n]."""

    def column(value: Times) -> NDArray[np.floating]:
        return value.astype(x.dtype)[:, None, None]

    a, s = column(np.cos(now * np.pi / 2)), column(np.sin(now * np.pi / 2))
    image, rest = a * x - s * v, s * x + a * v
    stepped: NDArray[np.floating] = column(np.cos(then * np.pi / 2)) * image + column(np.sin(then * np.pi / 2)) * rest
    return stepped


def pixels(latent: NDArray[np.floating]) -> NDArray[np.uint8]:
    """u1[h, w] grey levels (0 background, 255 ink) of a final latent [h, w]."""
    grey = np.rint((latent.astype(np.float64) + 1.0) * 127.5)
    levels: NDArray[np.uint8] = np.clip(np.nan_to_num(grey), 0, 255).astype(np.uint8)
    return levels
