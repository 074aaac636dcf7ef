"""One attempt at a job as the requester planned it, and what it sends and takes by that plan."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.entry import Entry, Jury, majority
from node.market.judged import Judged
from node.market.messages import Committed, Hire
from verify.ladder import Level, check_commitments
from verify.messages import JuryAsk
from wire import codec
from wire.envelope import Envelope, unseal
from wire.job import Commitment, JobSpec, Output, PoolMember, Trace
from wire.peer import PeerId, to_text

LEFT_OUT_TOLD = 5
"""Peers named, of those who could not judge a worker."""


@dataclass(frozen=True)
class Plan:
    """One attempt, before it starts."""

    specs: list[JobSpec]
    envelopes: list[Envelope]
    secrets: list[bytes]
    pool: list[PoolMember]
    worker: PeerId
    reason: str
    left_out: dict[PeerId, str]
    levels: tuple[Level, ...]
    nonce: bytes

    @property
    def spec(self) -> JobSpec:
        """The job; under the policy `escalate` its first level."""
        return self.specs[0]

    @property
    def juries(self) -> list[Jury]:
        """Who may judge, as the offer says it."""
        if not self.levels:
            return majority(self.spec.id, self.spec.jury_size)
        return [Jury(s.id, lv.size, lv.needed) for s, lv in zip(self.specs, self.levels, strict=True)]


@dataclass(frozen=True)
class Answer:
    """What a worker delivered; it opens each of the commitments."""

    accept: Entry
    commitments: list[Envelope]
    output: Output
    trace: Trace
    salt: bytes


def reasons(plan: Plan, judged: Judged) -> str:
    """Why this worker, and who was passed over or left out of the juries, and why."""
    passed = [f"{to_text(peer)[-8:]} passed over: {why}" for o in judged.rounds for peer, why in o.passed_over.items()]
    return "; ".join(filter(None, (plan.reason, left_out(plan.left_out), *passed)))


def left_out(peers: dict[PeerId, str]) -> str:
    """Who could not judge this worker, for people; the first few by name."""
    told = [f"{to_text(peer)[-8:]} not in the jury pool: {why}" for peer, why in list(peers.items())[:LEFT_OUT_TOLD]]
    more = len(peers) - len(told)
    return "; ".join([*told, *([f"{more} more not in the jury pool"] if more else [])])


def hire_of(plan: Plan, offer: Entry) -> Hire:
    first, *above = plan.envelopes
    return Hire(first, codec.encode(offer), above, plan.nonce)


def promises_of(frame: Committed, plan: Plan) -> list[Commitment]:
    """The worker's commitments: one per level, all to one root.

    Raises:
        Malformed: anything else.
    """
    promises = [unseal(each, "commitment", Commitment, author=plan.worker) for each in frame.commitments]
    check_commitments(promises, plan.specs)
    return promises


def asks_of(plan: Plan, answer: Answer) -> list[JuryAsk]:
    """What the jurors of each level are shown."""
    return [
        JuryAsk(
            spec=envelope,
            commitment=commitment,
            secret=secret,
            salt=answer.salt,
            pool=plan.pool,
            output=answer.output,
            trace=answer.trace,
        )
        for envelope, commitment, secret in zip(plan.envelopes, answer.commitments, plan.secrets, strict=True)
    ]
