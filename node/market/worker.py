"""The worker's side of a job: check the offer, accept it, run the model, commit, and only then hand over.

Invariant: nothing that could tell the answer leaves before the commitment, but for text that is streamed to
the requester who pays for it; and the salt and trace leave only after the requester's secret is out.
"""

from __future__ import annotations

import secrets

import trio

from ledger.entry import Entry, InvalidEntry, decode_entry
from node.market import pricing
from node.market.context import Context
from node.market.messages import Committed, Declined, Delivered, Hire, Hired, Reveal, Working
from verify import commitment, jury
from verify.commitment import SALT_BYTES
from wire import codec
from wire.envelope import seal, unseal
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.job import JobSpec, Output, Trace
from wire.peer import short
from wire.transport import Channel
from workloads.executor import Event as WorkEvent

EVENTS_BUFFERED = 64


class Refuse(Exception):
    """Why an offer is not taken; sent as `Declined`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.declined = Declined(code, reason)


class Worker:
    """Serves `/quorate/job/1`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def serve(self, channel: Channel) -> None:
        """One offer, from hire to delivery."""
        hire = codec.decode(Hire, await channel.receive())
        try:
            spec, offer = await self._consider(channel, hire)
            self._context.slots.take()
        except Refuse as exc:
            await channel.send(codec.encode(exc.declined))
            return
        except Busy as exc:
            await channel.send(codec.encode(Declined("busy", str(exc))))
            return
        try:
            await self._work(channel, spec, offer)
        except LocalError as exc:
            self._context.log.warning("job_failed", job=spec.id.hex()[:12], reason=str(exc))
            await channel.send(codec.encode(Declined("failed", str(exc))))
        finally:
            self._context.slots.give_back()

    async def _consider(self, channel: Channel, hire: Hire) -> tuple[JobSpec, Entry]:
        context = self._context
        spec = unseal(hire.spec, "job", JobSpec, author=channel.peer)
        check_spec(context, spec)
        if spec.requester != channel.peer:
            raise Malformed("the requester is another peer")
        try:
            offer = decode_entry(hire.offer)
        except InvalidEntry as exc:
            raise RemoteError(channel.peer, f"offer: {exc}") from exc
        unit = pricing.unit_price_micro(spec.kind, context.settings.price_percent)
        least = 0 if spec.jury_size == 0 else unit * pricing.units(spec.input())
        if spec.price_micro < least:
            raise Refuse("price", f"{least} micro-credits wanted")
        await self._check_offer(channel, spec, offer)
        return spec, offer

    async def _check_offer(self, channel: Channel, spec: JobSpec, offer: Entry) -> None:
        """The offer must stand on the payer's chain, for this job and for us, and be covered by its credit."""
        ledger = self._context.ledger
        await ledger.pull(channel.peer, channel.peer)
        stored = ledger.get(offer.id)
        if stored is None:
            raise Refuse("credit", "the offer is not on the payer's chain")
        body = stored.body
        terms = (body.job, body.payee, body.price_micro, body.fee_micro, body.jurors) if body_is_offer(stored) else None
        if terms != (spec.id, self._context.identity.peer, spec.price_micro, spec.fee_micro, spec.jury_size):
            raise Refuse("refused", "the offer is not for this job")

    async def _work(self, channel: Channel, spec: JobSpec, offer: Entry) -> None:
        context = self._context
        accept = await context.ledger.accept(offer)
        await channel.send(codec.encode(Hired(codec.encode(accept))))
        log = context.log.bind(job=spec.id.hex()[:12], requester=short(channel.peer))
        log.info("job_accepted", kind=spec.kind, price_micro=spec.price_micro)
        output, trace = await self._run(channel, spec)
        salt = secrets.token_bytes(SALT_BYTES)
        promise = commitment.commit(spec.id, output, trace, salt)
        await channel.send(codec.encode(Committed(seal(context.identity, "commitment", promise))))
        reveal = codec.decode(Reveal, await channel.receive())
        jury.check_secret(spec, reveal.secret)
        await channel.send(codec.encode(Delivered(output, trace, salt)))
        log.info("job_delivered")

    async def _run(self, channel: Channel, spec: JobSpec) -> tuple[Output, Trace]:
        """Run the model, telling the requester how far it is; a requester that went away cancels the run."""
        send, receive = trio.open_memory_channel[WorkEvent](EVENTS_BUFFERED)
        result: list[tuple[Output, Trace]] = []

        async def run() -> None:
            async with send:
                result.append(await self._context.pool.run(spec, on_event(send)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            async with receive:
                async for event in receive:
                    await channel.send(codec.encode(working(event)))
        return result[0]
