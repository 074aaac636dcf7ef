"""How rough a simulated network is."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Faults:
    """What happens to frames under way.

    Args:
        delay_min_s: least delay of a frame.
        delay_mean_s: mean of the exponential delay on top of it.
        reset_share: share of frames at which the connection of the two peers is lost.
        clog_share: share of frames at which the link (one direction) stops for a while.
        clog_mean_s: mean of that while, exponential.
    """

    delay_min_s: float = 0.001
    delay_mean_s: float = 0.004
    reset_share: float = 0.0
    clog_share: float = 0.0
    clog_mean_s: float = 0.0

    def delay_s(self, random: Random) -> float:
        """One frame's delay."""
        return self.delay_min_s + random.expovariate(1.0) * self.delay_mean_s


CALM = Faults()
"""A local network on a good day."""

ROUGH = Faults(delay_min_s=0.005, delay_mean_s=0.040, reset_share=0.002, clog_share=0.005, clog_mean_s=2.0)
"""Home lines: slow, now and then stuck, and every few hundred frames a connection is lost."""
