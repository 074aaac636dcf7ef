"""The requester's side of a batch: offer, follow, pick, have the picked answers judged, pay once.

Each attempt is a batch of its own on the network: own specs, own secrets, own offer. The rules of the draw are
`verify.sampling.Batch`'s. Once the secret is out, a worker that does not hand over everything in time has failed an
audit: else a cheater would look at the draw and leave. Whatever happens, the reservation ends as a receipt or is
released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from ledger.entry import Entry, Reason, Verdict
from node.batches import pack_outputs, pack_receipts
from node.jobs import Board, Job
from node.market.accepted import check_accept
from node.market.auditor import audit
from node.market.batch_messages import (
    BATCH,
    BATCH_BYTES_MAX,
    BatchCommitted,
    BatchJob,
    BatchReveal,
    BatchWorking,
    FromBatchRequester,
    FromBatchWorker,
    HireBatch,
    Opened,
    Ready,
    Unchecked,
)
from node.market.batch_plan import BatchPlan, plan_batch
from node.market.batch_worker import batch_terms
from node.market.canaries import Canaries
from node.market.context import Context
from node.market.finder import Finder
from node.market.material import Answered, Carried, Named
from node.market.messages import Declined, Hired
from node.market.payer import Payer
from node.market.proof import prove
from node.market.requester import TALK_ENDS, Requester, Tried, WorkerFailed, left_s
from node.market.talk import Talk
from node.records import observe_jurors
from verify.commitment import check_opening, check_output_leaf, output_digest
from verify.messages import JuryAsk
from verify.round import Outcome
from verify.sampling import Batch, BatchTiming, Refuse, ShowSecret, commit_batch
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope, unseal
from wire.errors import Malformed
from wire.job import Commitment, Output, Trace
from wire.peer import to_text

AUDITS_AT_ONCE = 4
"""Juries of one batch that sit at the same time."""

DELIVERY_STALLS = 3
"""A worker has this many times `stall_s` to hand over everything, and no more than half of the time that is left."""


@dataclass
class Handed:
    """What a worker promised and handed over."""

    accept: Entry
    machine: Batch
    commitments: list[Commitment] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    outputs: dict[int, Output] = field(default_factory=dict)
    picked: dict[int, tuple[Trace, bytes]] = field(default_factory=dict)

    @property
    def shown(self) -> bool:
        """Whether the worker has been shown the secret, and must deliver."""
        return self.machine.commitment is not None


BatchTalk = Talk[FromBatchRequester, FromBatchWorker]
T = TypeVar("T", bound=Wire)


class BatchRequester(Requester):
    """Runs this node's own batches; `canaries` hears of those that were credited."""

    def __init__(self, context: Context, board: Board, finder: Finder, payer: Payer, canaries: Canaries) -> None:
        super().__init__(context, board, finder, payer)
        self._canaries = canaries

    async def _attempt(self, job: Job, tried: Tried) -> str:
        """One worker, one draw, its juries; returns the verdict on the whole batch."""
        context = self._context
        offered = await self._finder.enough(job.request, tried.workers)
        plan = plan_batch(context, self._finder, job.request, offered, tried)
        tried.workers.add(plan.worker)
        worker = to_text(plan.worker)
        self._board.update(job, "matched", tell={"worker": worker, "why": plan.reason}, worker=worker, jury=[])
        terms = batch_terms(plan.offer, plan.specs, plan.specs[0].deadline_ms)
        offer = await context.ledger.offer(
            job=terms.job,
            payee=terms.payee,
            price_micro=terms.price_micro,
            fee_micro=terms.fee_micro,
            juries=terms.juries,
            expires_ms=terms.expires_ms,
            rule=terms.rule,
            audits=terms.audits,
        )
        reason: Reason | None = "cancelled"
        try:
            handed = await self._hire_batch(job, plan, offer)
            outputs = [codec.encode(handed.outputs[index]) for index in range(len(plan.specs))]
            self._board.update(job, "auditing", output=pack_outputs(outputs))
            outcomes = await self._judge(job, plan, handed)
            verdict = _verdict(handed.machine, outcomes)
            with trio.CancelScope(shield=True):
                tried.spent_micro += await self._payer.pay_batch(offer, handed.accept, verdict, outcomes)
                reason = None
        except WorkerFailed:
            reason = "worker_died"
            raise
        finally:
            if reason is not None:
                await self._release(offer, reason)
        self._learn(plan, handed.machine, outcomes)
        self._board.update(
            job, evidence=_proof(self._thresholds(plan.specs[0]), plan, handed, outcomes) or job.evidence
        )
        self._tell(job, plan, verdict, outcomes, tried)
        if verdict == "accept":
            self._canaries.after(job.request, plan, handed.machine.picked)
        return verdict

    async def _hire_batch(self, job: Job, plan: BatchPlan, offer: Entry) -> Handed:
        """Have the work done and handed over.

        Raises:
            WorkerFailed: whatever the worker did or failed to do.
        """
        handed = None
        try:
            async with self._context.rpc.stream(plan.worker, BATCH, timeout_s=left_s()) as stream:
                talk = Talk(stream, BATCH_BYTES_MAX)
                handed = await self._offer_batch(plan, offer, talk)
                self._board.update(job, "running")
                await self._await_commitment(job, plan, talk, handed)
                await self._collect(plan, talk, handed)
        except TALK_ENDS as exc:
            raise self._failure(plan, handed, exc) from exc
        return handed

    async def _next(self, talk: BatchTalk, within_s: float | None = None) -> FromBatchWorker:
        """What the worker says next.

        Raises:
            WorkerFailed: it declined. trio.TooSlowError, QuorateError: see `Talk.receive`.
        """
        said = await talk.receive(self._context.settings.stall_s if within_s is None else within_s)
        if isinstance(said, Declined):
            raise WorkerFailed("declined", f"{said.code}: {said.reason}")
        return said

    def _failure(self, plan: BatchPlan, handed: Handed | None, exc: Exception) -> WorkerFailed:
        """What went wrong with the worker; after the secret was shown it counts as a failed audit, whatever it was."""
        failed = self._failed(plan.worker, exc)
        if handed is None or not handed.shown:
            return failed
        self._context.records.observe("worker", plan.worker, plan.specs[0].model, failed=True)
        return WorkerFailed("withheld", f"after the draw: {failed}")

    async def _offer_batch(self, plan: BatchPlan, offer: Entry, talk: BatchTalk) -> Handed:
        settings = self._context.settings
        await talk.send(HireBatch(plan.sealed, codec.encode(offer)))
        if not isinstance(frame := await self._next(talk, settings.accept_s), Ready):
            raise talk.out_of_turn(frame)
        with trio.fail_after(settings.stall_s):
            for envelope in plan.envelopes:
                await talk.send(BatchJob(envelope))
        if not isinstance(frame := await self._next(talk, settings.accept_s), Hired):
            raise talk.out_of_turn(frame)
        accept = check_accept(frame, offer)
        now, left_s = trio.current_time(), trio.current_effective_deadline() - trio.current_time()
        timing = BatchTiming(commit_s=left_s, open_s=left_s, judge_s=left_s)
        return Handed(accept, Batch(plan.sealed, plan.secret, now=now, timing=timing))

    async def _await_commitment(self, job: Job, plan: BatchPlan, talk: BatchTalk, handed: Handed) -> None:
        """Follow the work until everything is promised.

        Raises:
            Malformed, RemoteError: the promise is not in order; the secret stays with us.
        """
        while isinstance(frame := await self._next(talk), BatchWorking):
            if not 0 <= frame.index < len(plan.specs):
                raise Malformed(f"progress of job {frame.index}")
            told = {"index": frame.index, "done": frame.done, "total": frame.total, "text": frame.text}
            self._board.event(job, "running", **told)
        if not isinstance(frame, BatchCommitted):
            raise talk.out_of_turn(frame)
        handed.envelopes = frame.answers
        handed.commitments = [
            unseal(envelope, "commitment", Commitment, author=plan.worker) for envelope in frame.answers
        ]
        if [commitment.job for commitment in handed.commitments] != plan.offer.jobs:
            raise Malformed("not a commitment to each job")
        if any(len(commitment.root) != 32 for commitment in handed.commitments):
            raise Malformed("a root has 32 bytes")
        promised = commit_batch(plan.offer, [commitment.root for commitment in handed.commitments])
        if codec.encode(promised) != frame.batch.body:
            raise Malformed("the batch's root is not that of its answers")
        actions = handed.machine.on_commitment(trio.current_time(), plan.worker, frame.batch)
        if not isinstance(actions[0], ShowSecret):
            raise _refused(actions)
        secrets = [plan.secrets[index] for index in handed.machine.picked]
        await talk.send(BatchReveal(actions[0].shown, secrets))

    async def _collect(self, plan: BatchPlan, talk: BatchTalk, handed: Handed) -> None:
        """Everything, the picked answers first; what does not lead to its committed root is refused."""
        left_s = trio.current_effective_deadline() - trio.current_time()
        picked = handed.machine.picked
        with trio.fail_after(min(DELIVERY_STALLS * self._context.settings.stall_s, left_s / 2)):
            for index in picked:
                if not isinstance(frame := await self._next(talk), Opened):
                    raise talk.out_of_turn(frame)
                answered = await self._fetch(talk, frame.answer, Answered)
                self._take_opened(plan, handed, index, frame, answered)
            for index in [index for index in range(len(plan.specs)) if index not in picked]:
                if not isinstance(frame := await self._next(talk), Unchecked):
                    raise talk.out_of_turn(frame)
                _take_unchecked(handed, index, frame, await self._fetch(talk, frame.output, Output))

    async def _fetch(self, talk: BatchTalk, carried: Carried, kind: type[T]) -> T:
        """What the worker handed over, within what is left for a batch."""
        if isinstance(carried, Named):
            talk.spend(carried.size)
        return await self._context.fetcher.take(talk.peer, carried, kind)

    def _take_opened(self, plan: BatchPlan, handed: Handed, index: int, frame: Opened, answered: Answered) -> None:
        if frame.opening.index != index:
            raise Malformed(f"job {frame.opening.index} opened, it was job {index}'s turn")
        actions = handed.machine.on_opening(trio.current_time(), plan.worker, frame.opening)
        if any(isinstance(action, Refuse) for action in actions):
            raise _refused(actions)
        check_opening(handed.commitments[index], answered.output, answered.trace, frame.salt)
        handed.outputs[index] = answered.output
        handed.picked[index] = answered.trace, frame.salt

    async def _judge(self, job: Job, plan: BatchPlan, handed: Handed) -> dict[int, Outcome]:
        """A round for each picked answer; all are heard to the end, for every juror that worked is paid."""
        outcomes: dict[int, Outcome] = {}
        limit = trio.CapacityLimiter(AUDITS_AT_ONCE)

        async def one(index: int) -> None:
            async with limit:
                outcomes[index] = await audit(
                    self._context,
                    _ask(plan, handed, index),
                    lambda peers: self._board.event(
                        job, "auditing", index=index, jury=[to_text(peer) for peer in peers]
                    ),
                )

        async with trio.open_nursery() as nursery:
            for index in handed.machine.picked:
                nursery.start_soon(one, index)
        return dict(sorted(outcomes.items()))

    def _learn(self, plan: BatchPlan, machine: Batch, outcomes: dict[int, Outcome]) -> None:
        """What the audits say of worker and jurors goes into their records."""
        records, model = self._context.records, plan.specs[0].model
        assert machine.outcome is not None, "a verdict was given"
        for failed in machine.outcome.observations:
            records.observe("worker", plan.worker, model, failed=failed)
        for outcome in outcomes.values():
            observe_jurors(records, model, outcome.verdict, outcome.jury)

    def _tell(self, job: Job, plan: BatchPlan, verdict: str, outcomes: dict[int, Outcome], tried: Tried) -> None:
        audits = [
            {
                "index": index,
                "verdict": outcome.verdict,
                "jury": [
                    {"peer": to_text(juror.peer), "verdict": juror.verdict, "distances": dict(juror.distances)}
                    for juror in outcome.jury
                ],
            }
            for index, outcome in outcomes.items()
        ]
        self._board.update(
            job,
            verdict=verdict,
            jury=audits,
            thresholds=dict(self._thresholds(plan.specs[0])),
            cost_micro=tried.spent_micro,
            receipt=pack_receipts({index: codec.encode(outcome.receipt) for index, outcome in outcomes.items()}),
        )
        rejected = [index for index, outcome in outcomes.items() if outcome.verdict == "reject"]
        told = f"; rejected: {', '.join(map(str, rejected))}" if rejected else ""
        self._note(job, verdict, plan.reason + told, [])


def _take_unchecked(handed: Handed, index: int, frame: Unchecked, output: Output) -> None:
    if frame.index != index:
        raise Malformed(f"answer {frame.index} handed over, it was job {index}'s turn")
    output.check()
    if not check_output_leaf(handed.commitments[index], output_digest(output), frame.salt, frame.proof):
        raise Malformed(f"answer {index} is not the one that was committed to")
    handed.outputs[index] = output


def _refused(actions: Sequence[object]) -> Exception:
    return next(action.fault for action in actions if isinstance(action, Refuse))


def _ask(plan: BatchPlan, handed: Handed, index: int) -> JuryAsk:
    trace, salt = handed.picked[index]
    return JuryAsk(
        spec=plan.envelopes[index],
        commitment=handed.envelopes[index],
        secret=plan.secrets[index],
        salt=salt,
        pool=plan.pool,
        output=handed.outputs[index],
        trace=trace,
    )


def _proof(
    thresholds: Mapping[str, float], plan: BatchPlan, handed: Handed, outcomes: Mapping[int, Outcome]
) -> bytes | None:
    """The bundle against the worker of the first rejected answer for which there is one."""
    for index, outcome in outcomes.items():
        if outcome.verdict == "reject":
            trace, _ = handed.picked[index]
            proof = prove(plan.specs[index], [outcome.receipt], handed.outputs[index], trace, thresholds)
            if proof is not None:
                return proof
    return None


def _verdict(machine: Batch, outcomes: dict[int, Outcome]) -> Verdict:
    """Tell the machine what the juries said, in the order of the jobs."""
    for index, outcome in outcomes.items():
        machine.on_verdict(trio.current_time(), index, outcome.verdict)
    assert machine.outcome is not None, "every picked answer has its verdict"
    words: dict[str, Verdict] = {"credited": "accept", "rejected": "reject"}
    return words.get(machine.outcome.word, "unaudited")
