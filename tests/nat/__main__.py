"""How nodes behind any two kinds of router reach each other: `python -m tests.nat` measures it and prints the table.

With `--udp` it measures what becomes of the pairs that TCP leaves on the relay where both speak WebRTC.

Rows dial columns. `direct 0.05` is the time from nothing to a direct connection and a frame over it, in seconds;
`(relayed 0.30)` says that a frame got through a relay before, and when.
"""

from __future__ import annotations

import sys

import trio

from node.doors.mapping import MEANS
from tests.nat.lab import obstacle, open_lab
from tests.nat.probes import Probes
from tests.nat.world import KINDS, host, meet, meet_over_udp, settle, start_relays


async def main() -> None:
    """Two nodes of each kind; every ordered pair."""
    probes = Probes()
    with open_lab() as lab:
        try:
            _, relays = await start_relays(lab, probes)
            rows = {kind: await probes.start(host(lab, kind), relays=relays, map_port=list(MEANS)) for kind in KINDS}
            columns = {kind: await probes.start(host(lab, kind), relays=relays, map_port=list(MEANS)) for kind in KINDS}
            for peer in (*rows.values(), *columns.values()):
                await settle(peer)
            print(f"| from \\ to | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}", flush=True)
            for kind, one in rows.items():
                met = [str(await meet(one, other)) for other in columns.values()]
                print(f"| {kind} | {' | '.join(met)} |", flush=True)
        finally:
            await probes.stop_all()


UDP_PAIRS = (
    ("refusing", "refusing"),
    ("refusing", "cone"),
    ("symmetric", "refusing"),
    ("symmetric", "cone"),
    ("symmetric", "symmetric"),
    ("symmetric", "double"),
    ("symmetric", "firewall"),
)


async def over_udp() -> None:
    """Each pair once, with WebRTC on both sides."""
    probes = Probes()
    with open_lab() as lab:
        try:
            _, relays = await start_relays(lab, probes)
            print("| from | to | what became of it |\n|---|---|---|", flush=True)
            for kinds in UDP_PAIRS:
                one, other = [await probes.start(host(lab, kind), relays=relays, webrtc=True) for kind in kinds]
                for peer in (one, other):
                    await settle(peer)
                print(f"| {kinds[0]} | {kinds[1]} | {await meet_over_udp(one, other)} |", flush=True)
                for peer in (one, other):
                    await probes.stop(peer)
        finally:
            await probes.stop_all()


if __name__ == "__main__":
    if (why := obstacle()) is not None:
        sys.exit(why)
    trio.run(over_udp if "--udp" in sys.argv[1:] else main)
