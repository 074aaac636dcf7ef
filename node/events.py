"""What happens to the node as a whole, for those who watch: the newest events, numbered, and whoever waits for more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

EVENTS_MAX = 256
"""Events kept for those who come late or read slowly; older ones are gone for them."""


class Events:
    """Numbered from 0; each is a JSON object with `seq`, `at_ms`, `type` and what belongs to the type.

    Args:
        now_ms: Unix time in milliseconds.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._kept: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self._next = 0
        self.news = trio.Event()
        """Set when the next event comes; then there is another."""

    def emit(self, kind: str, **what: Any) -> None:
        """Tell everybody who watches; nobody is waited for."""
        self._kept.append({"seq": self._next, "at_ms": self._now_ms(), "type": kind, **what})
        self._next += 1
        self.news.set()
        self.news = trio.Event()

    def since(self, after: int) -> list[dict[str, Any]]:
        """Those kept with a number above `after`."""
        return [event for event in self._kept if event["seq"] > after]

    @property
    def last(self) -> int:
        """The number of the newest; -1 before the first."""
        return self._next - 1
