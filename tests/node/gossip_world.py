"""Gossip routers in virtual time, without trio: one heap of (time, sequence, action), everything from one seed.

A link delays each RPC and loses a share of them whole (but never the first, which is part of the connection), which is
worse than TCP: a lost connection is followed by a new one that begins with the subscriptions again.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from random import Random

from node.gossip.params import Params, TopicParams
from node.gossip.router import Arrived, Router, Verdict
from wire.envelope import verify
from wire.errors import RemoteError
from wire.hashing import digest
from wire.identity import Identity
from wire.peer import PeerId

TOPIC = "t"
checked = lru_cache(maxsize=1 << 16)(verify)


class Node:
    """An honest one; others override what they do otherwise."""

    def __init__(
        self, world: World, number: int, *, group: str | None = None, topic: TopicParams | None = None
    ) -> None:
        self.world = world
        self.number = number
        self.group = group
        self.identity = Identity.from_seed(digest("gossip.world", world.seed.to_bytes(8, "big"), bytes([number])))
        self.peer = self.identity.peer
        self.rng = Random(digest("gossip.rng", self.peer, world.seed.to_bytes(8, "big")))
        self.router = Router(self.identity, self.rng, seqno=1, params=world.params, verify=checked)
        self.router.subscribe(TOPIC, topic or world.topic, 0.0)
        self.up = True
        self.got: Counter[bytes] = Counter()
        world.at(self.rng.random(), self._beat)

    def _beat(self) -> None:
        self.world.at(self.world.now + self.router.params.heartbeat_s, self._beat)
        if self.up:
            self.beat()
            self.flush()

    def beat(self) -> None:
        """One heartbeat."""
        self.router.heartbeat(self.world.now)

    def judge(self, arrived: Arrived) -> Verdict:
        """What the application says."""
        return "reject" if arrived.data.startswith(b"bad") else "accept"

    def receive(self, source: PeerId, raw: bytes) -> None:
        """An RPC has arrived."""
        try:
            arrived = self.router.on_rpc(source, raw, self.world.now)
        except RemoteError:
            self.world.disconnect(self, self.world.of[source])
            return
        for each in arrived:
            verdict = self.judge(each)
            if verdict == "accept":
                self.got[each.data] += 1
            self.router.verdict(each.id, verdict, self.world.now)
        self.flush()

    def publish(self, data: bytes) -> None:
        """Write a message."""
        self.router.publish(TOPIC, data, self.world.now)
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        for peer in self.router.ready():
            while (raw := self.router.take(peer)) is not None:
                self.world.send(self, peer, raw)


class World:
    """Nodes and links; `run` lets time pass."""

    def __init__(
        self, seed: int, *, loss: float = 0.0, params: Params | None = None, topic: TopicParams | None = None
    ) -> None:
        self.seed = seed
        self.loss = loss
        self.params = params or Params()
        self.topic = topic or TopicParams(rate=20.0, burst=40.0)
        self.rng = Random(seed)
        self.now = 0.0
        self.nodes: list[Node] = []
        self.of: dict[PeerId, Node] = {}
        self.links: dict[tuple[PeerId, PeerId], bool] = {}
        self.sent = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Plan an action."""
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, action))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = until

    def add(self, *nodes: Node) -> None:
        """Put nodes into the world."""
        for node in nodes:
            self.nodes.append(node)
            self.of[node.peer] = node

    def dial(self, source: Node, target: Node) -> None:
        """Connect two nodes, unless they are."""
        if source is target or (source.peer, target.peer) in self.links:
            return
        source.router.add_peer(target.peer, self.now, outbound=True, group=target.group)
        target.router.add_peer(source.peer, self.now, outbound=False, group=source.group)
        self.links[source.peer, target.peer] = self.links[target.peer, source.peer] = True
        source.flush()
        target.flush()

    def dial_some(self, source: Node, count: int) -> None:
        """Dial some nodes by chance."""
        others = [node for node in self.nodes if node is not source and node.up]
        for target in self.rng.sample(others, min(count, len(others))):
            self.dial(source, target)

    def disconnect(self, one: Node, other: Node) -> None:
        """End a link, with what is under way."""
        if self.links.pop((one.peer, other.peer), None) is None:
            return
        del self.links[other.peer, one.peer]
        one.router.remove_peer(other.peer, self.now)
        other.router.remove_peer(one.peer, self.now)

    def leave(self, node: Node) -> None:
        """A node goes, and forgets everything."""
        node.up = False
        for source, target in list(self.links):
            if source == node.peer:
                self.disconnect(node, self.of[target])

    def send(self, source: Node, target: PeerId, raw: bytes) -> None:
        """Deliver an RPC later, if the link still stands."""
        key = (source.peer, target)
        if key not in self.links:
            return
        first, self.links[key] = self.links[key], False
        self.sent += 1
        if not first and self.rng.random() < self.loss:
            return
        delay_s = (0.001 if first else 0.02) + self.rng.random() * (0.001 if first else 0.06)
        self.at(self.now + delay_s, lambda: self._arrive(source, target, raw))

    def _arrive(self, source: Node, target: PeerId, raw: bytes) -> None:
        if (source.peer, target) in self.links:
            self.of[target].receive(source.peer, raw)


def honest_world(count: int, seed: int, *, degree: int = 6, loss: float = 0.0) -> World:
    """Honest nodes, each of which has dialled some others, some seconds old."""
    world = World(seed, loss=loss)
    world.add(*(Node(world, number) for number in range(count)))
    for node in world.nodes:
        world.dial_some(node, degree)
    world.run(5.0)
    return world


def delivered(messages: list[bytes], nodes: list[Node]) -> float:
    """The share of messages that reached each of these nodes."""
    return sum(node.got[data] > 0 for data in messages for node in nodes) / (len(messages) * len(nodes))


def duplicates(nodes: list[Node]) -> float:
    """Copies beyond the first for each message that was accepted."""
    counts = sum((node.router.counts for node in nodes), Counter[str]())
    return counts["duplicates"] / max(1, counts["accept"])
