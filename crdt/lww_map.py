"""A last-writer-wins map: per key, the entry with the greatest (stamp, operation id) stands.

The order is total, because ids differ, so merging is commutative, associative and idempotent. A deletion is an
entry without a value. Source: Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated
Data Types" (INRIA RR-7506, 2011), section 3.2.1; the tie is broken by a hash, which no author can choose freely.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from wire.peer import PeerId


class Entry(NamedTuple):
    """What stands at a key; compares by (stamp, op), since `op` is unique."""

    stamp: int
    op: bytes
    value: bytes | None
    author: PeerId


class LwwMap:
    """The map of one replica."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def apply(self, key: str, entry: Entry) -> bool:
        """Merge one entry; whether it now stands."""
        held = self._entries.get(key)
        if held is not None and (held.stamp, held.op) >= (entry.stamp, entry.op):
            return False
        self._entries[key] = entry
        return True

    def merge(self, other: LwwMap) -> None:
        """Merge another replica's map."""
        for key, entry in other._entries.items():
            self.apply(key, entry)

    def entry(self, key: str) -> Entry | None:
        """What stands at `key`, deletions included."""
        return self._entries.get(key)

    def get(self, key: str) -> bytes | None:
        """The value at `key`; None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Keys and values, keys ascending."""
        for key in sorted(self._entries):
            value = self._entries[key].value
            if value is not None:
                yield key, value

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Keys and entries, deletions included, keys ascending."""
        for key in sorted(self._entries):
            yield key, self._entries[key]
