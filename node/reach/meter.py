"""How many bytes a relay passes for whom: a free share each hour, and beyond it only what is paid for. Sans-IO.

The guest, who holds the reservation, is who uses them, whoever called it. Its free share is bounded by itself and by
its subnet, so that many names are one guest. A guest that has agreed to pay may be `CREDIT_BYTES` behind with its
acknowledgements; then its circuits wait, and end if none comes. What a relay can lose is that much for each guest in an
hour, for then debts are forgotten: the guest may have started anew, and know nothing of them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Literal

from node.reach.quota import Limits
from wire.peer import PeerId

MIB = 1 << 20
HOUR_S = 3600.0
CREDIT_BYTES = 8 * MIB
"""Bytes that a guest may have used beyond its free share and not acknowledged."""

AGREED_S = 600.0
"""Seconds for which a guest's word that it will pay holds."""

ACCOUNTS_MAX = 4096

Answer = Literal["pass", "wait", "end"]


class Meter:
    """Free shares used in this hour, and what guests have not acknowledged."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._hour = 0
        self._used: Counter[PeerId | str] = Counter()
        self._unpaid: OrderedDict[PeerId, int] = OrderedDict()
        self._agreed: OrderedDict[PeerId, float] = OrderedDict()

    def free(self, guest: PeerId, subnet: str, now: float) -> int:
        """Bytes of the free share that are left in this hour."""
        if int(now // HOUR_S) != self._hour:
            self._hour = int(now // HOUR_S)
            self._used.clear()
            self._unpaid = OrderedDict((peer, owed) for peer, owed in self._unpaid.items() if owed < 0)
        limits, used = self._limits, self._used
        own, together = limits.free_bytes_per_hour, limits.free_bytes_per_subnet_hour
        return max(0, min(own - used[guest], together - used[subnet]))

    def unpaid(self, guest: PeerId) -> int:
        """Bytes beyond the free share that are not acknowledged; negative if more was."""
        return self._unpaid.get(guest, 0)

    def agree(self, guest: PeerId, now: float) -> None:
        """The guest says that it pays."""
        self._agreed.pop(guest, None)
        self._agreed[guest] = now + AGREED_S
        while len(self._agreed) > ACCOUNTS_MAX:
            self._agreed.popitem(last=False)

    def may(self, guest: PeerId, subnet: str, now: float) -> bool:
        """Whether a circuit to the guest makes sense."""
        return self.free(guest, subnet, now) > 0 or self._may_owe(guest, 1, now)

    def take(self, guest: PeerId, subnet: str, size: int, now: float) -> Answer:
        """Count bytes that are about to pass; "wait" counts nothing, and may be asked again."""
        if size <= self.free(guest, subnet, now):
            self._used[guest] += size
            self._used[subnet] += size
            return "pass"
        if self._agreed.get(guest, now) <= now:
            return "end"
        if not self._may_owe(guest, size, now):
            return "wait"
        owed = self._unpaid.pop(guest, 0) + size
        self._unpaid[guest] = owed
        while len(self._unpaid) > ACCOUNTS_MAX:
            self._unpaid.popitem(last=False)
        return "pass"

    def paid(self, guest: PeerId, size: int) -> None:
        """The guest has acknowledged so many bytes, and paid for them."""
        self._unpaid[guest] = self.unpaid(guest) - size

    def _may_owe(self, guest: PeerId, size: int, now: float) -> bool:
        return self._agreed.get(guest, now) > now and self.unpaid(guest) + size <= CREDIT_BYTES
