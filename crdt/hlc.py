"""A bounded hybrid logical clock: stamps that respect causality and stay close to the wall clock.

A stamp is one integer: 48 bits of Unix milliseconds, then a 16-bit counter, so stamps compare as integers and
a counter that overflows carries into the milliseconds. Every tick is later than every stamp observed before;
a stamp more than `ahead_max_ms` in the future is not observed, so nobody can drag a clock further than that.

Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks" (OPODIS 2014), sections 3 and 5.
"""

from __future__ import annotations

from crdt.limits import AHEAD_MAX_MS

_COUNTER_BITS = 16
STAMP_MAX = (1 << 63) - 1


def stamp_at(wall_ms: int) -> int:
    """The first stamp of a millisecond (Unix time)."""
    return wall_ms << _COUNTER_BITS


def wall_ms(stamp: int) -> int:
    """The Unix time of a stamp, in milliseconds."""
    return stamp >> _COUNTER_BITS


class Clock:
    """The clock of one replica.

    Args:
        ahead_max_ms: how far in the future an observed stamp may lie.
    """

    def __init__(self, *, ahead_max_ms: int = AHEAD_MAX_MS) -> None:
        self._ahead_max_ms = ahead_max_ms
        self._last = 0

    def tick(self, now_ms: int) -> int:
        """A stamp later than all earlier ones, and not before `now_ms` (Unix time)."""
        self._last = max(self._last + 1, stamp_at(now_ms))
        return self._last

    def allows(self, stamp: int, now_ms: int) -> bool:
        """Whether `stamp` is close enough to `now_ms` to be observed."""
        return wall_ms(stamp) <= now_ms + self._ahead_max_ms

    def observe(self, stamp: int) -> None:
        """Make every later tick exceed `stamp`, which the caller has found allowed or has read from its own disk."""
        self._last = max(self._last, stamp)
