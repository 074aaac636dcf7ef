"""Transport addresses as text: taking them apart, and telling which network an IP address belongs to. Sans-IO.

    direct:  /ip4/203.0.113.7/tcp/4001[/p2p/<peer>]
    circuit: <direct address of a relay>/p2p/<relay>/p2p-circuit[/p2p/<peer>]

Source: libp2p addressing specification; circuit relay v2 specification, "Introduction".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wire.errors import Malformed
from wire.peer import PeerId, from_text, to_text

ADDRESS_CHARS_MAX = 256
CIRCUIT = "/p2p-circuit"

Scope = Literal["loopback", "private", "public", "none"]
"""`private` is one site's own, `none` cannot be dialled."""

_SHARED = (ipaddress.ip_network("100.64.0.0/10"),)
"""Addresses that a provider's own router hands out (RFC 6598): no host elsewhere can reach them."""

_PRIVATE = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))


@dataclass(frozen=True, order=True)
class Endpoint:
    """An IP address in its canonical spelling, and a TCP port."""

    ip: str
    port: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.ip else 4

    def text(self) -> str:
        """As a multiaddr, without the peer."""
        return f"/ip{self.version}/{self.ip}/tcp/{self.port}"


@dataclass(frozen=True)
class Circuit:
    """A relay, where it is dialled, and nothing of the peer behind it."""

    relay: PeerId
    address: str  # direct, without the relay's peer id

    def text(self) -> str:
        """The address of whoever is behind the relay, without that peer."""
        return f"{self.address}/p2p/{to_text(self.relay)}{CIRCUIT}"


def endpoint(text: str) -> Endpoint | None:
    """The endpoint that a direct address names by number; None for anything else."""
    parts = text.split("/")
    if len(text) > ADDRESS_CHARS_MAX or len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp":
        return None
    if len(parts) == 7 and parts[5] != "p2p":
        return None
    try:
        ip = ipaddress.ip_address(parts[2])
    except ValueError:
        return None
    port = parts[4]
    if parts[1] != f"ip{ip.version}" or "%" in parts[2] or not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    return Endpoint(str(ip), int(port)) if 0 < int(port) <= 65535 else None


def circuit(text: str, peer: PeerId) -> Circuit | None:
    """The relay that a circuit address of `peer` leads through; None for anything else."""
    relayed, found, rest = text.partition(CIRCUIT)
    if not found or len(text) > ADDRESS_CHARS_MAX or rest not in ("", f"/p2p/{to_text(peer)}"):
        return None
    address, found, name = relayed.rpartition("/p2p/")
    try:
        relay = from_text(name)
    except Malformed:
        return None
    if not found or relay == peer or endpoint(address) is None:
        return None
    return Circuit(relay, address)


def host_of(text: str) -> Endpoint | None:
    """The endpoint that a direct address leads to by number, whatever is spoken over TCP there; else None."""
    return None if CIRCUIT in text or len(text) > ADDRESS_CHARS_MAX else endpoint("/".join(text.split("/")[:5]))


def kind_of(address: str) -> str:
    """What an address is dialled by: `circuit`, or the last protocol that it names, such as `tcp` or `ws`."""
    if CIRCUIT in address:
        return "circuit"
    names = [part for part in address.partition("/p2p/")[0].split("/") if part and not part.isdigit()]
    return names[-1] if names else ""


def worth_telling(listening: Sequence[str], advertised: Sequence[str]) -> list[str]:
    """Which of the addresses that we listen on may be of use to others: none of a narrower network than the widest.

    Where strangers reach us directly (a public address is advertised) that is enough; else our own site may find us by
    its own addresses. This machine's are told only where there are no others.
    """
    scopes = {text: scope(at.ip) for text in listening if (at := host_of(text)) is not None}
    if any(is_public(text) for text in advertised):
        return [text for text in listening if scopes.get(text, "public") == "public"]
    if set(scopes.values()) - {"loopback", "none"}:
        return [text for text in listening if scopes.get(text, "public") != "loopback"]
    return list(listening)


def scope(ip: str) -> Scope:
    """Which network an IP address belongs to; the documentation ranges count as public.

    Raises:
        ValueError: not an IP address.
    """
    parsed = ipaddress.ip_address(ip)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return "none"
    if parsed.is_loopback:
        return "loopback"
    if parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local or parsed == _BROADCAST:
        return "none"
    private = any(parsed.version == net.version and parsed in net for net in (*_PRIVATE, *_SHARED))
    return "private" if private else "public"


_BROADCAST = ipaddress.ip_address("255.255.255.255")


def on_this_machine(text: str) -> bool:
    """Whether a direct address is a loopback one."""
    at = endpoint(text)
    return at is not None and scope(at.ip) == "loopback"


def is_public(text: str) -> bool:
    """Whether a direct address names a public IP address."""
    at = endpoint(text)
    return at is not None and scope(at.ip) == "public"
