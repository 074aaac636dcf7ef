"""A router that opens ports for who asks: by each of three means, for more than one host, as long as they are wanted.

The router (miniupnpd) says that its address is another than it is: what counts is where others see us.
"""

from __future__ import annotations

import shutil

import pytest

from node.doors.mapping import MEANS
from tests.nat.lab import CLAIMED, PATH, Lab, Nat, Router
from tests.nat.probes import Probes
from tests.nat.world import meet, settle, start_relays

SETTLE_S = 90.0


@pytest.fixture
def gateway(lab: Lab) -> Router:
    """A router with miniupnpd."""
    if shutil.which("miniupnpd", path=PATH) is None:
        pytest.skip("no miniupnpd on this machine (Debian: miniupnpd, miniupnpd-nftables)")
    return lab.router(Nat.UPNP)


def opened(gateway: Router) -> list[str]:
    """Where the ports lead that it has opened."""
    lines = gateway.run("nft list chain inet filter prerouting_miniupnpd").splitlines()
    return sorted(line.rpartition(" to ")[2].strip() for line in lines if "dnat" in line)


@pytest.mark.parametrize("means", MEANS)
async def test_a_port_is_opened_proven_and_closed_again(lab: Lab, probes: Probes, gateway: Router, means: str) -> None:
    _, relays = await start_relays(lab, probes)
    one = await probes.start(lab.host(gateway), relays=relays, map_port=[means])
    await one.ask("until", proven=True, seconds_max=SETTLE_S, within_s=SETTLE_S + 5)
    view = await one.ask("view")
    assert view["proven"] == [f"/ip4/{gateway.outside}/tcp/4001"]
    assert view["mapping"]["by"] == means
    assert view["mapping"]["claimed"] == (None if means == "nat-pmp" else CLAIMED)
    assert opened(gateway) == [f"{one.host.address}:4001"]
    stranger = await probes.start(lab.behind(Nat.SYMMETRIC), relays=relays)
    await settle(stranger)
    met = await meet(stranger, one)
    assert met.first == "direct"
    await probes.leave(one)
    assert opened(gateway) == []


@pytest.mark.parametrize("means", ["pcp", "upnp"])
async def test_two_behind_one_router_get_a_port_each(lab: Lab, probes: Probes, gateway: Router, means: str) -> None:
    _, relays = await start_relays(lab, probes)
    ports = set()
    for number in (2, 3):
        peer = await probes.start(lab.host(gateway, number), relays=relays, map_port=[means])
        await peer.ask("until", proven=True, seconds_max=SETTLE_S, within_s=SETTLE_S + 5)
        ports.add((await peer.ask("view"))["mapping"]["port"])
    assert len(ports) == 2
    assert opened(gateway) == ["10.0.1.2:4001", "10.0.1.3:4001"]
