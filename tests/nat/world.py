"""One lab with two relays and a node behind each kind of router, and what it takes two of them to reach each other."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from tests.nat.lab import Lab, Nat, Space
from tests.nat.probes import Peer, ProbeError, Probes

KINDS = ("public", "full", "cone", "symmetric", "double", "firewall", "upnp")
DIRECT_S = 5.0
"""Seconds after its first frame in which a pair should have a direct connection."""

UDP_S = 90.0
"""Patience with what comes after: TCP is tried first, and WebRTC starts a process."""

SETTLE_S = 20.0


@dataclass(frozen=True)
class Met:
    """How one node reached another.

    Args:
        first: the way that its first frame took, `direct` or `relayed`.
        first_s: seconds from nothing to that frame and back.
        direct_s: seconds from nothing to a direct connection; None if there was none within `DIRECT_S`.
    """

    first: str
    first_s: float
    direct_s: float | None

    def __str__(self) -> str:
        if self.direct_s is None:
            return f"relayed ({self.first_s:.2f})"
        return f"direct {self.direct_s:.2f}" + ("" if self.first == "direct" else f" (relayed {self.first_s:.2f})")


def host(lab: Lab, kind: str) -> Space:
    """A host behind the kind of router that the name says."""
    if kind == "double":
        return lab.host(lab.router(Nat.CONE, behind=lab.router(Nat.CONE)))
    return lab.behind(Nat.NONE if kind == "public" else Nat(kind))


async def start_relays(lab: Lab, probes: Probes, count: int = 2) -> tuple[list[Peer], list[str]]:
    """Relays with addresses of their own, and the addresses to name in `relays`."""
    relays = [await probes.start(lab.public(), relay={}) for _ in range(count)]
    return relays, [address for relay in relays for address in relay.at(relay.outside)]


async def settle(peer: Peer, relays: int = 2) -> None:
    """Wait until a node knows how it is reached, and has done about it what it can."""
    await peer.ask("until_settled", relays=relays, seconds_max=SETTLE_S, within_s=SETTLE_S + 5)


async def meet(one: Peer, other: Peer) -> Met:
    """Have `one` reach `other` with no connection between them, by the addresses that `other` advertises."""
    for end, far in ((one, other), (other, one)):
        await end.ask("drop", peer=far.peer)
        await end.ask("until_path", peer=far.peer, path="none", seconds_max=5.0)
    await one.ask("learn", peer=other.peer, addresses=await other.ask("addresses"))
    began = trio.current_time()
    first_s = await one.echo(other, within_s=10.0)
    first = "direct" if await one.ask("path", peer=other.peer) == "direct" else "relayed"
    try:
        await one.ask("until_direct", peer=other.peer, seconds_max=DIRECT_S)
    except ProbeError:
        return Met(first, first_s, None)
    return Met(first, first_s, first_s if first == "direct" else trio.current_time() - began)


async def meet_over_udp(one: Peer, other: Peer) -> str:
    """As `meet`, but with patience until WebRTC was tried, too; what became of it, in words."""
    await one.ask("learn", peer=other.peer, addresses=await other.ask("addresses"))
    began = trio.current_time()
    await one.echo(other, within_s=10.0)
    path = await other.ask("until_decided", peer=one.peer, seconds_max=UDP_S, within_s=UDP_S + 5)
    return f"{path} {trio.current_time() - began:.1f}" if path != "relayed" else path
