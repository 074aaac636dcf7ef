"""The juror's side: check the case, re-run what must be re-run, answer. The rules are `verify.juror`'s."""

from __future__ import annotations

import trio

from ledger.entry import Offer
from node.market import pricing
from node.market.chains import accusation
from node.market.context import Context
from node.market.material import Answered
from node.market.messages import AuditAsk
from node.market.sides import Keeper
from verify import verdict
from verify.case import open_spec
from verify.faults import Fault
from verify.juror import AskRefused, Hearing, Juror
from verify.messages import JuryAnswer, JuryAsk, RevealAsk
from verify.verdict import Finding
from wire.envelope import Envelope
from wire.errors import Busy, LocalError, Malformed, RemoteError, StorageError, TransportError
from wire.job import Expected
from wire.peer import PeerId, short
from workloads.executor import ExecutorCrashed

OFFER_S = 5.0
"""Seconds for reading the requester's chain before any work is done for it."""


class JurorService:
    """Answers `jury.audit` and `jury.reveal`."""

    def __init__(self, context: Context, accused: Keeper) -> None:
        self._context = context
        self._accused = accused
        self._juror = Juror(context.identity, context.calibrations)

    async def audit(self, peer: PeerId, sent: AuditAsk) -> JuryAnswer:
        """Judge an answer and seal the vote."""
        context = self._context
        context.slots.check()
        ask = await self._read(peer, sent)
        hearing = self._juror.consider(peer, ask, now_ms=context.now_ms())
        if hearing.answer is not None:
            return hearing.answer
        offer = await self._check_fee(hearing)
        result = None if hearing.finding is not None else await self._recompute(hearing)
        answer = self._juror.rule(hearing, result)
        if offer.rule == "ladder" and isinstance(result, Expected):
            self._accuse(hearing, result)
        found = hearing.finding
        assert found is not None, "a ruled case has a finding"
        log = context.log.bind(job=hearing.case.job.hex()[:12], requester=short(peer))
        log.info("audited", worker=short(hearing.case.worker), verdict=found.verdict, why=found.why)
        return answer

    async def _read(self, peer: PeerId, sent: AuditAsk) -> JuryAsk:
        """The case, with what was judged; a stranger who only claims to have one makes us fetch nothing.

        Raises:
            RemoteError: the case is not in order. Busy: what was judged cannot be had now.
        """
        try:
            if open_spec(sent.spec).requester != peer:
                raise AskRefused(peer, "sender", "not the requester of this job")
            answered = await self._context.fetcher.take(peer, sent.answer, Answered)
        except Fault as exc:
            raise AskRefused(peer, exc.code, exc.detail) from exc
        except Malformed as exc:
            raise RemoteError(peer, str(exc), penalty=0.2) from exc
        except (TransportError, trio.TooSlowError) as exc:
            raise Busy(1.0, f"the answer could not be fetched: {exc}") from exc
        output, trace = answered.output, answered.trace
        return JuryAsk(sent.spec, sent.commitment, sent.secret, sent.salt, sent.pool, output, trace)

    def _accuse(self, hearing: Hearing, result: Expected) -> None:
        """If we reject, remember which step is wrong: we may have to prove it against the worker."""
        spec, ask = hearing.case.spec, hearing.ask
        if hearing.finding is None or hearing.finding.verdict != "reject":
            return
        leaves = accusation(spec, ask.output, ask.trace, result, hearing.thresholds, hearing.case.drawn)
        if leaves is None:
            return
        try:
            room = self._accused.room([hearing.case.job], hearing.requester, spec.deadline_ms)
        except Busy as exc:
            self._context.log.warning("accusation_not_kept", job=hearing.case.job.hex()[:12], reason=str(exc))
        else:
            room.fill(hearing.case.root, leaves)

    async def _check_fee(self, hearing: Hearing) -> Offer:
        """Nobody makes us work for nothing: our fee must be reserved on the requester's chain, within its credit.

        Returns:
            The offer that reserves it.

        Raises:
            AskRefused: it is not.
            RemoteError: its chain breaks a rule.
            Busy: its chain cannot be read now.
        """
        ledger, spec = self._context.ledger, hearing.case.spec
        least = pricing.fee_micro(spec.price_micro)
        payer = spec.requester
        try:
            with trio.fail_after(OFFER_S):
                await ledger.pull(payer, payer)
            found = await ledger.offer_judged(payer, spec.id, hearing.case.worker)
            left = (await ledger.credit(payer)).available_micro(self._context.settings.credit_limit_micro)
        except (TransportError, LocalError, trio.TooSlowError) as exc:
            raise Busy(1.0, f"the requester's chain cannot be read: {exc}") from exc
        missing = f"no fee of {least} micro-credits is reserved for each juror"
        if found is None or min(found.offer.fee_micro, spec.fee_micro) < least:
            raise AskRefused(payer, "offer", missing)
        if all((jury.job, jury.size) != (spec.id, spec.jury_size) for jury in found.offer.juries):
            raise AskRefused(payer, "offer", missing)
        if found.state != "open":  # it may have ended, or been given up, since we were asked
            raise AskRefused(payer, "offer", f"the offer is already {found.state}", penalty=0.0)
        if left < 0:
            raise AskRefused(payer, "offer", "it has promised more than its credit", penalty=0.2)
        return found.offer

    async def _recompute(self, hearing: Hearing) -> Expected | Finding:
        """Our own result; a fault of our executor is no verdict on the worker."""
        context, ask, case = self._context, hearing.ask, hearing.case
        if case.spec.model not in {model.cid for model in context.models}:
            return verdict.abstain("model", "the model is not installed here")
        try:
            async with context.slots.one():
                return await context.pool.recheck(case.spec, ask.output, ask.trace, steps=case.drawn)
        except Malformed as exc:
            return verdict.refused(exc)
        except (StorageError, ExecutorCrashed) as exc:
            context.log.warning("recheck_failed", reason=str(exc))
            return verdict.inconclusive(str(exc))
        except LocalError as exc:
            return verdict.abstain("model", str(exc))

    async def reveal(self, peer: PeerId, ask: RevealAsk) -> Envelope:
        """Open our vote to a full jury."""
        return self._juror.reveal(peer, ask)
