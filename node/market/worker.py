"""The worker's side of a job: check the offer, accept it, run the model, commit, and only then hand over.

Invariant: nothing that could tell the answer leaves before the commitment, but for text that is streamed to
the requester who pays for it; and the salt and trace leave only after the requester's secret is out.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

import trio

from ledger.entry import Entry, InvalidEntry, Jury, Offer, decode_entry, majority
from node.market.chains import has_steps, states_of
from node.market.context import Context
from node.market.messages import Committed, Declined, Delivered, Hire, Hired, Reveal
from node.market.progress import Reporter, run_reported
from node.market.refuse import Refuse, check_spec
from node.market.sides import Keeper, Room
from node.market.taken import Taken
from verify import commitment, jury
from verify.bisection import StateBook
from verify.commitment import SALT_BYTES
from verify.faults import demand
from verify.ladder import Level, check_ladder
from wire import codec
from wire.envelope import seal, unseal
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.job import JobSpec, Output, Trace, check_spots
from wire.limits import JURY_MAX
from wire.peer import PeerId, short
from wire.transport import Channel
from workloads.executor import ExecutorCrashed

FRAME_S = 20.0
"""Seconds that a requester has to send what it is its turn to send."""


class Worker:
    """Serves `/quorate/job/1`."""

    def __init__(self, context: Context, taken: Taken, defended: Keeper) -> None:
        self._context = context
        self._taken = taken
        self._defended = defended

    async def serve(self, channel: Channel) -> None:
        """One offer, from hire to delivery."""
        with trio.move_on_after(FRAME_S) as silent:
            hire = codec.decode(Hire, await channel.receive())
        if silent.cancelled_caught:
            return
        try:
            specs, offer = self._consider(channel, hire)
            spec = specs[0]
        except Refuse as exc:
            await channel.send(codec.encode(exc.declined))
            return
        try:
            self._context.slots.check()
            left_s = (spec.deadline_ms - self._context.now_ms()) / 1000
            with self._taken.hold([each.id for each in specs], spec.deadline_ms), trio.move_on_after(left_s):
                await self._work(channel, specs, offer)
        except Busy as exc:
            await channel.send(codec.encode(Declined("busy", str(exc))))
        except Refuse as exc:
            await channel.send(codec.encode(exc.declined))
        except trio.TooSlowError:
            self._context.log.info("requester_went_silent", job=spec.id.hex()[:12])
        except (LocalError, ExecutorCrashed) as exc:
            self._context.log.warning("job_failed", job=spec.id.hex()[:12], reason=str(exc))
            await channel.send(codec.encode(Declined("failed", str(exc))))

    def _consider(self, channel: Channel, hire: Hire) -> tuple[list[JobSpec], Entry]:
        """The spec of each level, one where there is no ladder, and the offer."""
        context = self._context
        specs = [unseal(each, "job", JobSpec, author=channel.peer) for each in (hire.spec, *hire.above)]
        spec = specs[0]
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
            rule="ladder" if hire.nonce else "one",
            juries=_ladder(channel.peer, specs, hire.nonce, offer) if hire.nonce else majority(spec.id, spec.jury_size),
            audits=0,
            expires_ms=spec.deadline_ms,
        )
        if offer.header.author != spec.requester or offer.body != terms or (hire.above and not hire.nonce):
            raise Refuse("refused", "the offer is not for this job")
        return specs, offer

    async def _work(self, channel: Channel, specs: Sequence[JobSpec], offer: Entry) -> None:
        context, spec = self._context, specs[0]
        room = self._room(specs, offer)
        try:
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
            promises = [commitment.commit(each.id, output, trace, salt) for each in specs]
            await channel.send(codec.encode(Committed([seal(context.identity, "commitment", p) for p in promises])))
            with trio.fail_after(FRAME_S):
                reveal = codec.decode(Reveal, await channel.receive())
            jury.check_secret(spec, reveal.secret)
            if room is not None:
                _stand_by(room, spec, promises[0].root, output, trace)
            await channel.send(codec.encode(Delivered(output, trace, salt)))
            log.info("job_delivered")
        finally:
            if room is not None and not room.leaves:
                self._defended.give_back(room)

    def _room(self, specs: Sequence[JobSpec], offer: Entry) -> Room | None:
        """Room for the states of an answer that may be disputed step by step.

        Raises:
            Busy: there is none.
        """
        if not (isinstance(offer.body, Offer) and offer.body.rule == "ladder" and has_steps(specs[0])):
            return None
        return self._defended.room([spec.id for spec in specs], specs[0].requester, specs[0].deadline_ms)


def _ladder(peer: PeerId, specs: Sequence[JobSpec], nonce: bytes, offer: Entry) -> list[Jury]:
    """The juries of a ladder that is in order: one per level, each deciding as the offer says.

    Raises:
        RemoteError: it is not in order; the reason begins with the fault's name.
    """
    body = offer.body
    needed = [each.needed for each in body.juries] if isinstance(body, Offer) else []
    pairs = list(zip(specs, needed, strict=False))
    try:
        demand(len(needed) == len(specs), "ladder.levels", f"{len(specs)} specs for {len(needed)} juries")
        for spec, least in pairs:
            demand(spec.jury_size < 2 * least <= 2 * spec.jury_size, "ladder.levels", f"{least} of {spec.jury_size}")
            check_spots(spec)
            demand(spec.jury_size % 2 == 1 and spec.jury_size <= JURY_MAX, "ladder.levels", f"{spec.jury_size} jurors")
        check_ladder(specs, [Level(spec.jury_size, least, spec.spots) for spec, least in pairs], nonce)
    except Malformed as exc:
        raise RemoteError(peer, str(exc), penalty=0.2) from exc
    return [Jury(spec.id, spec.jury_size, least) for spec, least in pairs]


def _stand_by(room: Room, spec: JobSpec, root: bytes, output: Output, trace: Trace) -> None:
    """Keep what a dispute will ask for; an answer that has no chain of states cannot be defended."""
    with suppress(Malformed):
        states = states_of(spec, output, trace)
        room.fill(root, StateBook.of(spec.id, root, states).leaves, states)
