"""Worlds without IPv4, and with both: the check, relays and hole punching work in either version of IP.

A home's IPv6 router translates nothing and lets in only what was asked for, so TCP is punched through two of them.
"""

from __future__ import annotations

from tests.nat.lab import Lab, Nat
from tests.nat.probes import PORT, Peer, Probes
from tests.nat.world import meet

V6, BOTH = [f"/ip6/::/tcp/{PORT}"], [f"/ip4/0.0.0.0/tcp/{PORT}", f"/ip6/::/tcp/{PORT}"]
PATIENCE_S = 90.0


def at6(peer: Peer) -> str:
    """Its IPv6 address as others dial it."""
    return f"/ip6/{peer.host.addresses[-1]}/tcp/{PORT}/p2p/{peer.peer}"


async def settle(peer: Peer) -> None:
    """Wait as `tests.nat.world.settle`, as long as it takes."""
    await peer.ask("until_settled", relays=2, seconds_max=PATIENCE_S, within_s=PATIENCE_S + 5)


async def gets_direct(one: Peer, other: Peer) -> bool:
    """Whether a direct connection comes of it; three tries, for a busy machine may miss the moment of one."""
    for _ in range(3):
        if (await meet(one, other)).direct_s is not None:
            return True
    return False


async def test_without_ipv4_nodes_behind_firewalls_are_relayed_and_then_direct(lab: Lab, probes: Probes) -> None:
    servers = [await probes.start(lab.public6(), relay={}, listen=V6) for _ in range(2)]
    relays = [at6(server) for server in servers]
    one, other = [await probes.start(lab.behind6(), relays=relays, listen=V6) for _ in range(2)]
    public = await probes.start(lab.public6(), relays=relays, listen=V6)
    for peer in (one, other, public):
        await settle(peer)
    view = await one.ask("view")
    assert view["proven"] == []
    assert view["seen"] == f"/ip6/{one.host.addresses[-1]}/tcp/{PORT}"
    assert (await public.ask("view"))["proven"] == [f"/ip6/{public.host.addresses[-1]}/tcp/{PORT}"]
    assert await gets_direct(one, other)
    assert (await meet(one, public)).first == "direct"
    assert await gets_direct(public, one)


async def test_with_both_each_is_used_and_either_alone_suffices(lab: Lab, probes: Probes) -> None:
    servers = [await probes.start(lab.public6(dual=True), relay={}, listen=BOTH) for _ in range(2)]
    over4 = [f"/ip4/{server.host.addresses[0]}/tcp/{PORT}/p2p/{server.peer}" for server in servers]
    over6 = [at6(server) for server in servers]
    dual4 = await probes.start(lab.behind6(dual=True), relays=over4, listen=BOTH)
    dual6 = await probes.start(lab.behind6(dual=True), relays=over6, listen=BOTH)
    only4 = await probes.start(lab.behind(Nat.CONE), relays=over4)
    only6 = await probes.start(lab.behind6(), relays=over6, listen=V6)
    for peer in (dual4, dual6, only4, only6):  # nobody judges what they have in the version that no server is met over
        await peer.ask("until", seen=True, seconds_max=PATIENCE_S, within_s=PATIENCE_S + 5)
        await peer.ask("until_relays", count=2, seconds_max=PATIENCE_S, within_s=PATIENCE_S + 5)
    for name, one, far in (("4", only4, dual4), ("6", only6, dual6), ("6, back", dual6, only6)):
        assert await gets_direct(one, far), f"IPv{name}"
    # an address that swallows what is sent to it does not keep the other version from being used
    swallowing = f"/ip6/2001:db8::dead/tcp/{PORT}/p2p/{servers[0].peer}"
    await dual4.ask("drop", peer=servers[0].peer)
    await dual4.ask("learn", peer=servers[0].peer, addresses=[swallowing, over4[0]])
    assert await dual4.echo(servers[0], within_s=PATIENCE_S) < PATIENCE_S
