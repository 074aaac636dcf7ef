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
from node.market.material import Answered, Named
from node.market.messages import (
    Committed,
    Declined,
    Delivered,
    FromRequester,
    FromWorker,
    Hire,
    Hired,
    Reveal,
    Working,
)
from node.market.progress import Reporter, run_reported
from node.market.refuse import Refuse, check_spec
from node.market.sides import Keeper, Room
from node.market.taken import Taken
from node.market.talk import Talk
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
from wire.rpc.seam import Stream
from workloads.executor import ExecutorCrashed

FRAME_S = 20.0
"""Seconds that a requester has to send what it is its turn to send."""

HANDOVER_S = 30.0
"""Seconds that it has to take what it was sent."""


class Worker:
    """Serves `job.hire`."""

    def __init__(self, context: Context, taken: Taken, defended: Keeper) -> None:
        self._context = context
        self._taken = taken
        self._defended = defended

    async def serve(self, stream: Stream[FromWorker, FromRequester]) -> None:
        """One offer, from hire to delivery.

        Raises:
            RemoteError: the requester broke a rule.
        """
        talk = Talk(stream)
        try:
            hire = await talk.expect(Hire, FRAME_S)
            await self._serve(talk, hire)
        except trio.TooSlowError:
            self._context.log.info("requester_went_silent", requester=short(talk.peer))
        except Malformed as exc:
            raise RemoteError(talk.peer, str(exc)) from exc

    async def _serve(self, talk: Talk[FromWorker, FromRequester], hire: Hire) -> None:
        try:
            specs, offer = self._consider(talk.peer, hire)
            spec = specs[0]
        except Refuse as exc:
            await talk.send(exc.declined)
            return
        try:
            self._context.slots.check()
            left_s = (spec.deadline_ms - self._context.now_ms()) / 1000
            with self._taken.hold([each.id for each in specs], spec.deadline_ms), trio.move_on_after(left_s):
                await self._work(talk, specs, offer)
        except Busy as exc:
            await talk.send(Declined("busy", str(exc)))
        except Refuse as exc:
            await talk.send(exc.declined)
        except (LocalError, ExecutorCrashed) as exc:
            self._context.log.warning("job_failed", job=spec.id.hex()[:12], reason=str(exc))
            await talk.send(Declined("failed", str(exc)))

    def _consider(self, peer: PeerId, hire: Hire) -> tuple[list[JobSpec], Entry]:
        """The spec of each level, one where there is no ladder, and the offer."""
        context = self._context
        specs = [unseal(each, "job", JobSpec, author=peer) for each in (hire.spec, *hire.above)]
        spec = specs[0]
        if spec.requester != peer:
            raise Malformed("the requester is another peer")
        check_spec(context, spec)
        try:
            offer = decode_entry(hire.offer)
        except InvalidEntry as exc:
            raise RemoteError(peer, f"offer: {exc}") from exc
        terms = Offer(
            job=spec.id,
            payee=context.identity.peer,
            price_micro=spec.price_micro,
            fee_micro=spec.fee_micro,
            rule="ladder" if hire.nonce else "one",
            juries=_ladder(peer, specs, hire.nonce, offer) if hire.nonce else majority(spec.id, spec.jury_size),
            audits=0,
            expires_ms=spec.deadline_ms,
        )
        if offer.header.author != spec.requester or offer.body != terms or (hire.above and not hire.nonce):
            raise Refuse("refused", "the offer is not for this job")
        return specs, offer

    async def _work(self, talk: Talk[FromWorker, FromRequester], specs: Sequence[JobSpec], offer: Entry) -> None:
        context, spec = self._context, specs[0]
        room = self._room(specs, offer)
        try:
            try:
                accept = await context.ledger.accept(offer)
            except (LocalError, RemoteError, TransportError) as exc:
                raise Refuse("credit", str(exc)) from exc
            await talk.send(Hired(codec.encode(accept)))
            log = context.log.bind(job=spec.id.hex()[:12], requester=short(talk.peer))
            log.info("job_accepted", kind=spec.kind, price_micro=spec.price_micro)
            async with context.slots.one():
                output, trace = await run_reported(context.pool, spec, talk.send, Reporter(Working))
            salt = secrets.token_bytes(SALT_BYTES)
            promises = [commitment.commit(each.id, output, trace, salt) for each in specs]
            await talk.send(Committed([seal(context.identity, "commitment", p) for p in promises]))
            reveal = await talk.expect(Reveal, FRAME_S)
            jury.check_secret(spec, reveal.secret)
            if room is not None:
                _stand_by(room, spec, promises[0].root, output, trace)
            with context.shelf.lend(Answered(output, trace), [talk.peer]) as carried:
                await talk.send(Delivered(carried, salt))
                log.info("job_delivered")
                if isinstance(carried, Named):
                    await talk.heard_out(HANDOVER_S)
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
