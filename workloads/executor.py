"""The Executor seam: everything that can run a model and re-check somebody's run of it.

Three fillings: `workloads.local.LocalExecutor` (in this process), `workloads.service.Pool` (the same, in child
processes, with async methods) and `workloads.cheats.CheatingExecutor` (tests and the demo only). This module loads
neither NumPy nor ONNX Runtime.

Who is at fault: a spec that cannot be run is a `LocalError` (nothing can be said about the answer), a claimed answer
that no honest run could have given is `Malformed` (the juror votes reject), broken weights are a `StorageError`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

from wire.codec import Wire
from wire.errors import Malformed, QuorateError
from wire.job import Expected, JobSpec, Kind, Lane, Output, Trace
from wire.tensor import Tensor

NUMERICS: dict[Lane, str] = {"tolerant": "f32", "exact": "f64r32"}
"""The numeric class that each lane pins."""


class Cancelled(QuorateError):
    """The run was cancelled before it ended; there is no output."""


class ExecutorCrashed(QuorateError):
    """The process that ran the model ended without an answer; asking again starts a new one."""


class Progress(Wire, frozen=True, tag="progress"):
    """`done` of `total` steps (image, beam search) or texts (embeddings) are finished."""

    done: int
    total: int


class Token(Wire, frozen=True, tag="token"):
    """The next piece of generated text; never empty, not necessarily one token."""

    text: str


Event = Progress | Token
Emit = Callable[[Event], None]
CancelCheck = Callable[[], bool]


def never() -> bool:
    """The check of whoever does not cancel."""
    return False


class ModelInfo(Wire, frozen=True):
    """A model that can be run: `cid` names the manifest of its weights; `numerics` pairs with `lanes`."""

    name: str
    cid: str
    kind: Kind
    lanes: list[Lane]
    numerics: list[str]


class Capabilities(Wire, frozen=True):
    """What an executor can run."""

    models: list[ModelInfo]

    def find(self, model: str) -> ModelInfo | None:
        """The model with this name or CID."""
        return next((info for info in self.models if model in (info.name, info.cid)), None)


class Health(Wire, frozen=True):
    """`ready` to take work; `loaded` names the models in memory; `runs` counts answers since the start."""

    ready: bool
    loaded: list[str]
    runs: int


class Executor(Protocol):
    """Runs models; one call at a time."""

    def capabilities(self) -> Capabilities:
        """What can be run; cheap, loads nothing."""
        ...

    def run(self, spec: JobSpec, *, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """Run the job.

        Args:
            spec: what to run; only kind, model, inputs, lane, numeric and seed matter here.
            emit: told of progress and text as it comes.
            cancelled: polled between steps and tokens.

        Raises:
            Cancelled: `cancelled()` said so, or `cancel` was called.
            LocalError: the spec cannot be run here; says what is allowed.
            StorageError: the model's files are damaged.
        """
        ...

    def recheck(
        self,
        spec: JobSpec,
        output: Output,
        trace: Trace,
        *,
        steps: Sequence[int] = (),
        cancelled: CancelCheck = never,
    ) -> Expected:
        """Compute what the jury compares with a claimed answer (docs/spec/workloads.md names the tensors).

        Args:
            spec: the job. output, trace: the claim.
            steps: which steps of an image's run to recompute, ascending; all if empty.
            cancelled: as in `run`.

        Raises:
            Malformed: the claim has the wrong tensors, shapes or values: no honest run gives it.
            Cancelled, LocalError, StorageError: as `run`.
        """
        ...

    def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        """The state after one step of a run, from the one before it: what a referee compares (`workloads.states`).

        Args:
            spec: an image, or a text in the exact lane that is not searched with beams. step: from 0.
            state: f4[h, w], or the tokens so far, i4[n].

        Raises:
            Malformed: no such step, or a state that no run has there.
            LocalError: such jobs have no steps, or as `run`. StorageError: as `run`.
        """
        ...

    def cancel(self, job: bytes) -> None:
        """Cancel the job with this id if it runs; it then raises `Cancelled`."""
        ...

    def health(self) -> Health:
        """Whether work can be taken."""
        ...


def text_of(output: Output) -> str:
    """The text of a `text.generate` output, without the end mark.

    Raises:
        Malformed: no `tokens` tensor of bytes.
    """
    tensor = output.tensors.get("tokens")
    if tensor is None or tensor.dtype != "i4" or len(tensor.shape) != 1:
        raise Malformed("no tensor tokens i4[n]")
    tensor.check()
    tokens = array("i")
    tokens.frombytes(tensor.data)
    if sys.byteorder == "big":
        tokens.byteswap()
    if any(not 0 <= token <= 255 for token in tokens):
        raise Malformed("tokens outside 0..255")
    return bytes(tokens.tolist()).rstrip(b"\0").decode(errors="replace")
