"""What is lost comes back: a relay that dies, an address that changes, a direct connection that breaks."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.nat.lab import Lab, Nat
from tests.nat.probes import ProbeError, Probes
from tests.nat.world import host, meet, settle, start_relays


async def test_when_a_relay_dies_the_other_takes_over(lab: Lab, probes: Probes) -> None:
    servers, relays = await start_relays(lab, probes)
    one = await probes.start(host(lab, "symmetric"), relays=relays)
    other = await probes.start(host(lab, "symmetric"), relays=relays)
    for peer in (one, other):
        await settle(peer)
    await one.ask("learn", peer=other.peer, addresses=await other.ask("addresses"))
    assert await one.echo(other) < 5.0
    for number, server in enumerate(servers):
        if number:
            await one.ask("until_relays", count=1, seconds_max=90.0, within_s=95)
        await probes.stop(server)
        if number == 0:
            with suppress(ProbeError):  # a channel that was opened while the connection died may end with it
                await one.echo(other, within_s=15.0)
            assert await one.echo(other, within_s=15.0) < 15.0
    with pytest.raises(ProbeError):
        await one.echo(other, within_s=3.0)
    await other.ask("until_relays", count=0, seconds_max=90.0, within_s=95)
    assert not any("p2p-circuit" in address for address in await other.ask("addresses"))


async def test_a_channel_over_a_relay_outlives_the_way_it_began_on(lab: Lab, probes: Probes) -> None:
    """The relayed connection is kept while anything uses it, also when new channels go directly."""
    _, relays = await start_relays(lab, probes)
    one, other = [await probes.start(host(lab, "cone"), relays=relays) for _ in range(2)]
    for peer in (one, other):
        await settle(peer)
    await one.ask("learn", peer=other.peer, addresses=await other.ask("addresses"))
    await one.ask("keep", peer=other.peer, seconds_max=5.0)
    await one.ask("until_path", peer=other.peer, path="both", seconds_max=5.0)
    assert await one.echo(other) < 5.0
    await one.ask("again", seconds_max=5.0)
    assert await one.ask("path", peer=other.peer) == "both"
    await one.ask("let_go")
    await one.ask("until_path", peer=other.peer, path="direct", seconds_max=9.0)


async def test_a_router_that_gets_another_address_is_noticed(lab: Lab, probes: Probes) -> None:
    _, relays = await start_relays(lab, probes)
    router = lab.router(Nat.CONE)
    one = await probes.start(lab.host(router), relays=relays)
    other = await probes.start(host(lab, "cone"), relays=relays)
    for peer in (one, other):
        await settle(peer)
    assert (await meet(one, other)).direct_s is not None
    lab.renumber(router)
    await one.ask("learn", peer=other.peer, addresses=await other.ask("addresses"))
    assert await one.echo(other, within_s=20.0) < 20.0
    seen = f"/ip4/{router.address}/tcp/4001"
    await one.ask("until", seen=seen, seconds_max=60.0, within_s=65)
    assert (await meet(one, other)).direct_s is not None


async def test_a_relay_gives_each_address_its_share_and_no_more(lab: Lab, probes: Probes) -> None:
    """Two guests behind one router, where the relay lets in one of each address."""
    relay = await probes.start(lab.public(), relay={"reservations_per_ip_max": 1})
    at = relay.at(relay.outside)
    guest = await probes.start(host(lab, "cone"), relays=at)
    await guest.ask("until_relays", count=1, seconds_max=90.0, within_s=95)
    second = await probes.start(guest.host, relays=at, listen=["/ip4/0.0.0.0/tcp/4002"])
    await second.ask("until", peers_direct=1, seconds_max=90.0, within_s=95)
    elsewhere = await probes.start(host(lab, "cone"), relays=at)
    await elsewhere.ask("until_relays", count=1, seconds_max=90.0, within_s=95)
    assert (await second.ask("view"))["relays"] == []
    assert (await relay.ask("view"))["relaying"]["reservations"] == 2
