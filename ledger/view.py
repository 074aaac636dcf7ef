"""What can be read of a ledger; everything here shows committed state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import trio

from ledger.audit import Audit, audit_chain
from ledger.edges import TrustEdge
from ledger.entry import Entry, Offer, Receipt
from ledger.fork import ForkProof
from ledger.ports import CertificateCheck, RunSync
from ledger.replica import Replicas
from ledger.state import JobState, OfferRecord, Totals
from ledger.store import Store
from ledger.writer import OwnChain
from wire.peer import PeerId


class View:
    """The reading half of `ledger.service.Ledger`.

    Attributes:
        peer: this node.
        unclean: the file is new, or was not closed cleanly, and nobody was asked yet for the own head (`recover_head`).
    """

    def __init__(
        self,
        store: Store,
        own: OwnChain,
        replicas: Replicas,
        certify: CertificateCheck,
        now_ms: Callable[[], int],
        run: RunSync,
        *,
        allowance_micro: int,
        unclean: bool,
    ) -> None:
        self.peer: PeerId = own.peer
        self.unclean = unclean
        self._store, self._own, self._replicas = store, own, replicas
        self._certify, self._now_ms, self._run = certify, now_ms, run
        self._allowance_micro = allowance_micro
        self._lock = trio.Lock()

    def balance(self) -> int:
        """Own earnings less own debts, in micro-credits."""
        return self._own.totals.balance_micro

    def reserved(self) -> int:
        """Micro-credits held back by own open offers."""
        return self._own.totals.reserved_micro

    def available(self) -> int:
        """Micro-credits that may still be offered: allowance + balance - reserved."""
        return self._own.totals.available_micro(self._allowance_micro)

    def head(self, author: PeerId | None = None) -> int:
        """How many entries of a chain are kept; the own chain if no author is named."""
        if author is None or author == self.peer:
            return self._own.totals.height
        return self._replicas.heights.get(author, 0)

    def head_id(self) -> bytes:
        """Id of the last own entry; zeros if there is none."""
        return self._own.totals.head

    def authors(self) -> list[PeerId]:
        """Everyone of whose chain something is kept, this node included once it has written."""
        return sorted({*self._replicas.heights, *([self.peer] if self._own.totals.height else [])})

    def job(self, job: bytes) -> JobState | None:
        """What the own chain says about a job."""
        return self._own.book.jobs.get(job)

    def settled(self, entry_id: bytes) -> bool:
        """Whether the own chain has settled this receipt or acknowledgement."""
        return entry_id in self._own.book.settles

    def open_offers(self) -> list[tuple[bytes, Offer]]:
        """Own offers that still reserve credit, as (entry id, offer): what a restarted node must finish or release."""
        offers = list(self._own.book.offers.items())
        return [(key, record.offer) for key, record in offers if record.state == "open"]

    def trust_edges(self) -> list[TrustEdge]:
        """Edges from payers to payees over all receipts with a valid certificate, proven forkers' receipts left out."""
        return self._replicas.graph.edges(without=self._replicas.forkers)

    def forkers(self) -> frozenset[PeerId]:
        """Peers against whom a fork proof is kept."""
        return self._replicas.forkers

    async def entries(self, author: PeerId, from_height: int = 0, limit: int = 100) -> list[Entry]:
        """At most `limit` kept entries of a chain from `from_height` up."""
        return await self._run(partial(self._store.entries, author, from_height, limit))

    async def entry(self, entry_id: bytes) -> Entry | None:
        """The kept entry with this id, of any chain."""
        return await self._get(entry_id)

    async def offer_judged(self, author: PeerId, job: bytes, payee: PeerId) -> OfferRecord | None:
        """The offer to a payee, on another peer's kept chain, that names a jury for `job`, if there is one."""

        def search() -> OfferRecord | None:
            book = self._replicas.book(author)
            found = book.judged.get((job, payee))
            return None if found is None else replace(book.offers[found])

        async with self._lock:
            return await self._run(search)

    async def forks(self, author: PeerId | None = None) -> list[ForkProof]:
        """The fork proofs kept, against one author or all."""
        return await self._run(partial(self._store.forks, author))

    async def credit(self, author: PeerId) -> Totals:
        """Another peer's totals as far as kept chains prove them."""
        async with self._lock:
            return await self._run(partial(self._replicas.credit, author))

    async def unsettled(self) -> list[Entry]:
        """Certified receipts that owe this node something it has not settled: what a restarted node must settle."""

        def search() -> list[Entry]:
            return [entry for entry in self._store.receipts(certified=True) if self._owes_us(entry)]

        return await self._run(search)

    async def unsettled_relayed(self) -> list[Entry]:
        """Acknowledgements of bytes that this node relayed, on kept chains, which it has not settled."""

        def search() -> list[Entry]:
            settles = self._own.book.settles
            return [entry for entry in self._store.relayed_by(self.peer) if entry.id not in settles]

        return await self._run(search)

    async def audit(self, author: PeerId | None = None) -> Audit:
        """Check a kept chain from genesis, signatures and certificates included."""
        author = self.peer if author is None else author
        return await self._run(
            lambda: audit_chain(author, self._store.replay(author), self._certify, self._store.get, self._now_ms())
        )

    def _owes_us(self, entry: Entry) -> bool:
        receipt = entry.body
        assert isinstance(receipt, Receipt), "the store lists receipts only"
        return entry.id not in self._own.book.settles and any(part.peer == self.peer for part in receipt.payments)

    async def _get(self, entry_id: bytes) -> Entry | None:
        return await self._run(partial(self._store.get, entry_id))
