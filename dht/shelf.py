"""Which records a storer keeps: the union by author under each key, within quotas.

Eviction is not first-come: past `AUTHORS_PER_KEY_MAX` authors under one key, the author whose hash with the key is
largest goes. The set that is kept depends only on who is there, so a squatter cannot hold a key by coming early, and
keeps a place only as long as its luck with one hash lasts. An author may hold `RECORDS_PER_AUTHOR_MAX` records here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from dht.record import Record, stands
from wire.envelope import Envelope
from wire.hashing import digest
from wire.peer import PeerId

AUTHORS_PER_KEY_MAX = 256
RECORDS_PER_AUTHOR_MAX = 256
RECORDS_MAX = 100_000

Slot = tuple[str, bytes]


class Shelf:
    """Checked records by (namespace, key) and author. Pure; the file behind it is `dht.store`."""

    def __init__(
        self, *, per_key: int = AUTHORS_PER_KEY_MAX, per_author: int = RECORDS_PER_AUTHOR_MAX, total: int = RECORDS_MAX
    ) -> None:
        self._slots: dict[Slot, dict[PeerId, tuple[Envelope, int]]] = {}
        self._of_author: Counter[PeerId] = Counter()
        self._per_key, self._per_author, self._total = per_key, per_author, total
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, envelope: Envelope, record: Record) -> tuple[bool, list[tuple[Slot, PeerId]]]:
        """Keep a checked record.

        Returns:
            Whether it, or a later one of its author, is kept now; and what had to go for it.
        """
        slot, author = (record.namespace, record.key), envelope.author
        authors = self._slots.setdefault(slot, {})
        old = authors.get(author)
        if old is not None:
            if stands(old[0], envelope) is envelope:
                authors[author] = envelope, record.expires_ms
            return True, []
        if self._of_author[author] >= self._per_author or self._count >= self._total:
            return False, []
        authors[author] = envelope, record.expires_ms
        self._of_author[author] += 1
        self._count += 1
        if len(authors) <= self._per_key:
            return True, []
        unlucky = max(authors, key=lambda peer: digest("dht.eviction", record.key, peer))
        self._drop(slot, unlucky)
        return unlucky != author, [(slot, unlucky)]

    def get(self, namespace: str, key: bytes, now_ms: int) -> list[Envelope]:
        """The records under a key that have not expired, by author."""
        authors = self._slots.get((namespace, key), {})
        return [authors[author][0] for author in sorted(authors) if authors[author][1] > now_ms]

    def sweep(self, now_ms: int) -> list[tuple[Slot, PeerId]]:
        """Drop what has expired; returns what went."""
        gone = [(s, a) for s, authors in self._slots.items() for a, (_, ends) in authors.items() if ends <= now_ms]
        for slot, author in gone:
            self._drop(slot, author)
        return gone

    def __iter__(self) -> Iterator[Envelope]:
        for authors in self._slots.values():
            for envelope, _ in authors.values():
                yield envelope

    def _drop(self, slot: Slot, author: PeerId) -> None:
        del self._slots[slot][author]
        if not self._slots[slot]:
            del self._slots[slot]
        self._count -= 1
        self._of_author[author] -= 1
        if not self._of_author[author]:
            del self._of_author[author]


def fill(shelf: Shelf, checked: Iterable[tuple[Envelope, Record]]) -> int:
    """Put all; returns how many are kept."""
    return sum(shelf.put(envelope, record)[0] for envelope, record in checked)
