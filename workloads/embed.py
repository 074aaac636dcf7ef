"""`embed.text`: unit vectors of texts; re-checking computes them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wire.job import EmbedInput, Expected, Output, Trace
from wire.tensor import from_numpy
from workloads import claims, ngrams
from workloads.executor import CancelCheck, Emit, Progress
from workloads.forward import Floats
from workloads.text import stop_at

CHUNK = 16
"""Texts between two looks at cancellation."""


class Network(Protocol):
    """`workloads.forward.EmbedNetwork` or `workloads.ort.EmbedNetwork`."""

    def __call__(self, features: NDArray[np.float64]) -> Floats: ...


class EmbedModel:
    """The sentence embedder in one numeric class."""

    def __init__(self, network: Network, config: Mapping[str, int], *, exact: bool, sequential: bool = False) -> None:
        self.network, self.exact = network, exact
        self.buckets, self.width = config["buckets"], config["width"]
        self.chunk = 1 if sequential else CHUNK

    def run(self, given: EmbedInput, seed: int, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """Embed the texts in chunks; the seed plays no part."""
        rows: list[NDArray[np.float32]] = []
        for at in range(0, len(given.texts), self.chunk):
            stop_at(cancelled)
            chunk = given.texts[at : at + self.chunk]
            rows.append(self.network(ngrams.features(chunk, self.buckets)).astype(np.float32))
            emit(Progress(at + len(chunk), len(given.texts)))
        return Output({"vectors": from_numpy(np.concatenate(rows))}), Trace({})

    def recheck(
        self, given: EmbedInput, seed: int, output: Output, trace: Trace, emit: Emit, cancelled: CancelCheck
    ) -> Expected:
        """The vectors again, in both lanes."""
        claims.only(trace)
        claims.array(claims.only(output, "vectors")["vectors"], "vectors", "f4", (len(given.texts), self.width))
        own, _ = self.run(given, seed, emit, cancelled)
        return Expected(own.tensors)
