"""A heap-driven world of DHT cores: no trio, no clock; one heap of (virtual ms, number, action).

Messages take 10 to 60 ms, silent nodes cost their askers `TIMEOUT_MS`. Everything passes through the wire
encoding, so what is tested here is what is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from dht.core import Core
from dht.keys import node_id, place_of
from dht.lookup import Lookup
from dht.messages import Ask, FindNode, FindValue, Node, Nodes, Ping, Reply, Request, Store, Stored
from dht.provider import NAMESPACE, RULES, ProviderAd, key_of
from dht.record import Record, SignedRecord, sign
from dht.shelf import Quotas, Shelf
from wire import cid, codec
from wire.errors import RemoteError
from wire.hashing import digest
from wire.identity import Identity
from wire.peer import PeerId

START_MS = 1_700_000_000_000
TIMEOUT_MS = 3_000
MODEL = cid.of(b"a model")
Answer = tuple[Reply, list[SignedRecord]] | None


def identity(number: int, label: str = "core") -> Identity:
    """The identity of node `number`, the same in every run."""
    return Identity.from_seed(digest("test.dht", label.encode(), number.to_bytes(4, "big")))


def an_ad(model: str = MODEL, *, price_micro: int = 5, load: float = 0.0) -> ProviderAd:
    """An ad that every node would keep."""
    return ProviderAd(model, "embed.text", ["exact"], price_micro, ["/ip4/127.0.0.1/tcp/4001"], load, b"")


def signed_ad(
    signer: Identity,
    *,
    seq: int = 1,
    now_ms: int = START_MS,
    life_ms: int = 600_000,
    load: float = 0.0,
    model: str = MODEL,
) -> SignedRecord:
    """A signed ad."""
    body = codec.encode(an_ad(model, load=load))
    return sign(signer, Record(NAMESPACE, key_of(model), seq, now_ms, now_ms + life_ms, body), RULES)


class CoreNode:
    """One node: a core, and what the shell would do for it."""

    def __init__(self, world: CoreWorld, number: int, k: int, quotas: Quotas | None) -> None:
        self.identity = identity(number)
        self.peer = self.identity.peer
        self.address = f"/memory/{number}"
        self.core = Core(self.peer, Shelf(digest("salt", self.peer)[:16], quotas=quotas), RULES, k=k)
        self.alive = True
        self.asked = 0
        self._world = world

    def node(self) -> Node:
        """As others are told of it."""
        return Node(self.peer, [self.address])

    def ask(self, node: Node, ask: Ask, then: Callable[[Answer], None]) -> None:
        """Send a request; `then` gets the checked reply, or None."""
        self.asked += 1
        request = Request(ask, [self.address])
        world = self._world

        def arrive() -> None:
            there = world.by_peer.get(node.peer)
            if there is None or not there.alive:
                world.after(TIMEOUT_MS, lambda: self._failed(node, then))
                return
            try:
                told = there.core.handle(self.peer, codec.decode(Request, codec.encode(request)), world.now_ms)
            except RemoteError as exc:
                there.core.blame(exc, world.now_ms)
                world.after(world.delay_ms(), lambda: self._failed(node, then))
                return
            there.probe()
            reply = codec.decode(Reply, codec.encode(Reply(told, [there.address])))
            world.after(world.delay_ms(), lambda: self._answered(node, request, reply, then))

        world.after(world.delay_ms(), arrive)

    def _failed(self, node: Node, then: Callable[[Answer], None]) -> None:
        self.core.failed(node.peer, self._world.now_ms)
        self.probe()
        then(None)

    def _answered(self, node: Node, request: Request, reply: Reply, then: Callable[[Answer], None]) -> None:
        try:
            records = self.core.answered(node.peer, request, reply, self._world.now_ms)
        except RemoteError as exc:
            self.core.blame(exc, self._world.now_ms)
            then(None)
            return
        self.probe()
        then((reply, records))

    def probe(self) -> None:
        """Ping whom the core wants pinged."""
        for peer in self.core.take_probes():
            self.ask(Node(peer, []), Ping(), lambda answer: None)

    def find(self, target: int, ask: Ask, seeds: list[Node], done: Callable[[Lookup], None]) -> None:
        """Run a look-up; `done` is called once, at its end."""
        lookup = self.core.lookup(target, self._world.now_ms, seeds=seeds)
        if isinstance(ask, FindValue):
            lookup.merge(self.core.shelf.get(ask.namespace, ask.key, self._world.now_ms))

        def begin(nodes: list[Node]) -> None:
            for node in nodes:
                self.ask(node, ask, lambda answer, node=node: on_answer(node, answer))  # type: ignore[misc]  # bound
            if lookup.done and not finished:
                finished.append(True)
                done(lookup)

        def on_answer(node: Node, answer: Answer) -> None:
            if answer is None or not isinstance(answer[0].told, Nodes):
                begin(lookup.on_failure(node.peer))
            else:
                begin(lookup.on_reply(node.peer, answer[0].told.nodes, answer[1]))

        finished: list[bool] = []
        begin(lookup.start())

    def join(self, via: list[Node], done: Callable[[Lookup], None] = lambda lookup: None) -> None:
        """Look ourselves up through `via`."""
        target = node_id(self.peer)
        self.find(target, FindNode(target.to_bytes(32, "big")), via, done)

    def provide(self, record: SignedRecord, done: Callable[[int, int], None]) -> None:
        """Store a record on the closest nodes; `done` gets (stored, attempted)."""

        def store(lookup: Lookup) -> None:
            nodes = lookup.closest()
            here = self.core.responsible(record.place, nodes)
            nodes = nodes[: self.core.k - here]
            results: list[bool] = [self.core.keep(record)] if here else []

            def on_answer(answer: Answer) -> None:
                kept = answer is not None and isinstance(answer[0].told, Stored) and answer[0].told.kept[0]
                results.append(kept)
                if len(results) == len(nodes) + here:
                    done(sum(results), len(results))

            for node in nodes:
                self.ask(node, Store([record.envelope]), on_answer)

        place = record.place
        self.find(place, FindNode(place.to_bytes(32, "big")), [], store)

    def providers(self, done: Callable[[Lookup], None], model: str = MODEL) -> None:
        """Find the providers of a model."""
        key = key_of(model)
        self.find(place_of(NAMESPACE, key), FindValue(NAMESPACE, key), [], done)


class CoreWorld:
    """`nodes` cores under one virtual clock."""

    def __init__(self, nodes: int, seed: int, *, k: int = 20, quotas: Quotas | None = None) -> None:
        self.random = Random(seed)
        self.now_ms = START_MS
        self.messages = 0
        self.nodes = [CoreNode(self, number, k, quotas) for number in range(nodes)]
        self.by_peer: dict[PeerId, CoreNode] = {node.peer: node for node in self.nodes}
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0

    def delay_ms(self) -> int:
        """How long the next message takes."""
        self.messages += 1
        return self.random.randint(10, 60)

    def after(self, wait_ms: int, action: Callable[[], None]) -> None:
        """Do something later."""
        self._number += 1
        heappush(self._heap, (self.now_ms + wait_ms, self._number, action))

    def settle(self) -> None:
        """Run until nothing is under way."""
        while self._heap:
            self.now_ms, _, action = heappop(self._heap)
            action()

    def join_all(self) -> None:
        """Everybody joins through one earlier node, one after the other."""
        for number, node in enumerate(self.nodes[1:], 1):
            node.join([self.nodes[self.random.randrange(number)].node()])
            self.settle()

    def find_all(self, askers: list[CoreNode], model: str = MODEL) -> list[Lookup]:
        """The look-ups of several nodes at once."""
        found: list[Lookup] = []
        for node in askers:
            node.providers(found.append, model)
        self.settle()
        return found
