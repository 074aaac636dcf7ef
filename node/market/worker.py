"""The worker's side of a job: check the offer, accept it, run the model, commit, and only then hand over.

Invariant: nothing that could tell the answer leaves before the commitment, but for text that is streamed to
the requester who pays for it; and the salt and trace leave only after the requester's secret is out.
"""

from __future__ import annotations

import secrets

import trio

from ledger.entry import Entry, InvalidEntry, Offer, decode_entry, majority
from node.market.context import Context
from node.market.messages import Committed, Declined, Delivered, Hire, Hired, Reveal
from node.market.progress import Reporter, run_reported
from node.market.refuse import Refuse, check_spec
from node.market.taken import Taken
from verify import commitment, jury
from verify.commitment import SALT_BYTES
from wire import codec
from wire.envelope import seal, unseal
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.job import JobSpec
from wire.peer import short
from wire.transport import Channel
from workloads.executor import ExecutorCrashed

FRAME_S = 20.0
"""Seconds that a requester has to send what it is its turn to send."""


class Worker:
    """Serves `/quorate/job/1`."""

    def __init__(self, context: Context, taken: Taken) -> None:
        self._context = context
        self._taken = taken

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
            left_s = (spec.deadline_ms - self._context.now_ms()) / 1000
            with self._taken.hold([spec.id], spec.deadline_ms), trio.move_on_after(left_s):
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

    async def _consider(self, channel: Channel, hire: Hire) -> tuple[JobSpec, Entry]:
        context = self._context
        spec = unseal(hire.spec, "job", JobSpec, author=channel.peer)
        if spec.requester != channel.peer:
            raise Malformed("the requester is another peer")
        check_spec(context, spec)
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
            output, trace = await run_reported(context.pool, spec, channel, Reporter())
        salt = secrets.token_bytes(SALT_BYTES)
        promise = commitment.commit(spec.id, output, trace, salt)
        await channel.send(codec.encode(Committed(seal(context.identity, "commitment", promise))))
        with trio.fail_after(FRAME_S):
            reveal = codec.decode(Reveal, await channel.receive())
        jury.check_secret(spec, reveal.secret)
        await channel.send(codec.encode(Delivered(output, trace, salt)))
        log.info("job_delivered")
