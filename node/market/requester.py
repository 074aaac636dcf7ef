"""The requester's side: find peers, make the offer, follow the worker, have the answer audited, pay.

One call of `run` takes a job of the user from queued to its end. Each attempt is a job of its own on the network: own
spec, own offer, own jury. Whatever happens, the attempt's reservation ends as a receipt or is released.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ledger.entry import Accept, Entry, InvalidEntry, Reason, check_entry, decode_entry, majority
from ledger.state import InsufficientCredit
from node.jobs import Board, Job, Request
from node.market import pricing
from node.market.auditor import audit
from node.market.context import Context
from node.market.finder import Finder, NotEnough, Offered
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
    decode_from_worker,
)
from node.market.payer import Payer
from node.records import observe_jurors
from recommend.rank import Choice
from verify import jury
from verify.calibrated import calibration_for
from verify.calibration import Calibration
from verify.commitment import check_opening
from verify.fingerprints.registry import fingerprint_for
from verify.messages import JuryAsk
from verify.round import Outcome
from wire import codec
from wire.envelope import Envelope, seal, unseal
from wire.errors import Busy, LocalError, Malformed, RemoteError, StorageError, TransportError
from wire.job import INPUTS, Commitment, ImageInput, JobSpec, Output, PoolMember, Trace
from wire.peer import PeerId, to_text
from wire.transport import Channel
from workloads.executor import NUMERICS

T = TypeVar("T")

LEFT_OUT_TOLD = 5

RELEASE_S = 2.0
"""Seconds to record that an attempt is over when the job is being cancelled."""


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
    pool: list[PoolMember]
    secret: bytes
    worker: PeerId
    reason: str
    left_out: dict[PeerId, str]


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
        """Take a job to its end, whatever peers do; ends without error when the job is cancelled."""
        scope = trio.CancelScope(deadline=trio.current_time() + job.request.timeout_s)
        self._board.started(job, scope)
        try:
            with scope:
                await self._attempts(job)
        except JobFailed as exc:
            self._fail(job, exc.code, str(exc))
        except InsufficientCredit as exc:
            self._fail(job, "insufficient_credit", str(exc))
        except StorageError as exc:
            self._fail(job, "storage", str(exc))
        except (LocalError, Busy) as exc:
            await trio.lowlevel.checkpoint_if_cancelled()  # the node is stopping: the next start says "interrupted"
            self._fail(job, "internal", str(exc))
        finally:
            self._board.ended(job)
        if job.final:
            return
        if trio.current_time() >= scope.deadline:
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
                verdict = await self._attempt(job, tried)
            except WorkerFailed as exc:
                self._note(job, exc.word, str(exc), [])
                if left == 0:
                    raise JobFailed("worker_failed", f"no worker finished; the last: {exc}") from exc
                continue
            except NotEnough as exc:
                if tried.workers and job.receipt is not None:
                    break
                raise JobFailed("no_provider", str(exc)) from exc
            if verdict != "reject" or left == 0:
                break
            self._board.event(job, "rejected", worker=job.worker)
        self._board.update(job, "settled")

    def _note(self, job: Job, verdict: str, reason: str, members: list[dict[str, object]]) -> None:
        attempt = {"worker": job.worker, "verdict": verdict, "reason": reason, "jury": members}
        self._board.update(job, attempts=[*job.attempts, attempt])

    async def _attempt(self, job: Job, tried: Tried) -> str:
        """One worker, one jury; returns the verdict."""
        context = self._context
        plan = self._plan(job.request, await self._finder.enough(job.request, tried.workers), tried)
        tried.workers.add(plan.worker)
        worker = to_text(plan.worker)
        self._board.update(job, "matched", tell={"worker": worker, "why": plan.reason}, worker=worker)
        spec = plan.spec
        offer = await context.ledger.offer(
            job=spec.id,
            payee=plan.worker,
            price_micro=spec.price_micro,
            fee_micro=spec.fee_micro,
            juries=majority(spec.id, spec.jury_size),
            expires_ms=spec.deadline_ms,
        )
        reason: Reason | None = "cancelled"
        try:
            answer = await self._hire(job, plan, offer)
            self._board.update(job, "auditing" if spec.jury_size else None, output=codec.encode(answer.output))
            ask = _ask(plan, answer)
            outcome = await audit(context, ask, lambda peers: self._show_jury(job, peers))
            with trio.CancelScope(shield=True):
                tried.spent_micro += await self._payer.pay(spec, offer, answer.accept, outcome)
                reason = None
        except WorkerFailed:
            reason = "worker_died"
            raise
        finally:
            if reason is not None:
                await self._release(offer, reason)
        self._record(job, plan, outcome, tried)
        return outcome.verdict

    async def _release(self, offer: Entry, reason: Reason) -> None:
        """Take the reservation back, also while the job is being cancelled.

        A ledger that takes no more entries (the node is stopping) must not turn the end of a job into the end of the
        node: what stays reserved is released at the next start.
        """
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_S):
            try:
                await self._context.ledger.release(offer.id, reason)
            except StorageError:
                raise
            except (LocalError, Busy) as exc:
                self._context.log.warning("reservation_kept", reason=str(exc))

    def _plan(self, request: Request, offered: Offered, tried: Tried) -> Plan:
        """Choose the worker and fix everything that decides the draw, before anybody works."""
        choice, price, fee = self._affordable(request, offered, tried)
        secret = secrets.token_bytes(jury.SECRET_BYTES)
        pool = self._finder.pool(offered, choice.peer, request.jury_size)
        now_ms = self._context.now_ms()
        calibration = calibration_of(self._context, request)
        spec = JobSpec(
            version=1,
            kind=request.kind,
            model=request.model,
            inputs=request.inputs,
            lane=request.lane,
            numeric=NUMERICS[request.lane],
            fingerprint=fingerprint_for(request.kind, request.lane).id,
            calibration=calibration.hash,
            seed=request.seed,
            jury_size=request.jury_size,
            spots=spots_for(self._context, request),
            price_micro=price,
            fee_micro=fee,
            requester=self._context.identity.peer,
            pool=jury.pool_hash(pool.members),
            beacon_hash=jury.beacon_hash(secret),
            nonce=secrets.token_bytes(16),
            created_ms=now_ms,
            deadline_ms=now_ms + int(request.timeout_s * 1000),
        )
        envelope = seal(self._context.identity, "job", spec)
        return Plan(spec, envelope, pool.members, secret, choice.peer, choice.reason, pool.left_out)

    def _affordable(self, request: Request, offered: Offered, tried: Tried) -> tuple[Choice, int, int]:
        """The first worker within the budget, its price and the fee of each juror."""
        if request.jury_size == 0:
            return offered.workers[0], 0, 0
        dearest = 0
        for choice in offered.workers:
            price = offered.prices_micro[choice.peer]
            fee = pricing.fee_micro(price)
            total = tried.spent_micro + price + fee * request.jury_size
            if request.budget_micro is None or total <= request.budget_micro:
                return choice, price, fee
            dearest = max(dearest, total)
        budget = f"the budget is {request.budget_micro}"
        raise JobFailed("insufficient_credit", f"{dearest} micro-credits with fees; {budget}")

    async def _hire(self, job: Job, plan: Plan, offer: Entry) -> Answer:
        """Have the work done.

        Raises:
            WorkerFailed: whatever the worker did or failed to do.
        """
        try:
            with trio.fail_after(self._context.settings.accept_s):
                channel = await self._context.transport.open(plan.worker, JOB_PROTOCOL)
        except (TransportError, trio.TooSlowError) as exc:
            raise WorkerFailed("unreachable", str(exc) or "no connection in time") from exc
        try:
            return await self._follow(job, plan, offer, channel)
        except (Malformed, InvalidEntry) as exc:
            self._context.blame(RemoteError(plan.worker, str(exc), penalty=0.3))
            raise WorkerFailed("broke a rule", str(exc)) from exc
        except RemoteError as exc:
            self._context.blame(exc)
            raise WorkerFailed("broke a rule", exc.reason) from exc
        except TransportError as exc:
            raise WorkerFailed("died", str(exc) or "the connection ended") from exc
        except trio.TooSlowError as exc:
            raise WorkerFailed("stalled", "no sign of life in time") from exc
        finally:
            await channel.aclose()

    async def _follow(self, job: Job, plan: Plan, offer: Entry, channel: Channel) -> Answer:
        settings = self._context.settings
        await channel.send(codec.encode(Hire(plan.envelope, codec.encode(offer))))
        hired = await _expect(channel, Hired, settings.accept_s)
        accept = _check_accept(hired, plan, offer)
        self._board.update(job, "running")
        while True:
            with trio.fail_after(settings.stall_s):
                frame = decode_from_worker(await channel.receive())
            if isinstance(frame, Working):
                self._board.event(job, "running", done=frame.done, total=frame.total, text=frame.text)
            elif isinstance(frame, Committed):
                promise = unseal(frame.commitment, "commitment", Commitment, author=plan.worker)
                break
            else:
                raise _unexpected(channel, frame)
        if promise.job != plan.spec.id:
            raise Malformed("a commitment to another job")
        await channel.send(codec.encode(Reveal(plan.secret)))
        delivered = await _expect(channel, Delivered, settings.stall_s)
        check_opening(promise, delivered.output, delivered.trace, delivered.salt)
        return Answer(accept, frame.commitment, delivered.output, delivered.trace, delivered.salt)

    def _show_jury(self, job: Job, peers: Sequence[PeerId]) -> None:
        self._board.event(job, "auditing", jury=[to_text(peer) for peer in peers])

    def _record(self, job: Job, plan: Plan, outcome: Outcome, tried: Tried) -> None:
        members: list[dict[str, object]] = [
            {"peer": to_text(juror.peer), "verdict": juror.verdict, "distances": dict(juror.distances)}
            for juror in outcome.jury
        ]
        spec = plan.spec
        thresholds = dict(self._context.calibrations[spec.calibration].thresholds)
        without = left_out(plan.left_out)
        passed = "; ".join(f"{to_text(peer)[-8:]} passed over: {why}" for peer, why in outcome.passed_over.items())
        self._board.update(
            job,
            verdict=outcome.verdict,
            jury=members,
            thresholds=thresholds,
            cost_micro=tried.spent_micro,
            receipt=codec.encode(outcome.receipt),
        )
        self._note(job, outcome.verdict, "; ".join(filter(None, (plan.reason, without, passed))), members)
        records = self._context.records
        if outcome.verdict in ("accept", "reject"):
            records.observe("worker", plan.worker, spec.model, failed=outcome.verdict == "reject")
        observe_jurors(records, spec.model, outcome.verdict, outcome.jury)


def left_out(peers: dict[PeerId, str]) -> str:
    """Who could not judge this worker, for people; the first few by name."""
    told = [f"{to_text(peer)[-8:]} not in the jury pool: {why}" for peer, why in list(peers.items())[:LEFT_OUT_TOLD]]
    more = len(peers) - len(told)
    return "; ".join([*told, *([f"{more} more not in the jury pool"] if more else [])])


def spots_for(context: Context, request: Request) -> int:
    """How many drawn steps each juror recomputes; 0 is all: exact runs, what has no steps, what nobody checks."""
    given = codec.decode(INPUTS[request.kind], request.inputs)
    if not isinstance(given, ImageInput) or request.lane != "tolerant" or request.jury_size == 0:
        return 0
    return min(context.settings.image_spots, given.steps)


def calibration_of(context: Context, request: Request) -> Calibration:
    """The thresholds that the jury must use: the record that the user named, else the first that fits.

    Raises:
        JobFailed: there are none that separate honest work from cheats, so an answer could not be judged.
    """
    known = context.calibrations
    if request.calibration is not None:
        return known[request.calibration]
    try:
        return calibration_for(request.kind, request.model, request.lane, NUMERICS[request.lane], records=known)
    except LocalError as exc:
        raise JobFailed("not_calibrated", str(exc)) from exc


def _ask(plan: Plan, answer: Answer) -> JuryAsk:
    return JuryAsk(
        spec=plan.envelope,
        commitment=answer.commitment,
        secret=plan.secret,
        salt=answer.salt,
        pool=plan.pool,
        output=answer.output,
        trace=answer.trace,
    )


async def _expect(channel: Channel, kind: type[T], within_s: float) -> T:
    """The next frame, which must be of `kind`."""
    with trio.fail_after(within_s):
        frame = decode_from_worker(await channel.receive())
    if not isinstance(frame, kind):
        raise _unexpected(channel, frame)
    return frame


def _unexpected(channel: Channel, frame: FromWorker) -> Exception:
    if isinstance(frame, Declined):
        return WorkerFailed("declined", f"{frame.code}: {frame.reason}")
    return RemoteError(channel.peer, f"{type(frame).__name__} out of turn", penalty=0.2)


def _check_accept(hired: Hired, plan: Plan, offer: Entry) -> Entry:
    """The worker's acceptance of exactly this offer.

    Raises:
        Malformed: it is something else.
        InvalidEntry: it is no valid entry.
    """
    entry = decode_entry(hired.accept)
    body = entry.body
    if entry.header.author != plan.worker or not isinstance(body, Accept):
        raise Malformed("not an acceptance of the worker's own")
    if (body.job, body.offer, body.payer) != (plan.spec.id, offer.id, plan.spec.requester):
        raise Malformed("an acceptance of another offer")
    check_entry(entry)  # the receipt will name it: if it did not hold, the work could not be paid
    return entry
