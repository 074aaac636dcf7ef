"""Where the transport's time goes, on both sides: `python -m benchmarks.network_profile [--quick]` prints a table.

Three kinds of work on our own session and muxer, each under cProfile in the caller's and in the server's process:
small calls on a stream each, small frames on one channel, and bulk one way. Processor time of the functions
themselves, by where they are written, per call or per MiB; profiling makes Python's own share some times larger.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import subprocess
import sys
from collections.abc import Callable
from time import thread_time
from typing import Any

import trio

from benchmarks.network import ECHO, SINK, bulk_mb_s, echo, nobody, rate_framed, rate_streams, sink
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.peer import PeerId, from_text, to_text

GROUPS = {
    "system calls: send": ("writev", "'send' of", "posix.write"),
    "system calls: receive": ("'recv' of", "recv_into"),
    "waiting (epoll)": ("epoll",),
    "encryption": ("ChaCha20Poly1305", "node/libp2p/noise_frames"),
    "session": ("node/libp2p/noise_session", "node/libp2p/pace", "thread_time"),
    "Yamux core": ("node/libp2p/yamux",),
    "muxer, streams, channels": ("node/libp2p/", "node/transport_libp2p", "wire/serving"),
    "trio": ("/trio/", "outcome", "Context"),
    "py-libp2p": ("/libp2p/",),
    "joining and copying": ("'join' of", "'extend' of", "'append' of", "bytearray"),
}
"""The first that fits a function's file and name counts."""

WORK = ("streams", "framed", "bulk")


def by_group(profiler: cProfile.Profile) -> dict[str, float]:
    """Seconds of functions themselves, by group."""
    stats: Any = pstats.Stats(profiler)
    sums = {**dict.fromkeys(GROUPS, 0.0), "else": 0.0}
    for (file, _, function), (_, _, own_s, _, _) in stats.stats.items():
        text = f"{file} {function}"
        sums[next((group for group, marks in GROUPS.items() if any(mark in text for mark in marks)), "else")] += own_s
    return sums


async def serve() -> None:
    """The server: profiles itself from one line of its input to the next, and prints what it found."""
    async with open_transport(b"s" * 32, blame=nobody) as transport:
        transport.serve(ECHO, echo)
        transport.serve(SINK, sink)
        print(json.dumps({"peer": to_text(transport.peer), "addresses": transport.addresses()}), flush=True)
        profiler: cProfile.Profile | None = None
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if profiler is None:
                profiler = cProfile.Profile(thread_time)
                profiler.enable()
                print(flush=True)
            else:
                profiler.disable()
                print(json.dumps(by_group(profiler)), flush=True)
                profiler = None


async def work(name: str, transport: Libp2pTransport, peer: PeerId, scale: int) -> int:
    """Do one kind; how many calls or MiB it was."""
    if name == "streams":
        await rate_streams(transport, peer, 128, 500 * scale)
        return 500 * scale
    if name == "framed":
        await rate_framed(transport, peer, 128, 4000 * scale)
        return 4000 * scale
    await bulk_mb_s(transport, peer, 64 * scale)
    return 64 * scale


async def measure(hello: dict[str, Any], ask: Callable[[], str], scale: int) -> dict[str, list[dict[str, float]]]:
    """Microseconds per unit of each kind, of caller and server."""
    found = {}
    peer = from_text(hello["peer"])
    async with open_transport(b"c" * 32, listen=[], blame=nobody) as transport:
        transport.learn(peer, hello["addresses"])
        for name in WORK:
            await work(name, transport, peer, 1)
            ask()
            profiler = cProfile.Profile(thread_time)
            profiler.enable()
            units = await work(name, transport, peer, scale)
            profiler.disable()
            sides = [by_group(profiler), json.loads(ask())]
            found[name] = [{group: 1e6 * spent / units for group, spent in side.items()} for side in sides]
    return found


def main() -> None:
    """Start the server, measure, and print."""
    if sys.argv[1:2] == ["--serve"]:
        trio.run(serve)
        return
    command = [sys.executable, "-m", "benchmarks.network_profile", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        into, out = child.stdin, child.stdout

        def ask() -> str:
            into.write("\n")
            into.flush()
            return out.readline()

        try:
            found = trio.run(measure, json.loads(out.readline()), ask, 1 if "--quick" in sys.argv else 5)
        finally:
            into.close()
    print("| us | " + " | ".join(f"{name}: caller | server" for name in WORK) + " |\n|---" + "|---" * 6 + "|")
    for group in (*GROUPS, "else"):
        print(f"| {group} | " + " | ".join(f"{side[group]:.0f}" for name in WORK for side in found[name]) + " |")


if __name__ == "__main__":
    main()
