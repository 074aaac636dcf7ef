"""A queue of things to happen at virtual times: earliest first, and first in first out at the same time."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class EventQueue:
    """One heap of (virtual time in seconds, sequence number, action); no clock of its own."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._sequence = 0

    def push(self, at_s: float, action: Action) -> bool:
        """Plan `action`; tells whether it is now the earliest."""
        self._sequence += 1
        heapq.heappush(self._heap, (at_s, self._sequence, action))
        return self._heap[0][1] == self._sequence

    @property
    def next_at_s(self) -> float | None:
        """When the earliest action is due; None if there is none."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_s: float) -> Action | None:
        """Take the earliest action if its time has come."""
        if self._heap and self._heap[0][0] <= now_s:
            return heapq.heappop(self._heap)[2]
        return None
