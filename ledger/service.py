"""The ledger of a node: one writer with group commit, replicas of other chains, and the sync protocol.

An append returns only after the commit that holds it. What others signed is verified before it is kept, and whoever
served or signed something that breaks a rule is named in the error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from ledger import sync
from ledger.certificates import certified
from ledger.entry import (
    Accept,
    Body,
    Entry,
    InvalidEntry,
    Jury,
    Offer,
    Reason,
    Receipt,
    Relayed,
    Release,
    Rule,
    Settle,
    Verdict,
)
from ledger.fork import ForkProof
from ledger.group import RETRY_S, GroupCommit
from ledger.ports import CertificateCheck, RunSync
from ledger.replica import CachedCheck, Ingested, Replicas
from ledger.rules import owed
from ledger.state import ALLOWANCE_MICRO
from ledger.store import Store, open_store
from ledger.sync import FETCH, PULL_ENTRIES_MAX, Fetch, Page, Pulled
from ledger.view import View
from ledger.writer import OwnChain, Request, Result
from wire import codec
from wire.envelope import Signer
from wire.errors import Busy, LocalError, Refused, RemoteError, StorageError, TransportError
from wire.job import Certificate
from wire.peer import PeerId
from wire.rpc.seam import Rpc

T = TypeVar("T")

SERVED_MAX = 16
ANSWER_TIMEOUT_S = 10.0
PAGE_TIMEOUT_S = 30.0
"""Longest wait for one page, where the caller does not bound it more tightly."""

ANOTHER_HISTORY = "another history of the own chain exists (restored backup? copied key?); this ledger signs no more"


async def in_thread(function: Callable[[], T], /) -> T:
    """Run a blocking function in a worker thread (the default `RunSync`)."""
    return await trio.to_thread.run_sync(function)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the search for this node's own highest head found: entries imported, and which peers answered."""

    imported: int
    height: int
    answered: tuple[PeerId, ...]


class Ledger(View):
    """A node's ledger; made by `open_ledger`."""

    def __init__(
        self,
        store: Store,
        own: OwnChain,
        replicas: Replicas,
        certify: CertificateCheck,
        now_ms: Callable[[], int],
        run: RunSync,
        rpc: Rpc | None,
        *,
        allowance_micro: int,
        unclean: bool,
    ) -> None:
        super().__init__(store, own, replicas, certify, now_ms, run, allowance_micro=allowance_micro, unclean=unclean)
        self._rpc = rpc
        self._group = GroupCommit(self._commit)
        self._serving = 0

    # -- own chain -----------------------------------------------------------------------------------------------

    async def offer(
        self,
        job: bytes,
        payee: PeerId,
        price_micro: int,
        fee_micro: int,
        juries: Sequence[Jury],
        expires_ms: int,
        *,
        rule: Rule = "one",
        audits: int = 0,
    ) -> Entry:
        """Reserve the price and the jurors' fees for a job (32-byte id) to be done by `payee` until `expires_ms`.

        Args:
            job, payee, price_micro, fee_micro, expires_ms, rule, audits: see `ledger.entry.Offer`.
            juries: those that may judge; `ledger.entry.majority` makes the one of a plain job.

        Raises:
            InsufficientCredit: more than `available()`.
            LocalError: a value out of bounds; offered on other terms or released before; the payee is a forker.
        """
        self._refuse_forker(payee)
        body = Offer(job, payee, price_micro, fee_micro, rule, list(juries), audits, expires_ms)
        return await self._append_one(body)

    async def accept(self, offer: Entry) -> Entry:
        """Take an offer made to this node; the payer's chain is pulled first if it is not kept that far.

        Without calls an offer is taken on its signature alone, unless the chain is kept.

        Raises:
            RemoteError: the offer is not on the payer's chain, or goes beyond its credit.
            LocalError: not an open offer to this node; the payer is a proven forker.
            TransportError: the payer cannot be asked.
        """
        body, payer = offer.body, offer.header.author
        if not isinstance(body, Offer):
            raise LocalError("not an offer")
        await self._bring(offer)
        self._refuse_forker(payer)
        if self._replicas.heights.get(payer, 0) > offer.header.height:
            credit = await self.credit(payer)
            if credit.available_micro(self._allowance_micro) < 0:
                raise RemoteError(payer, "offered more than its credit", penalty=0.2)
        return await self._append_one(Accept(body.job, offer.id, payer), offer)

    async def receipt(
        self,
        offer_id: bytes,
        verdict: Verdict,
        certificates: Sequence[Certificate] = (),
        accept: Entry | None = None,
        *,
        dispute: bytes = b"",
        canary: bytes = b"",
    ) -> Entry:
        """Record the verdict on an own offer; what is owed follows from the offer, the verdict and the signers.

        Args:
            offer_id: entry id of the own offer.
            verdict: "accept" and "reject" need `certificates` and `accept`; "unaudited" takes no certificate.
            certificates: of the juries that sat, in the order of the offer (`ledger.certificates`).
            accept: the worker's entry.
            dispute: where a dispute decided, see `ledger.entry.Receipt`. canary: of a canary, likewise.

        Raises:
            LocalError: a certificate does not verify, a juror's key is not known, the offer is closed or unknown.
        """
        record = self._own.book.offers.get(offer_id)
        if record is None:
            raise LocalError("no such offer on the own chain")
        raw = [codec.encode(certificate) for certificate in certificates]
        payments = owed(record.offer, verdict, certificates)
        accept_id = bytes(32) if accept is None else accept.id
        body = Receipt(record.offer.job, offer_id, accept_id, verdict, raw, payments, dispute, canary)
        await self._run(partial(self._precheck, body, record.offer))
        return await self._append_one(body, *([] if accept is None else [accept]))

    def _precheck(self, body: Receipt, offer: Offer) -> None:
        """Check the signatures ahead of the commit, which then finds them checked and is short."""
        with suppress(InvalidEntry):  # the commit says what is wrong
            certified(body, offer, self._certify)

    async def acknowledge(self, session: bytes, number: int, relay: PeerId, mib: int, price_micro: int) -> Entry:
        """Pay a relay for bytes that it passed for this node.

        Args:
            session: 32 bytes that name it. number: of this acknowledgement in it.
            mib: how many MiB more. price_micro: for each of them.

        Raises:
            InsufficientCredit: more than `available()`.
            LocalError: a value out of bounds; another acknowledgement has this number; the relay is a forker.
        """
        self._refuse_forker(relay)
        return await self._append_one(Relayed(session, relay, number, mib, price_micro))

    async def settle(self, receipt: Entry) -> Entry:
        """Take this node's share of a payer's receipt or acknowledgement, after pulling the payer's chain if need be.

        Raises:
            RemoteError: the receipt is not on the payer's chain.
            LocalError: nothing in it is owed to this node, or a juror's key is not known.
            TransportError: the payer cannot be asked.
        """
        body, payer = receipt.body, receipt.header.author
        if isinstance(body, Relayed):
            share = body.amount_micro if body.relay == self.peer else 0
        elif isinstance(body, Receipt):
            share = sum(payment.amount_micro for payment in body.payments if payment.peer == self.peer)
        else:
            raise LocalError("not a receipt")
        if share == 0:
            raise LocalError("the receipt owes this node nothing")
        await self._bring(receipt)
        return await self._append_one(Settle(body.job, receipt.id, payer, share))

    async def _bring(self, entry: Entry) -> None:
        """Get another peer's chain kept up to and with `entry`, as far as can be.

        Raises:
            RemoteError: the entry breaks a rule, or the author serves a chain without it.
        """
        author = entry.header.author
        try:
            await self.ingest(author, [entry])
            if self._rpc is None or await self._get(entry.id) is not None:
                return
            await self.pull(author, author)
            await self.ingest(author, [entry])
        except InvalidEntry as exc:
            raise RemoteError(author, f"signed an invalid ledger entry: {exc}", penalty=0.5) from exc
        if await self._get(entry.id) is None:
            raise RemoteError(author, "signed an entry that is not on its chain", penalty=0.5)

    async def release(self, offer_id: bytes, reason: Reason) -> Entry:
        """Take the reservation of an own open offer back.

        Raises:
            LocalError: no such offer, or it has its receipt.
        """
        record = self._own.book.offers.get(offer_id)
        if record is None:
            raise LocalError("no such offer on the own chain")
        return await self._append_one(Release(record.offer.job, offer_id, reason))

    async def append(self, bodies: Sequence[Body], linked: Sequence[Entry] = ()) -> list[Entry]:
        """Append several bodies in one transaction, all or none; those that the chain already has are returned.

        Args:
            bodies: at least one; see `ledger.entry`.
            linked: single entries of other chains that they name, kept as evidence.

        Raises:
            LocalError: a body breaks a rule.
            StorageError: the disk; nothing was kept.
            Busy: too many appends are waiting.
        """
        return await self._group.submit(Request(tuple(bodies), tuple(linked)))

    async def _append_one(self, body: Body, *linked: Entry) -> Entry:
        (entry,) = await self.append([body], linked)
        return entry

    def _refuse_forker(self, peer: PeerId) -> None:
        if peer in self._replicas.forkers:
            raise LocalError("that peer is proven to have forked its chain")

    # -- other chains --------------------------------------------------------------------------------------------

    async def ingest(self, author: PeerId, entries: Sequence[Entry]) -> Ingested:
        """Verify and keep entries of a chain, however they came here; known ones are compared, a hole ends the reading.

        Raises:
            InvalidEntry: an entry breaks a rule; the valid ones before it are kept.
            StorageError: the disk, or another history of this node's own chain.
        """
        async with self._lock:
            return await self._run(partial(self._ingest, author, list(entries)))

    def _ingest(self, author: PeerId, entries: list[Entry]) -> Ingested:
        if author != self.peer:
            return self._replicas.ingest(author, entries, self._now_ms())
        with self._own.importing() as book:
            done = self._replicas.ingest(author, entries, self._now_ms(), book)
        if done.fork is not None:
            self._own.halt(ANOTHER_HISTORY)
            raise StorageError(ANOTHER_HISTORY)
        return done

    async def learn_fork(self, proof: ForkProof) -> bool:
        """Check a fork proof and keep it for ever; False if it was known.

        Raises:
            InvalidEntry: it proves nothing.
        """
        async with self._lock:
            return await self._run(partial(self._replicas.learn_fork, proof))

    async def recheck(self) -> int:
        """Check again the certificates whose jurors' keys were not known; how many are valid now."""
        async with self._lock:
            return await self._run(self._replicas.recheck)

    async def pull(self, peer: PeerId, author: PeerId, *, entries_max: int = PULL_ENTRIES_MAX) -> Pulled:
        """Ask `peer` for what is new on `author`'s chain, verify and keep it; the caller bounds the time.

        Raises:
            RemoteError: the peer served something that breaks the rules, or refused.
            TransportError: the connection.
            LocalError: this ledger calls nobody.
        """
        rpc = self._rpc
        if rpc is None:
            raise LocalError("this ledger calls nobody")

        async def ask(fetch: Fetch) -> Page:
            try:
                return await rpc.call(peer, FETCH, fetch, timeout_s=PAGE_TIMEOUT_S)
            except Busy as exc:
                raise Refused(peer, "busy", str(exc), exc.retry_s) from exc

        async def learn(proof: ForkProof) -> None:
            await self.learn_fork(proof)

        ingest = partial(self.ingest, author)
        return await sync.pull(peer, author, self.head(author), ask, ingest, learn, entries_max=entries_max)

    async def recover_head(self, peers: Sequence[PeerId]) -> Recovered:
        """Ask counterparties for this node's own chain and import what the disk lacks; do this before signing.

        Needed after an unclean stop or a restored backup (`unclean`): to sign a height that others have already seen
        would be a fork.

        Raises:
            StorageError: someone holds another history of the own chain; the ledger refuses to sign from then on.
        """
        before, answered = self.head(), list[PeerId]()
        for peer in peers:
            with trio.move_on_after(ANSWER_TIMEOUT_S):
                try:
                    await self.pull(peer, self.peer)
                    answered.append(peer)
                except (TransportError, RemoteError):
                    continue
        self.unclean = self.unclean and not answered
        return Recovered(self.head() - before, self.head(), tuple(answered))

    # -- tasks ---------------------------------------------------------------------------------------------------

    async def _commit(self, requests: list[Request]) -> list[Result]:
        async with self._lock:
            return await self._run(partial(self._commit_now, requests))

    def _commit_now(self, requests: list[Request]) -> list[Result]:
        results, fresh = self._own.commit(requests)
        for entry in fresh:
            if isinstance(entry.body, Receipt):
                self._replicas.count(entry)
        return results

    async def _answer(self, peer: PeerId, fetch: Fetch) -> Page:
        if self._serving >= SERVED_MAX:
            raise Busy(RETRY_S, "serving other peers")
        self._serving += 1
        try:
            return await self._run(partial(sync.make_page, self._store, fetch, self.head(fetch.author)))
        finally:
            self._serving -= 1


@asynccontextmanager
async def open_ledger(
    path: Path,
    signer: Signer,
    rpc: Rpc | None,
    now_ms: Callable[[], int],
    certificate_check: CertificateCheck,
    *,
    allowance_micro: int = ALLOWANCE_MICRO,
    run: RunSync = in_thread,
) -> AsyncIterator[Ledger]:
    """Open the ledger kept in the file at `path`, and answer who asks for its entries.

    Args:
        path: SQLite file; made if it does not exist.
        signer: this node's identity.
        rpc: where peers are called and answered; None for a ledger that neither serves nor pulls.
        now_ms: Unix time in milliseconds.
        certificate_check: see `ledger.ports.CertificateCheck`; called from a worker thread.
        allowance_micro: how far this node lets a balance fall below zero, its own and those of its payers.
        run: where blocking work runs.

    Raises:
        StorageError: unreadable, corrupted, damaged or in use.
        LocalError: the file belongs to another identity.
    """
    certify = CachedCheck(certificate_check)

    def load() -> tuple[Store, OwnChain, Replicas, bool]:
        store, clean = open_store(path, signer.peer)
        try:
            own, replicas = OwnChain(store, signer, now_ms, certify, allowance_micro), Replicas(store, certify)
        except LocalError:
            store.close(clean=False)
            raise
        if signer.peer in replicas.forkers:
            own.halt(ANOTHER_HISTORY)
        return store, own, replicas, clean

    store, own, replicas, clean = await run(load)
    ledger = Ledger(store, own, replicas, certify, now_ms, run, rpc, allowance_micro=allowance_micro, unclean=not clean)
    finished = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger._group.run)
            if rpc is not None:
                rpc.serve(FETCH, ledger._answer)
            yield ledger
            ledger._group.close()
        finished = True
    finally:
        store.close(clean=finished)
