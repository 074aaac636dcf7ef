"""Counters that cost next to nothing where they are counted, and a histogram with fixed buckets. Sans-IO.

Labels are names of ours (protocols that we serve, kinds of outcome), never anything that a peer chooses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the buckets for times."""


class Histogram:
    """How long something took, in seconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total_s += seconds

    def cumulated(self) -> list[tuple[str, int]]:
        """For each bucket its upper end, and how many are at most that; `+Inf` is all."""
        found, so_far = [], 0
        for end, count in zip((*SECONDS, None), self.counts, strict=True):
            so_far += count
            found.append(("+Inf" if end is None else repr(end), so_far))
        return found


class Outcomes:
    """How often each thing ended in each way, and how long it took."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()
        self.took: dict[str, Histogram] = {}

    def add(self, what: str, outcome: str, seconds: float) -> None:
        """One has ended."""
        self.ended[what, outcome] += 1
        took = self.took.get(what)
        if took is None:
            took = self.took[what] = Histogram()
        took.observe(seconds)
