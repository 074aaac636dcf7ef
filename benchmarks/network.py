"""Figures of the transport, as JSON lines: `python -m benchmarks.network [--quick] [--connections]`.

Two processes on loopback, the same programs on our own session and muxer and on py-libp2p's (both with our limits),
in turns in one run; every line compares the two. Lattica and hivemind, whose calls are RPCs, are measured beside them
(`benchmarks.peers_lattica`, `benchmarks.peers_hivemind`) where they install. Figures are medians over rounds; `rpc`
figures are calls per second with 64 under way on one channel (`framed`), or 44 on a stream each (`streams`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Literal

import trio

from benchmarks.line import show
from benchmarks.peers import PeerMissing
from benchmarks.peers_hivemind import hivemind_figures
from benchmarks.peers_lattica import lattica_figures
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.errors import ChannelClosed, RemoteError
from wire.limits import CHANNELS_PER_PEER_MAX
from wire.peer import PeerId, from_text, to_text
from wire.transport import Channel

ECHO, SINK = "/quorate/bench/echo/1", "/quorate/bench/sink/1"
IN_FLIGHT = 64
STREAMS_IN_FLIGHT = CHANNELS_PER_PEER_MAX
CONNECTIONS = (1, 10, 50, 100, 250, 500)
"""How many stand at once in `--connections`; a node takes 512."""

FRAME = bytes(1 << 20)
Quantities = dict[str, float]


def nobody(error: RemoteError) -> None:
    """No side misbehaves here."""
    raise AssertionError(str(error))


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        await channel.send(await channel.receive())


async def sink(channel: Channel) -> None:
    """Take frames until one is empty, then say so."""
    while await channel.receive():
        pass
    await channel.send(b"done")


async def serve(fast: bool) -> None:
    """The second process: serves until its standard input ends; answers a line with its memory and CPU time."""
    async with open_transport(b"s" * 32, blame=nobody, fast_path=fast) as transport:
        transport.serve(ECHO, echo)
        transport.serve(SINK, sink)
        print(json.dumps({"peer": to_text(transport.peer), "addresses": transport.addresses()}), flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            standing = len(transport.connected())
            print(json.dumps({"rss_kb": rss_kb(), "cpu_s": process_time(), "connections": standing}), flush=True)


def rss_kb() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


class Server:
    """The second process, as seen from the first."""

    def __init__(self, fast: bool) -> None:
        self.fast = fast
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.network", "--serve", "fast" if fast else "stock"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        hello = self._line()
        self.peer, self.addresses = from_text(str(hello["peer"])), hello["addresses"]

    def _line(self) -> dict[str, list[str]]:
        assert self._process.stdout is not None
        found: dict[str, list[str]] = json.loads(self._process.stdout.readline())
        return found

    def usage(self) -> dict[str, float]:
        """Memory in KiB and CPU seconds of the process."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return {name: float(value) for name, value in self._line().items()}  # type: ignore[arg-type] # numbers here

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@asynccontextmanager
async def client(server: Server, seed: int = 0) -> AsyncIterator[Libp2pTransport]:
    """A transport that knows the server."""
    identity = bytes([99]) + seed.to_bytes(31, "big")
    async with open_transport(identity, listen=[], blame=nobody, fast_path=server.fast) as transport:
        transport.learn(server.peer, server.addresses)
        yield transport


async def call(transport: Libp2pTransport, peer: PeerId, payload: bytes) -> None:
    """One request on a channel of its own."""
    channel = await transport.open(peer, ECHO)
    await channel.send(payload)
    await channel.receive()
    await channel.aclose()


async def times_ms(count: int, work: Callable[[], Awaitable[None]]) -> list[float]:
    """How long each of `count` runs took."""
    found = []
    for _ in range(count):
        began = perf_counter()
        await work()
        found.append(1000 * (perf_counter() - began))
    return found


async def rate_streams(transport: Libp2pTransport, peer: PeerId, size: int, count: int) -> float:
    """Calls per second, each on a stream of its own, `STREAMS_IN_FLIGHT` (all that a peer may open) at once."""
    payload, left = bytes(size), count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call(transport, peer, payload)

    began = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS_IN_FLIGHT):
            nursery.start_soon(work)
    return count / (perf_counter() - began)


async def rate_framed(transport: Libp2pTransport, peer: PeerId, size: int, count: int) -> float:
    """Echoed frames per second on one channel, `IN_FLIGHT` of them under way."""
    payload, room = bytes(size), trio.Semaphore(IN_FLIGHT)
    channel = await transport.open(peer, ECHO)

    async def send() -> None:
        for _ in range(count):
            await room.acquire()
            await channel.send(payload)

    began = perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for _ in range(count):
            await channel.receive()
            room.release()
    rate = count / (perf_counter() - began)
    await channel.aclose()
    return rate


async def bulk_mb_s(transport: Libp2pTransport, peer: PeerId, frames: int) -> float:
    """One way, in frames of 1 MiB."""
    channel = await transport.open(peer, SINK)
    began = perf_counter()
    for _ in range(frames):
        await channel.send(FRAME)
    await channel.send(b"")
    await channel.receive()
    rate = frames * len(FRAME) / 1e6 / (perf_counter() - began)
    await channel.aclose()
    return rate


async def with_cpu(server: Server, name: str, calls: int, work: Awaitable[float]) -> Quantities:
    """A rate, and the CPU time of both processes for one call (of bulk: for one MiB), which other load changes less."""
    before, began = server.usage()["cpu_s"], process_time()
    rate = await work
    spent = process_time() - began + server.usage()["cpu_s"] - before
    return {name: rate, f"{name.removesuffix('_mb_s')}.cpu_us": 1e6 * spent / calls}


async def round_of(server: Server, scale: int) -> Quantities:
    """One round of everything but connections, on one connection."""
    async with client(server) as transport:
        peer = server.peer
        new = await times_ms(100 * scale, lambda: call(transport, peer, bytes(128)))
        channel = await transport.open(peer, ECHO)

        async def again() -> None:
            await channel.send(bytes(128))
            await channel.receive()

        kept = await times_ms(200 * scale, again)
        await channel.aclose()
        found = {
            "network.rtt_new_ms": median(new),
            "network.rtt_new_p99_ms": quantiles(new, n=100)[98],
            "network.rtt_ms": median(kept),
            "network.rtt_p99_ms": quantiles(kept, n=100)[98],
        }
        for label, size, few, many in (("rpc_128", 128, 500, 2000), ("rpc_256k", 256 << 10, 60, 60)):
            streams, framed = few * scale, many * scale
            work = rate_streams(transport, peer, size, streams)
            found |= await with_cpu(server, f"network.{label}.streams", streams, work)
            found |= await with_cpu(
                server, f"network.{label}.framed", framed, rate_framed(transport, peer, size, framed)
            )
        frames = 32 * scale
        return found | await with_cpu(server, "network.bulk_mb_s", frames, bulk_mb_s(transport, peer, frames))


async def connections(server: Server, count: int, idle_s: float) -> Quantities:
    """Dialling, and what standing connections cost the server."""
    before = server.usage()
    connects = []
    release = trio.Event()

    async def stand(seed: int, task_status: trio.TaskStatus[float]) -> None:
        async with client(server, seed) as transport:
            began = perf_counter()
            channel = await transport.open(server.peer, ECHO)
            task_status.started(1000 * (perf_counter() - began))
            await release.wait()
            try:
                await channel.aclose()
            except ChannelClosed:
                return

    async with trio.open_nursery() as nursery:
        for seed in range(1, count + 1):
            connects.append(await nursery.start(stand, seed))
        standing = server.usage()
        await trio.sleep(idle_s)
        after = server.usage()
        release.set()
    return {
        "network.connect_ms": median(connects),
        "network.rss_mb": before["rss_kb"] / 1024,
        "network.per_conn_kb": (standing["rss_kb"] - before["rss_kb"]) / count,
        "network.idle_cpu_pct": 100 * (after["cpu_s"] - standing["cpu_s"]) / idle_s,
    }


async def curve(server: Server, counts: Sequence[int]) -> list[Quantities]:
    """What so many connections that stand cost the server, each from a transport of its own; one after the other."""
    found = []
    for count in counts:
        found.append(await connections(server, count, 2.0))
        while server.usage()["connections"]:  # noqa: ASYNC110 - the last ones are gone when it says so
            await trio.sleep(0.1)
    return found


UNITS = {"_us": "us", "_ms": "ms", "_mb_s": "MB/s", "_mb": "MB", "_kb": "KiB", "_pct": "%"}


def unit_of(name: str) -> str:
    """The unit at the end of a figure's name; calls per second elsewhere."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "calls/s")


def better(name: str) -> Literal["higher", "lower"]:
    """Which way a figure is better."""
    return "higher" if unit_of(name) in ("calls/s", "MB/s") else "lower"


async def measure(rounds: int, scale: int, idle_s: float) -> list[Quantities]:
    """Medians of our own and of the stock filling, measured in turns."""
    found: list[list[Quantities]] = [[], []]
    servers = [Server(True), Server(False)]
    try:
        for server, into in zip(servers, found, strict=True):
            into.append(await connections(server, 10 * scale, idle_s))
        for _ in range(rounds):
            for server, into in zip(servers, found, strict=True):
                into.append(await round_of(server, scale))
    finally:
        for server in servers:
            server.stop()
    names = {name for each in found[0] for name in each}
    return [{name: median([each[name] for each in side if name in each]) for name in names} for side in found]


def show_curve(counts: Sequence[int]) -> None:
    """Print what connections cost, ours beside py-libp2p's."""
    sides = []
    for fast in (True, False):
        server = Server(fast)
        try:
            sides.append(trio.run(curve, server, counts))
        finally:
            server.stop()
    for count, ours, stock in zip(counts, *sides, strict=True):
        for name in ours:
            label = name.replace("network.", f"network.connections.{count}.")
            show(label, ours[name], unit_of(name), better=better(name), peer="py-libp2p 0.8.1", peer_value=stock[name])


def main() -> None:
    """Print every figure against py-libp2p's session and muxer, and against others where they install."""
    if sys.argv[1:2] == ["--serve"]:
        trio.run(serve, sys.argv[2] == "fast")
        return
    quick = "--quick" in sys.argv
    if "--connections" in sys.argv:
        show_curve([1, 10, 100] if quick else CONNECTIONS)
        return
    ours, stock = trio.run(measure, 1 if quick else 5, 1 if quick else 5, 2.0 if quick else 10.0)
    for name in sorted(ours):
        show(name, ours[name], unit_of(name), better=better(name), peer="py-libp2p 0.8.1", peer_value=stock[name])
    for peer, measured in (("lattica 1.0.21", lattica_figures), ("hivemind 1.1.12", hivemind_figures)):
        try:
            theirs = measured(quick)
        except PeerMissing as exc:
            name = "network.rtt_ms"
            show(name, ours[name], unit_of(name), better=better(name), peer=peer, error=str(exc)[:200])
            continue
        for name, value in sorted(theirs.items()):
            show(name, ours[name], unit_of(name), better=better(name), peer=peer, peer_value=value)


if __name__ == "__main__":
    main()
