"""The node's HTTP API, sans I/O: each call as a value, each reply as a typed value or the error that it means.

Both clients share this, so they differ only in how bytes move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from quorate import errors, views
from quorate._ready import ready
from quorate.kinds import Request

T = TypeVar("T")

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One exchange; the reply is JSON of type `reply`, of which `field` is taken if set, or raw bytes."""

    method: str
    path: str
    reply: type[T]
    field: str | None = None
    body: bytes | None = None

    def read(self, status: int, content: bytes) -> T:
        """The reply.

        Raises:
            QuorateError: the error that the node reported, or `NodeFault` if the reply is unreadable.
        """
        if not 200 <= status < 300:
            raise error_of(status, content)
        if self.reply is bytes:
            return content  # type: ignore[return-value] # T is bytes here
        try:
            if self.field is not None:
                content = bytes(msgspec.json.decode(content, type=dict[str, msgspec.Raw])[self.field])
            return msgspec.json.decode(content, type=ready(self.reply))
        except (msgspec.MsgspecError, KeyError) as exc:
            raise errors.NodeFault(f"unreadable reply to {self.method} {self.path}: {exc}") from exc


class _Failure(msgspec.Struct):
    error: views.ErrorView


def error_of(status: int, content: bytes) -> errors.QuorateError:
    """The error that a reply of status 4xx or 5xx means."""
    try:
        told = msgspec.json.decode(content, type=ready(_Failure)).error
    except msgspec.MsgspecError:
        told = views.ErrorView(message=f"HTTP status {status}")
    return named_error(told, status=status)


_BAD = frozenset({"unknown_model", "unknown_field", "bad_request"})
_BY_CODE: dict[str, type[errors.QuorateError]] = {
    "unauthorized": errors.Unauthorized,
    "not_found": errors.NotFound,
    "busy": errors.NodeBusy,
}
_JOB_BY_CODE: dict[str, type[errors.JobError]] = {
    "no_provider": errors.NoProvider,
    "insufficient_credit": errors.InsufficientCredit,
    "timeout": errors.JobTimeout,
    "cancelled": errors.JobCancelled,
    "rejected": errors.VerificationFailed,
    "unaudited": errors.Unaudited,
}
_BY_STATUS: dict[int, type[errors.QuorateError]] = {
    401: errors.Unauthorized,
    403: errors.Unauthorized,
    404: errors.NotFound,
    429: errors.NodeBusy,
    503: errors.NodeBusy,
    504: errors.JobTimeout,
}


def named_error(
    told: views.ErrorView, *, status: int = 0, job: views.JobView | views.BatchView | None = None
) -> errors.QuorateError:
    """By the node's code first, then by the HTTP status."""
    message = told.message or told.code or f"HTTP status {status}"
    if told.code in _BAD or (told.code not in _BY_CODE.keys() | _JOB_BY_CODE.keys() and status in (400, 405, 413, 422)):
        return errors.BadRequest(message, code=told.code, known=told.known or ())
    if told.code in _JOB_BY_CODE:
        return _JOB_BY_CODE[told.code](message, code=told.code, job=job)
    if job is not None:
        return errors.JobFailed(message, code=told.code, job=job)
    kind = _BY_CODE.get(told.code) or _BY_STATUS.get(status, errors.NodeFault)
    return kind(message, code=told.code)


def submit(request: Request[Any], **options: Any) -> Call[views.JobView]:
    """Options that are None are left to the node."""
    body = {"kind": request.kind, "model": request.model, "input": request.input()}
    body |= {name: value for name, value in options.items() if value is not None}
    return Call("POST", f"{PREFIX}/jobs", views.JobView, body=msgspec.json.encode(body))


def submit_batch(
    requests: Sequence[Request[Any]], seeds: Sequence[int] | None, **options: Any
) -> Call[views.BatchView]:
    """Options that are None are left to the node.

    Raises:
        BadRequest: no job, jobs of several kinds or models, or not one seed for each.
    """
    named = {(request.kind, request.model) for request in requests}
    if len(named) != 1:
        raise errors.BadRequest("a batch has one kind and one model, and at least one job")
    if seeds is not None and len(seeds) != len(requests):
        raise errors.BadRequest(f"{len(seeds)} seeds for {len(requests)} jobs")
    jobs: list[dict[str, Any]] = [{"input": request.input()} for request in requests]
    for one, seed in zip(jobs, seeds or (), strict=False):
        one["seed"] = seed
    body: dict[str, Any] = {"kind": requests[0].kind, "model": requests[0].model, "jobs": jobs}
    body |= {name: value for name, value in options.items() if value is not None}
    return Call("POST", f"{PREFIX}/batches", views.BatchView, body=msgspec.json.encode(body))


def batch(batch_id: str) -> Call[views.BatchView]:
    return Call("GET", f"{PREFIX}/batches/{_checked(batch_id)}", views.BatchView)


def cancel_batch(batch_id: str) -> Call[views.BatchView]:
    return Call("POST", f"{PREFIX}/batches/{_checked(batch_id)}/cancel", views.BatchView)


def batch_receipt(batch_id: str, index: int) -> Call[bytes]:
    return Call("GET", f"{PREFIX}/batches/{_checked(batch_id)}/items/{int(index)}/receipt", bytes)


def batch_evidence(batch_id: str) -> Call[bytes]:
    return Call("GET", f"{PREFIX}/batches/{_checked(batch_id)}/evidence", bytes)


def batch_output(batch_id: str, index: int) -> Call[bytes]:
    return Call("GET", f"{PREFIX}/batches/{_checked(batch_id)}/items/{int(index)}/output", bytes)


def batch_events_path(batch_id: str) -> str:
    return f"{PREFIX}/batches/{_checked(batch_id)}/events"


def job(job_id: str) -> Call[views.JobView]:
    return Call("GET", f"{PREFIX}/jobs/{_checked(job_id)}", views.JobView)


def cancel(job_id: str) -> Call[views.JobView]:
    return Call("POST", f"{PREFIX}/jobs/{_checked(job_id)}/cancel", views.JobView)


def receipt(job_id: str) -> Call[bytes]:
    return Call("GET", f"{PREFIX}/jobs/{_checked(job_id)}/receipt", bytes)


def evidence(job_id: str) -> Call[bytes]:
    return Call("GET", f"{PREFIX}/jobs/{_checked(job_id)}/evidence", bytes)


def output(job_id: str) -> Call[bytes]:
    return Call("GET", f"{PREFIX}/jobs/{_checked(job_id)}/output", bytes)


def events_path(job_id: str) -> str:
    return f"{PREFIX}/jobs/{_checked(job_id)}/events"


def _checked(job_id: str) -> str:
    """A job id is hex; anything else would be another path."""
    if not job_id or not set(job_id) <= set("0123456789abcdef"):
        raise errors.BadRequest(f"a job id is lower-case hex, not {job_id[:80]!r}")
    return job_id


BATCHES = Call("GET", f"{PREFIX}/batches", list[views.BatchView], "batches")
JOBS = Call("GET", f"{PREFIX}/jobs", list[views.JobView], "jobs")
NODE = Call("GET", f"{PREFIX}/node", views.Node)
MODELS = Call("GET", f"{PREFIX}/models", list[views.Model], "models")
PEERS = Call("GET", f"{PREFIX}/peers", list[views.Peer], "peers")
RANKING = Call("GET", f"{PREFIX}/ranking", list[views.Ranked], "ranking")
LEDGER = Call("GET", f"{PREFIX}/ledger", views.Ledger)
LEDGER_AUDIT = Call("POST", f"{PREFIX}/ledger/audit", views.Audit)
