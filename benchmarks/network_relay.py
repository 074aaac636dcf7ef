"""Through one relay, as JSON lines: `make bench AREA=network_relay [ARGS=--quick]`.

Three processes on loopback: the relay, its guest that echoes, and the caller, who knows the guest by its circuit
address alone. The same frames go to the guest directly in turns in the same run: a line's ratio is the relay's price.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median, quantiles
from typing import Any

import trio

from benchmarks.line import show
from benchmarks.network import ECHO, SINK, bulk_mb_s, call, echo, nobody, sink, times_ms
from node.reach.quota import Limits
from node.reach.service import open_reach
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.peer import PeerId, from_text, to_text


async def serve(seed: str, relays: list[str]) -> None:
    """The relay, or its guest."""
    limits = None if relays else Limits(circuit_bytes_max=1 << 40)
    async with (
        open_transport(seed.encode() * 32, blame=nobody) as transport,
        open_reach(transport, relays=relays, limits=limits, blame=nobody) as reach,
    ):
        transport.serve(ECHO, echo)
        transport.serve(SINK, sink)
        while relays and not reach.circuits.held:  # noqa: ASYNC110 - the library has no event for it
            await trio.sleep(0.01)
        print(json.dumps({"peer": to_text(transport.peer), "addresses": transport.addresses()}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


class Node:
    """Such a process."""

    def __init__(self, seed: str, *relays: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.network_relay", "--serve", seed, *relays],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        hello: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.peer, self.addresses = from_text(hello["peer"]), list(hello["addresses"])

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


async def frames(transport: Libp2pTransport, peer: PeerId, scale: int) -> dict[str, float]:
    """What one way to the guest gives."""
    channel = await transport.open(peer, ECHO)

    async def again() -> None:
        await channel.send(bytes(128))
        await channel.receive()

    kept = await times_ms(200 * scale, again)
    await channel.aclose()
    new = await times_ms(50 * scale, lambda: call(transport, peer, bytes(128)))
    return {
        "network.relay_rtt_ms": median(kept),
        "network.relay_rtt_p99_ms": quantiles(kept, n=100)[98],
        "network.relay_rtt_new_ms": median(new),
        "network.relay_mb_s": await bulk_mb_s(transport, peer, 16 * scale),
    }


async def measure(guest: Node, relay: Node, rounds: int, scale: int) -> None:
    """Both ways in turns; medians over rounds."""
    ways = (
        [a for a in guest.addresses if "/p2p-circuit" in a],
        [a for a in guest.addresses if "/p2p-circuit" not in a],
    )
    found: list[list[dict[str, float]]] = [[], []]
    for number in range(rounds):
        for way, into in zip(ways, found, strict=True):
            seed = bytes([number + 1, len(into), *bytes(29), way is ways[0]])
            async with (
                open_transport(seed, listen=[], blame=nobody) as transport,
                open_reach(transport, blame=nobody),
            ):
                transport.learn(guest.peer, way)
                into.append(await frames(transport, guest.peer, scale))
    for name in found[0][0]:
        relayed, direct = (median([each[name] for each in side]) for side in found)
        unit = "MB/s" if name.endswith("mb_s") else "ms"
        better = "higher" if unit == "MB/s" else "lower"
        show(name, relayed, unit, better=better, peer="directly", peer_value=direct)  # type: ignore[arg-type] # one of both


def main() -> None:
    """Start relay and guest, and measure."""
    if sys.argv[1:2] == ["--serve"]:
        trio.run(serve, sys.argv[2], sys.argv[3:])
        return
    quick = "--quick" in sys.argv
    relay = Node("r")
    guest = Node("g", *relay.addresses[:1])
    try:
        trio.run(measure, guest, relay, 2 if quick else 5, 1 if quick else 5)
    finally:
        guest.stop()
        relay.stop()


if __name__ == "__main__":
    main()
