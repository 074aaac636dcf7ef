"""Calls between two processes on loopback: `node.rpc` against one stream per request (`wire.call`), in the same run.

    make bench AREA=network_rpc ARGS=--quick
    python -m benchmarks.network_rpc --profile [caller|server] [--size 262144]

Payloads up to 16 KiB are a field of the struct; longer ones are a tensor beside it (`wire.call` has the field alone).
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import numpy as np
import trio

from benchmarks.line import show
from node.rpc.node import RpcNode, open_rpc
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.call import answer_calls, call
from wire.codec import Wire
from wire.errors import ChannelClosed
from wire.peer import PeerId, from_text
from wire.rpc.packet import Packet
from wire.rpc.seam import Method

PER_STREAM = "/bench/echo/1"
IN_FLIGHT = 64
PER_STREAM_IN_FLIGHT = 16
"""Of at most 64 channels per peer: the rest are still being closed. A stream that is reset for that is tried again."""
FIELD_BYTES_MAX = 16 << 10
PAYLOADS = (128, 1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
FLIGHTS = (1, 4, 16, 64, 256, 1024)


class Load(Wire, frozen=True):
    """What is sent and comes back."""

    data: bytes


ECHO = Method("bench.echo", Load, Load)
One = Callable[[], Awaitable[None]]


@contextmanager
def profile(on: bool) -> Iterator[None]:
    """Profile what is within, and print the functions that took most time of their own to stderr."""
    if not on:
        yield
        return
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
        stats = pstats.Stats(profiler, stream=sys.stderr)
        by_group(stats)
        stats.strip_dirs().sort_stats("tottime").print_stats(30)


GROUPS = ("writev", "epoll", "/wire/rpc/packet", "/wire/rpc/", "/node/rpc/", "/wire/codec", "/node/libp2p", "/trio/")


def by_group(stats: pstats.Stats) -> None:
    """Seconds of functions themselves, by the first group that fits their file and name."""
    sums = dict.fromkeys((*GROUPS, "else"), 0.0)
    for (file, _, function), (_, _, own_s, _, _) in stats.stats.items():  # type: ignore[attr-defined]  # has no types
        sums[next((group for group in GROUPS if group in f"{file} {function}"), "else")] += own_s
    for group, seconds in sums.items():
        print(f"{seconds:6.2f} s  {group}", file=sys.stderr)


async def serve(*, profiling: bool) -> None:
    """Answer until the input ends."""

    async def echo(_peer: PeerId, load: Load) -> Load:
        return load

    async def echo_packet(_peer: PeerId, packet: Packet[Load]) -> Packet[Load]:
        return packet

    async with open_transport(b"s" * 32, blame=print) as transport, open_rpc(transport, blame=print) as rpc:
        transport.serve(PER_STREAM, answer_calls(Load, echo, blame=print))
        rpc.serve_packets(ECHO, echo_packet)
        print(transport.addresses()[0], flush=True)
        with profile(profiling):
            await trio.to_thread.run_sync(sys.stdin.read)


async def rate(one: One, in_flight: int, seconds: float) -> float:
    """Calls per second with so many tasks that call without a pause."""
    done = 0
    measuring = False

    async def caller() -> None:
        nonlocal done
        while True:
            await one()
            done += measuring

    async with trio.open_nursery() as nursery:
        for _ in range(in_flight):
            nursery.start_soon(caller)
        await trio.sleep(seconds / 4)
        measuring, start_s = True, time.perf_counter()
        await trio.sleep(seconds)
        result = done / (time.perf_counter() - start_s)
        nursery.cancel_scope.cancel()
    return result


async def with_cpu(one: One, in_flight: int, seconds: float) -> tuple[float, float]:
    """Calls per second, and microseconds of this process's processor per call."""
    calls = 0

    async def counted() -> None:
        nonlocal calls
        await one()
        calls += 1

    start_s = time.process_time()
    found = await rate(counted, in_flight, seconds)
    return found, (time.process_time() - start_s) / calls * 1e6


def by_rpc(rpc: RpcNode, peer: PeerId, size: int) -> One:
    """One echo over the shared channel."""
    small = size <= FIELD_BYTES_MAX
    packet = Packet(Load(bytes(size))) if small else Packet(Load(b""), (np.zeros(size, dtype="u1"),))

    async def one() -> None:
        got = await rpc.exchange(peer, ECHO, packet, timeout_s=60.0)
        assert len(got.body.data) == size if small else got.tensors[0].nbytes == size

    return one


def by_stream(transport: Libp2pTransport, peer: PeerId, size: int) -> One:
    """One echo over a stream of its own."""
    load = Load(bytes(size))

    async def one() -> None:
        while True:
            try:
                assert len((await call(transport, peer, PER_STREAM, load, Load)).data) == size
            except ChannelClosed:
                continue
            return

    return one


async def measure(address: str, *, quick: bool, profiling: str | None, size: int) -> None:
    """All rows."""
    peer = from_text(address.rpartition("/")[2])
    seconds = 1.0 if quick else 3.0
    async with (
        open_transport(b"c" * 32, listen=[], blame=print) as transport,
        open_rpc(transport, blame=print) as rpc,
    ):
        transport.learn(peer, [address])
        await by_rpc(rpc, peer, 128)()
        if profiling is not None:
            with profile(profiling == "caller"):
                calls = await rate(by_rpc(rpc, peer, size), IN_FLIGHT, 5.0)
            print(f"{calls:.0f} calls/s of {size} B while profiled", file=sys.stderr)
            return
        for name, size in (("network.rpc_128", 128), ("network.rpc_256k", 256 << 10)):
            ours, cpu = await with_cpu(by_rpc(rpc, peer, size), IN_FLIGHT, seconds)
            theirs, their_cpu = await with_cpu(by_stream(transport, peer, size), PER_STREAM_IN_FLIGHT, seconds)
            peer_name = f"a stream per call, {PER_STREAM_IN_FLIGHT} in flight"
            show(name, ours, "calls/s", better="higher", peer=peer_name, peer_value=theirs)
            note = "processor time of the calling process; other work on the machine hardly changes it"
            show(f"{name}.cpu", cpu, "us/call", better="lower", peer=peer_name, peer_value=their_cpu, note=note)
        for size in PAYLOADS[::3] if quick else PAYLOADS:
            ours = await rate(by_rpc(rpc, peer, size), IN_FLIGHT, seconds / 2)
            note = f"{2 * ours * size / 1e6:.0f} MB/s both ways together"
            show(f"network.rpc.payload.{size}", ours, "calls/s", better="higher", note=note)
        for flights in FLIGHTS[::2] if quick else FLIGHTS:
            ours = await rate(by_rpc(rpc, peer, 128), flights, seconds / 2)
            show(f"network.rpc.in_flight.{flights}", ours, "calls/s", better="higher")


def main() -> None:
    """Start the other process and measure against it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", choices=("caller", "server"))
    parser.add_argument("--size", type=int, default=128, help="bytes of each call that is profiled")
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        trio.run(lambda: serve(profiling=options.profile == "server"))
        return
    command = [sys.executable, "-m", "benchmarks.network_rpc", "--serve"]
    if options.profile == "server":
        command += ["--profile", "server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            address = child.stdout.readline().strip()
            trio.run(lambda: measure(address, quick=options.quick, profiling=options.profile, size=options.size))
        finally:
            child.stdin.close()
            child.wait()


if __name__ == "__main__":
    main()
