"""The three networks in NumPy, in float32 or float64, from the same weights as the ONNX graphs.

float64 is the compute of the exact lane (ONNX Runtime has no float64 convolution on CPUs); float32 is a backend of its
own for calibration. `shifted` convolutions add nine matrix products instead of one long one: another order of
summation, to show that rounding to float32 hides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.job import Kind

Floats = NDArray[np.floating]
Weights = Mapping[str, NDArray[np.float32]]
EPSILON = float(np.float32(1e-5))
"""Of every normalisation; ONNX stores it as float32, so float64 must use the same rounded value."""


def silu(x: Floats) -> Floats:
    """x * sigmoid(x), without overflow."""
    y: Floats = x / (1 + np.exp(np.minimum(-x, x.dtype.type(80))))
    return y


def normalise(x: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Zero mean and unit variance along `axis`."""
    centred = x - x.mean(axis=axis, keepdims=True)
    y: Floats = centred / np.sqrt((centred * centred).mean(axis=axis, keepdims=True) + x.dtype.type(EPSILON))
    return y


class Network:
    """Weights cast to one dtype; `shifted` concerns convolutions only."""

    def __init__(self, weights: Weights, config: Mapping[str, int], dtype: Any, *, shifted: bool = False) -> None:
        self.shifted = shifted
        self.dtype = np.dtype(dtype)
        self.config = dict(config)
        self.w: dict[str, Floats] = {name: value.astype(self.dtype) for name, value in weights.items()}

    def cast(self, value: NDArray[Any]) -> Floats:
        """`value` in this network's dtype."""
        return value.astype(self.dtype, copy=False)

    def layer_norm(self, name: str, x: Floats) -> Floats:
        """Normalise the last axis, scale, shift."""
        return normalise(x, -1) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def dense(self, name: str, x: Floats) -> Floats:
        """Affine map of the last axis."""
        y: Floats = x @ self.w[name + ".weight"] + self.w[name + ".bias"]
        return y


class TextNetwork(Network):
    """Decoder-only transformer; see `nets.Gpt`."""

    def __call__(
        self, tokens: NDArray[np.int64], cos: Floats, sin: Floats, mask: Floats, past: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Read `t` more tokens.

        Args:
            tokens: i8[b, t]. cos, sin: [t, pairs]. mask: additive [t, p + t].
            past: [2 * layers, b, heads, p, pairs * 2], keys and values of earlier positions, rotated.

        Returns:
            logits [b, t, vocabulary], the last hidden states [b, t, width] they come from, and `past` grown by t.
        """
        cos, sin, mask, past = map(self.cast, (cos, sin, mask, past))
        x = self.w["embed.weight"][tokens]
        present = []
        for layer in range(self.config["layers"]):
            x, key, value = self._block(f"blocks.{layer}.", x, (cos, sin), mask, past[2 * layer : 2 * layer + 2])
            present += [key, value]
        x = self.layer_norm("norm", x)
        return x @ self.w["embed.weight"].T, x, np.stack(present)

    def _block(
        self, name: str, x: Floats, rotary: tuple[Floats, Floats], mask: Floats, past: Floats
    ) -> tuple[Floats, Floats, Floats]:
        b, t, d = x.shape
        heads = self.config["heads"]
        qkv = self.layer_norm(name + "norm1", x) @ self.w[name + "qkv.weight"]
        q, k, v = qkv.reshape(b, t, 3, heads, d // heads).transpose(2, 0, 3, 1, 4)
        k = np.concatenate([past[0], _rotate(k, *rotary)], axis=2)
        v = np.concatenate([past[1], v], axis=2)
        scores = _rotate(q, *rotary) @ k.swapaxes(-1, -2) * self.dtype.type((d // heads) ** -0.5) + mask
        weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
        y = (weight / weight.sum(axis=-1, keepdims=True)) @ v
        x = x + y.transpose(0, 2, 1, 3).reshape(b, t, d) @ self.w[name + "out.weight"]
        up = silu(self.layer_norm(name + "norm2", x) @ self.w[name + "up.weight"])
        return x + up @ self.w[name + "down.weight"], k, v


def _rotate(x: Floats, cos: Floats, sin: Floats) -> Floats:
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class ImageNetwork(Network):
    """Three-level U-Net that predicts v; see `nets.UNet`. Activations are [n, h, w, channels]."""

    def __call__(self, x: Floats, features: NDArray[np.float64]) -> Floats:
        """v [n, h, w] from latents [n, h, w] and features [n, f]."""
        c = silu(self.dense("cond2", silu(self.dense("cond1", self.cast(features)))))
        h1 = self._res("res1", self._conv("head", self.cast(x)[..., None]), c)
        h2 = self._res("res2", self._conv("down1", h1, stride=2), c)
        y = self._res("res4", self._res("res3", self._conv("down2", h2, stride=2), c), c)
        y = self._res("res5", np.concatenate([_double(y), h2], axis=-1), c)
        y = self._res("res6", np.concatenate([_double(y), h1], axis=-1), c)
        return self._conv("tail", silu(self._group_norm("norm", y)))[..., 0]

    def _res(self, name: str, x: Floats, c: Floats) -> Floats:
        y = self._conv(name + ".conv1", silu(self._group_norm(name + ".norm1", x)))
        y = y + self.dense(name + ".cond", c)[:, None, None, :]
        y = self._conv(name + ".conv2", silu(self._group_norm(name + ".norm2", y)))
        return y + (self._conv(name + ".skip", x) if name + ".skip.weight" in self.w else x)

    def _group_norm(self, name: str, x: Floats) -> Floats:
        n, h, w, channels = x.shape
        groups = self.config["groups"]
        y = normalise(x.reshape(n, h * w, groups, channels // groups), (1, 3)).reshape(x.shape)
        return y * self.w[name + ".weight"] + self.w[name + ".bias"]

    def _conv(self, name: str, x: Floats, stride: int = 1) -> Floats:
        """A 1x1 or 3x3 convolution with the border padded by zeros; weights [out, in, k, k]."""
        weight, bias = self.w[name + ".weight"], self.w[name + ".bias"]
        if weight.shape[2] == 1:
            y: Floats = x @ weight[:, :, 0, 0].T + bias
            return y
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1], x.shape[2]
        taps = [
            (weight[:, :, i, j].T, padded[:, i : i + height : stride, j : j + width : stride])
            for i in range(3)
            for j in range(3)
        ]
        if self.shifted:
            return np.asarray(sum((part @ tap for tap, part in taps[1:]), taps[0][1] @ taps[0][0]) + bias)
        columns = np.concatenate([part for _, part in taps], axis=-1)
        z: Floats = columns @ np.concatenate([tap for tap, _ in taps], axis=0) + bias
        return z


def _double(x: Floats) -> Floats:
    """Twice the height and width, by repetition."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class EmbedNetwork(Network):
    """Table, one residual layer, unit length; see `nets.Embedder`."""

    def __call__(self, features: NDArray[np.float64]) -> Floats:
        """Unit vectors [n, width] from features [n, buckets]."""
        x = self.layer_norm("norm", self.cast(features) @ self.w["table.weight"])
        x = x + self.dense("down", silu(self.dense("up", x)))
        y: Floats = x / np.sqrt((x * x).sum(axis=-1, keepdims=True))
        return y


NETWORKS: dict[Kind, type[Network]] = {
    "text.generate": TextNetwork,
    "image.generate": ImageNetwork,
    "embed.text": EmbedNetwork,
}
