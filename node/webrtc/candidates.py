"""ICE candidates: what is told of our own addresses, and which addresses of others are tried. Sans-IO.

    candidate:<foundation> 1 udp <priority> <address> <port> typ <host|srflx|relay> [raddr <address> rport <port>] ...

Two rules. What signalling came over decides how far candidates may reach: over a path through public addresses only
public ones are told and tried, over one through private addresses private ones too, over loopback all. So nobody makes
us knock on doors of our own network, or learns its addresses, who is not on it. And names are never resolved: a browser
hides its addresses behind `.local` names; it is reached because it answers ours.
Source: RFC 8839, section 5.1; RFC 8445, section 19.5.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from node.reach.addresses import Scope, scope

CANDIDATES_MAX = 32
"""Candidates of one side."""

CANDIDATE_CHARS_MAX = 512

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_REACH: dict[Scope, frozenset[Scope]] = {
    "public": frozenset({"public"}),
    "private": frozenset({"private", "public"}),
    "loopback": frozenset({"loopback", "private", "public"}),
    "none": frozenset(),
}
_FORM = re.compile(
    r"(?:a=)?candidate:([A-Za-z0-9+/]{1,32}) ([0-9]{1,5}) (\S{1,8}) ([0-9]{1,10}) (\S{1,255}) ([0-9]{1,5})"
    r" typ (host|srflx|relay)(?: .*)?"
)


@dataclass(frozen=True)
class Candidate:
    """One address at which one side may be reached over UDP."""

    foundation: str
    priority: int
    ip: str
    port: int
    kind: str

    def text(self) -> str:
        """As an attribute of SDP, without `a=`. The address behind a translated one is not told."""
        base = f"candidate:{self.foundation} 1 udp {self.priority} {self.ip} {self.port} typ {self.kind}"
        if self.kind == "host":
            return base
        hidden = "0.0.0.0" if ipaddress.ip_address(self.ip).version == 4 else "::"
        return f"{base} raddr {hidden} rport 9"


def parse(text: str) -> Candidate | None:
    """The candidate that a line names; None for TCP, for names, and for whatever else is not an address over UDP."""
    found = _FORM.fullmatch(text) if len(text) <= CANDIDATE_CHARS_MAX else None
    if found is None:
        return None
    foundation, component, transport, priority, address, port, kind = found.groups()
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    if component != "1" or transport.lower() != "udp" or not 0 < int(port) <= 65535 or int(priority) >= 1 << 32:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        return None
    return Candidate(foundation, int(priority), str(ip), int(port), kind)


def within(candidate: Candidate, path: Scope, denied: Sequence[Subnet] = ()) -> bool:
    """Whether a candidate may be told or tried where signalling came over `path`."""
    ip = ipaddress.ip_address(candidate.ip)
    return scope(candidate.ip) in _REACH[path] and not any(ip in subnet for subnet in denied)
