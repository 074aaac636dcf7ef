"""The worker's side of a batch: check everything, accept once, run all, promise all, open what was picked.

Invariants: nothing that could tell an answer leaves before all of them are committed to, but for text that is streamed
to the requester who pays for it; a trace leaves only if its job was picked by a secret that the offer had fixed; one
batch gets one commitment.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import trio

from ledger.entry import AUDITS_MAX, Entry, InvalidEntry, Jury, Offer, decode_entry
from node.market.batch_messages import (
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
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
from node.market.context import Context
from node.market.incentives import worth_it
from node.market.material import Answered, Carried, Named
from node.market.messages import Declined, Hired
from node.market.progress import Reporter, run_reported
from node.market.refuse import Refuse, check_spec
from node.market.taken import Taken
from node.market.talk import Talk
from verify import commitment, jury
from verify.commitment import SALT_BYTES, prove_output
from verify.sampling import BatchOffer, commit_batch, open_offer, open_picked, picks
from wire import codec
from wire.codec import Wire
from wire.envelope import seal, unseal
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.job import Commitment, JobSpec, Output, Trace
from wire.peer import PeerId, short
from wire.rpc.seam import Stream
from workloads.executor import ExecutorCrashed

FRAME_S = 20.0
"""Seconds that a requester has to send what it is its turn to send."""

HANDOVER_S = 30.0
"""Seconds that it has to take what it was sent."""

BEAT_S = 2.0
"""Seconds between signs of life while all slots are taken."""

BATCHES_MAX = 4
"""Batches in progress at once, whoever asks; of one requester, half of them."""


BatchTalk = Talk[FromBatchWorker, FromBatchRequester]


@dataclass(frozen=True)
class Done:
    """An answer, and what was promised of it."""

    output: Output
    trace: Trace
    salt: bytes
    promise: Commitment


def batch_terms(offer: BatchOffer, specs: Sequence[JobSpec], expires_ms: int) -> Offer:
    """The ledger's offer for a batch: one price, and juries for as many jobs as will be drawn."""
    return Offer(
        job=offer.id,
        payee=offer.worker,
        price_micro=sum(spec.price_micro for spec in specs),
        fee_micro=specs[0].fee_micro,
        rule="batch",
        juries=[Jury(spec.id, spec.jury_size, spec.jury_size // 2 + 1) for spec in specs],
        audits=offer.sampling.size,
        expires_ms=expires_ms,
    )


class BatchWorker:
    """Serves `job.batch`."""

    def __init__(self, context: Context, taken: Taken) -> None:
        self._context = context
        self._taken = taken
        self._open: Counter[PeerId] = Counter()

    async def serve(self, stream: Stream[FromBatchWorker, FromBatchRequester]) -> None:
        """One batch, from hire to delivery.

        Raises:
            RemoteError: the requester broke a rule.
        """
        talk = Talk(stream, BATCH_BYTES_MAX)
        log = self._context.log.bind(requester=short(talk.peer))
        try:
            hire = await talk.expect(HireBatch, FRAME_S)
            with self._room(talk.peer):
                await self._serve(talk, hire)
        except Busy as exc:
            await talk.send(Declined("busy", str(exc)))
        except Refuse as exc:
            await talk.send(exc.declined)
        except Malformed as exc:
            raise RemoteError(talk.peer, str(exc)) from exc
        except trio.TooSlowError:
            log.info("requester_went_silent")
        except (LocalError, ExecutorCrashed) as exc:
            log.warning("batch_failed", reason=str(exc))
            await talk.send(Declined("failed", str(exc)))

    @contextmanager
    def _room(self, peer: PeerId) -> Iterator[None]:
        """Raises: Busy: enough batches are in progress."""
        self._context.slots.check()
        if self._open.total() >= BATCHES_MAX or self._open[peer] >= BATCHES_MAX // 2:
            raise Busy(5.0, "enough batches are in progress")
        self._open[peer] += 1
        try:
            yield
        finally:
            self._open[peer] -= 1
            self._open += Counter()  # forget peers at zero

    async def _serve(self, talk: BatchTalk, hire: HireBatch) -> None:
        offer = self._consider(talk.peer, hire)
        await talk.send(Ready())
        specs = await self._receive(talk, offer)
        entry = self._check_terms(talk.peer, hire, offer, specs)
        deadline_ms = specs[0].deadline_ms
        left_s = (deadline_ms - self._context.now_ms()) / 1000
        with self._taken.hold([offer.id, *offer.jobs], deadline_ms), trio.move_on_after(left_s):
            await self._work(talk, offer, specs, entry)

    def _consider(self, peer: PeerId, hire: HireBatch) -> BatchOffer:
        """The batch, in order by itself.

        Raises:
            Fault: it breaks a rule.
            Refuse: this market does not take such batches.
        """
        offer = open_offer(hire.offer)
        if offer.requester != peer:
            raise Malformed("the requester is another peer")
        if offer.worker != self._context.identity.peer:
            raise Refuse("refused", "the batch is for another worker")
        if len(offer.jobs) > BATCH_JOBS_MAX:
            raise Refuse("refused", f"{len(offer.jobs)} jobs, at most {BATCH_JOBS_MAX} in a batch")
        if offer.sampling.rule != "draw" or offer.sampling.size > AUDITS_MAX:
            raise Refuse("refused", f"a draw of 1 to {AUDITS_MAX} jobs expected: a batch without audit earns nothing")
        return offer

    async def _receive(self, talk: BatchTalk, offer: BatchOffer) -> list[JobSpec]:
        """The jobs that the offer names, in its order.

        Raises:
            Malformed: others, or more than the bytes of a batch.
            trio.TooSlowError: the requester went silent.
        """
        specs = []
        for job in offer.jobs:
            said = await talk.expect(BatchJob, FRAME_S)
            spec = unseal(said.spec, "job", JobSpec, author=talk.peer)
            if spec.id != job or spec.requester != talk.peer:
                raise Malformed("not the job that the offer names")
            specs.append(spec)
        return specs

    def _check_terms(self, peer: PeerId, hire: HireBatch, offer: BatchOffer, specs: Sequence[JobSpec]) -> Entry:
        """Raises: Refuse: a job that cannot be run, jobs that differ in more than their input, a bad bargain."""
        first, context = specs[0], self._context
        if len({(s.model, s.lane, s.jury_size, s.fee_micro, s.pool, s.deadline_ms) for s in specs}) != 1:
            raise Refuse("refused", "the jobs differ in model, lane, jury, fee, pool or deadline")
        if not first.jury_size or len({spec.beacon_hash for spec in specs}) != len(specs):
            raise Refuse("refused", "each job needs a jury, and a beacon secret of its own")
        for spec in specs:
            check_spec(context, spec)
        try:
            entry = decode_entry(hire.entry)
        except InvalidEntry as exc:
            raise RemoteError(peer, f"offer: {exc}") from exc
        if entry.header.author != peer or entry.body != batch_terms(offer, specs, first.deadline_ms):
            raise Refuse("refused", "the ledger's offer is not for this batch")
        prices = [spec.price_micro for spec in specs]
        record = context.calibrations[first.calibration]
        if not worth_it(prices, offer.sampling.size, record, context.settings.saving_percent):
            raise Refuse("price", "what wrongly rejected batches cost is more than this one earns")
        return entry

    async def _work(self, talk: BatchTalk, offer: BatchOffer, specs: Sequence[JobSpec], entry: Entry) -> None:
        context = self._context
        try:
            accept = await context.ledger.accept(entry)
        except (LocalError, RemoteError, TransportError) as exc:
            raise Refuse("credit", str(exc)) from exc
        await talk.send(Hired(codec.encode(accept)))
        log = context.log.bind(batch=offer.id.hex()[:12], requester=short(talk.peer), jobs=len(specs))
        log.info("batch_accepted", audits=offer.sampling.size)
        done = [await self._run(talk, index, spec) for index, spec in enumerate(specs)]
        answers = [seal(context.identity, "commitment", each.promise) for each in done]
        promise = commit_batch(offer, [each.promise.root for each in done])
        committed = BatchCommitted(seal(context.identity, "batch.commitment", promise), answers)
        await talk.send(committed)
        reveal = await talk.expect(BatchReveal, FRAME_S)
        await self._open_up(talk, offer, specs, done, reveal)
        log.info("batch_delivered")

    async def _run(self, talk: BatchTalk, index: int, spec: JobSpec) -> Done:
        context = self._context
        async with self._turn(talk, index):
            reporter = Reporter(partial(BatchWorking, index))
            output, trace = await run_reported(context.pool, spec, talk.send, reporter)
        salt = secrets.token_bytes(SALT_BYTES)
        return Done(output, trace, salt, commitment.commit(spec.id, output, trace, salt))

    @asynccontextmanager
    async def _turn(self, talk: BatchTalk, index: int) -> AsyncIterator[None]:
        """A slot for the next run; while others hold it, the requester hears that we are still there."""

        async def beat() -> None:
            while True:
                await trio.sleep(BEAT_S)
                await talk.send(BatchWorking(index, 0, 0))

        async with AsyncExitStack() as held:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beat)
                await held.enter_async_context(self._context.slots.turn())
                nursery.cancel_scope.cancel()
            yield

    async def _open_up(
        self, talk: BatchTalk, offer: BatchOffer, specs: Sequence[JobSpec], done: Sequence[Done], reveal: BatchReveal
    ) -> None:
        """Hand over all answers: first those that were picked, with their traces.

        Raises:
            Fault, Malformed: a secret that was not fixed: nothing is handed over.
        """
        roots = [each.promise.root for each in done]
        openings = open_picked(offer, roots, reveal.shown)
        chosen = picks(offer, commit_batch(offer, roots).root, reveal.shown.secret)
        if len(reveal.secrets) != len(chosen):
            raise Malformed(f"{len(reveal.secrets)} secrets for {len(chosen)} picked jobs")
        for index, secret in zip(chosen, reveal.secrets, strict=True):
            jury.check_secret(specs[index], secret)
        handed: list[Carried] = []
        with ExitStack() as lent:
            for opening in openings:
                each = done[opening.index]
                answer = self._lend(lent, talk, Answered(each.output, each.trace))
                handed.append(answer)
                await talk.send(Opened(opening, answer, each.salt))
            for index, each in enumerate(done):
                if index not in chosen:
                    proof = prove_output(each.output, each.trace, each.salt)
                    handed.append(self._lend(lent, talk, each.output))
                    await talk.send(Unchecked(index, handed[-1], each.salt, proof))
            if any(isinstance(each, Named) for each in handed):
                await talk.heard_out(HANDOVER_S)

    def _lend(self, lent: ExitStack, talk: BatchTalk, material: Wire) -> Carried:
        return lent.enter_context(self._context.shelf.lend(material, [talk.peer]))
