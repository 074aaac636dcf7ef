"""Named numeric variants: honest ways to compute the same job that differ in the last bits.

Calibration runs each in a process of its own (`open_pool(variant=...)` sets the environment before the child starts)
and takes thresholds from their distances. All give identical bytes in the exact lane. `UNSEEN` are those that need what
the core install lacks; the shipped records were made without them, which makes them the test of these records.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from wire.errors import LocalError

if TYPE_CHECKING:
    from workloads.executor import Executor
    from workloads.local import LocalExecutor

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


Library = Literal["ort", "numpy", "numpy-shifted", "torch", "cuda", "cuda-tf32"]


@dataclass(frozen=True)
class Variant:
    """One way to compute.

    Attributes:
        tolerant: library of the float32 lane; `numpy-shifted` sums convolutions in another order, `cuda` and
            `cuda-tf32` are torch on a GPU.
        exact: library of the float64 lane; where ONNX Runtime lacks a kernel NumPy stands in.
        level: graph optimisation of ONNX Runtime.
        threads: within an operator; None takes what the pool was opened with.
        sequential: re-check position by position instead of in one batch.
        environment: what must be set before the process starts.
    """

    name: str
    tolerant: Library = "ort"
    exact: Library = "numpy"
    level: Literal["all", "basic", "none"] = "all"
    threads: int | None = None
    sequential: bool = False
    environment: dict[str, str] = field(default_factory=dict)


# The float64 graphs run unoptimised: ONNX Runtime's optimised ones were measured to lose half of float64's digits.
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("default"),
        Variant("ort-basic", level="basic"),
        Variant("ort-noopt", level="none"),
        Variant("ort-threads1", threads=1),
        Variant("ort-threads2", threads=2),
        Variant("ort-single", sequential=True),
        Variant("ort-f64", exact="ort", level="none"),
        Variant("numpy", tolerant="numpy"),
        Variant("numpy-shifted", tolerant="numpy-shifted", exact="numpy-shifted"),
        Variant("numpy-single", tolerant="numpy", sequential=True),
        Variant("numpy-haswell", tolerant="numpy", environment={"OPENBLAS_CORETYPE": "Haswell"}),
        Variant("numpy-nehalem", tolerant="numpy-shifted", environment={"OPENBLAS_CORETYPE": "Nehalem"}),
    )
}

variants: list[str] = list(VARIANTS)
"""The names, for calibration."""

UNSEEN = {
    variant.name: variant
    for variant in (
        Variant("torch", tolerant="torch", exact="torch"),
        Variant("torch-cuda", tolerant="cuda", exact="cuda"),
        Variant("torch-tf32", tolerant="cuda-tf32", exact="cuda"),
    )
}
"""Torch, on the processor and on a GPU; the last with TensorFloat-32, which is another numeric class."""


def find(name: str) -> Variant:
    """The variant of that name.

    Raises:
        LocalError: unknown; names those that are known.
    """
    known = {**VARIANTS, **UNSEEN}
    if name not in known:
        raise LocalError(f"unknown variant {name!r}; known: {', '.join(known)}")
    return known[name]


def environment(variant: Variant, threads: int) -> dict[str, str]:
    """The environment for a child that computes this variant."""
    count = str(variant.threads or threads)
    silent = {"ORT_DISABLE_TELEMETRY": "1"}  # should a newer ONNX Runtime be installed by hand
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, count), **silent, **variant.environment}


def probe(variant: Variant) -> str:
    """Python code whose process fails where this variant cannot compute; empty if the core install is enough."""
    libraries = {variant.tolerant, variant.exact}
    if libraries & {"cuda", "cuda-tf32"}:
        return "import torch; assert torch.cuda.is_available(), 'torch finds no CUDA device here'"
    return "import torch" if "torch" in libraries else ""


def make_executor(variant: str = "default", *, threads: int = 1, cheat: str | None = None) -> Executor:
    """An executor in this process.

    Args:
        variant: one of `variants` or `UNSEEN`; its `environment` takes effect only if it was set before NumPy was
            imported.
        threads: within an operator, unless the variant fixes them.
        cheat: one of `workloads.cheats.CHEATS`; for testing the network's defences.

    Raises:
        LocalError: unknown variant or cheat.
    """
    from workloads.local import LocalExecutor

    build: Callable[..., LocalExecutor] = LocalExecutor
    if cheat is None:
        return build(find(variant), threads=threads)
    from workloads.cheats import CheatingExecutor

    return CheatingExecutor(find(variant), cheat, threads=threads)
