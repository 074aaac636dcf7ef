"""Whom to dial back: only the asker's own IP address, seldom, and few at a time. Sans-IO.

Someone who asks us to dial must not be able to make us a weapon: an address is dialled only if its IP address is the
one that the asker is connected from, which he cannot forge over TCP, and nothing but a handshake is sent to it. What
remains, one dial per request of similar size, is bounded per asker, per IP address and in all.
Source: the same rule as AutoNAT v1; RFC 5780 has none because STUN answers only the sender.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from node.reach.addresses import Endpoint, endpoint

PERIOD_S = 60.0
DIALS_PER_IP_MAX = 12
DIALS_MAX = 120
AT_ONCE_MAX = 8
ADDRESSES_MAX = 4
IPS_MAX = 4096


class Gate:
    """Counts dials in periods of `PERIOD_S`. An asker is counted by his IP address: identities cost nothing."""

    def __init__(self) -> None:
        self._period = 0
        self._of: OrderedDict[str, int] = OrderedDict()
        self._all = 0
        self._running = 0

    def admit(self, asked: Sequence[str], seen: Endpoint, now: float) -> list[Endpoint | None]:
        """Which of the asked addresses are dialled, None in the place of one that is not.

        `done` must follow each that is. Only the first `ADDRESSES_MAX` are looked at.

        Args:
            seen: where the asker's connection comes from.
        """
        if int(now // PERIOD_S) != self._period:
            self._period, self._all = int(now // PERIOD_S), 0
            self._of.clear()
        return [self._one(text, seen) for text in asked[:ADDRESSES_MAX]]

    def _one(self, text: str, seen: Endpoint) -> Endpoint | None:
        at = endpoint(text)
        if at is None or at.ip != seen.ip or self._running >= AT_ONCE_MAX or self._all >= DIALS_MAX:
            return None
        if self._of.get(at.ip, 0) >= DIALS_PER_IP_MAX or (at.ip not in self._of and len(self._of) >= IPS_MAX):
            return None
        self._of[at.ip] = self._of.get(at.ip, 0) + 1
        self._all += 1
        self._running += 1
        return at

    def done(self) -> None:
        """A dial has ended."""
        self._running -= 1
        assert self._running >= 0, "more dials ended than began"
