"""Who may connect: deny lists, and how many connections one subnet has. Sans-IO.

A subnet is the /24 of an IPv4 address and the /56 of an IPv6 one, which is what one customer of a provider commands.
Handshakes are counted apart from connections that stand, so that strangers who never finish one cannot keep out
neighbours elsewhere. Addresses of this machine itself are one subnet without a bound of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from wire.errors import LocalError
from wire.peer import PeerId

HANDSHAKES_MAX = 128
"""Handshakes of others under way."""

HANDSHAKES_PER_SUBNET_MAX = 32
CONNECTIONS_PER_SUBNET_MAX = 64
"""Connections that one subnet made to us."""


class Visit:
    """One connection that somebody made, from its first byte to its end."""

    def __init__(self, gate: Gate, subnet: str) -> None:
        self._gate = gate
        self._subnet = subnet
        self._stands = False

    def authenticated(self) -> bool:
        """Its handshake is done; false where its subnet has enough connections."""
        if not self._gate.stand(self._subnet):
            return False
        self._stands = True
        return True

    def leave(self) -> None:
        """It has ended; called once."""
        self._gate.forget(self._subnet, self._stands)


class Gate:
    """Deny lists and counts.

    Args:
        peers: with whom no connection is kept, whoever dialled.
        subnets: such as `192.0.2.0/24`, from which and to which none is made.

    Raises:
        LocalError: something is no subnet.
    """

    def __init__(self, peers: Iterable[PeerId] = (), subnets: Iterable[str] = ()) -> None:
        self._peers = frozenset(peers)
        try:
            self._subnets = [ip_network(text) for text in subnets]
        except ValueError as exc:
            raise LocalError(f"not a subnet: {exc}") from exc
        self.handshakes: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.closed = False
        """Nobody new gets in: the node is about to stop."""

    @property
    def refused(self) -> int:
        """How many were refused, for whatever reason."""
        return self.refusals.total()

    def denies(self, peer: PeerId) -> bool:
        """Whether no connection with `peer` is wanted."""
        return peer in self._peers

    def denies_address(self, address: str) -> bool:
        """Whether no connection with this IP address is wanted; what is no IP address is denied."""
        at = _parsed(address)
        return at is None or any(at in subnet for subnet in self._subnets)

    def enter(self, address: str) -> Visit | None:
        """Somebody connects from this IP address; None if he may not."""
        at = _parsed(address)
        if self.closed:
            self.refusals["stopping"] += 1
            return None
        if at is None or self.denies_address(address):
            self.refusals["denied_address"] += 1
            return None
        if self.handshakes.total() >= HANDSHAKES_MAX:
            self.refusals["handshakes"] += 1
            return None
        subnet = subnet_of(at)
        if subnet and self.handshakes[subnet] >= HANDSHAKES_PER_SUBNET_MAX:
            self.refusals["subnet_handshakes"] += 1
            return None
        self.handshakes[subnet] += 1
        return Visit(self, subnet)

    def stand(self, subnet: str) -> bool:
        """A handshake from `subnet` is done; see `Visit.authenticated`."""
        if subnet and self.connections[subnet] >= CONNECTIONS_PER_SUBNET_MAX:
            self.refusals["subnet_connections"] += 1
            return False
        _less(self.handshakes, subnet)
        self.connections[subnet] += 1
        return True

    def forget(self, subnet: str, stood: bool) -> None:
        """A connection from `subnet` has ended; see `Visit.leave`."""
        _less(self.connections if stood else self.handshakes, subnet)


def _less(count: Counter[str], subnet: str) -> None:
    count[subnet] -= 1
    if not count[subnet]:
        del count[subnet]


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        at = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return at.ipv4_mapped or at if isinstance(at, IPv6Address) else at


def subnet_of(at: IPv4Address | IPv6Address) -> str:
    """The subnet that an address is counted under; empty for this machine itself."""
    if at.is_loopback:
        return ""
    return str(ip_network((at, 24 if at.version == 4 else 56), strict=False))
