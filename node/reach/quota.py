"""What a relay gives to whom: reservations and circuits, bounded per peer, per IP address and in all. Sans-IO.

Fair means that nobody's share depends on how often he asks: a peer has one reservation, which asking again renews;
an IP address has `RESERVATIONS_PER_IP_MAX`, so a crowd of identities on one machine is one guest; and a circuit counts
against both of its ends, so that neither can use up what others need. When everything is taken, the next is refused,
and nobody who holds something loses it.
Source: circuit relay v2 specification, "Reservation" and "Circuit"; limits are ours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from node.reach.circuit_messages import Limit, Status
from wire.peer import PeerId


@dataclass(frozen=True)
class Limits:
    """How much a relay gives. Seconds, bytes, counts."""

    reservations_max: int = 128
    reservations_per_ip_max: int = 8
    reservation_s: int = 3600
    circuits_max: int = 128
    circuits_per_peer_max: int = 16
    circuit_s: int = 7200
    circuit_bytes_max: int = 1 << 30

    def of_circuit(self) -> Limit:
        """As the protocol says it."""
        return Limit(self.circuit_s, self.circuit_bytes_max)


class Quota:
    """The reservations and circuits of one relay."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._until: dict[PeerId, tuple[float, str]] = {}
        self._circuits: Counter[PeerId] = Counter()
        self._open = 0

    def reserve(self, peer: PeerId, ip: str, now: float) -> float | None:
        """Give or renew a reservation; when it ends, or None where there is no room."""
        self._expire(now)
        others = [at for guest, (_, at) in self._until.items() if guest != peer]
        if len(others) >= self.limits.reservations_max:
            return None
        if others.count(ip) >= self.limits.reservations_per_ip_max:
            return None
        self._until[peer] = (now + self.limits.reservation_s, ip)
        return now + self.limits.reservation_s

    def drop(self, peer: PeerId) -> None:
        """A guest's connection is gone, and with it its reservation."""
        self._until.pop(peer, None)

    def connect(self, source: PeerId, target: PeerId, now: float) -> Status:
        """May `source` have a circuit to `target`? If `OK`, `disconnect` must follow its end."""
        self._expire(now)
        if target not in self._until:
            return Status.NO_RESERVATION
        if source == target:
            return Status.PERMISSION_DENIED
        most = self.limits.circuits_per_peer_max
        if self._open >= self.limits.circuits_max or max(self._circuits[source], self._circuits[target]) >= most:
            return Status.RESOURCE_LIMIT_EXCEEDED
        self._open += 1
        self._circuits[source] += 1
        self._circuits[target] += 1
        return Status.OK

    def disconnect(self, source: PeerId, target: PeerId) -> None:
        """A circuit that `connect` allowed has ended."""
        self._open -= 1
        for end in (source, target):
            self._circuits[end] -= 1
            if not self._circuits[end]:
                del self._circuits[end]
        assert self._open >= 0, "more circuits ended than began"

    @property
    def reservations(self) -> int:
        """Held now, or lapsed and not yet looked at."""
        return len(self._until)

    @property
    def circuits(self) -> int:
        """Open now."""
        return self._open

    def _expire(self, now: float) -> None:
        for peer in [peer for peer, (until, _) in self._until.items() if until <= now]:
            del self._until[peer]
