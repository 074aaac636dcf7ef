"""Nodes behind every kind of router reach each other, directly within seconds wherever TCP can be punched through."""

from __future__ import annotations

from tests.nat.lab import Lab
from tests.nat.probes import Probes
from tests.nat.world import DIRECT_S, host, meet, settle, start_relays

DIRECT = [("symmetric", "full"), ("full", "symmetric"), ("full", "cone"), ("cone", "double"), ("firewall", "cone")]
RELAYED = [("cone", "symmetric"), ("symmetric", "cone")]
"""A symmetric router's next port is anybody's guess, and a cone lets in only the port that was dialled."""


async def test_every_pair_connects_and_most_are_direct_within_seconds(lab: Lab, probes: Probes) -> None:
    _, relays = await start_relays(lab, probes)
    kinds = dict.fromkeys(kind for pair in (*DIRECT, *RELAYED) for kind in pair)
    peers = {kind: await probes.start(host(lab, kind), relays=relays) for kind in kinds}
    for peer in peers.values():
        await settle(peer)
    views = {kind: await peer.ask("view") for kind, peer in peers.items()}
    assert {kind: view["nat"] for kind, view in views.items()} == {
        "symmetric": "symmetric",
        "full": "cone",
        "cone": "cone",
        "double": "cone",
        "firewall": "none",
    }
    assert {kind for kind, view in views.items() if view["proven"]} == {"full"}
    for one, other in DIRECT:
        met = await meet(peers[one], peers[other])
        assert met.direct_s is not None, f"{one} x {other} stayed relayed"
        assert met.direct_s <= DIRECT_S
    for one, other in RELAYED:
        met = await meet(peers[one], peers[other])
        assert (met.first, met.direct_s) == ("relayed", None)
        assert await peers[one].ask("bulk", peer=peers[other].peer, megabytes=3, seconds_max=20.0, within_s=25) < 20


async def test_two_cones_dial_each_other_through_their_routers(lab: Lab, probes: Probes) -> None:
    """The relayed connection is there first, stays until the direct one is used, and then goes."""
    _, relays = await start_relays(lab, probes)
    one, other = [await probes.start(host(lab, "cone"), relays=relays) for _ in range(2)]
    for peer in (one, other):
        await settle(peer)
    met = await meet(one, other)
    assert met.direct_s is not None
    assert met.direct_s <= DIRECT_S
    await one.ask("until_path", peer=other.peer, path="direct", seconds_max=90.0, within_s=95)
    assert await other.echo(one) < 5.0
    assert await other.ask("path", peer=one.peer) == "direct"
