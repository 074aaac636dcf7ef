"""What a neighbour feels of an attack, as JSON lines: `make bench AREA=network_attacks [ARGS="--quick|--only NAME"]`.

Three processes on loopback: the node under attack, an honest peer that makes one small call after the other on a
connection that stands, and the attacker (`benchmarks.peers_hostile`). He runs on the lowest priority (`--nice 19`), so
that he takes no processor from the other two but what his victim spends on him. For each attack the honest peer
measures in turns with and without it; `value` is the 99th percentile of a call's time under attack, `peer_value` the
one without in the same run, and `ratio` what the project bounds by 2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import quantiles
from time import perf_counter, process_time

import trio

from benchmarks.line import show
from benchmarks.network import rss_kb
from benchmarks.peers_hostile import ATTACKS, ECHO, IDLE
from node.rpc.node import RpcNode, open_rpc
from node.transport_libp2p import open_transport
from wire.codec import Wire
from wire.errors import RemoteError
from wire.peer import PeerId, from_text
from wire.rpc.seam import Method
from wire.transport import Channel

SETTLE_S = 0.5
"""Between the start of an attack and the first call that counts: its connections stand by then."""

TURNS = 3


class Load(Wire, frozen=True):
    """What is sent and comes back."""

    data: bytes


CALL = Method("bench.echo", Load, Load)


async def serve() -> None:
    """The node under attack; answers a line with its processor time and memory."""

    def blame(_error: RemoteError) -> None:
        """The attacker's faults are expected."""

    async def call(_peer: PeerId, load: Load) -> Load:
        return load

    async def echo(channel: Channel) -> None:
        while True:
            await channel.send(await channel.receive())

    async def idle(_channel: Channel) -> None:
        await trio.sleep_forever()

    async with open_transport(b"v" * 32, blame=blame) as transport, open_rpc(transport, blame=blame) as rpc:
        rpc.serve(CALL, call)
        transport.serve(ECHO, echo)
        transport.serve(IDLE, idle)
        print(transport.addresses()[0], flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            print(json.dumps({"cpu_s": process_time(), "rss_kb": rss_kb()}), flush=True)


class Child:
    """A process that is asked by lines."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def line(self) -> str:
        """The next that it says."""
        return self._out.readline()

    def usage(self) -> dict[str, float]:
        """Processor time and memory."""
        self._in.write("\n")
        self._in.flush()
        found: dict[str, float] = json.loads(self.line())
        return found

    def stop(self) -> str:
        """End its input, and wait; the last that it said."""
        self._in.close()
        last = self._out.read()
        self._process.wait()
        self._out.close()
        return last


async def times_ms(rpc: RpcNode, peer: PeerId, calls: int) -> list[float]:
    """How long each of so many calls took, one after the other."""
    found = []
    load = Load(bytes(128))
    for _ in range(calls):
        began = perf_counter()
        await rpc.call(peer, CALL, load, timeout_s=120.0)
        found.append(1000 * (perf_counter() - began))
    return found


def p99(times: list[float]) -> float:
    """The 99th percentile."""
    return quantiles(times, n=100)[98]


async def attacked(rpc: RpcNode, address: str, name: str, calls: int, nice: int, victim: Child) -> None:
    """Measure one attack, and print it."""
    peer = from_text(address.rpartition("/p2p/")[2])
    quiet: list[float] = []
    under: list[float] = []
    struck: list[dict[str, float]] = []
    spent_s = wall_s = 0.0
    most_kb = before_kb = victim.usage()["rss_kb"]
    for _ in range(TURNS):
        quiet += await times_ms(rpc, peer, calls)
        attacker = Child("benchmarks.peers_hostile", name, address, str(nice))
        attacker.line()
        await trio.sleep(SETTLE_S)
        began, before_s = perf_counter(), victim.usage()["cpu_s"]
        under += await times_ms(rpc, peer, calls)
        usage = victim.usage()
        wall_s += perf_counter() - began
        spent_s += usage["cpu_s"] - before_s
        most_kb = max(most_kb, usage["rss_kb"])
        struck.append(json.loads(attacker.stop()))
    rate = sum(each["strikes_per_s"] for each in struck) / TURNS
    share = sum(each["cpu_share"] for each in struck) / TURNS
    note = (
        f"median {sorted(quiet)[len(quiet) // 2]:.2f} -> {sorted(under)[len(under) // 2]:.2f} ms; {rate:.0f} strikes/s;"
        f" processor: victim {100 * spent_s / wall_s:.0f} %, attacker {100 * share:.0f} %;"
        f" victim's memory +{(most_kb - before_kb) / 1024:.1f} MiB"
    )
    name = f"network.attack.{name}_p99_ms"
    show(name, p99(under), "ms", better="lower", peer="without it", peer_value=p99(quiet), note=note)


async def measure(address: str, victim: Child, names: list[str], calls: int, nice: int) -> None:
    """All attacks, on one connection."""
    peer = from_text(address.rpartition("/p2p/")[2])
    async with (
        open_transport(b"n" * 32, listen=[], blame=print) as transport,
        open_rpc(transport, blame=print) as rpc,
    ):
        transport.learn(peer, [address])
        await times_ms(rpc, peer, 200)
        for name in names:
            await attacked(rpc, address, name, calls, nice, victim)


def main() -> None:
    """Start the node and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--only", choices=list(ATTACKS))
    parser.add_argument("--nice", type=int, default=19, help="how far the attacker stands back from the processor")
    options = parser.parse_args()
    if options.serve:
        trio.run(serve)
        return
    victim = Child("benchmarks.network_attacks", "--serve")
    try:
        address = victim.line().strip()
        names = [options.only] if options.only else list(ATTACKS)
        trio.run(measure, address, victim, names, 300 if options.quick else 1500, options.nice)
    finally:
        victim.stop()


if __name__ == "__main__":
    main()
