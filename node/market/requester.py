"""The requester's side: find peers, make the offer, follow the worker, have the answer audited, pay.

One call of `run` takes a job of the user from queued to its end. Each attempt is a job of its own on the network: own
spec, own offer, own jury. Whatever happens, the attempt's reservation ends as a receipt or is released.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from ledger.entry import Accept, Entry, InvalidEntry, decode_entry
from ledger.state import InsufficientCredit
from node.jobs import Board, Job, Request
from node.market import pricing
from node.market.auditor import Audited, audit
from node.market.context import Context
from node.market.finder import Finder, Offered
from node.market.messages import (
    JOB_PROTOCOL,
    Committed,
    Declined,
    Delivered,
    FromWorker,
    Hire,
    Hired,
    Reveal,
    Working,
)
from node.market.payer import Payer
from verify import commitment as opening
from verify import jury
from wire import codec
from wire.envelope import Envelope, seal, unseal
from wire.errors import LocalError, Malformed, RemoteError, StorageError, TransportError
from wire.job import Commitment, JobSpec, Output, PoolMember, Trace
from wire.peer import PeerId, to_text
from wire.transport import Channel

RELEASE_S = 2.0


class WorkerFailed(Exception):
    """The worker declined, died, stalled or broke a rule; another may be tried. `word` goes into the attempt."""

    def __init__(self, word: str, reason: str) -> None:
        super().__init__(reason)
        self.word = word


class JobFailed(Exception):
    """The job cannot be done; `code` goes to the user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Plan:
    """One attempt, before it starts."""

    spec: JobSpec
    envelope: Envelope
    pool: Sequence[PoolMember]
    secret: bytes
    worker: PeerId


@dataclass(frozen=True)
class Answer:
    """What a worker delivered; it opens the commitment."""

    accept: Entry
    commitment: Envelope
    output: Output
    trace: Trace
    salt: bytes


@dataclass
class Tried:
    """What earlier attempts of the same job used up."""

    workers: set[PeerId] = field(default_factory=set)
    spent_micro: int = 0


class Requester:
    """Runs this node's own jobs."""

    def __init__(self, context: Context, board: Board, finder: Finder, payer: Payer) -> None:
        self._context = context
        self._board = board
        self._finder = finder
        self._payer = payer

    async def run(self, job: Job) -> None:
        """Take a job to its end; never raises for what peers do."""
        scope = trio.CancelScope(deadline=trio.current_time() + job.request.timeout_s)
        self._board.started(job, scope)
        user = object()
        ended: object | None = user
        try:
            with scope:
                await self._attempts(job)
                ended = None
        except JobFailed as exc:
            self._fail(job, exc.code, str(exc))
        except InsufficientCredit as exc:
            self._fail(job, "insufficient_credit", str(exc))
        except StorageError as exc:
            self._fail(job, "storage", str(exc))
        finally:
            self._board.ended(job)
        if ended is user and not job.final:
            late = trio.current_time() >= scope.deadline
            if late:
                self._fail(job, "timeout", f"not done within {job.request.timeout_s:g} s")
            else:
                self._board.update(job, "cancelled")

    def _fail(self, job: Job, code: str, message: str) -> None:
        self._context.log.info("job_ended_without_answer", code=code, reason=message)
        self._board.update(job, "failed", error={"code": code, "message": message})

    async def _attempts(self, job: Job) -> None:
        tried = Tried()
        for left in range(job.request.retries, -1, -1):
            try:
                done = await self._attempt(job, tried)
            except WorkerFailed as exc:
                self._note(job, exc.word, str(exc), [])
                if left == 0:
                    raise JobFailed("worker_failed", f"no worker finished; the last: {exc}") from exc
                continue
            if done.verdict == "reject" and left > 0:
                self._board.event(job, "rejected", worker=job.worker)
                continue
            self._board.update(job, "settled")
            return

    def _note(self, job: Job, verdict: str, reason: str, members: list[dict[str, object]]) -> None:
        attempt = {"worker": job.worker, "verdict": verdict, "reason": reason, "jury": members}
        self._board.update(job, attempts=[*job.attempts, attempt])

    async def _attempt(self, job: Job, tried: Tried) -> Audited:
        context, request = self._context, job.request
        offers = await self._finder.enough(request, tried.workers)
        plan, reason = self._plan(request, offers, tried)
        tried.workers.add(plan.worker)
        self._board.update(job, worker=to_text(plan.worker))
        self._board.update(job, "matched")
        self._board.event(job, "matched", worker=to_text(plan.worker), reason=reason)
        spec = plan.spec
        offer = await context.ledger.offer(
            job=spec.id,
            payee=plan.worker,
            price_micro=spec.price_micro,
            fee_micro=spec.fee_micro,
            jurors=spec.jury_size,
            expires_ms=spec.deadline_ms,
        )
        try:
            answer = await self._hire(job, plan, offer)
            self._board.update(job, "auditing", output=codec.encode(answer.output))
            audited = await audit(context, plan, answer, lambda peers: self._show_jury(job, peers))
            await self._payer.pay(plan.spec, offer, answer.accept, audited)
        except BaseException as exc:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_S):
                await context.ledger.release(offer, _release_word(exc))
            raise
        tried.spent_micro += audited.cost_micro(spec)
        self._record(job, plan, audited, tried)
        return audited
