"""The worker's side of a job: check the offer, accept it, run the model, commit, and only then hand over.

Invariant: nothing that could tell the answer leaves before the commitment, but for text that is streamed to
the requester who pays for it; and the salt and trace leave only after the requester's secret is out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ledger.entry import Entry, InvalidEntry, Offer, decode_entry, majority
from node.market import pricing
from node.market.context import Context
from node.market.messages import Committed, Declined, Delivered, Hire, Hired, Reveal
from node.market.progress import Reporter
from verify import commitment, jury
from verify.commitment import SALT_BYTES
from verify.juror import why_unable
from wire import codec
from wire.envelope import seal, unseal
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.job import JobSpec, Output, Trace
from wire.peer import short
from wire.transport import Channel
from workloads.executor import ExecutorCrashed
from workloads.inputs import check

FRAME_S = 20.0
"""Seconds that a requester has to send what it is its turn to send."""
DEADLINE_MS_MAX = 3_660_000
"""How far away a deadline may be: an hour, and a minute for clocks that differ. Until then a job may hold a slot."""


class Refuse(Exception):
    """Why an offer is not taken; sent as `Declined`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.declined = Declined(code, reason)


class Worker:
    """Serves `/quorate/job/1`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._hired: set[bytes] = set()

    async def serve(self, channel: Channel) -> None:
        """One offer, from hire to delivery."""
        with trio.move_on_after(FRAME_S) as silent:
            hire = codec.decode(Hire, await channel.receive())
        if silent.cancelled_caught:
            return
        try:
            spec, offer = await self._consider(channel, hire)
        except Refuse as exc:
            await channel.send(codec.encode(exc.declined))
            return
        try:
            with self._once(spec), trio.move_on_after((spec.deadline_ms - self._context.now_ms()) / 1000):
                await self._work(channel, spec, offer)
        except Busy as exc:
            await channel.send(codec.encode(Declined("busy", str(exc))))
        except Refuse as exc:
            await channel.send(codec.encode(exc.declined))
        except trio.TooSlowError:
            self._context.log.info("requester_went_silent", job=spec.id.hex()[:12])
        except (LocalError, ExecutorCrashed) as exc:
            self._context.log.warning("job_failed", job=spec.id.hex()[:12], reason=str(exc))
            await channel.send(codec.encode(Declined("failed", str(exc))))

    @contextmanager
    def _once(self, spec: JobSpec) -> Iterator[None]:
        """A job is done once: a second commitment would give the requester a second draw of the jury to choose from.

        Raises:
            Refuse: it was taken before, or is being done.
        """
        if spec.id in self._hired or self._context.ledger.job(spec.id) is not None:
            raise Refuse("refused", "this job was taken before")
        self._hired.add(spec.id)
        try:
            yield
        finally:
            self._hired.discard(spec.id)

    async def _consider(self, channel: Channel, hire: Hire) -> tuple[JobSpec, Entry]:
        context = self._context
        spec = unseal(hire.spec, "job", JobSpec, author=channel.peer)
        if spec.requester != channel.peer:
            raise Malformed("the requester is another peer")
        self._check_spec(spec)
        try:
            offer = decode_entry(hire.offer)
        except InvalidEntry as exc:
            raise RemoteError(channel.peer, f"offer: {exc}") from exc
        terms = Offer(
            job=spec.id,
            payee=context.identity.peer,
            price_micro=spec.price_micro,
            fee_micro=spec.fee_micro,
            rule="one",
            juries=majority(spec.id, spec.jury_size),
            audits=0,
            expires_ms=spec.deadline_ms,
        )
        if offer.header.author != spec.requester or offer.body != terms:
            raise Refuse("refused", "the offer is not for this job")
        return spec, offer

    def _check_spec(self, spec: JobSpec) -> None:
        """Refuse at once what could not be run, judged or paid."""
        context = self._context
        if spec.model not in {model.cid for model in context.models}:
            raise Refuse("unknown_model", f"served here: {', '.join(model.name for model in context.models)}")
        try:
            given = check(spec)
            jury.check_size(spec.jury_size)
        except (LocalError, Malformed) as exc:
            raise Refuse("refused", str(exc)) from exc
        unable = why_unable(spec, context.calibrations.get(spec.calibration))
        if spec.jury_size and unable is not None:
            raise Refuse("thresholds", unable.why)
        left_ms = spec.deadline_ms - context.now_ms()
        if not 0 < left_ms <= DEADLINE_MS_MAX:
            raise Refuse("deadline", "it has passed" if left_ms <= 0 else "it is too far away")
        if spec.jury_size == 0 and not context.settings.serve_unpaid:
            raise Refuse("price", "an answer that nobody checks earns nothing; this node does not work unpaid")
        unit = pricing.unit_price_micro(spec.kind, context.settings.price_percent)
        least = unit * pricing.units(given) if spec.jury_size else 0
        if spec.price_micro < least:
            raise Refuse("price", f"{least} micro-credits wanted")

    async def _work(self, channel: Channel, spec: JobSpec, offer: Entry) -> None:
        context = self._context
        try:
            accept = await context.ledger.accept(offer)
        except (LocalError, RemoteError, TransportError) as exc:
            raise Refuse("credit", str(exc)) from exc
        await channel.send(codec.encode(Hired(codec.encode(accept))))
        log = context.log.bind(job=spec.id.hex()[:12], requester=short(channel.peer))
        log.info("job_accepted", kind=spec.kind, price_micro=spec.price_micro)
        async with context.slots.one():
            output, trace = await self._run(channel, spec)
        salt = secrets.token_bytes(SALT_BYTES)
        promise = commitment.commit(spec.id, output, trace, salt)
        await channel.send(codec.encode(Committed(seal(context.identity, "commitment", promise))))
        with trio.fail_after(FRAME_S):
            reveal = codec.decode(Reveal, await channel.receive())
        jury.check_secret(spec, reveal.secret)
        await channel.send(codec.encode(Delivered(output, trace, salt)))
        log.info("job_delivered")

    async def _run(self, channel: Channel, spec: JobSpec) -> tuple[Output, Trace]:
        """Run the model, telling the requester how far it is; a requester that went away cancels the run."""
        reporter = Reporter()
        outcome: tuple[Output, Trace] | None = None
        failure: Exception | None = None

        async def report() -> None:
            nonlocal failure
            try:
                await reporter.forward(channel)
            except TransportError as exc:
                failure = exc
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(report)
            try:
                outcome = await self._context.pool.run(spec, reporter.emit)
            except (LocalError, ExecutorCrashed) as exc:
                failure = exc
            reporter.finish()
        if failure is not None:
            raise failure
        assert outcome is not None, "a run gives an answer or a reason"
        return outcome
