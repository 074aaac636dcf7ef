"""What a relay gives to whom: reservations, circuits and bytes, bounded per peer, per subnet and in all. Sans-IO.

Fair means that nobody's share depends on how often he asks or under how many names: a peer has one reservation, which
asking again renews; a host and a subnet have so many at most, so a crowd of identities on one machine is one guest; a
circuit counts against both of its ends and the caller's subnet, so that neither can use up what others need; and bytes
are paced so that each guest whose circuits are busy gets the same. When everything is taken, the next is refused, and
nobody who holds something loses it.
Source: circuit relay v2 specification, "Reservation" and "Circuit"; limits are ours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from node.reach.circuit_messages import Limit, Status
from wire.peer import PeerId

BURST_S = 1.0
"""Seconds of its pace that a guest who was quiet may use at once."""


@dataclass(frozen=True)
class Limits:
    """How much a relay gives. Seconds, bytes, counts; `bytes_per_s` is for all circuits together, 0 for no limit.

    What goes beyond the free bytes of a guest or of its subnet is passed only if the guest pays (`meter`).
    """

    reservations_max: int = 128
    reservations_per_ip_max: int = 8
    reservations_per_subnet_max: int = 32
    reservation_s: int = 3600
    circuits_max: int = 128
    circuits_per_peer_max: int = 16
    circuits_per_subnet_max: int = 48
    circuit_s: int = 7200
    circuit_bytes_max: int = 1 << 30
    bytes_per_s: int = 0
    free_bytes_per_hour: int = 256 << 20
    free_bytes_per_subnet_hour: int = 1 << 30

    def of_circuit(self) -> Limit:
        """As the protocol says it."""
        return Limit(self.circuit_s, self.circuit_bytes_max)


MODEST = Limits(
    reservations_max=32,
    reservations_per_ip_max=2,
    reservations_per_subnet_max=8,
    circuits_max=32,
    circuits_per_peer_max=8,
    circuits_per_subnet_max=16,
    circuit_s=1800,
    circuit_bytes_max=64 << 20,
    bytes_per_s=1 << 20,
    free_bytes_per_hour=64 << 20,
    free_bytes_per_subnet_hour=256 << 20,
)
"""What a node gives whose owner said nothing about relaying."""


def host_and_subnet(ip: str) -> tuple[str, str]:
    """Under which names an address is counted: IPv4 address and /24, IPv6 /64 and /48."""
    at = ip_address(ip)
    if at.version == 4:
        return str(at), str(ip_network((at, 24), strict=False))
    return str(ip_network((at, 64), strict=False)), str(ip_network((at, 48), strict=False))


class Pace:
    """When how many bytes may pass: every guest that is busy gets the same share of `bytes_per_s`."""

    def __init__(self, bytes_per_s: int) -> None:
        self._rate = bytes_per_s
        self._until: dict[PeerId, float] = {}

    def take(self, guest: PeerId, size: int, now: float) -> float:
        """Seconds to wait before passing so many bytes for a guest."""
        if not self._rate:
            return 0.0
        self._until = {peer: until for peer, until in self._until.items() if until > now - BURST_S}
        self._until.setdefault(guest, now - BURST_S)
        self._until[guest] += size * len(self._until) / self._rate
        return max(0.0, self._until[guest] - now)


class Quota:
    """The reservations and circuits of one relay."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._until: dict[PeerId, tuple[float, str, str]] = {}
        self._circuits: Counter[PeerId | str] = Counter()
        self._open = 0
        self.refused = 0

    def reserve(self, peer: PeerId, ip: str, now: float) -> float | None:
        """Give or renew a reservation; when it ends, or None where there is no room."""
        self._expire(now)
        host, subnet = host_and_subnet(ip)
        others = [place for guest, place in self._until.items() if guest != peer]
        if (
            len(others) >= self.limits.reservations_max
            or sum(at == host for _, at, _ in others) >= self.limits.reservations_per_ip_max
            or sum(at == subnet for _, _, at in others) >= self.limits.reservations_per_subnet_max
        ):
            self.refused += 1
            return None
        self._until[peer] = (now + self.limits.reservation_s, host, subnet)
        return now + self.limits.reservation_s

    def drop(self, peer: PeerId) -> None:
        """A guest's connection is gone, and with it its reservation."""
        self._until.pop(peer, None)

    def connect(self, source: PeerId, ip: str, target: PeerId, now: float) -> Status:
        """May `source`, at this IP address, have a circuit to `target`? If `OK`, `disconnect` must follow its end."""
        self._expire(now)
        if target not in self._until:
            return Status.NO_RESERVATION
        if source == target:
            return Status.PERMISSION_DENIED
        subnet, limits = host_and_subnet(ip)[1], self.limits
        if (
            self._open >= limits.circuits_max
            or max(self._circuits[source], self._circuits[target]) >= limits.circuits_per_peer_max
            or self._circuits[subnet] >= limits.circuits_per_subnet_max
        ):
            self.refused += 1
            return Status.RESOURCE_LIMIT_EXCEEDED
        self._open += 1
        self._circuits.update((source, target, subnet))
        return Status.OK

    def disconnect(self, source: PeerId, ip: str, target: PeerId) -> None:
        """A circuit that `connect` allowed has ended; the same arguments."""
        self._open -= 1
        for end in (source, target, host_and_subnet(ip)[1]):
            self._circuits[end] -= 1
            if not self._circuits[end]:
                del self._circuits[end]
        assert self._open >= 0, "more circuits ended than began"

    def subnet(self, guest: PeerId) -> str | None:
        """The subnet from which a guest holds its reservation; None for who holds none."""
        held = self._until.get(guest)
        return held[2] if held is not None else None

    @property
    def load(self) -> float:
        """Share of the reservations that are taken."""
        return min(len(self._until) / self.limits.reservations_max, 1.0) if self.limits.reservations_max else 1.0

    @property
    def reservations(self) -> int:
        """Held now, or lapsed and not yet looked at."""
        return len(self._until)

    @property
    def circuits(self) -> int:
        """Open now."""
        return self._open

    def _expire(self, now: float) -> None:
        for peer in [peer for peer, (until, _, _) in self._until.items() if until <= now]:
            del self._until[peer]
