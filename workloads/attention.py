"""What the language model is told about positions: rotary angles and the mask of local causal attention.

Every position sees itself and the `window - 1` before it, so relative distances never leave the trained range however
long the text is (rotary embedding: arXiv 2104.09864; sliding windows: arXiv 2004.05150).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HIDDEN = -1e9


def rotary(start: int, count: int, pairs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines and sines f8[count, pairs] for positions start..start + count - 1."""
    angles = np.arange(start, start + count)[:, None] * 1000.0 ** (-np.arange(pairs) / pairs)
    return np.cos(angles), np.sin(angles)


def mask(past: int, count: int, window: int) -> NDArray[np.float64]:
    """Additive f8[count, past + count]: 0 where a new position may look, `HIDDEN` elsewhere."""
    distance = np.arange(past, past + count)[:, None] - np.arange(past + count)[None, :]
    return np.where((distance >= 0) & (distance < window), 0.0, HIDDEN)
