"""The records that this node keeps for others: a set union with quotas under which nobody wins by being first.

- One author never displaces another's record in the same slot: slots are per author.
- Under a full key the authors with the best *seats* stay: a seat is a number drawn from our secret salt, the key
  and the author (weighted rendezvous: -ln(u) / weight), so the outcome does not depend on who came first, cannot
  be searched for, and differs between nodes: the 20 nodes closest to a key keep different authors.
- An author past its quota loses its own record that expires first.
- A full shelf takes from whoever holds most, until 5 % are free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import log
from typing import Literal

from dht.limits import RECORDS_BYTES_MAX, RECORDS_MAX, RECORDS_PER_AUTHOR_MAX, RECORDS_PER_KEY_MAX, TRIM_SHARE
from dht.record import Equivocation, SignedRecord, Slot, equivocation, select
from wire.hashing import digest
from wire.peer import PeerId

Outcome = Literal["stored", "known", "stale", "full"]
Weight = Callable[[PeerId], float]


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much is kept; counts of records, and bytes."""

    per_key: int = RECORDS_PER_KEY_MAX
    per_author: int = RECORDS_PER_AUTHOR_MAX
    total: int = RECORDS_MAX
    total_bytes: int = RECORDS_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a record: "known" is an equal one, "full" lost its seat; `evidence` convicts its author."""

    outcome: Outcome
    evidence: Equivocation | None = None

    @property
    def kept(self) -> bool:
        """Whether the record is on the shelf now."""
        return self.outcome in ("stored", "known")


@dataclass(slots=True)
class Changes:
    """What a database must write to follow the shelf."""

    puts: dict[Slot, SignedRecord] = field(default_factory=dict)
    drops: dict[Slot, None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.puts) + len(self.drops)


def _equal(author: PeerId) -> float:
    return 1.0


class Shelf:
    """See the module; `salt` is 16 secret bytes, `weight` a peer's standing (at least 0; 1 for a stranger)."""

    def __init__(self, salt: bytes, *, quotas: Quotas | None = None, weight: Weight = _equal) -> None:
        self._salt = salt
        self._quotas = quotas or Quotas()
        self._weight = weight
        self._cells: dict[tuple[str, bytes], dict[PeerId, SignedRecord]] = {}
        self._authors: dict[PeerId, dict[Slot, SignedRecord]] = {}
        self._expiries: list[tuple[int, bytes, Slot]] = []
        self._count = 0
        self._bytes = 0
        self._changes = Changes()

    def __len__(self) -> int:
        return self._count

    @property
    def changed(self) -> int:
        """Slots that `drain` would return."""
        return len(self._changes)

    def put(self, record: SignedRecord) -> Put:
        """Keep a validated record if it is the best of its slot and the quotas allow."""
        slot = record.slot
        held = self._cells.get((slot.namespace, slot.key), {}).get(slot.author)
        if held is not None and held.id == record.id:
            return Put("known")
        evidence = equivocation(held, record) if held is not None else None
        if held is not None and select(held, record) is held:
            return Put("stale", evidence)
        if held is not None:
            self._take(held)
        self._add(record)
        self._fit(slot)
        kept = self._authors.get(slot.author, {}).get(slot) is record
        return Put("stored" if kept else "full", evidence)

    def get(self, namespace: str, key: bytes, now_ms: int) -> list[SignedRecord]:
        """The unexpired records under a key, one per author."""
        cell = self._cells.get((namespace, key), {})
        return [record for record in cell.values() if record.record.expires_ms > now_ms]

    def sweep(self, now_ms: int) -> int:
        """Drop what has expired; returns how many."""
        dropped = 0
        while self._expiries and self._expiries[0][0] <= now_ms:
            _, name, slot = heappop(self._expiries)
            held = self._authors.get(slot.author, {}).get(slot)
            if held is not None and held.id == name:
                self._take(held)
                dropped += 1
        return dropped

    def drain(self) -> Changes:
        """All changes since the last call, for a database."""
        changes, self._changes = self._changes, Changes()
        return changes

    def _seat(self, slot: Slot) -> float:
        """Smaller is better; exponential with rate `weight` (Efraimidis and Spirakis, 2006)."""
        drawn = digest("dht.seat", self._salt, slot.namespace.encode(), slot.key, slot.author)
        uniform = (int.from_bytes(drawn[:8], "big") + 1) / 2**64
        return -log(uniform) / max(self._weight(slot.author), 1e-9)

    def _add(self, record: SignedRecord) -> None:
        slot = record.slot
        self._cells.setdefault((slot.namespace, slot.key), {})[slot.author] = record
        self._authors.setdefault(slot.author, {})[slot] = record
        self._count += 1
        self._bytes += record.size_bytes
        self._changes.drops.pop(slot, None)
        self._changes.puts[slot] = record
        heappush(self._expiries, (record.record.expires_ms, record.id, slot))
        if len(self._expiries) > 2 * self._count + 1000:  # superseded records leave their entries behind
            live = [held for slots in self._authors.values() for held in slots.values()]
            self._expiries = [(held.record.expires_ms, held.id, held.slot) for held in live]
            heapify(self._expiries)

    def _take(self, record: SignedRecord) -> None:
        slot = record.slot
        cell, slots = self._cells[slot.namespace, slot.key], self._authors[slot.author]
        del cell[slot.author], slots[slot]
        if not cell:
            del self._cells[slot.namespace, slot.key]
        if not slots:
            del self._authors[slot.author]
        self._count -= 1
        self._bytes -= record.size_bytes
        self._changes.puts.pop(slot, None)
        self._changes.drops[slot] = None

    def _fit(self, slot: Slot) -> None:
        """Restore the quotas after a record came into `slot`."""
        cell = self._cells[slot.namespace, slot.key]
        if len(cell) > self._quotas.per_key:
            self._take(max(cell.values(), key=lambda record: (self._seat(record.slot), record.author)))
        slots = self._authors.get(slot.author, {})
        if len(slots) > self._quotas.per_author:
            self._take(_first_to_expire(slots))
        if self._count > self._quotas.total or self._bytes > self._quotas.total_bytes:
            self._trim()

    def _trim(self) -> None:
        """Take from whoever holds most bytes; among equals from whoever holds the worst seats."""
        heap = [self._claim(author) for author in self._authors]
        heapify(heap)
        while (
            self._count > TRIM_SHARE * self._quotas.total or self._bytes > TRIM_SHARE * self._quotas.total_bytes
        ) and heap:
            _, _, author = heappop(heap)
            self._take(_first_to_expire(self._authors[author]))
            if author in self._authors:
                heappush(heap, self._claim(author))

    def _claim(self, author: PeerId) -> tuple[int, float, PeerId]:
        held = sum(record.size_bytes for record in self._authors[author].values())
        return -held, -self._seat(Slot("", b"", author)), author


def _first_to_expire(slots: dict[Slot, SignedRecord]) -> SignedRecord:
    return min(slots.values(), key=lambda record: (record.record.expires_ms, record.id))
