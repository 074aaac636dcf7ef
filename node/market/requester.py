"""The requester's side: find peers, make the offer, follow the worker, have the answer audited, pay.

One call of `run` takes a job of the user from queued to its end. Each attempt is a job of its own on the network: own
spec, own offer, own jury. Whatever happens, the attempt's reservation ends as a receipt or is released.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import trio

from ledger.entry import Entry, InvalidEntry, Reason
from ledger.state import InsufficientCredit
from node.jobs import Board, Job, Request
from node.market import pricing
from node.market.accepted import check_accept
from node.market.auditor import audit
from node.market.chains import has_steps, terms_of
from node.market.climber import climb
from node.market.context import Context
from node.market.finder import Finder, NotEnough, Offered, Pool
from node.market.judged import Judged, record
from node.market.material import Answered
from node.market.messages import (
    HIRE,
    Committed,
    Declined,
    Delivered,
    FromRequester,
    FromWorker,
    Hired,
    Reveal,
    Working,
)
from node.market.payer import Payer
from node.market.plan import Answer, Plan, asks_of, hire_of, promises_of, reasons
from node.market.proof import prove
from node.market.talk import Talk
from node.records import observe_jurors
from recommend.rank import Choice
from verify import jury
from verify.bisection import Terms
from verify.calibrated import calibration_for
from verify.calibration import Calibration
from verify.commitment import check_opening
from verify.fingerprints.registry import fingerprint_for
from verify.ladder import NONCE_BYTES, Level, build_ladder, level_secret, levels_for, with_spots
from verify.receipt import OutcomeWord
from wire import codec
from wire.envelope import seal
from wire.errors import Busy, LocalError, Malformed, Refused, RemoteError, StorageError, TransportError, Unreachable
from wire.job import INPUTS, Commitment, JobSpec, parts
from wire.peer import PeerId, to_text
from workloads.executor import NUMERICS

T = TypeVar("T")

RELEASE_S = 2.0
"""Seconds to record that an attempt is over when the job is being cancelled."""

LEFT_S_MAX = 24 * 3600.0 - 1.0


class WorkerFailed(Exception):
    """The worker declined, died, stalled or broke a rule; another may be tried. `word` goes into the attempt."""

    def __init__(self, word: str, reason: str) -> None:
        super().__init__(reason)
        self.word = word


TALK_ENDS = (Malformed, InvalidEntry, RemoteError, TransportError, Busy, trio.TooSlowError, WorkerFailed)
"""How a conversation with a worker may end, but for an answer."""


class JobFailed(Exception):
    """The job cannot be done; `code` goes to the user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Chosen:
    """A worker, what it and each juror get, and who may judge it."""

    choice: Choice
    price_micro: int
    fee_micro: int
    pool: Pool
    levels: tuple[Level, ...]


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
        levels = [{"size": level.size, "needed": level.needed} for level in plan.levels]
        tell = {"worker": worker, "why": plan.reason, **({"levels": levels} if levels else {})}
        self._board.update(job, "matched", tell=tell, worker=worker)
        spec = plan.spec
        offer = await context.ledger.offer(
            job=spec.id,
            payee=plan.worker,
            price_micro=spec.price_micro,
            fee_micro=spec.fee_micro,
            juries=plan.juries,
            expires_ms=spec.deadline_ms,
            rule="ladder" if plan.levels else "one",
        )
        reason: Reason | None = "cancelled"
        try:
            answer = await self._hire(job, plan, offer)
            self._board.update(job, "auditing" if spec.jury_size else None, output=codec.encode(answer.output))
            judged = await (self._climb if plan.levels else self._audit)(job, plan, answer)
            with trio.CancelScope(shield=True):
                verdict, owed_micro = await self._pay(offer, answer, judged)
                tried.spent_micro += owed_micro
                reason = None
        except WorkerFailed:
            reason = "worker_died"
            raise
        finally:
            if reason is not None:
                await self._release(offer, reason)
        record(self._board, job, judged, verdict, tried.spent_micro, self._thresholds(spec))
        self._note(job, verdict, reasons(plan, judged), job.jury)
        if verdict in ("accept", "reject"):
            context.records.observe("worker", plan.worker, spec.model, failed=verdict == "reject")
        for outcome in judged.rounds:
            observe_jurors(context.records, spec.model, verdict, outcome.jury)
        return verdict

    async def _audit(self, job: Job, plan: Plan, answer: Answer) -> Judged:
        """One jury."""
        (ask,) = asks_of(plan, answer)
        outcome = await audit(self._context, ask, lambda peers: self._show_jury(job, peers))
        return self._proven(plan, answer, Judged((outcome,), outcome.verdict))

    async def _climb(self, job: Job, plan: Plan, answer: Answer) -> Judged:
        """One jury after another, and disputes."""
        specs, thresholds = plan.specs, self._thresholds(plan.spec)
        root = codec.decode(Commitment, answer.commitments[0].body).root

        def terms(level: int, challenger: PeerId) -> Terms:
            return terms_of(specs[level], root, plan.worker, challenger, answer.output, answer.trace, thresholds)

        climbed = await climb(
            self._context,
            plan.spec,
            asks_of(plan, answer),
            plan.levels,
            plan.nonce,
            terms if has_steps(plan.spec) else None,
            partial(self._board.event, job),
        )
        return self._proven(plan, answer, Judged(climbed.rounds, climbed.ended.verdict, climbed.ended))

    def _proven(self, plan: Plan, answer: Answer, judged: Judged) -> Judged:
        """With the bundle that convicts the worker, if the answer was rejected."""
        if judged.verdict != "reject":
            return judged
        receipts, spec = [outcome.receipt for outcome in judged.rounds], plan.spec
        lost = (
            None
            if judged.ended is None
            else next((ruling for ruling in judged.ended.rulings if ruling.loser == plan.worker), None)
        )
        proof = prove(spec, receipts, answer.output, answer.trace, self._thresholds(spec), lost)
        return replace(judged, proof=proof)

    async def _pay(self, offer: Entry, answer: Answer, judged: Judged) -> tuple[OutcomeWord, int]:
        if judged.ended is not None:
            return await self._payer.pay_ladder(offer, answer.accept, judged)
        return judged.verdict, await self._payer.pay(offer, answer.accept, judged.rounds[0])

    def _thresholds(self, spec: JobSpec) -> Mapping[str, float]:
        return self._context.calibrations[spec.calibration].thresholds

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
        chosen = self._affordable(request, offered, tried)
        seed, nonce = secrets.token_bytes(jury.SECRET_BYTES), secrets.token_bytes(NONCE_BYTES)
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
            price_micro=chosen.price_micro,
            fee_micro=chosen.fee_micro,
            requester=self._context.identity.peer,
            pool=jury.pool_hash(chosen.pool.members),
            beacon_hash=jury.beacon_hash(seed),
            nonce=nonce,
            created_ms=now_ms,
            deadline_ms=now_ms + int(request.timeout_s * 1000),
        )
        specs, beacons, levels = [spec], [seed], chosen.levels
        if levels:
            beacons = [level_secret(seed, level) for level in range(len(levels))]
            specs = build_ladder(spec, levels, beacons)
        envelopes = [seal(self._context.identity, "job", each) for each in specs]
        pool, choice, nonce = chosen.pool, chosen.choice, nonce if levels else b""
        return Plan(specs, envelopes, beacons, pool.members, choice.peer, choice.reason, pool.left_out, levels, nonce)

    def _affordable(self, request: Request, offered: Offered, tried: Tried) -> Chosen:
        """The first worker within the budget, its price, the fee of each juror, and who may judge it.

        Raises:
            JobFailed: none is. NotEnough: who could judge the answer belongs to the worker.
        """
        dearest = 0
        for choice in offered.workers:
            pool = self._finder.pool(offered, choice.peer, request.jury_size)
            levels = self._levels(request, pool, choice.peer)
            checked = request.jury_size > 0
            price = offered.prices_micro[choice.peer] if checked else 0
            fee = pricing.fee_micro(price) if checked else 0
            seats = sum(level.size for level in levels) or request.jury_size
            total = tried.spent_micro + price + fee * seats
            if not checked or request.budget_micro is None or total <= request.budget_micro:
                return Chosen(choice, price, fee, pool, levels)
            dearest = max(dearest, total)
        budget = f"the budget is {request.budget_micro}"
        raise JobFailed("insufficient_credit", f"{dearest} micro-credits with fees; {budget}")

    def _levels(self, request: Request, pool: Pool, worker: PeerId) -> tuple[Level, ...]:
        """The juries that this pool can fill, one after another; empty where one jury decides.

        Raises:
            NotEnough: not even the first.
        """
        if request.policy != "escalate":
            return ()
        jurors = [member for member in pool.members if member.peer != worker]
        levels = levels_for(len(jurors), disputes=has_steps(request))
        if count := parts_of(request):
            levels = with_spots(levels, spots_for(self._context, request), count)
        if not levels:
            raise NotEnough(f"escalation needs a worker and 3 jurors who are nothing to it; {len(jurors)} are known")
        return levels

    async def _hire(self, job: Job, plan: Plan, offer: Entry) -> Answer:
        """Have the work done.

        Raises:
            WorkerFailed: whatever the worker did or failed to do.
        """
        try:
            async with self._context.rpc.stream(plan.worker, HIRE, timeout_s=left_s()) as stream:
                return await self._follow(job, plan, offer, Talk(stream))
        except TALK_ENDS as exc:
            raise self._failed(plan.worker, exc) from exc

    def _failed(self, worker: PeerId, exc: Exception) -> WorkerFailed:
        """Why the conversation with a worker ended, one of `TALK_ENDS`; whoever broke a rule is blamed."""
        match exc:
            case WorkerFailed():
                return exc
            case Malformed() | InvalidEntry():
                self._context.blame(RemoteError(worker, str(exc), penalty=0.3))
                return WorkerFailed("broke a rule", str(exc))
            case Refused():
                return WorkerFailed("died", exc.reason)
            case RemoteError():
                self._context.blame(exc)
                return WorkerFailed("broke a rule", exc.reason)
            case Unreachable():
                return WorkerFailed("unreachable", str(exc))
            case trio.TooSlowError():
                return WorkerFailed("stalled", "no sign of life in time")
        return WorkerFailed("died", str(exc) or "the connection ended")

    async def _follow(self, job: Job, plan: Plan, offer: Entry, talk: Talk[FromRequester, FromWorker]) -> Answer:
        settings = self._context.settings
        await talk.send(hire_of(plan, offer))
        hired = await _expect(talk, Hired, settings.accept_s)
        accept = check_accept(hired, offer)
        self._board.update(job, "running")
        while isinstance(said := await talk.receive(settings.stall_s), Working):
            self._board.event(job, "running", done=said.done, total=said.total, text=said.text)
        if not isinstance(said, Committed):
            raise _unexpected(talk, said)
        promises = promises_of(said, plan)
        await talk.send(Reveal(plan.secrets[0]))
        delivered = await _expect(talk, Delivered, settings.stall_s)
        answered = await self._context.fetcher.take(plan.worker, delivered.answer, Answered)
        check_opening(promises[0], answered.output, answered.trace, delivered.salt)
        return Answer(accept, said.commitments, answered.output, answered.trace, delivered.salt)

    def _show_jury(self, job: Job, peers: Sequence[PeerId]) -> None:
        self._board.event(job, "auditing", jury=[to_text(peer) for peer in peers])


def spots_for(context: Context, request: Request) -> int:
    """How many drawn parts of the run each juror recomputes; 0 is all, as where nobody checks."""
    wished = {"image.generate": context.settings.image_spots, "text.generate": context.settings.text_spots}
    return min(wished.get(request.kind, 0), parts_of(request)) if request.jury_size else 0


def parts_of(request: Request) -> int:
    """Of how many parts of the run some can be drawn."""
    return parts(request.lane, codec.decode(INPUTS[request.kind], request.inputs))


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


def left_s() -> float:
    """Seconds that a conversation of this job may take: what the job has left, and a little, for it ends by the job."""
    return min(max(trio.current_effective_deadline() - trio.current_time(), 0.0), LEFT_S_MAX) + 1.0


async def _expect(talk: Talk[FromRequester, FromWorker], kind: type[T], within_s: float) -> T:
    """The next message, which must be of `kind`."""
    message = await talk.receive(within_s)
    if not isinstance(message, kind):
        raise _unexpected(talk, message)
    return message


def _unexpected(talk: Talk[FromRequester, FromWorker], message: FromWorker) -> Exception:
    if isinstance(message, Declined):
        return WorkerFailed("declined", f"{message.code}: {message.reason}")
    return talk.out_of_turn(message)
