"""Trust edges: what the payers of verified receipts thought of those they paid.

An accepted answer is a positive edge to the worker, by the amount earned; a rejected one a negative edge by the price
that was withheld; each juror who signed gets a positive edge by its fees. The worker of a canary only lent its name,
and gets no edge: an edge is the payer's opinion, so the payer's word is enough for that. Sums over all receipts feed
MeritRank (Nasrulin et al. 2022), where every peer walks the graph from itself.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ledger.entry import Offer, Receipt
from wire.peer import PeerId

EdgeKind = Literal["work", "jury", "reject"]


class TrustEdge(NamedTuple):
    """`weight` is in micro-credits: positive for "work" and "jury", negative for "reject"; `receipts` made it."""

    payer: PeerId
    payee: PeerId
    weight: float
    kind: EdgeKind
    receipts: int


class TrustGraph:
    """Sums of edges; feed it each verified receipt once."""

    def __init__(self) -> None:
        self._sums: dict[tuple[PeerId, PeerId, EdgeKind], tuple[int, int]] = {}

    def add(self, payer: PeerId, receipt: Receipt, offer: Offer) -> None:
        """Take in a receipt whose certificates are valid, with the offer that it answers."""
        if receipt.verdict == "reject" and not receipt.canary:
            self._add(payer, offer.payee, "reject", -max(offer.price_micro, 1))
        for payment in receipt.payments:
            if payment.peer != offer.payee:
                self._add(payer, payment.peer, "jury", payment.amount_micro)
            elif not receipt.canary:
                self._add(payer, payment.peer, "work", payment.amount_micro)

    def _add(self, payer: PeerId, payee: PeerId, kind: EdgeKind, amount_micro: int) -> None:
        key = (payer, payee, kind)
        total, count = self._sums.get(key, (0, 0))
        self._sums[key] = total + amount_micro, count + 1

    def edges(self, *, without: frozenset[PeerId] = frozenset()) -> list[TrustEdge]:
        """One edge per payer, payee and kind, in a stable order; none from a payer in `without`."""
        return [
            TrustEdge(payer, payee, float(total), kind, count)
            for (payer, payee, kind), (total, count) in sorted(self._sums.items())
            if payer not in without
        ]
