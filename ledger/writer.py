"""This node's own chain: check, sign, commit, and only then hand the entries out.

Blocking, driven by `ledger.service` from a worker thread, one call at a time. Asking twice for one logical event (an
offer of a job to a payee, the receipt of a job, ...) returns the entry that exists, so a crash between commit and
answer is repaired by asking again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgspec

from ledger.chain import extend
from ledger.entry import Accept, Body, Entry, InvalidEntry, Offer, Receipt, Relayed, Settle, check_entry, sign_entry
from ledger.ports import CertificateCheck
from ledger.replica import load_book
from ledger.state import ALLOWANCE_MICRO, Book, InsufficientCredit, Totals
from ledger.store import Store
from wire.envelope import Signer
from wire.errors import LocalError, StorageError

TAIL_ENTRIES = 64
"""Own entries at the head whose signatures are checked again on every start."""


@dataclass(frozen=True, slots=True)
class Request:
    """Bodies to append, all or none; `linked` holds single entries of other chains that they name."""

    bodies: tuple[Body, ...]
    linked: tuple[Entry, ...] = ()


Result = tuple[Entry, ...] | LocalError


class OwnChain:
    """The single writer of this node's chain.

    Args:
        store: the open file.
        signer: this node's identity.
        now_ms: this node's clock.
        certify: checks certificates.
        allowance_micro: how far the balance may fall below zero.

    Raises:
        StorageError: the chain on the disk is damaged.
    """

    def __init__(
        self,
        store: Store,
        signer: Signer,
        now_ms: Callable[[], int],
        certify: CertificateCheck,
        allowance_micro: int = ALLOWANCE_MICRO,
    ) -> None:
        self.peer = signer.peer
        self._store = store
        self._signer = signer
        self._now_ms = now_ms
        self._certify = certify
        self._allowance_micro = allowance_micro
        self._halted = ""
        self._stale = False
        self.book = self._load()
        self.totals: Totals = self.book.totals()

    def _load(self) -> Book:
        book = load_book(self._store, self._signer.peer)
        for entry in self._store.entries(self._signer.peer, max(0, book.height - TAIL_ENTRIES), TAIL_ENTRIES):
            try:
                check_entry(entry)
            except InvalidEntry as exc:
                raise StorageError(f"the own chain is damaged: {exc}; restore a backup") from exc
        return book

    def halt(self, why: str) -> None:
        """Refuse to sign from now on."""
        self._halted = why

    @contextmanager
    def importing(self) -> Iterator[Book]:
        """The book, for own entries that others kept; what is in it afterwards is published.

        Raises:
            StorageError: nothing was kept.
        """
        if self._stale:
            self.reload()
        try:
            yield self.book
        except StorageError:
            self._stale = True
            raise
        finally:
            if not self._stale:
                self.totals = self.book.totals()

    def reload(self) -> None:
        """Forget what was not committed.

        Raises:
            StorageError: the file cannot be read; the next commit tries again.
        """
        self._stale = True
        self.book = self._load()
        self._stale = False

    def commit(self, requests: Sequence[Request]) -> tuple[list[Result], list[Entry]]:
        """Append what the requests ask for in one durable transaction.

        Returns:
            For each request its entries in order, or the error that refused it (and only it); and what is new.

        Raises:
            StorageError: nothing was kept, whatever the requests were.
        """
        if self._halted:
            raise StorageError(self._halted)
        if self._stale:
            self.reload()
        batch = _Batch(self._store)
        try:
            results = [self._try(request, batch) for request in requests]
            fresh = list(batch.fresh.values())
            if fresh:
                receipts = {entry.id for entry in fresh if isinstance(entry.body, Receipt)}
                self._store.append(fresh, receipts, batch.linked.values())
        except StorageError:
            with suppress(StorageError):
                self.reload()
            raise
        self.totals = self.book.totals()
        return results, fresh

    def _try(self, request: Request, batch: _Batch) -> Result:
        mark = len(batch.fresh)
        try:
            for entry in request.linked:
                _check_linked(entry)
                batch.linked[entry.id] = entry
            return tuple(self._append(body, batch) for body in request.bodies)
        except StorageError:
            raise
        except LocalError as exc:
            self._undo(batch, mark)
            for entry in request.linked:
                batch.linked.pop(entry.id, None)
            return exc

    def _undo(self, batch: _Batch, mark: int) -> None:
        """Take back the entries of a request that was refused half-way."""
        if len(batch.fresh) == mark:
            return
        batch.fresh = dict(list(batch.fresh.items())[:mark])
        self.book = self._load()
        for entry in batch.fresh.values():
            self.book.apply(entry)

    def _append(self, body: Body, batch: _Batch) -> Entry:
        known = self._existing(body, batch)
        if known is not None:
            return known
        if isinstance(body, Offer | Relayed):
            self._check_credit(body.reserve_micro if isinstance(body, Offer) else body.amount_micro)
        book = self.book
        entry = sign_entry(self._signer, book.height, book.head, body, max(self._now_ms(), book.time_ms))
        try:
            extend(book, entry, batch.get, self._certify, signed=False, whole=True)
        except InvalidEntry as exc:
            raise LocalError(f"refused to sign: {exc}") from exc
        batch.fresh[entry.id] = entry
        return entry

    def _check_credit(self, needed_micro: int) -> None:
        available = self.book.totals().available_micro(self._allowance_micro)
        if needed_micro > available:
            raise InsufficientCredit(needed_micro, available)

    def _existing(self, body: Body, batch: _Batch) -> Entry | None:
        """The entry that already says this, if any.

        Raises:
            LocalError: one says otherwise, or was taken back.
        """
        entry_id = _find(self.book, body)
        if entry_id is None:
            return None
        known = batch.get(entry_id)
        assert known is not None, "the book lists kept entries"
        if isinstance(body, Offer) and self.book.offers[entry_id].state == "released":
            raise LocalError("this offer was released; offer to another payee, or make a new job")
        if not _same(known.body, body):
            raise LocalError(f"the chain already says otherwise about this {type(body).__name__.lower()}")
        return known


def _check_linked(entry: Entry) -> None:
    if not isinstance(entry.body, Offer | Accept):
        raise LocalError("only an offer or an acceptance counts without its chain")
    try:
        check_entry(entry)
    except InvalidEntry as exc:
        raise LocalError(f"the linked entry is not valid: {exc}") from exc


def _find(book: Book, body: Body) -> bytes | None:
    if isinstance(body, Offer):
        return book.offer_ids.get((body.job, body.payee))
    if isinstance(body, Accept):
        return book.accepts.get(body.offer)
    if isinstance(body, Receipt):
        return book.receipts.get(body.job)
    if isinstance(body, Relayed):
        return book.relayed.get((body.job, body.number))
    if isinstance(body, Settle):
        return book.settles.get(body.receipt)
    return book.releases.get(body.offer)


def _same(known: Body, asked: Body) -> bool:
    """Whether both say the same of one event; a retry may carry another expiry, certificate bytes or reason."""
    if isinstance(known, Offer) and isinstance(asked, Offer):
        return msgspec.structs.replace(asked, expires_ms=known.expires_ms) == known
    if isinstance(known, Receipt) and isinstance(asked, Receipt):
        said = (asked.offer, asked.verdict, asked.dispute, asked.canary)
        return (known.offer, known.verdict, known.dispute, known.canary) == said
    if isinstance(asked, Relayed):
        return known == asked
    return True


class _Batch:
    """Entries signed but not committed, with the evidence that they link to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fresh: dict[bytes, Entry] = {}
        self.linked: dict[bytes, Entry] = {}

    def get(self, entry_id: bytes) -> Entry | None:
        """A kept entry, or one of this batch."""
        return self.fresh.get(entry_id) or self.linked.get(entry_id) or self._store.get(entry_id)
