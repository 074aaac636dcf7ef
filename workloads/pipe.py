"""What the pool and its child processes say to each other, and the frames it travels in.

A frame is a 4-byte big-endian length and the canonical MessagePack of one message. The child answers every `Run` and
`Recheck` with exactly one of `Ran`, `Rechecked`, `Failed`, and likewise `Recompute`; events come before. Reading is
blocking here (child side); `service` reads the same frames with trio.
"""

from __future__ import annotations

from typing import BinaryIO

from wire import codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed, QuorateError, StorageError
from wire.job import Expected, JobSpec, Output, Trace
from wire.tensor import Tensor
from workloads.executor import Cancelled, ExecutorCrashed, Health, Progress, Token

MESSAGE_BYTES_MAX = 16 << 20
"""Longest message: an output and a trace of `TENSORS_MAX` full tensors fit."""

LENGTH_BYTES = 4


class Run(Wire, frozen=True, tag="run"):
    """Run this job."""

    call: int
    spec: JobSpec


class Recheck(Wire, frozen=True, tag="recheck"):
    """Re-check this claim."""

    call: int
    spec: JobSpec
    output: Output
    trace: Trace
    steps: list[int]


class Recompute(Wire, frozen=True, tag="recompute"):
    """Compute the state after this step."""

    call: int
    spec: JobSpec
    step: int
    state: Tensor


class Cancel(Wire, frozen=True, tag="cancel"):
    """Stop working on this call; it is still answered."""

    call: int


class AskHealth(Wire, frozen=True, tag="ask_health"):
    """How are you?"""

    call: int


class Happened(Wire, frozen=True, tag="happened"):
    """An event of a run."""

    call: int
    event: Progress | Token


class Ran(Wire, frozen=True, tag="ran"):
    """The run's answer."""

    call: int
    output: Output
    trace: Trace


class Rechecked(Wire, frozen=True, tag="rechecked"):
    """What a juror expects."""

    call: int
    expected: Expected


class Recomputed(Wire, frozen=True, tag="recomputed"):
    """The state after the step."""

    call: int
    state: Tensor


class Healthy(Wire, frozen=True, tag="healthy"):
    """The child's health."""

    call: int
    health: Health


class Failed(Wire, frozen=True, tag="failed"):
    """The call ended with an error; `code` is a key of `ERRORS`."""

    call: int
    code: str
    reason: str


Request = Run | Recheck | Recompute | Cancel | AskHealth
Reply = Happened | Ran | Rechecked | Recomputed | Healthy | Failed
Answer = Ran | Rechecked | Recomputed | Healthy

ERRORS: dict[str, type[QuorateError]] = {
    "storage": StorageError,
    "local": LocalError,
    "malformed": Malformed,
    "cancelled": Cancelled,
    "crashed": ExecutorCrashed,
}


def failed(call: int, error: QuorateError) -> Failed:
    """The message for an error; the first class of `ERRORS` that fits names it."""
    code = next((code for code, kind in ERRORS.items() if isinstance(error, kind)), "crashed")
    return Failed(call, code, str(error)[:2000])


def frame(message: Request | Reply) -> bytes:
    """The bytes that carry a message."""
    body = codec.encode(message)
    assert len(body) <= MESSAGE_BYTES_MAX, "larger than any legal answer"
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def body_length(head: bytes) -> int:
    """The announced length of a body.

    Raises:
        Malformed: past `MESSAGE_BYTES_MAX`.
    """
    size = int.from_bytes(head, "big")
    if size > MESSAGE_BYTES_MAX:
        raise Malformed(f"a message of {size} bytes, at most {MESSAGE_BYTES_MAX}")
    return size


def read_request(stream: BinaryIO) -> Request | None:
    """The next request; None at the end of the stream."""
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    size = body_length(head)
    body = stream.read(size)
    if len(body) < size:
        return None
    request: Request = codec.decode(Request, body, bytes_max=MESSAGE_BYTES_MAX)  # type: ignore[arg-type]  # a union
    return request


def decode_reply(body: bytes) -> Reply:
    """A reply from its body.

    Raises:
        Malformed: not one.
    """
    reply: Reply = codec.decode(Reply, body, bytes_max=MESSAGE_BYTES_MAX)  # type: ignore[arg-type]  # a union
    return reply
