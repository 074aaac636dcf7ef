"""What happened, as a hash and counts: two runs are the same if and only if their hashes are."""

from __future__ import annotations

import hashlib
from collections import Counter, deque

TAIL_LINES = 200


class Trace:
    """A running SHA-256 over one line per event; keeps the counts and the last lines only."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.counts: Counter[str] = Counter()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def note(self, now_s: float, kind: str, *details: object) -> None:
        """Add an event; `details` must print the same in every process."""
        line = f"{now_s:.9f} {kind} {' '.join(map(str, details))}"
        self.counts[kind] += 1
        self.tail.append(line)
        self._hash.update(line.encode() + b"\n")

    @property
    def hash(self) -> str:
        """Of all events so far, in hexadecimal."""
        return self._hash.hexdigest()
