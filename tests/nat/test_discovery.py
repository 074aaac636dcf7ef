"""Relays without configuration: nodes that know one address to join at are reached behind any router."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from tests.nat.lab import Lab, Space
from tests.nat.probes import ROOT, Peer, ProbeError, Probes
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


@asynccontextmanager
async def _quorate(host: Space, *arguments: str) -> AsyncIterator[None]:
    """A whole node, as its owner starts it, for as long as the scope lasts."""
    command = host.command(sys.executable, "-m", "node", *arguments, "--listen", "/ip4/0.0.0.0/tcp/4001", "--log-json")
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        yield
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _said(host: Space, *arguments: str) -> str:
    """What a command prints that is run on a host, whatever its exit status."""
    command = host.command(sys.executable, "-m", "node", *arguments)
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL, check=False, cwd=ROOT)
    return done.stdout.decode()


async def _doctor(host: Space, home: str, name: str, beginning: str) -> None:
    """Wait until `quorate doctor network` finds that under a name."""
    with trio.fail_after(180):
        while True:
            said = await _said(host, "doctor", "network", "--json", "--home", home)
            findings = {check["name"]: check["finding"] for check in json.loads(said)} if said else {}
            if findings.get(name, "").startswith(beginning):
                return
            await trio.sleep(0.5)


async def test_whole_nodes_need_one_address_to_join_and_no_more(lab: Lab, tmp_path: Path) -> None:
    """`quorate relay` twice on the open network; `quorate up --bootstrap ADDRESS` behind a symmetric router."""
    first, second, guest = lab.public(), lab.public(), host(lab, "symmetric")
    one, two, mine = (str(tmp_path / name) for name in ("one", "two", "mine"))
    join = f"/ip4/{first.address}/tcp/4001/p2p/{(await _said(first, 'id', 'show', '--home', one)).strip()}"
    async with (
        _quorate(first, "relay", "--home", one),
        _quorate(second, "relay", "--home", two, "--bootstrap", join),
        _quorate(guest, "up", "--no-serve", "--home", mine, "--bootstrap", join),
    ):
        await _doctor(guest, mine, "relays", "2 let callers in; 0 named")
        await _doctor(guest, mine, "reachable", "through 2 relays")
        await _doctor(first, one, "relaying", "1 of 128 reservations")
