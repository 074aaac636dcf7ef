"""The networks on ONNX Runtime's CPU provider: the compute of the tolerant lane.

One graph file per model; weights come from the weight file and are handed to the session as external initialisers.
Threads do not spin between calls, so an idle node uses no CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from wire.errors import StorageError
from wire.job import Kind
from workloads.forward import Floats, Weights

LEVELS = {
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


@dataclass(frozen=True)
class Options:
    """How sessions are made: threads within an operator, and the level of graph optimisation."""

    threads: int = 1
    level: str = "all"


class Session:
    """One graph with its weights.

    Raises:
        StorageError: the graph and the weights do not fit together.
    """

    def __init__(self, graph: bytes, weights: Weights, dtype: Any, options: Options) -> None:
        self.dtype = np.dtype(dtype)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.graph_optimization_level = LEVELS[options.level]
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3
        # The session copies nothing until it is built: these arrays must outlive its construction.
        self._held = {name: np.array(value, dtype=self.dtype) for name, value in weights.items()}
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in self._held.values()]
        settings.add_external_initializers(list(self._held), values)
        try:
            self._session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        except (RuntimeError, ValueError, onnxruntime.capi.onnxruntime_pybind11_state.Fail) as exc:
            raise StorageError(f"the graph does not load: {exc}") from exc

    def __call__(self, outputs: list[str], **inputs: NDArray[Any]) -> list[Floats]:
        """Run the graph; float inputs are cast to its dtype."""
        fed = {
            name: np.ascontiguousarray(value if value.dtype == np.int64 else value.astype(self.dtype, copy=False))
            for name, value in inputs.items()
        }
        results: list[Floats] = self._session.run(outputs, fed)
        return results


class TextNetwork(Session):
    """As `workloads.forward.TextNetwork`."""

    def __call__(  # type: ignore[override]  # positional, as the NumPy network is called
        self, tokens: NDArray[np.int64], cos: Floats, sin: Floats, mask: Floats, past: Floats
    ) -> tuple[Floats, Floats, Floats]:
        logits, hidden, present = super().__call__(
            ["logits", "hidden", "present"], tokens=tokens, cos=cos, sin=sin, mask=mask, past=past
        )
        return logits, hidden, present


class ImageNetwork(Session):
    """As `workloads.forward.ImageNetwork`."""

    def __call__(self, x: Floats, features: Floats) -> Floats:  # type: ignore[override]  # as the NumPy network
        return super().__call__(["v"], x=x, features=features)[0]


class EmbedNetwork(Session):
    """As `workloads.forward.EmbedNetwork`."""

    def __call__(self, features: Floats) -> Floats:  # type: ignore[override]  # as the NumPy network
        return super().__call__(["vectors"], features=features)[0]


NETWORKS: dict[Kind, type[Session]] = {
    "text.generate": TextNetwork,
    "image.generate": ImageNetwork,
    "embed.text": EmbedNetwork,
}
