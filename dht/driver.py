"""Calls and look-ups on the transport: the part of the service that knows how long to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from dht.core import Core
from dht.limits import PROBES_MAX
from dht.lookup import Lookup
from dht.messages import ASK, Ask, FindNode, FindValue, Node, Nodes, Ping, Reply, Request, Store, Stored, fitting
from dht.record import SignedRecord
from wire.errors import Busy, Refused, RemoteError, TransportError
from wire.peer import PeerId
from wire.rpc.seam import Rpc
from wire.transport import Transport


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds; `jitter` is the share by which periods vary.

    Attributes:
        call_timeout_s: a call that takes longer has failed.
        slow_s: a look-up asks somebody else beside a peer that takes longer.
        tick_s: how often records are flushed to disk, swept and, if due, published again.
        refresh_s: how often buckets without look-ups are refreshed, and missing contacts tried again.
        republish_share: the share of its life after which a record is signed anew.
    """

    call_timeout_s: float = 3.0
    slow_s: float = 0.5
    tick_s: float = 1.0
    refresh_s: float = 300.0
    republish_share: float = 0.4
    jitter: float = 0.2


class Driver:
    """Makes the calls that the core wants and reports back to it."""

    def __init__(
        self,
        transport: Transport,
        rpc: Rpc,
        core: Core,
        settings: Settings,
        now_ms: Callable[[], int],
        nursery: trio.Nursery,
        report: Callable[[RemoteError], None],
    ) -> None:
        self.calls = 0
        self._transport = transport
        self._rpc = rpc
        self._core = core
        self._settings = settings
        self._now_ms = now_ms
        self._nursery = nursery
        self._report = report
        self._probing = 0

    async def ask(self, node: Node, ask: Ask) -> tuple[Reply, list[SignedRecord]] | None:
        """One call; None if there was no proper answer, which the core has then been told."""
        peer = node.peer
        self.calls += 1
        contact = self._core.table.get(peer)
        addresses = contact.addresses if contact and contact.addresses else node.addresses
        if addresses:
            self._transport.learn(peer, addresses)
        request = Request(ask, fitting(self._transport.addresses()))
        try:
            reply = await self._rpc.call(peer, ASK, request, timeout_s=self._settings.call_timeout_s)
            return reply, self._core.answered(peer, request, reply, self._now_ms())
        except Busy:
            pass  # it is there, or we have too many calls under way ourselves
        except (Refused, TransportError):
            self._core.failed(peer, self._now_ms())
        except RemoteError as exc:
            self.blame(exc)
        finally:
            self.start_probes()
        return None

    def blame(self, error: RemoteError) -> None:
        """Note what a peer did wrong, and pass it on."""
        self._core.blame(error, self._now_ms())
        self._report(error)

    async def ping(self, node: Node) -> bool:
        """Whether the peer answers."""
        return await self.ask(node, Ping()) is not None

    def start_probes(self) -> None:
        """Ping in the background whom the core wants pinged."""
        for peer in self._core.take_probes():
            if self._probing < PROBES_MAX:
                self._probing += 1
                self._nursery.start_soon(self._probe, peer)

    async def _probe(self, peer: PeerId) -> None:
        try:
            await self.ping(Node(peer, list(self._core.table.addresses_of(peer))))
        finally:
            self._probing -= 1

    async def find(self, target: int, *, seeds: Iterable[Node] = ()) -> Lookup:
        """Look up the peers closest to `target`."""
        lookup = self._core.lookup(target, self._now_ms(), seeds=seeds)
        await self._run(lookup, FindNode(target.to_bytes(32, "big")))
        return lookup

    async def find_value(self, place: int, namespace: str, key: bytes) -> Lookup:
        """Look up the records under a key, on our own shelf too."""
        lookup = self._core.lookup(place, self._now_ms())
        lookup.merge(self._core.shelf.get(namespace, key, self._now_ms()))
        await self._run(lookup, FindValue(namespace, key))
        self._core.convict(lookup.evidence)
        return lookup

    async def store(self, nodes: Iterable[Node], record: SignedRecord) -> int:
        """Ask each node to keep the record; returns how many do."""
        kept: list[Node] = []

        async def one(node: Node) -> None:
            answer = await self.ask(node, Store([record.envelope]))
            if answer is not None and isinstance(answer[0].told, Stored) and answer[0].told.kept[0]:
                kept.append(node)

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(one, node)
        return len(kept)

    async def _run(self, lookup: Lookup, ask: Ask) -> None:
        """Drive a look-up until nothing is under way."""
        started: dict[PeerId, float] = {}

        async def one(node: Node) -> None:
            answer = await self.ask(node, ask)
            started.pop(node.peer, None)
            if answer is None or not isinstance(answer[0].told, Nodes):
                begin(lookup.on_failure(node.peer))
            else:
                begin(lookup.on_reply(node.peer, answer[0].told.nodes, answer[1]))
            if lookup.done:
                nursery.cancel_scope.cancel()

        def begin(nodes: list[Node]) -> None:
            for node in nodes:
                started[node.peer] = trio.current_time()
                nursery.start_soon(one, node)

        async def pace() -> None:
            while True:
                await trio.sleep(self._settings.slow_s / 2)
                overdue = trio.current_time() - self._settings.slow_s
                for peer in [peer for peer, at_s in started.items() if at_s <= overdue]:
                    begin(lookup.on_slow(peer))

        async with trio.open_nursery() as nursery:
            begin(lookup.start())
            if not lookup.done:
                nursery.start_soon(pace)
