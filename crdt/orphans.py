"""Operations that arrived before their dependencies: a bounded cache, the oldest dropped first.

Dropping is safe: whoever pulls from an honest replica receives dependencies first, so progress never needs this
cache. It only saves fetching again what was pushed out of order.
"""

from __future__ import annotations

from dataclasses import dataclass

from crdt.limits import FETCH_MAX, ORPHAN_BYTES_MAX, ORPHANS_MAX
from crdt.op import SignedOp
from wire.peer import PeerId


@dataclass(slots=True)
class _Orphan:
    signed: SignedOp
    sender: PeerId
    missing: set[bytes]


class Orphans:
    """The cache of one replica."""

    def __init__(self, *, count_max: int = ORPHANS_MAX, bytes_max: int = ORPHAN_BYTES_MAX) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._held: dict[bytes, _Orphan] = {}
        self._waiting: dict[bytes, set[bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, op_id: bytes) -> bool:
        return op_id in self._held

    def add(self, signed: SignedOp, sender: PeerId, missing: list[bytes]) -> None:
        """Keep an operation until `missing` (ids, not empty) are known."""
        assert missing, "an operation that misses nothing is no orphan"
        if signed.id in self._held:
            return
        self._held[signed.id] = _Orphan(signed, sender, set(missing))
        self._bytes += len(signed.raw)
        for op_id in missing:
            self._waiting.setdefault(op_id, set()).add(signed.id)
        while len(self._held) > self._count_max or self._bytes > self._bytes_max:
            self._drop(next(iter(self._held)))

    def release(self, known: bytes) -> list[tuple[SignedOp, PeerId]]:
        """Those that waited only for `known`, with whoever sent them; they are no longer kept."""
        ready = []
        for op_id in sorted(self._waiting.pop(known, ())):
            orphan = self._held[op_id]
            orphan.missing.discard(known)
            if not orphan.missing:
                ready.append((orphan.signed, orphan.sender))
                self._drop(op_id)
        return ready

    def missing(self) -> list[bytes]:
        """Ids to ask for, ascending: dependencies that are neither known nor kept here; at most `FETCH_MAX`."""
        return sorted(op_id for op_id in self._waiting if op_id not in self._held)[:FETCH_MAX]

    def _drop(self, op_id: bytes) -> None:
        orphan = self._held.pop(op_id)
        self._bytes -= len(orphan.signed.raw)
        for missing in orphan.missing:
            waiting = self._waiting.get(missing)
            if waiting is not None:
                waiting.discard(op_id)
                if not waiting:
                    del self._waiting[missing]
