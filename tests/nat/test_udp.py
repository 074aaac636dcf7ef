"""Over UDP, where TCP cannot be punched through: routers that refuse what they did not expect."""

from __future__ import annotations

from tests.nat.lab import Lab, Nat
from tests.nat.probes import Probes
from tests.nat.world import UDP_S, meet, settle, start_relays


async def test_two_routers_that_refuse_tcp_are_crossed_over_udp(lab: Lab, probes: Probes) -> None:
    """The relayed connection is there first, stays until WebRTC stands, and then goes; new channels are direct."""
    _, relays = await start_relays(lab, probes)
    one, other = [await probes.start(lab.behind(Nat.REFUSING), relays=relays, webrtc=True) for _ in range(2)]
    for peer in (one, other):
        await settle(peer)
    met = await meet(one, other)
    assert met.first == "relayed"
    if met.direct_s is None:  # two SYNs now and then miss both refusals, and TCP gets through
        await one.ask("until_udp", peer=other.peer, seconds_max=UDP_S, within_s=UDP_S + 5)
    await one.ask("until_path", peer=other.peer, path="direct", seconds_max=90.0, within_s=95)
    assert await one.ask("bulk", peer=other.peer, megabytes=1, seconds_max=60.0, within_s=65) < 60
    assert await other.echo(one) < 5.0


async def test_a_symmetric_router_and_a_cone_stay_on_the_relay_over_udp_too(lab: Lab, probes: Probes) -> None:
    """WebRTC is tried, fails, and leaves the relayed connection as it was."""
    _, relays = await start_relays(lab, probes)
    one = await probes.start(lab.behind(Nat.CONE), relays=relays, webrtc=True)
    other = await probes.start(lab.behind(Nat.SYMMETRIC), relays=relays, webrtc=True)
    for peer in (one, other):
        await settle(peer)
    met = await meet(one, other)
    assert (met.first, met.direct_s) == ("relayed", None)
    await other.ask("until_tried", peer=one.peer, seconds_max=UDP_S, within_s=UDP_S + 5)
    assert await one.ask("path", peer=other.peer) == "relayed"
    assert await one.echo(other) < 5.0
