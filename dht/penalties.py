"""What peers did wrong, forgotten with a half-life; bounded, so that strangers cannot fill it."""

from __future__ import annotations

from dht.limits import PENALTIES_MAX, PENALTY_BAN, PENALTY_HALF_LIFE_MS, PENALTY_PARDON
from wire.peer import PeerId


class Penalties:
    """A decaying sum of penalties per peer; the least recently blamed is forgotten first."""

    def __init__(self) -> None:
        self._sums: dict[PeerId, tuple[float, int]] = {}
        self._bans: dict[PeerId, None] = {}

    def of(self, peer: PeerId, now_ms: int) -> float:
        """The penalty of `peer` now: 0 for none."""
        total, at_ms = self._sums.get(peer, (0.0, 0))
        return total * 0.5 ** (max(0, now_ms - at_ms) / PENALTY_HALF_LIFE_MS) if total else 0.0

    def banned(self, peer: PeerId, now_ms: int) -> bool:
        """Whether the sum reached `PENALTY_BAN` and has not yet decayed to `PENALTY_PARDON`."""
        return peer in self._bans and self.of(peer, now_ms) > PENALTY_PARDON

    def add(self, peer: PeerId, penalty: float, now_ms: int) -> None:
        """Add a penalty (0..1)."""
        if penalty <= 0:
            return
        total = self.of(peer, now_ms) + penalty
        self._sums.pop(peer, None)
        if len(self._sums) >= PENALTIES_MAX:
            oldest = next(iter(self._sums))
            del self._sums[oldest]
            self._bans.pop(oldest, None)
        self._sums[peer] = (total, now_ms)
        if total >= PENALTY_BAN:
            self._bans[peer] = None
        elif total <= PENALTY_PARDON:
            self._bans.pop(peer, None)
