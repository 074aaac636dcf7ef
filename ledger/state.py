"""Read models of one chain: balance, reservations, jobs and counterparties, rebuilt from its entries at any time.

A receipt debits its payer, and so does an acknowledgement of relayed bytes; a settle credits its payee, an offer
reserves until its receipt or release. What a payer may
still promise is `allowance + balance - reserved`: the allowance is the small credit that lets a newcomer have its first
job done (optimistic unchoking, Cohen 2003, "Incentives Build Robustness in BitTorrent", section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ledger.entry import ZERO, Accept, Entry, Offer, Receipt, Relayed, Release, Settle
from wire.errors import LocalError
from wire.peer import PeerId

ALLOWANCE_MICRO = 1_000_000
"""How far a newcomer's balance may fall below zero."""

OfferState = Literal["open", "received", "released"]
JobState = Literal["offered", "released", "accept", "reject", "unaudited", "accepted", "settled", "relayed"]


class InsufficientCredit(LocalError):
    """An offer or a payment needs more than this chain's available credit."""

    def __init__(self, needed_micro: int, available_micro: int) -> None:
        super().__init__(f"this reserves {needed_micro} micro-credits, {available_micro} are available")
        self.needed_micro = needed_micro
        self.available_micro = available_micro


@dataclass(slots=True)
class OfferRecord:
    """An own offer and what became of it."""

    entry_id: bytes
    offer: Offer
    state: OfferState = "open"


@dataclass(slots=True)
class Sums:
    """What one counterparty was paid by, and paid to, the chain's author, in micro-credits."""

    paid_micro: int = 0
    earned_micro: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """A consistent view of a chain at one height; `height` counts entries, `head` the id of the last (or zeros)."""

    height: int
    head: bytes
    balance_micro: int
    reserved_micro: int

    def available_micro(self, allowance_micro: int) -> int:
        """What may still be promised; negative for a chain that promised too much."""
        return allowance_micro + self.balance_micro - self.reserved_micro


@dataclass(slots=True)
class Book:
    """The read model of one chain. `apply` trusts its entry: `ledger.chain` checks first.

    `whole` is False where entries are missing below, so that what is not found may still exist.
    """

    author: PeerId
    height: int = 0
    head: bytes = ZERO
    time_ms: int = 0
    whole: bool = True
    balance_micro: int = 0
    reserved_micro: int = 0
    offers: dict[bytes, OfferRecord] = field(default_factory=dict)
    offer_ids: dict[tuple[bytes, PeerId], bytes] = field(default_factory=dict)
    judged: dict[tuple[bytes, PeerId], bytes] = field(default_factory=dict)
    """The offer to a payee that names a jury for a job, by job and payee."""
    receipts: dict[bytes, bytes] = field(default_factory=dict)
    accepts: dict[bytes, bytes] = field(default_factory=dict)
    relayed: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    """Acknowledgements of relayed bytes, by session and number."""
    settles: dict[bytes, bytes] = field(default_factory=dict)
    releases: dict[bytes, bytes] = field(default_factory=dict)
    counterparties: dict[PeerId, Sums] = field(default_factory=dict)
    jobs: dict[bytes, JobState] = field(default_factory=dict)

    def totals(self) -> Totals:
        """The amounts and the head as they stand."""
        return Totals(self.height, self.head, self.balance_micro, self.reserved_micro)

    def sums(self, peer: PeerId) -> Sums:
        """The sums with one counterparty."""
        return self.counterparties.setdefault(peer, Sums())

    def apply(self, entry: Entry) -> None:
        """Take one checked entry, the next of the chain, into the view."""
        entry_id = entry.id
        self.height, self.head, self.time_ms = entry.header.height + 1, entry_id, entry.header.time_ms
        body = entry.body
        if isinstance(body, Offer):
            self._offer(entry_id, body)
        elif isinstance(body, Receipt):
            self._receipt(entry_id, body)
        elif isinstance(body, Relayed):
            self._relayed(entry_id, body)
        elif isinstance(body, Settle):
            self._settle(entry_id, body)
        elif isinstance(body, Release):
            self._release(entry_id, body)
        else:
            assert isinstance(body, Accept), "every kind of body is handled"
            self.accepts[body.offer] = entry_id
            self.jobs[body.job] = "accepted"

    def _offer(self, entry_id: bytes, offer: Offer) -> None:
        self.offers[entry_id] = OfferRecord(entry_id, offer)
        self.offer_ids[offer.job, offer.payee] = entry_id
        self.reserved_micro += offer.reserve_micro
        self.jobs[offer.job] = "offered"
        for jury in offer.juries:
            self.judged[jury.job, offer.payee] = entry_id

    def _close(self, offer_id: bytes, state: OfferState) -> None:
        record = self.offers.get(offer_id)
        if record is not None and record.state == "open":
            record.state = state
            self.reserved_micro -= record.offer.reserve_micro

    def _receipt(self, entry_id: bytes, receipt: Receipt) -> None:
        self.receipts[receipt.job] = entry_id
        self._close(receipt.offer, "received")
        for payment in receipt.payments:
            self.balance_micro -= payment.amount_micro
            self.sums(payment.peer).paid_micro += payment.amount_micro
        self.jobs[receipt.job] = receipt.verdict

    def _relayed(self, entry_id: bytes, relayed: Relayed) -> None:
        self.relayed[relayed.job, relayed.number] = entry_id
        self.balance_micro -= relayed.amount_micro
        self.sums(relayed.relay).paid_micro += relayed.amount_micro
        self.jobs[relayed.job] = "relayed"

    def _settle(self, entry_id: bytes, settle: Settle) -> None:
        self.settles[settle.receipt] = entry_id
        self.balance_micro += settle.amount_micro
        self.sums(settle.payer).earned_micro += settle.amount_micro
        self.jobs[settle.job] = "settled"

    def _release(self, entry_id: bytes, release: Release) -> None:
        self.releases[release.offer] = entry_id
        self._close(release.offer, "released")
        if release.job not in self.receipts:
            self.jobs[release.job] = "released"


def rebuild(author: PeerId, entries: list[Entry]) -> Book:
    """The view of a checked chain, from its entries in order."""
    book = Book(author)
    for entry in entries:
        book.apply(entry)
    return book
