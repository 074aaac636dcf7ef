"""A process of several whole peers, told over standard input what to do: `python -m tests.soak.peers FIRST COUNT`.

Each peer is a transport, calls, blobs and gossip, with an identity of its own. One JSON object a line in each
direction: it says `{"at": {...}}` when it listens, and answers each `{"do": ..., ...}` with `{"ok": ...}`. An error
of a kind that calls are not supposed to end with is a bug and ends the process.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import structlog
import trio

from node.gossip.params import TopicParams
from node.gossip.router import Arrived, Verdict
from node.gossip.service import Gossip, open_gossip
from node.libp2p.muxer import Muxer
from node.libp2p_host import give_up
from node.rpc.blobs import Blob, of_bytes, serve_blobs
from node.rpc.node import RpcNode, open_rpc
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.soak.calls import ANSWER_S, BLOB, BLOB_ID, ECHO, Caller, Number, serve_calls
from wire.errors import Busy, RemoteError, TransportError
from wire.identity import Identity
from wire.peer import PeerId, from_text, to_text

TOPIC = "/quorate/soak/1"
PARTNERS = (1, 3, 17, 29)
"""How far from a peer those stand whom it calls; most are in another process."""

UNDER_WAY = 4
"""Calls of one peer at a time."""


def nobody(error: RemoteError) -> None:
    """All peers keep the rules."""
    raise AssertionError(f"blamed: {error}")


class SoakPeer:
    """One peer."""

    def __init__(self, transport: Libp2pTransport, rpc: RpcNode, gossip: Gossip, known: list[PeerId]) -> None:
        self.transport, self.rpc, self.gossip, self.known = transport, rpc, gossip, known
        self.heard: set[bytes] = set()
        self.news = trio.Event()
        gossip.subscribe(TOPIC, self._judge, TopicParams(rate=50.0, burst=100.0))

    def _judge(self, arrived: Arrived) -> Verdict:
        self.heard.add(arrived.data)
        self.news.set()
        self.news = trio.Event()
        return "accept"

    async def hear(self, data: bytes) -> None:
        """Wait until a message of another peer has come."""
        while data not in self.heard:
            await self.news.wait()
        self.heard.clear()

    def muxers(self) -> list[Muxer]:
        """Its connections that stand."""
        _, swarm = self.transport.network
        every = [one.muxed_conn for some in swarm.connections.values() for one in some]
        return [each for each in every if isinstance(each, Muxer) and each.lost is None]


@asynccontextmanager
async def soak_peer(number: int) -> AsyncIterator[SoakPeer]:
    """A peer that serves."""
    who = Identity.from_seed(number.to_bytes(32, "big"))
    known: list[PeerId] = []
    async with (
        open_transport(who, blame=nobody) as transport,
        open_rpc(transport, blame=nobody) as rpc,
        open_gossip(
            who, transport, lambda: time.time_ns() // 1_000_000, peers=lambda: known, blame=nobody, rng=Random(number)
        ) as gossip,
    ):
        serve_calls(rpc)

        async def find(_peer: PeerId, sha256: bytes) -> Blob | None:
            return of_bytes(BLOB) if sha256 == BLOB_ID else None

        serve_blobs(transport, find)
        yield SoakPeer(transport, rpc, gossip, known)


class Process:
    """The commands, one method each."""

    def __init__(self, first: int, peers: list[SoakPeer]) -> None:
        self._first = first
        self._peers = peers
        self._everybody: list[PeerId] = []
        self._tasks: Counter[str] = Counter()
        self._begun: dict[str, int] = {}

    async def begin(self) -> dict[str, int]:
        """The census to which the end will be compared."""
        self._tasks, self._begun = tasks_here(), self.counted()
        return self._begun

    async def meet(self) -> None:
        """A first call of each peer to each of its partners, made until it is answered."""
        for peer in self._peers:
            for other in self._others(peer):
                while True:
                    try:
                        await peer.rpc.call(other, ECHO, Number(1), timeout_s=ANSWER_S)
                    except (TransportError, Busy):
                        await trio.sleep(0.1)
                        continue
                    break

    def at(self) -> dict[str, list[str]]:
        """Who lives here, and where."""
        return {to_text(peer.transport.peer): peer.transport.addresses() for peer in self._peers}

    async def learn(self, at: dict[str, list[str]]) -> None:
        """Where everybody is now."""
        self._everybody = [from_text(name) for name in at]
        for here in self._peers:
            here.known[:] = self._others(here)
            for name, addresses in at.items():
                here.transport.learn(from_text(name), addresses)

    def _others(self, peer: SoakPeer) -> list[PeerId]:
        """Whom a peer calls: always the same few, so that what is kept of each pair is there after the warm-up."""
        at = self._everybody.index(peer.transport.peer)
        return [self._everybody[(at + far) % len(self._everybody)] for far in PARTNERS]

    async def calls(self, seed: int, count: int) -> dict[str, int]:
        """So many calls of all kinds by each peer to its partners; how many of each kind ended how.

        Says `{"half": true}` when half of them have ended.
        """
        outcomes: dict[str, int] = {}
        left = half = len(self._peers) * count
        half //= 2

        async def work(peer: SoakPeer, rng: Random, share: int) -> None:
            nonlocal left
            caller = Caller(peer.transport, peer.rpc)
            for _ in range(share):
                ended = await caller.one(rng.choice(self._others(peer)), rng)
                outcomes[ended] = outcomes.get(ended, 0) + 1
                left -= 1
                if left == half:
                    say(half=True)

        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(self._peers):
                for part in range(UNDER_WAY):
                    nursery.start_soon(work, peer, Random(f"{seed} {self._first} {number} {part}"), count // UNDER_WAY)
        return outcomes

    async def tell(self, data: str) -> None:
        """The first peer here publishes."""
        self._peers[0].heard.add(data.encode())
        self._peers[0].gossip.publish(TOPIC, data.encode())

    async def hear(self, data: str) -> None:
        """Wait until every peer here has heard it."""
        for peer in self._peers:
            await peer.hear(data.encode())

    async def quiet(self) -> None:
        """Wait until no call is under way and no stream is left but those that stay: calls and gossip, each way."""
        while self._busy():  # noqa: ASYNC110 - the seam has no event for it
            await trio.sleep(0.01)

    def _busy(self) -> bool:
        if any(peer.rpc.under_way() != (0, 0) for peer in self._peers):
            return True
        return any(len(muxer.core.streams) > 4 for peer in self._peers for muxer in peer.muxers())

    async def part(self) -> None:
        """Close every connection, and look for nobody again."""
        for peer in self._peers:
            peer.known.clear()
        for peer in self._peers:
            for other in peer.transport.connected():
                await give_up(peer.transport.network[1], other)

    async def until_as_begun(self, patience_s: float) -> dict[str, Any]:
        """Wait until nothing is here that was not at the beginning; the census then, or when patience has ended."""
        begun = self._begun
        with trio.move_on_after(patience_s):
            while any(self.counted()[key] > begun[key] for key in ("connections", "tasks", "fds")):  # noqa: ASYNC110 - no event
                await trio.sleep(0.1)
        return {**self.counted(), "left": dict(tasks_here() - self._tasks)}

    async def census(self) -> dict[str, int]:
        """What this process holds; memory after a collection."""
        gc.collect()
        return self.counted()

    def counted(self) -> dict[str, int]:
        """What this process holds."""
        return {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "fds": len(list(Path("/proc/self/fd").iterdir())),
            "rss_kb": int(Path("/proc/self/statm").read_text().split()[1]) * 4,
            "connections": sum(len(peer.muxers()) for peer in self._peers),
            "streams": sum(len(muxer.core.streams) for peer in self._peers for muxer in peer.muxers()),
        }


def tasks_here() -> Counter[str]:
    """All tasks, by name."""
    found: Counter[str] = Counter()
    root = trio.lowlevel.current_root_task()
    todo = [root] if root is not None else []
    while todo:
        task = todo.pop()
        found[task.name] += 1
        todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def say(**said: Any) -> None:
    """To the test."""
    print(json.dumps(said), flush=True)


async def main(first: int, count: int) -> None:
    """Run until the input ends; what is under way then is cut off."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(soak_peer(first + number)) for number in range(count)]
        process = Process(first, peers)
        say(at=process.at())

        async def obey(do: str, what: dict[str, Any]) -> None:
            say(ok=await getattr(process, do)(**what))

        async with trio.open_nursery() as nursery:
            while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
                order = json.loads(line)
                nursery.start_soon(obey, order.pop("do"), order)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
