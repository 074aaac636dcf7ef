"""This node's own jobs: their state as people see it, their events, and the table that survives a restart.

A job here is a request of this node's user; each attempt to have it done is a `JobSpec` of its own. States
move forward only: queued, matched, running, auditing, then one of settled, failed, cancelled (a retry goes
back to matched). `Board` is the one place that changes a job, stores it and wakes whoever follows it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import sqlite_utils
import trio

from wire.errors import Busy, LocalError, StorageError
from wire.job import Kind, Lane

FINAL = frozenset({"settled", "failed", "cancelled"})
EVENTS_MAX = 2000
"""Events kept per job; past this only changes of state are recorded."""


Policy = Literal["none", "quorum", "escalate"]
"""Nobody checks; one jury of `jury_size` decides by majority; one jury after another, `jury_size` the least of them."""


class Item(msgspec.Struct, frozen=True):
    """One job of a batch; `inputs` is canonical."""

    inputs: bytes
    seed: int


class Request(msgspec.Struct, frozen=True):
    """What the user asked for, checked.

    `inputs` is canonical; `timeout_s` bounds the whole job; `calibration` is the hash of the record that must judge it,
    or None for the first that fits. A batch has `items`, of which `audits` are drawn for a jury each; its own `inputs`
    and `seed` say nothing.
    """

    kind: Kind
    model: str
    inputs: bytes
    lane: Lane
    policy: Policy
    jury_size: int
    seed: int
    budget_micro: int | None
    timeout_s: float
    retries: int
    calibration: bytes | None = None
    items: list[Item] = []
    audits: int = 0

    @property
    def each_input(self) -> list[bytes]:
        """The inputs of all jobs."""
        return [item.inputs for item in self.items] if self.items else [self.inputs]


@dataclass
class Job:
    """One job, or one batch, of this node's user; only `Board` writes to it.

    Of a batch `jury` has one dict per audit, and `output` and `receipt` are packed (`node.batches`).
    """

    id: str
    request: Request
    created_ms: int
    state: str = "queued"
    verdict: str | None = None
    worker: str | None = None
    jury: list[dict[str, Any]] = field(default_factory=list)
    thresholds: dict[str, float] = field(default_factory=dict)
    cost_micro: int = 0
    attempts: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, str] | None = None
    finished_ms: int | None = None
    output: bytes | None = None
    receipt: bytes | None = None
    evidence: bytes | None = None
    escalation: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    seq_floor: int = 0

    @property
    def next_seq(self) -> int:
        """Number of the next event; numbers are never used again, even where progress was not stored."""
        return max(self.seq_floor, int(self.events[-1]["seq"]) + 1 if self.events else 0)

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL


_PLAIN = (
    "state",
    "verdict",
    "worker",
    "jury",
    "thresholds",
    "cost_micro",
    "attempts",
    "error",
    "finished_ms",
    "evidence",
    "escalation",
)


class Board:
    """All jobs of this node's user, in memory and in `jobs.db`; another board holds the batches.

    A job is accepted only once it is on the disk. Later changes are stored before anyone is told; if the disk refuses
    them then, the job goes on in memory (what was paid is in the ledger) and `on_fault` is told.
    """

    def __init__(
        self, path: Path, now_ms: Callable[[], int], *, open_max: int, on_fault: Callable[[StorageError], None]
    ) -> None:
        self._now_ms = now_ms
        self._on_fault = on_fault
        self._open_max = open_max
        self._name = path.name
        self._changed: dict[str, trio.Event] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        try:
            self._db = sqlite_utils.Database(str(path))
            self._db.enable_wal()
            self._db.execute("pragma synchronous = normal")  # a history of jobs; what was paid is in the ledger
            self._table = self._db.table("jobs")
            if not self._table.exists():
                self._table.create(
                    {"id": str, "created_ms": int, "request": bytes, "plain": bytes, "output": bytes, "receipt": bytes},
                    pk="id",
                )
            self._jobs = {job.id: job for job in map(_load, self._db.query("select * from jobs order by created_ms"))}
        except sqlite3.DatabaseError as exc:
            raise StorageError(f"{path}: {exc}; move the file away to start without the history of jobs") from exc

    def close(self) -> None:
        """Close the database."""
        self._db.conn.close()

    def interrupted(self) -> list[Job]:
        """Jobs that were under way when the node last stopped."""
        return [job for job in self._jobs.values() if not job.final]

    def add(self, job_id: str, request: Request) -> Job:
        """A new job, queued.

        Raises:
            Busy: too many jobs are open.
            StorageError: it could not be stored, and is not accepted.
        """
        if sum(not job.final for job in self._jobs.values()) >= self._open_max:
            raise Busy(2.0, "too many jobs are open on this node")
        job = Job(job_id, request, self._now_ms())
        job.events.append({"seq": 0, "at_ms": job.created_ms, "type": "queued"})
        self._store(job)
        self._jobs[job_id] = job
        return job

    def get(self, job_id: str) -> Job:
        """Raises: LocalError if there is no such job."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise LocalError(f"no job {job_id!r}") from None

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        return list(self._jobs.values())

    def open_count(self) -> int:
        """How many have not ended."""
        return sum(not job.final for job in self.all())

    def update(self, job: Job, state: str | None = None, *, tell: dict[str, Any] | None = None, **fields: Any) -> None:
        """Change fields and, with `state`, move the job on; stored before anyone is told.

        Args:
            job: not a finished one.
            state: the new state; an event of that name goes out.
            tell: what the event says besides.
            fields: of `Job`.
        """
        assert not job.final, "a finished job does not change"
        for name, value in fields.items():
            setattr(job, name, value)
        if state is not None and state in FINAL:
            job.finished_ms = self._now_ms()
        if state is not None:
            job.state = state
            self.event(job, state, **({"verdict": job.verdict} if state in FINAL else {}), **(tell or {}))
        else:
            self._keep(job)

    def event(self, job: Job, kind: str, **data: Any) -> None:
        """Record an event; a change of state is stored, a sign of progress is not."""
        progress = kind == "running" and bool(data)
        if progress and len(job.events) >= EVENTS_MAX:
            return
        job.events.append({"seq": job.next_seq, "at_ms": self._now_ms(), "type": kind, **data})
        if not progress:
            self._keep(job)
        self._changed.pop(job.id, trio.Event()).set()

    async def follow(self, job: Job, after: int = -1) -> AsyncGenerator[dict[str, Any], None]:
        """Events with a sequence number above `after`, as they happen; ends behind the final one."""
        at = 0
        while True:
            while at < len(job.events):
                event = job.events[at]
                at += 1
                if event["seq"] > after:
                    yield event
            if job.final:
                return
            await self._changed.setdefault(job.id, trio.Event()).wait()

    def started(self, job: Job, scope: trio.CancelScope) -> None:
        """Remember how to cancel a running job."""
        self._scopes[job.id] = scope

    def cancel(self, job: Job) -> None:
        """Ask a job to stop; it ends as cancelled once its reservation is released."""
        if (scope := self._scopes.get(job.id)) is not None and not job.final:
            scope.cancel()

    def ended(self, job: Job) -> None:
        """Forget the cancel scope."""
        self._scopes.pop(job.id, None)

    def _keep(self, job: Job) -> None:
        try:
            self._store(job)
        except StorageError as exc:
            self._on_fault(exc)

    def _store(self, job: Job) -> None:
        plain = msgspec.msgpack.encode({name: getattr(job, name) for name in _PLAIN} | {"events": _lasting(job.events)})
        row = {
            "id": job.id,
            "created_ms": job.created_ms,
            "request": msgspec.msgpack.encode(job.request),
            "plain": plain,
            "output": job.output,
            "receipt": job.receipt,
        }
        try:
            self._table.upsert(row, pk="id")
        except sqlite3.DatabaseError as exc:
            raise StorageError(f"{self._name}: {exc}") from exc


def _lasting(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] != "running" or len(event) == 3]


def _load(row: dict[str, Any]) -> Job:
    plain = msgspec.msgpack.decode(row["plain"])
    request = msgspec.msgpack.decode(row["request"], type=Request)
    job = Job(row["id"], request, row["created_ms"], output=row["output"], receipt=row["receipt"])
    for name, value in plain.items():
        setattr(job, name, value)
    job.seq_floor = job.next_seq + EVENTS_MAX + 1
    return job
