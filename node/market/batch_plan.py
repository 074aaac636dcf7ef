"""One attempt at a batch, fixed before anybody works: who works, what it pays, and all that decides the draws."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from ledger.entry import AUDITS_MAX
from node.jobs import Request
from node.market import pricing
from node.market.context import Context
from node.market.finder import Finder, Offered
from node.market.incentives import audits_needed
from node.market.plan import left_out
from node.market.requester import JobFailed, Tried, calibration_of
from recommend.rank import Choice
from verify import jury
from verify.calibration import Calibration
from verify.fingerprints.registry import fingerprint_for
from verify.sampling import BatchOffer, Sampling
from wire import codec
from wire.envelope import Envelope, seal
from wire.job import INPUTS, JobSpec, PoolMember
from wire.peer import PeerId
from workloads.executor import NUMERICS


@dataclass(frozen=True)
class BatchPlan:
    """What is sent, and the secrets that open it.

    Attributes:
        offer, sealed: the batch, and its envelope. secret: what will decide which answers are opened.
        specs, envelopes, secrets: of each job, with the secret that will decide its jury.
        pool: from which every jury is drawn. worker, reason: whom, and why.
    """

    offer: BatchOffer
    sealed: Envelope
    secret: bytes
    specs: list[JobSpec]
    envelopes: list[Envelope]
    secrets: list[bytes]
    pool: list[PoolMember]
    worker: PeerId
    reason: str


@dataclass(frozen=True)
class Bargain:
    """A worker, what each job pays, the fee of a juror, and how many jobs are drawn."""

    choice: Choice
    prices_micro: list[int]
    fee_micro: int
    audits: int

    def total_micro(self, jury_size: int) -> int:
        """The most that can come to be paid."""
        return sum(self.prices_micro) + self.audits * jury_size * self.fee_micro


def plan_batch(context: Context, finder: Finder, request: Request, offered: Offered, tried: Tried) -> BatchPlan:
    """Choose the worker and fix the rest.

    Raises:
        JobFailed: beyond the budget, or nobody whom so few audits would keep honest.
    """
    record = calibration_of(context, request)
    bargain = _bargain(context, request, offered, tried, record)
    pool = finder.pool(offered, bargain.choice.peer, request.jury_size)
    now_ms = context.now_ms()
    beacons = [secrets.token_bytes(jury.SECRET_BYTES) for _ in request.items]
    specs = [
        JobSpec(
            version=1,
            kind=request.kind,
            model=request.model,
            inputs=item.inputs,
            lane=request.lane,
            numeric=NUMERICS[request.lane],
            fingerprint=fingerprint_for(request.kind, request.lane).id,
            calibration=record.hash,
            seed=item.seed,
            jury_size=request.jury_size,
            spots=0,  # few jobs are audited, and those whole: the incentive condition counts on it
            price_micro=price,
            fee_micro=bargain.fee_micro,
            requester=context.identity.peer,
            pool=jury.pool_hash(pool.members),
            beacon_hash=jury.beacon_hash(beacon),
            nonce=secrets.token_bytes(16),
            created_ms=now_ms,
            deadline_ms=now_ms + int(request.timeout_s * 1000),
        )
        for item, price, beacon in zip(request.items, bargain.prices_micro, beacons, strict=True)
    ]
    secret = secrets.token_bytes(jury.SECRET_BYTES)
    out = left_out(pool.left_out)
    offer = BatchOffer(
        version=1,
        requester=context.identity.peer,
        worker=bargain.choice.peer,
        jobs=[spec.id for spec in specs],
        sampling=Sampling("draw", bargain.audits),
        beacon_hash=jury.beacon_hash(secret),
        nonce=secrets.token_bytes(16),
    )
    return BatchPlan(
        offer=offer,
        sealed=seal(context.identity, "batch.offer", offer),
        secret=secret,
        specs=specs,
        envelopes=[seal(context.identity, "job", spec) for spec in specs],
        secrets=beacons,
        pool=pool.members,
        worker=bargain.choice.peer,
        reason="; ".join(filter(None, (bargain.choice.reason, f"{bargain.audits} of {len(specs)} audited", out))),
    )


def _bargain(context: Context, request: Request, offered: Offered, tried: Tried, record: Calibration) -> Bargain:
    """The first worker whose batch is audited often enough, within the budget."""
    sizes = [pricing.units(codec.decode(INPUTS[request.kind], raw)) for raw in request.each_input]
    dearest = 0
    for choice in offered.workers:
        unit = offered.prices_micro[choice.peer] // sum(sizes)
        bargain = _terms(context, request, choice, [unit * size for size in sizes], record)
        if bargain is None:
            continue
        total = tried.spent_micro + bargain.total_micro(request.jury_size)
        if request.budget_micro is None or total <= request.budget_micro:
            return bargain
        dearest = max(dearest, total)
    if not dearest:
        raise JobFailed("no_provider", f"more audits needed than the {AUDITS_MAX} of one batch, for every worker found")
    raise JobFailed("insufficient_credit", f"{dearest} micro-credits with fees; the budget is {request.budget_micro}")


def _terms(
    context: Context, request: Request, choice: Choice, prices: Sequence[int], record: Calibration
) -> Bargain | None:
    """What is agreed with one worker; None if it would have to be audited more often than a batch can be.

    Of a worker against whom there is evidence, everything is audited.
    """
    if context.records.watched(choice.peer, request.model):
        audits = len(prices)
    else:
        needed = audits_needed(prices, record, context.settings.saving_percent)
        audits = max(request.audits, len(prices) if needed is None else needed)
    fee = pricing.fee_micro(max(prices))
    return Bargain(choice, list(prices), fee, audits) if audits <= AUDITS_MAX else None
