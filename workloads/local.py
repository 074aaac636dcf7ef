"""The executor that runs models in this process: the honest one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from wire.codec import Wire
from wire.errors import LocalError
from wire.job import Expected, JobSpec, Kind, Output, Trace
from wire.tensor import Tensor
from workloads import catalog, forward, inputs, weights
from workloads.embed import EmbedModel
from workloads.executor import CancelCheck, Capabilities, Emit, Event, Health, never
from workloads.image import ImageModel
from workloads.text import TextModel
from workloads.variants import Library, Variant

MODELS: dict[Kind, Any] = {"text.generate": TextModel, "image.generate": ImageModel, "embed.text": EmbedModel}

Tensors = dict[str, NDArray[np.float32]]


class _Runner(Protocol):
    def run(self, given: Wire, seed: int, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]: ...

    def recheck(
        self, given: Wire, seed: int, output: Output, trace: Trace, emit: Emit, cancelled: CancelCheck
    ) -> Expected: ...


class _SteppedRunner(_Runner, Protocol):
    def recheck_steps(self, given: Wire, seed: int, output: Output, trace: Trace, steps: Sequence[int]) -> Expected: ...


class LocalExecutor:
    """Runs every model of a catalog; models are loaded when first used and stay in memory.

    Args:
        variant: how to compute.
        threads: within an operator, unless the variant fixes them.
        models: the catalog; the built-in one by default.
        alter: changes the weights after they were verified; honest executors leave it out.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        threads: int = 1,
        models: catalog.Catalog | None = None,
        alter: Callable[[Tensors], Tensors] | None = None,
    ) -> None:
        self._variant, self._threads = variant, variant.threads or threads
        self._catalog = models or catalog.built_in()
        self._alter = alter
        self._loaded: dict[tuple[str, str], _Runner] = {}
        self._running: bytes | None = None
        self._cancelled = False
        self._runs = 0

    def capabilities(self) -> Capabilities:
        """See `Executor`."""
        return self._catalog.capabilities()

    def health(self) -> Health:
        """See `Executor`."""
        return Health(self._running is None, sorted({name for name, _ in self._loaded}), self._runs)

    def cancel(self, job: bytes) -> None:
        """See `Executor`."""
        if job == self._running:
            self._cancelled = True

    def run(self, spec: JobSpec, *, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """See `Executor`."""
        given, runner = self.prepare(spec)
        with self.marked(spec.id, cancelled) as stop:
            return runner.run(given, spec.seed, emit, stop)

    def recheck(
        self,
        spec: JobSpec,
        output: Output,
        trace: Trace,
        *,
        steps: Sequence[int] = (),
        cancelled: CancelCheck = never,
    ) -> Expected:
        """See `Executor`; `cancelled` is polled as in `run`."""
        given, runner = self.prepare(spec)
        inputs.check_steps(spec, given, steps)
        with self.marked(spec.id, cancelled) as stop:
            if steps:
                return cast(_SteppedRunner, runner).recheck_steps(given, spec.seed, output, trace, steps)
            return runner.recheck(given, spec.seed, output, trace, _ignore, stop)

    @contextmanager
    def marked(self, job: bytes, cancelled: CancelCheck) -> Iterator[CancelCheck]:
        """A block in which `cancel(job)` hits this job and no other; gives the check to poll."""
        self._running, self._cancelled = job, False
        try:
            yield lambda: self._cancelled or cancelled()
        finally:
            self._running = None
            self._runs += 1

    def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        """See `Executor`."""
        given, runner = self.prepare(spec)
        if not isinstance(runner, ImageModel | TextModel):
            raise LocalError(f"{spec.kind} has no steps")
        with self.marked(spec.id, never):
            return runner.recompute(given, spec.seed, step, state)

    def prepare(self, spec: JobSpec) -> tuple[Wire, _Runner]:
        """The checked input and the loaded model.

        Raises:
            LocalError: the spec cannot be run here.
            StorageError: the model's files are damaged.
        """
        given = inputs.check(spec)
        model = self._catalog.find(spec.model, spec.kind)
        key = (model.manifest.name, spec.numeric)
        if key not in self._loaded:
            self._loaded[key] = self._load(model, exact=spec.lane == "exact")
        return given, self._loaded[key]

    def _load(self, model: catalog.Model, *, exact: bool) -> _Runner:
        library = self._variant.exact if exact else self._variant.tolerant
        kind, tensors = model.manifest.kind, weights.load(model.read("weights.safetensors"))
        if self._alter is not None:
            tensors = self._alter(tensors)
        network = self._network(model, library, tensors, exact=exact)
        config, sequential = model.manifest.config, self._variant.sequential
        return cast(_Runner, MODELS[kind](network, config, exact=exact, sequential=sequential))

    def _network(self, model: catalog.Model, library: Library, tensors: Tensors, *, exact: bool) -> Any:
        """The network of a model; libraries are imported late: NumPy-only variants and the exact lane run without."""
        config, kind = model.manifest.config, model.manifest.kind
        dtype = np.float64 if exact else np.float32
        if library == "ort" and (not exact or "graph64.onnx" in model.manifest.files):
            from workloads import ort

            graph = model.read("graph64.onnx" if exact else "graph.onnx")
            return ort.NETWORKS[kind](graph, tensors, dtype, ort.Options(self._threads, self._variant.level))
        if library in ("torch", "cuda", "cuda-tf32"):
            from workloads import networks_torch

            place = "cpu" if library == "torch" else "cuda"
            options = networks_torch.Options(place, self._threads, tf32=library == "cuda-tf32")
            return networks_torch.NETWORKS[kind](tensors, config, dtype, options)
        return forward.NETWORKS[kind](tensors, config, dtype, shifted=library == "numpy-shifted")


def _ignore(event: Event) -> None:
    """Nobody listens to a re-check."""
