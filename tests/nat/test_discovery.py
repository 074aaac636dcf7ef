"""Relays without configuration: nodes that know one address to join at are reached behind any router."""

from __future__ import annotations

from contextlib import suppress

from tests.nat.lab import Lab
from tests.nat.probes import Peer, ProbeError, Probes
from tests.nat.world import host


async def _publics(lab: Lab, probes: Probes, count: int) -> tuple[list[Peer], list[str]]:
    """Relays on the open network that have joined through the first of them; where to join."""
    first = await probes.start(lab.public(), relay={}, bootstrap=[])
    join = first.at(first.outside)
    others = [await probes.start(lab.public(), relay={}, bootstrap=join) for _ in range(count - 1)]
    return [first, *others], join


async def test_a_node_that_only_joins_is_reached_behind_a_symmetric_router(lab: Lab, probes: Probes) -> None:
    """Nobody names a relay to anybody; the caller, behind such a router as well, finds the other in the DHT."""
    relays, join = await _publics(lab, probes, 2)
    one, other = [await probes.start(host(lab, "symmetric"), bootstrap=join) for _ in range(2)]
    for relay in relays:
        await relay.ask("until", proven=True, seconds_max=90.0, within_s=95)
    for guest in (one, other):
        await guest.ask("until_relays", count=2, seconds_max=90.0, within_s=95)
    assert (await other.ask("view"))["relays_configured"] == 0
    await one.ask("find", peer=other.peer, seconds_max=60.0, within_s=65)
    assert await one.echo(other, within_s=30.0) < 30.0
    assert await one.ask("path", peer=other.peer) == "relayed"


async def test_when_a_relay_that_was_found_dies_another_takes_over(lab: Lab, probes: Probes) -> None:
    relays, join = await _publics(lab, probes, 4)
    for relay in relays:
        await relay.ask("until", proven=True, seconds_max=90.0, within_s=95)
    guest = await probes.start(host(lab, "symmetric"), bootstrap=join)
    await guest.ask("until_relays", count=3, seconds_max=90.0, within_s=95)
    held = (await guest.ask("view"))["relays"]
    spare = {relay.peer for relay in relays} - set(held)
    assert len(spare) == 1
    dies = next(relay for relay in relays if relay.peer == held[0])
    await probes.stop(dies)
    await guest.ask("until_holds", relay=spare.pop(), seconds_max=120.0, within_s=125)
    assert dies.peer not in (await guest.ask("view"))["relays"]
    caller = await probes.start(host(lab, "symmetric"))
    circuits = [address for address in await guest.ask("addresses") if "p2p-circuit" in address]
    assert len(circuits) == 3
    await caller.ask("learn", peer=guest.peer, addresses=circuits[-1:])
    with suppress(ProbeError):
        await caller.echo(guest, within_s=30.0)
    assert await caller.echo(guest, within_s=30.0) < 30.0
