"""Paying and being paid: receipts on the payer's chain, settlements on the payees'.

The payer appends the receipt, durably, before the job counts as settled; telling the payees may fail, because each of
them also finds what it is owed when it next catches up with the payer's chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import trio

from ledger.entry import Entry, Receipt, Settle, Verdict
from node.keys import SecondKey
from node.market.context import Context
from node.market.judged import Judged
from node.market.messages import PAID, Paid, Settled
from node.market.proof import bundle_hash
from verify.jury import jury_hash
from verify.receipt import OutcomeWord
from verify.round import Outcome
from wire import codec
from wire.certificate import assemble
from wire.envelope import Envelope
from wire.errors import Busy, LocalError, RemoteError, TransportError
from wire.job import Certificate, Commitment, JobSpec, JurorReveal, Statement, VerdictWord
from wire.limits import JURY_POOL_MAX
from wire.peer import PeerId, short

NOTIFY_S = 10.0


class Payer:
    """Both ends of `pay.told`.

    Args:
        context: ledger and transport.
        nursery: lives as long as the node; payees are told in it.
    """

    def __init__(self, context: Context, nursery: trio.Nursery) -> None:
        self._context = context
        self._nursery = nursery

    async def pay(self, offer: Entry, accept: Entry, outcome: Outcome) -> int:
        """Record the verdict of one jury and what it owes, then tell the payees; returns the micro-credits owed."""
        certificate = outcome.receipt.certificate
        certificates = [] if certificate is None else [certificate]
        return await self._receipt(offer, accept, outcome.verdict, certificates, [outcome])

    async def pay_ladder(self, offer: Entry, accept: Entry, judged: Judged) -> tuple[OutcomeWord, int]:
        """Record how a matter ended that several juries, or a dispute, decided, and tell the payees.

        Whoever voted as it ended is paid, at whatever level. An answer that stands although nobody accepted it cannot
        be paid for: no credit without a certificate.

        Args:
            offer, accept: entries of payer and worker.
            judged: how it ended.

        Returns:
            The verdict that was recorded, and the micro-credits owed.
        """
        assert judged.ended is not None, "several juries, or a dispute"
        certificates = []
        if judged.verdict != "unaudited":
            certificates = [each for each in map(partial(_certify, judged.verdict), judged.rounds) if each is not None]
        verdict = judged.verdict if certificates else "unaudited"
        dispute = b""
        if judged.ended.decided_by == "dispute" and verdict != "unaudited":
            dispute = bytes(32) if judged.proof is None else bundle_hash(judged.proof)
        return verdict, await self._receipt(offer, accept, verdict, certificates, judged.rounds, dispute=dispute)

    async def pay_batch(self, offer: Entry, accept: Entry, verdict: Verdict, outcomes: Mapping[int, Outcome]) -> int:
        """Record the verdict on a batch, with what each jury said of its job, then tell the payees.

        Args:
            offer, accept: entries of payer and worker.
            verdict: on the whole batch.
            outcomes: of the audited jobs by number, ascending.

        Returns:
            The micro-credits owed.
        """
        certificates = [o.receipt.certificate for o in outcomes.values() if o.receipt.certificate is not None]
        signed = certificates if verdict != "unaudited" else []
        return await self._receipt(offer, accept, verdict, signed, outcomes.values())

    async def pay_canary(
        self,
        offer: Entry,
        accept: Entry,
        certificates: Sequence[Certificate],
        outcomes: Mapping[int, Outcome],
        canary: bytes,
    ) -> int:
        """Pay those who signed one of these certificates of a canary batch; the worker only lent its name."""
        return await self._receipt(offer, accept, "reject", certificates, outcomes.values(), canary=canary)

    async def _receipt(
        self,
        offer: Entry,
        accept: Entry,
        verdict: Verdict,
        certificates: Sequence[Certificate],
        outcomes: Iterable[Outcome],
        *,
        dispute: bytes = b"",
        canary: bytes = b"",
    ) -> int:
        shown = [record for outcome in outcomes for record in outcome.receipt.keys]
        keys = list({(record.author, record.body): record for record in shown}.values())
        self._learn(keys)
        entry = await self._context.ledger.receipt(
            offer.id, verdict, certificates, accept, dispute=dispute, canary=canary
        )
        body = entry.body
        assert isinstance(body, Receipt), "the ledger returns what was asked for"
        for payment in body.payments:
            self._nursery.start_soon(self._tell, payment.peer, Paid(body.job, keys))
        return sum(payment.amount_micro for payment in body.payments)

    def _learn(self, records: Sequence[Envelope]) -> None:
        for record in records:
            with suppress(SecondKey):  # the juror's fault; its certificate is checked under both keys
                self._context.keyring.learn(record, author=record.author)

    async def _tell(self, payee: PeerId, paid: Paid) -> None:
        with trio.move_on_after(NOTIFY_S):
            try:
                settled = await self._context.rpc.call(payee, PAID, paid, timeout_s=NOTIFY_S)
                await self._context.ledger.pull(payee, payee)
            except (TransportError, RemoteError, LocalError, Busy) as exc:
                self._context.log.info("payee_not_told", payee=short(payee), reason=str(exc))
            else:
                self._context.log.info("paid", payee=short(payee), settled=bool(settled.entry))

    async def on_paid(self, payer: PeerId, paid: Paid) -> Settled:
        """A payer says that a receipt stands on its chain: fetch it and settle."""
        self._learn(paid.keys[:JURY_POOL_MAX])
        with trio.move_on_after(NOTIFY_S):  # a payer that is slow with its chain is caught up with later
            await self._context.ledger.pull(payer, payer)
        entries = await self.settle()
        mine = [entry for entry in entries if isinstance(entry.body, Settle) and entry.body.job == paid.job]
        return Settled(codec.encode(mine[0]) if mine else b"")

    async def settle(self) -> list[Entry]:
        """Settle everything that verified receipts owe us and that we have not taken yet."""
        await self._context.ledger.recheck()
        entries = []
        for receipt in await self._context.ledger.unsettled():
            entry = await self._context.ledger.settle(receipt)
            body = entry.body
            assert isinstance(body, Settle), "the ledger returns what was asked for"
            log = self._context.log.bind(job=body.job.hex()[:12], payer=short(body.payer))
            log.info("earned", amount_micro=body.amount_micro)
            entries.append(entry)
        return entries


def _certify(verdict: VerdictWord, outcome: Outcome) -> Certificate | None:
    """The certificate of those who voted so in one jury, however few; None if nobody did."""
    jury = [juror.peer for juror in outcome.jury]
    opened = [(envelope.author, codec.decode(JurorReveal, envelope.body)) for envelope in outcome.receipt.reveals]
    votes = {author: reveal.signature for author, reveal in opened if reveal.verdict == verdict}
    if not votes:
        return None
    commitment = codec.decode(Commitment, outcome.receipt.commitment.body)
    lane = codec.decode(JobSpec, outcome.receipt.spec.body).lane
    return assemble(Statement(commitment.job, commitment.root, verdict, lane, jury_hash(jury)), votes)
