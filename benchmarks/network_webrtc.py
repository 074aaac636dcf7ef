"""Figures of WebRTC, as JSON lines: `python -m benchmarks.network_webrtc [--quick]`.

Two nodes on loopback, each a process with a WebRTC process of its own, and between them the path that channels take:
frames, Yamux and Noise over one data channel. The peer is aiortc by itself in the same run, round for round: two
processes, one data channel, messages of 16 KiB, as much waiting as in ours. Both directions of signalling go through a
pipe. Best of the rounds, for other work on a shared machine only ever makes both slower.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import perf_counter
from typing import Any

import aioice.ice
import trio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from benchmarks.line import show
from node.reach.ways import Ways
from node.transport_libp2p import open_transport
from node.webrtc.bridge import BUFFERED_BYTES_LOW, BUFFERED_BYTES_MAX
from node.webrtc.service import open_webrtc
from wire.errors import RemoteError
from wire.peer import from_text, to_text
from wire.transport import Channel

ECHO, SINK = "/bench/echo/1", "/bench/sink/1"
FRAME_BYTES = 1 << 18
MESSAGE_BYTES = 16_000
PING = bytes(128)


def _blame(exc: RemoteError) -> None:
    print(exc, file=sys.stderr)


# ---- ours


async def _echo(channel: Channel) -> None:
    while True:
        await channel.send(await channel.receive())


async def _sink(channel: Channel) -> None:
    """Counts bytes, and says so once it has as many as the first frame names."""
    left = int(await channel.receive())
    while left > 0:
        left -= len(await channel.receive())
    await channel.send(b"all")


async def serve() -> None:
    """The node that is measured against, until its input ends."""
    async with open_transport(b"b" * 32, blame=_blame) as transport, open_webrtc(transport):
        transport.serve(ECHO, _echo)
        transport.serve(SINK, _sink)
        print(json.dumps({"peer": to_text(transport.peer), "addresses": transport.addresses()}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def ours(size: int, pings: int) -> dict[str, float]:
    """Megabytes a second one way, and the median of a round trip in milliseconds."""
    server = await trio.lowlevel.open_process(
        [sys.executable, "-m", "benchmarks.network_webrtc", "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    said = json.loads(await server.stdout.receive_some())
    peer = from_text(said["peer"])
    try:
        async with open_transport(b"a" * 32, listen=[], blame=_blame) as transport, open_webrtc(transport) as rtc:
            await transport.dialler.connect_directly(peer, said["addresses"][0])
            ways = Ways(*transport.network)
            tcp = ways.direct(peer)
            if not await rtc.upgrade(peer):
                raise RuntimeError("no WebRTC connection")
            for connection in tcp:
                await connection.close()  # type: ignore[attr-defined]  # the library's interface does not name it
            channel = await transport.open(peer, ECHO)

            async def ping() -> None:
                await channel.send(PING)
                await channel.receive()

            trip_ms = await _median_ms(ping, pings)
            sink = await transport.open(peer, SINK)
            await sink.send(str(size).encode())
            began = perf_counter()
            for _ in range(-(-size // FRAME_BYTES)):
                await sink.send(bytes(FRAME_BYTES))
            await sink.receive()
            return {"mb_s": size / 1e6 / (perf_counter() - began), "rtt_ms": trip_ms}
    finally:
        server.kill()
        with trio.CancelScope(shield=True):
            await server.wait()


async def _median_ms(once: Callable[[], Awaitable[None]], count: int) -> float:
    taken = []
    for _ in range(count):
        began = perf_counter()
        await once()
        taken.append(1e3 * (perf_counter() - began))
    return median(taken)


# ---- aiortc by itself


def _pc() -> RTCPeerConnection:
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    return RTCPeerConnection(RTCConfiguration([]))


async def bare_serve() -> None:
    """Answers the offer of its first line."""
    pc, got = _pc(), 0

    @pc.on("datachannel")
    def on_channel(channel: Any) -> None:
        @channel.on("message")
        def on_message(message: bytes) -> None:
            nonlocal got
            if len(message) == len(PING):
                channel.send(message)
                return
            got += len(message)
            if got >= size:
                channel.send(b"all")

    asked = json.loads(await asyncio.to_thread(sys.stdin.readline))
    size = asked["size"]
    await pc.setRemoteDescription(RTCSessionDescription(asked["sdp"], "offer"))
    await pc.setLocalDescription(await pc.createAnswer())
    print(json.dumps({"sdp": pc.localDescription.sdp}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def bare(size: int, pings: int) -> dict[str, float]:
    """The same figures as `ours`."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.network_webrtc", "--bare", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    pc = _pc()
    channel = pc.createDataChannel("x")
    channel.bufferedAmountLowThreshold = BUFFERED_BYTES_LOW
    opened, low, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    channel.on("open", opened.set)
    channel.on("bufferedamountlow", low.set)
    channel.on("message", lambda message: answered.set())
    try:
        await pc.setLocalDescription(await pc.createOffer())
        server.stdin.write(json.dumps({"size": size, "sdp": pc.localDescription.sdp}).encode() + b"\n")
        answer = json.loads(await server.stdout.readline())
        await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        await opened.wait()

        async def ping() -> None:
            answered.clear()
            channel.send(PING)
            await answered.wait()

        trip_ms = await _median_ms(ping, pings)
        answered.clear()
        began, sent = perf_counter(), 0
        while sent < size:
            while channel.bufferedAmount >= BUFFERED_BYTES_MAX:
                low.clear()
                await low.wait()
            channel.send(bytes(MESSAGE_BYTES))
            sent += MESSAGE_BYTES
        await answered.wait()
        return {"mb_s": size / 1e6 / (perf_counter() - began), "rtt_ms": trip_ms}
    finally:
        server.kill()
        await server.wait()
        await pc.close()


def main() -> None:
    """Both by turns."""
    if "--serve" in sys.argv:
        trio.run(serve)
        return
    if "--bare" in sys.argv:
        asyncio.run(bare_serve())
        return
    quick = "--quick" in sys.argv
    size, pings, rounds = (4 << 20, 200, 2) if quick else (32 << 20, 1000, 5)
    mine, theirs = [], []
    for _ in range(rounds):
        theirs.append(asyncio.run(bare(size, pings)))
        mine.append(trio.run(ours, size, pings))
    note = f"{size >> 20} MiB one way, {pings} round trips of 128 B, best of {rounds} rounds, loopback"
    best = max(mine, key=lambda one: one["mb_s"])["mb_s"], max(theirs, key=lambda one: one["mb_s"])["mb_s"]
    trip = min(one["rtt_ms"] for one in mine), min(one["rtt_ms"] for one in theirs)
    show("network.webrtc_mb_s", best[0], "MB/s", better="higher", peer="aiortc 1.16.0", peer_value=best[1], note=note)
    show("network.webrtc_rtt_ms", trip[0], "ms", better="lower", peer="aiortc 1.16.0", peer_value=trip[1], note=note)


if __name__ == "__main__":
    main()
