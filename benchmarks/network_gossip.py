"""Figures of gossip, as JSON lines: `python -m benchmarks.network_gossip [--quick]`.

24 nodes in one process, each of which has dialled four others over loopback; one of them by turns writes, five messages
a second together. The peer does the same in a process of its own, in the same run: py-libp2p's host, Noise, Yamux and
gossipsub with a heartbeat of 1 s (its default is 120 s) and otherwise as they come.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from statistics import median, quantiles
from time import perf_counter, process_time

import structlog
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from benchmarks.line import show
from node.gossip.params import TopicParams
from node.gossip.router import Arrived, Verdict
from node.gossip.service import Gossip, open_gossip
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.errors import RemoteError
from wire.identity import Identity

TOPIC = "/quorate/bench/1"
NODES = 24
DIALS = 4
PER_S = 5
WARM_S = 5.0
SETTLE_S = 8.0
BODY_BYTES = 200


class Got:
    """When each node got each message, counted from when it was written."""

    def __init__(self) -> None:
        self.written: dict[int, float] = {}
        self.delays_s: dict[tuple[int, int], float] = {}
        self.copies = 0

    def body(self, number: int) -> bytes:
        """The next message, written now."""
        self.written[number] = perf_counter()
        return number.to_bytes(8, "big").ljust(BODY_BYTES, b".")

    def note(self, node: int, body: bytes) -> None:
        """A node has got a message."""
        number = int.from_bytes(body[:8], "big")
        self.copies += (node, number) in self.delays_s
        self.delays_s.setdefault((node, number), perf_counter() - self.written[number])

    def figures(self, cpu_s: float, seconds: float) -> dict[str, float]:
        """What comes out."""
        delays = sorted(self.delays_s.values())
        return {
            "p50_ms": median(delays) * 1000,
            "p99_ms": quantiles(delays, n=100)[98] * 1000,
            "delivered": len(delays) / (len(self.written) * (NODES - 1)),
            "cpu": cpu_s / seconds,
        }


def nobody(error: RemoteError) -> None:
    """No side misbehaves here."""
    raise AssertionError(str(error))


def partners(number: int) -> list[int]:
    """Whom a node dials, of those that are there."""
    return Random(number).sample(range(number), min(DIALS, number))


async def talk(got: Got, seconds: float, publish: Callable[[int, bytes], object]) -> dict[str, float]:
    """Write by turns, wait, and say what came of it."""
    await trio.sleep(WARM_S)
    cpu_s, start = process_time(), trio.current_time()
    for number in range(int(seconds * PER_S)):
        await trio.sleep_until(start + number / PER_S)
        author = number % NODES
        result = publish(author, got.body(number))
        if hasattr(result, "__await__"):
            await result
    await trio.sleep_until(start + seconds)
    cpu_s = process_time() - cpu_s
    await trio.sleep(SETTLE_S)
    return got.figures(cpu_s, seconds)


async def ours(seconds: float) -> dict[str, float]:
    """Our transport and our gossip."""
    got = Got()
    sides: list[tuple[Libp2pTransport, Gossip]] = []
    async with AsyncExitStack() as stack:
        for number in range(NODES):
            who = Identity.from_seed(number.to_bytes(32, "big"))
            transport = await stack.enter_async_context(open_transport(who, blame=nobody))
            known = []
            for other in partners(number):
                peer = sides[other][0]
                transport.learn(peer.peer, peer.addresses())
                known.append(peer.peer)
            gossip = await stack.enter_async_context(
                open_gossip(
                    who, transport, lambda: 1, peers=lambda known=known: known, blame=nobody, rng=Random(number)
                )
            )
            gossip.subscribe(TOPIC, judge_of(got, number), TopicParams(rate=50.0, burst=100.0))
            sides.append((transport, gossip))
        return await talk(got, seconds, lambda author, body: sides[author][1].publish(TOPIC, body))


def judge_of(got: Got, number: int) -> Callable[[Arrived], Verdict]:
    """A judge that takes everything and notes when."""

    def judge(arrived: Arrived) -> Verdict:
        got.note(number, arrived.data)
        return "accept"

    return judge


@asynccontextmanager
async def stock_node(number: int) -> AsyncIterator[Pubsub]:
    """One node of py-libp2p."""
    pair = create_new_key_pair((1000 + number).to_bytes(32, "big"))
    noise = StockNoise(pair, noise_privkey=create_new_noise_key_pair().private_key)
    host = new_host(key_pair=pair, sec_opt={NOISE: noise})
    router = GossipSub([PROTOCOL_ID_V11], 6, 5, 12, heartbeat_interval=1)
    pubsub = Pubsub(host, router, strict_signing=True)
    async with (
        host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        background_trio_service(router),
        background_trio_service(pubsub),
    ):
        await pubsub.wait_until_ready()
        yield pubsub


async def stock(seconds: float) -> dict[str, float]:
    """py-libp2p's."""
    got = Got()
    sides: list[Pubsub] = []

    async def listen(number: int, pubsub: Pubsub) -> None:
        inbox = await pubsub.subscribe(TOPIC)
        while True:
            message = await inbox.get()
            if int.from_bytes(message.data[:8], "big") % NODES != number:  # one's own comes too
                got.note(number, message.data)

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for number in range(NODES):
            pubsub = await stack.enter_async_context(stock_node(number))
            nursery.start_soon(listen, number, pubsub)
            for other in partners(number):
                await pubsub.host.connect(info_from_p2p_addr(sides[other].host.get_addrs()[0]))
            sides.append(pubsub)
        figures = await talk(got, seconds, lambda author, body: sides[author].publish(TOPIC, body))
        # what it raises when it is stopped under load is none of these figures' business
        print(json.dumps(figures), flush=True)
        sys.exit(0)


def peer_figures(seconds: float) -> tuple[dict[str, float], str | None]:
    """The peer's, by a process of its own, or why there are none."""
    command = [sys.executable, "-m", "benchmarks.network_gossip", "--stock", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 5 + 120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1]), None
    return {}, (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def main() -> None:
    """Both, one after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if "--stock" in sys.argv:
        trio.run(stock, float(sys.argv[-1]))
        return
    seconds = 10.0 if "--quick" in sys.argv else 30.0
    theirs, error = peer_figures(seconds)
    mine = trio.run(ours, seconds)
    note = f"{NODES} nodes in one process, {PER_S} messages/s for {seconds:g} s"
    for name, unit, better in (
        ("p50_ms", "ms", "lower"),
        ("p99_ms", "ms", "lower"),
        ("delivered", "share", "higher"),
        ("cpu", "CPU s/s", "lower"),
    ):
        show(
            f"network.gossip_{name}",
            mine[name],
            unit,
            better=better,  # type: ignore[arg-type]  # one of the two words
            peer="py-libp2p 0.8.1",
            peer_value=theirs.get(name),
            error=error,
            note=note,
        )


if __name__ == "__main__":
    main()
