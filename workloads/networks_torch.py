"""The networks in torch, on the processor or on a GPU: backends that no shipped threshold was made from.

Torch is no part of the core install (extra `gpu`). float32 means float32: TensorFloat-32, which cuDNN's convolutions
use unless told otherwise, keeps 10 bits of the mantissa and is another numeric class, so it is off but for the variant
that shows what it does to a check.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wire.errors import LocalError
from wire.job import Kind
from workloads import nets
from workloads.forward import EPSILON, Floats, Weights
from workloads.weights import layout


@dataclass(frozen=True)
class Options:
    """Where to compute (`cpu`, `cuda`), with how many threads on a processor, and whether TensorFloat-32 is allowed."""

    place: str = "cpu"
    threads: int = 1
    tf32: bool = False


class _Network(ABC):
    """A module with these weights in one dtype.

    Raises:
        LocalError: torch cannot compute there.
    """

    def __init__(self, weights: Weights, config: Mapping[str, int], dtype: Any, options: Options) -> None:
        if options.place == "cuda" and not torch.cuda.is_available():
            raise LocalError("torch finds no CUDA device here")
        torch.set_num_threads(options.threads)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
        self.dtype = np.dtype(dtype)
        self.module = self.build(config).eval().requires_grad_(False)
        known = self.module.state_dict()
        laid_out = layout({name: value for name, value in weights.items() if name in known})
        self.module.load_state_dict({name: torch.tensor(value) for name, value in laid_out.items()})
        for part in self.module.modules():
            if isinstance(part, nn.LayerNorm | nn.GroupNorm):
                part.eps = EPSILON
        self._place = torch.device(options.place)
        self._float = torch.float64 if self.dtype == np.float64 else torch.float32
        self.module.to(self._place, self._float)

    @staticmethod
    @abstractmethod
    def build(config: Mapping[str, int]) -> Any:
        """The untrained module."""

    def given(self, value: NDArray[Any]) -> torch.Tensor:
        """An array where the module is; floats in its dtype."""
        tensor = torch.tensor(np.ascontiguousarray(value))
        return tensor.to(self._place, self._float if tensor.is_floating_point() else None)


class TextNetwork(_Network):
    """As `workloads.forward.TextNetwork`."""

    @staticmethod
    def build(config: Mapping[str, int]) -> Any:
        return nets.Gpt(config["vocabulary"], config["width"], config["layers"], config["heads"])

    def __call__(
        self, tokens: NDArray[np.int64], cos: Floats, sin: Floats, mask: Floats, past: Floats
    ) -> tuple[Floats, Floats, Floats]:
        found = self.module.read(*map(self.given, (tokens, cos, sin, mask, past)))
        logits, hidden, present = (each.cpu().numpy() for each in found)
        return logits, hidden, present


class ImageNetwork(_Network):
    """As `workloads.forward.ImageNetwork`."""

    @staticmethod
    def build(config: Mapping[str, int]) -> Any:
        channels = config["fine"], config["middle"], config["coarse"]
        return nets.UNet(config["features"], config["condition"], channels, config["groups"])

    def __call__(self, x: Floats, features: NDArray[np.float64]) -> Floats:
        v: Floats = self.module(self.given(x)[:, None], self.given(features))[:, 0].cpu().numpy()
        return v


class EmbedNetwork(_Network):
    """As `workloads.forward.EmbedNetwork`."""

    @staticmethod
    def build(config: Mapping[str, int]) -> Any:
        return nets.Embedder(config["buckets"], config["width"], config["hidden"])

    def __call__(self, features: NDArray[np.float64]) -> Floats:
        vectors: Floats = self.module(self.given(features)).cpu().numpy()
        return vectors


NETWORKS: dict[Kind, type[_Network]] = {
    "text.generate": TextNetwork,
    "image.generate": ImageNetwork,
    "embed.text": EmbedNetwork,
}
