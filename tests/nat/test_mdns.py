"""Hosts on one local network find each other with nobody to introduce them; those on another one do not."""

from __future__ import annotations

import trio

from tests.interop.js import installed, running
from tests.nat.lab import Lab, Nat
from tests.nat.probes import PORT, Probes

PATIENCE_S = 90.0
INSTALL_S = 300.0


async def test_two_without_any_address_find_each_other_and_talk(lab: Lab, probes: Probes) -> None:
    router = lab.router(Nat.CONE)
    one, other = [await probes.start(lab.host(router, number), mdns=True) for number in (2, 3)]
    stranger = await probes.start(lab.behind(Nat.CONE), mdns=True)
    for peer, far in ((one, other), (other, one)):
        found = await peer.ask("until_neighbours", count=1, seconds_max=PATIENCE_S, within_s=PATIENCE_S + 5)
        assert found == {far.peer: [f"/ip4/{far.host.address}/tcp/{PORT}/p2p/{far.peer}"]}
    assert await one.echo(other, within_s=PATIENCE_S) < PATIENCE_S
    assert await stranger.ask("until_neighbours", count=0, seconds_max=1.0) == {}


async def test_nothing_is_told_on_a_public_network(lab: Lab, probes: Probes) -> None:
    one, other = [await probes.start(lab.public(), mdns=True) for _ in range(2)]
    heard = one.host.run("ss -Hunl sport = :5353 || true")
    assert heard == ""
    for peer in (one, other):
        assert await peer.ask("until_neighbours", count=0, seconds_max=1.0) == {}


async def test_js_libp2p_and_we_find_each_other(lab: Lab, probes: Probes) -> None:
    with trio.fail_after(INSTALL_S + PATIENCE_S):
        await trio.to_thread.run_sync(installed)
        router = lab.router(Nat.CONE)
        ours = await probes.start(lab.host(router, 2), mdns=True)
        theirs = lab.host(router, 3)
        async with running("mdns.mjs", "/ip4/0.0.0.0/tcp/4001", within=theirs.command) as js:
            peer = (await js.heard("peer"))["peer"]
            found = await ours.ask("until_neighbours", count=1, seconds_max=PATIENCE_S, within_s=PATIENCE_S + 5)
            assert found == {peer: [f"/ip4/{theirs.address}/tcp/4001/p2p/{peer}"]}
            said = await js.heard("discovered", ours.peer)
            assert said["at"] == [f"/ip4/{ours.host.address}/tcp/{PORT}"]
