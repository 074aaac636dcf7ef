"""Other peers' chains: entries that were verified before they were kept, forks found on the way in.

Blocking, driven by `ledger.service` from a worker thread, one call at a time. What a chain claims to have earned counts
towards its author's credit only where the payer's certified receipt is at hand; what it owes counts always.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from ledger import fork
from ledger.certificates import certified
from ledger.chain import check_link, extend
from ledger.edges import TrustGraph
from ledger.entry import Entry, InvalidEntry, Offer, Receipt, Settle
from ledger.fork import ForkProof
from ledger.ports import CertificateCheck, Finding
from ledger.rules import Gap
from ledger.state import Book, Totals
from ledger.store import Store
from wire import codec
from wire.errors import StorageError
from wire.job import Certificate
from wire.peer import PeerId

BOOKS_MAX = 256
CERTIFICATES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of offered entries: `added` were new; `fork` convicts the author; `height` counts those kept."""

    added: int
    height: int
    fork: ForkProof | None = None
    gaps: tuple[Gap, ...] = ()


class CachedCheck:
    """A `CertificateCheck` that remembers what cannot change: "valid" and "invalid"."""

    def __init__(self, check: CertificateCheck) -> None:
        self._check = check
        self._known: OrderedDict[tuple[bytes, int], Finding] = OrderedDict()

    def __call__(self, certificate: Certificate, *, quorum: int) -> Finding:
        key = (codec.encode(certificate), quorum)
        known = self._known.get(key)
        if known is not None:
            return known
        finding = self._check(certificate, quorum=quorum)
        if finding != "unknown":
            self._known[key] = finding
            if len(self._known) > CERTIFICATES_MAX:
                self._known.popitem(last=False)
        return finding


def load_book(store: Store, author: PeerId) -> Book:
    """The read model of a kept chain; links are checked, signatures were when it was kept.

    Raises:
        StorageError: the chain on the disk does not hang together.
    """
    book = Book(author)
    for entry in store.replay(author):
        try:
            check_link(book, entry)
        except InvalidEntry as exc:
            raise StorageError(f"the kept chain is damaged: {exc}; restore a backup or recover it from peers") from exc
        book.apply(entry)
    return book


class Replicas:
    """Books of kept chains, the trust graph over their certified receipts, and the peers convicted of forks."""

    def __init__(self, store: Store, certify: CertificateCheck) -> None:
        self._store = store
        self._certify = certify
        self._books: OrderedDict[PeerId, Book] = OrderedDict()
        self._earned: dict[PeerId, dict[bytes, int]] = {}
        self.graph = TrustGraph()
        self.heights = store.heights()
        self.forkers = frozenset(proof.first.header.author for proof in store.forks())
        for entry in store.receipts(certified=True):
            self.count(entry)

    def count(self, entry: Entry) -> None:
        """Take a certified receipt into the trust graph."""
        receipt = entry.body
        assert isinstance(receipt, Receipt), "only receipts make edges"
        if receipt.verdict == "unaudited":
            return
        offered = self._store.get(receipt.offer)
        assert offered is not None, "a receipt is kept above its offer"
        assert isinstance(offered.body, Offer), "the rules link receipts to offers"
        self.graph.add(entry.header.author, receipt, offered.body)

    def book(self, author: PeerId) -> Book:
        """The read model of an author's kept chain; the least used ones are forgotten and rebuilt."""
        book = self._books.get(author)
        if book is None:
            book = self._books[author] = load_book(self._store, author)
            if len(self._books) > BOOKS_MAX:
                dropped, _ = self._books.popitem(last=False)
                self._earned.pop(dropped, None)
        self._books.move_to_end(author)
        return book

    def ingest(self, author: PeerId, entries: Sequence[Entry], now_ms: int, own: Book | None = None) -> Ingested:
        """Verify and keep what is new of `entries`, which may repeat known ones; stops at a hole.

        Args:
            author: whose entries they are.
            entries: in ascending height.
            now_ms: this node's clock.
            own: the writer's book, where the chain is this node's own.

        Raises:
            InvalidEntry: an entry breaks a rule; the valid ones before it are kept.
            StorageError: nothing was kept.
        """
        book = self.book(author) if own is None else own
        fresh: list[Entry] = []
        gaps: list[Gap] = []
        proof: ForkProof | None = None
        try:
            for entry in entries:
                if entry.header.author != author:
                    raise InvalidEntry("author", "an entry of another chain", height=entry.header.height)
                if entry.header.height < book.height:
                    proof = self._compare(entry, fresh)
                    if proof is not None:
                        break
                elif entry.header.height > book.height:
                    break
                else:
                    gaps += extend(book, entry, self._store.get, self._certify, now_ms=now_ms)
                    fresh.append(entry)
        finally:
            self._keep(author, book, fresh, gaps)
        return Ingested(len(fresh), book.height, proof, tuple(gaps))

    def _compare(self, entry: Entry, fresh: list[Entry]) -> ForkProof | None:
        """The proof that `entry` conflicts with what is kept at its height, now kept too."""
        height = entry.header.height
        first = fresh[0].header.height if fresh else height + 1
        ours = fresh[height - first] if height >= first else self._store.entries(entry.header.author, height, 1)[0]
        proof = fork.prove(ours, entry)
        if proof is not None:
            self.learn_fork(proof)
        return proof

    def learn_fork(self, proof: ForkProof) -> bool:
        """Check a fork proof and keep it for ever; False if it was known.

        Raises:
            InvalidEntry: it proves nothing.
        """
        author = fork.check(proof)
        new = self._store.add_fork(proof)
        self.forkers |= {author}
        return new

    def _keep(self, author: PeerId, book: Book, fresh: list[Entry], gaps: list[Gap]) -> None:
        if not fresh:
            return
        doubtful = {gap.ref for gap in gaps if gap.kind == "certificate"}
        sure = [entry for entry in fresh if isinstance(entry.body, Receipt) and entry.id not in doubtful]
        try:
            self._store.append(fresh, {entry.id for entry in sure})
        except StorageError:
            self._books.pop(author, None)
            raise
        self.heights[author] = book.height
        for entry in sure:
            self.count(entry)

    def recheck(self) -> int:
        """Check again the certificates whose jurors' keys were not known; how many are valid now."""
        valid = [entry for entry in self._store.receipts(certified=False) if self._is_valid(entry)]
        if valid:
            self._store.mark_certified(entry.id for entry in valid)
        for entry in valid:
            self.count(entry)
        return len(valid)

    def _is_valid(self, entry: Entry) -> bool:
        assert isinstance(entry.body, Receipt), "the store lists receipts only"
        offered = self._store.get(entry.body.offer)
        if offered is None or not isinstance(offered.body, Offer):
            return False
        try:
            return certified(entry.body, offered.body, self._certify) == "valid"
        except InvalidEntry:
            return False

    def credit(self, author: PeerId) -> Totals:
        """The totals of an author's chain as far as they are proven: earnings need a certified receipt."""
        book = self.book(author)
        proven = self._earned.setdefault(author, {})
        for receipt_id, settle_id in book.settles.items():
            if receipt_id not in proven and self._store.is_certified(receipt_id):
                settle = self._store.get(settle_id)
                assert settle is not None, "the book lists kept entries"
                assert isinstance(settle.body, Settle), "the book lists settles by receipt"
                proven[receipt_id] = settle.body.amount_micro
        paid = sum(sums.paid_micro for sums in book.counterparties.values())
        return Totals(book.height, book.head, sum(proven.values()) - paid, book.reserved_micro)
