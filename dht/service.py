"""The DHT as the rest of the node sees it: `open_dht` and the `Dht` it yields (trio)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Protocol, TypeVar

import structlog
import trio

from dht.core import Core, as_node
from dht.driver import Driver, Settings
from dht.keys import node_id, place_of
from dht.limits import CONTACTS_SAVED_MAX, PROVIDER_LIFE_MS
from dht.messages import ASK, Node, Reply, Request, fitting
from dht.provider import NAMESPACE, RULES, ProviderAd, key_of, parse
from dht.record import Equivocation, Record, Rules, SignedRecord, sign
from dht.shelf import Quotas, Shelf, Weight
from dht.store import RecordStore
from dht.table import Contact
from wire import codec
from wire.envelope import Signer
from wire.errors import LocalError, RemoteError, StorageError
from wire.hashing import digest
from wire.peer import PeerId
from wire.rpc.seam import Rpc
from wire.transport import Transport

T = TypeVar("T")
_log = structlog.get_logger("dht")
REJOIN_S = 1.0
"""Seconds between attempts to join while nobody is known."""

JOIN_BUCKETS_MAX = 1
"""Far buckets looked into while joining; those who look for us fill the others, and `refresh` does the rest."""

REFRESH_BUCKETS_MAX = 3
"""Buckets refreshed per round."""


class Run(Protocol):
    """Runs a blocking function away from the event loop; the simulator runs it inline."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


async def in_thread(function: Callable[[], T], /) -> T:
    """Run a blocking function in a worker thread (the default `Run`)."""
    return await trio.to_thread.run_sync(function)


@dataclass(frozen=True, slots=True)
class StoreResult:
    """How many of the nodes that should keep a record said that they do."""

    stored: int
    attempted: int


@dataclass(slots=True)
class _Published:
    """A record of ours that is signed anew before it expires."""

    body: bytes
    life_ms: int
    due_ms: int = 0


class Dht:
    """One node of the DHT; made by `open_dht`."""

    def __init__(
        self,
        core: Core,
        driver: Driver,
        signer: Signer,
        now_ms: Callable[[], int],
        rng: Random,
        rules: Rules,
        settings: Settings,
        bootstrap: Sequence[PeerId],
        transport: Transport,
        store: RecordStore | None,
        run: Run,
    ) -> None:
        self.core = core
        self._driver = driver
        self._signer = signer
        self._now_ms = now_ms
        self._rng = rng
        self._rules = rules
        self._settings = settings
        self._bootstrap = [Node(peer, []) for peer in bootstrap if peer != signer.peer]
        self._transport = transport
        self._store = store
        self._run = run
        self._mine: dict[tuple[str, bytes], _Published] = {}
        self._seq = 0

    async def bootstrap(self) -> int:
        """Join: ping the bootstrap peers, look ourselves up, and look into the far buckets.

        Returns:
            How many contacts there are now; 0 if nobody answered.
        """
        await self._ping_all(self._bootstrap)
        lookup = await self._driver.find(node_id(self._signer.peer), seeds=self._bootstrap)
        nearest = lookup.closest()
        if nearest:
            floor = self.core.table.bucket_of(nearest[0].peer)
            for index in self.core.table.stale(1, self._now_ms())[:JOIN_BUCKETS_MAX]:
                if index > floor:
                    await self._driver.find(self.core.table.target_in(index, self._rng))
        return len(self.core.table)

    async def provide(self, ad: ProviderAd) -> StoreResult:
        """Publish an ad, and keep it published until `withdraw`; a later ad for the same model replaces it.

        Raises:
            LocalError: the ad is out of bounds.
        """
        return await self.publish(NAMESPACE, key_of(ad.model), codec.encode(ad), life_s=PROVIDER_LIFE_MS / 1000)

    def sign_ad(self, ad: ProviderAd) -> SignedRecord:
        """The record of an ad as `provide` would publish it now, with a higher number than any before.

        Raises:
            LocalError: the ad is out of bounds.
        """
        now_ms = self._now_ms()
        body = codec.encode(ad)
        record = Record(NAMESPACE, key_of(ad.model), self.next_seq(), now_ms, now_ms + PROVIDER_LIFE_MS, body)
        return sign(self._signer, record, self._rules)

    def withdraw(self, model: str) -> None:
        """Publish the ad for a model no more; it is gone when its last copy expires (10 minutes at most)."""
        self.unpublish(NAMESPACE, key_of(model))

    async def providers(self, model: str) -> list[tuple[PeerId, ProviderAd]]:
        """Everybody who offers the model now, ourselves included, in the order of their keys.

        Args:
            model: CID of the weights manifest.
        """
        found = [(record.author, parse(record.record)) for record in await self.get(NAMESPACE, key_of(model))]
        for peer, ad in found:
            if peer != self._signer.peer and ad.addresses:
                self._transport.learn(peer, ad.addresses)
        return sorted(found, key=lambda item: item[0])

    async def publish(self, namespace: str, key: bytes, body: bytes, *, life_s: float) -> StoreResult:
        """Sign a record, store it, and sign and store it anew before it expires, until the node stops.

        Args:
            namespace: one of the rules'.
            key: 32 bytes.
            body: as the namespace demands.
            life_s: how long each signed record lives.

        Raises:
            LocalError: other nodes would refuse the record.
        """
        published = _Published(body, int(life_s * 1000))
        signed = self._sign(namespace, key, published)
        self._mine[namespace, key] = published
        return await self._put(signed)

    def unpublish(self, namespace: str, key: bytes) -> None:
        """Renew our record under a key no more; it is gone when its last copy expires."""
        self._mine.pop((namespace, key), None)

    async def put(self, record: Record) -> StoreResult:
        """Sign a record as it is and store it once; `next_seq` numbers it.

        Raises:
            LocalError: other nodes would refuse the record.
        """
        return await self._put(sign(self._signer, record, self._rules))

    async def get(self, namespace: str, key: bytes) -> list[SignedRecord]:
        """The best record of each author under a key, merged from all nodes that keep it."""
        lookup = await self._driver.find_value(place_of(namespace, key), namespace, key)
        now_ms = self._now_ms()
        return [record for record in lookup.values() if record.record.expires_ms > now_ms]

    async def find_peer(self, peer: PeerId) -> list[str]:
        """Where a peer may be dialled: by its own statement if it answered, else as others were told by it."""
        lookup = await self._driver.find(node_id(peer))
        contact = self.core.table.get(peer)
        if contact is not None and contact.addresses:
            return list(contact.addresses)
        node = lookup.known(peer)
        return node.addresses if node is not None else []

    async def meet(self, peer: PeerId) -> None:
        """Ask a peer that the transport can reach whether it takes part; if it answers, it is seated like any other."""
        await self._driver.ping(Node(peer, []))

    def next_seq(self) -> int:
        """A `seq` higher than any that we used, also before a restart: Unix milliseconds, or one more than the last."""
        self._seq = max(self._seq + 1, self._now_ms())
        return self._seq

    def contacts(self) -> list[Contact]:
        """Peers in the routing table."""
        return list(self.core.table)

    def equivocations(self) -> list[Equivocation]:
        """Evidence against authors of two records with one number, one per author."""
        return list(self.core.evidence.values())

    def _sign(self, namespace: str, key: bytes, published: _Published) -> SignedRecord:
        now_ms = self._now_ms()
        record = Record(namespace, key, self.next_seq(), now_ms, now_ms + published.life_ms, published.body)
        wait_ms = published.life_ms * self._settings.republish_share
        published.due_ms = now_ms + int(self._jittered(wait_ms))
        return sign(self._signer, record, self._rules)

    async def _put(self, record: SignedRecord) -> StoreResult:
        lookup = await self._driver.find(record.place)
        storers = lookup.closest()
        here = self.core.responsible(record.place, storers)
        nodes = storers[: self.core.k - 1] if here else storers
        stored = await self._driver.store(nodes, record)
        return StoreResult(stored + (here and self.core.keep(record)), len(nodes) + here)

    async def _ping_all(self, nodes: Sequence[Node]) -> None:
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(self._driver.ping, node)

    async def answer(self, peer: PeerId, request: Request) -> Reply:
        """Answer a request.

        Raises:
            RemoteError: it breaks a rule; whoever runs this handler reports it.
        """
        try:
            told = self.core.handle(peer, request, self._now_ms())
        except RemoteError as exc:
            self.core.blame(exc, self._now_ms())
            raise
        finally:
            self._driver.start_probes()
        return Reply(told, fitting(self._transport.addresses()))

    async def tend(self) -> None:
        """Flush, sweep and republish, for ever."""
        while True:
            await trio.sleep(self._jittered(self._settings.tick_s))
            await self.flush()
            for (namespace, key), published in list(self._mine.items()):
                if published.due_ms <= self._now_ms():
                    await self._put(self._sign(namespace, key, published))

    async def stay(self) -> None:
        """While nobody is known, try to join again, for ever: who we join through may start after us, or come back."""
        while True:
            await trio.sleep(REJOIN_S)
            if self._bootstrap and not len(self.core.table):
                await self.bootstrap()

    async def refresh(self) -> None:
        """Keep the table fresh, for ever: unseated peers, ourselves, and buckets without look-ups."""
        while True:
            await trio.sleep(self._jittered(self._settings.refresh_s))
            absent = [node for node in self._bootstrap if self.core.table.get(node.peer) is None]
            waiting = [
                Node(peer, list(self.core.table.addresses_of(peer))) for peer in self.core.table.waiting(self.core.k)
            ]
            await self._ping_all([*absent, *waiting])
            await self._driver.find(node_id(self._signer.peer))
            stale = self.core.table.stale(int(self._settings.refresh_s * 1000), self._now_ms())
            for index in stale[:REFRESH_BUCKETS_MAX]:
                await self._driver.find(self.core.table.target_in(index, self._rng))

    def load(self) -> None:
        """Take records and contacts from disk; contacts become seeds, to be asked before they are believed."""
        if self._store is None:
            return
        for record in self._store.load(self._rules, self._now_ms()):
            self.core.keep(record)
            if record.author == self._signer.peer:
                self._seq = max(self._seq, record.record.seq)
        self.core.shelf.drain()
        known = {node.peer for node in self._bootstrap}
        saved = [as_node(contact) for contact in self._store.load_contacts()]
        self._bootstrap += [node for node in saved if node.peer not in known][: self.core.k]

    async def flush(self) -> None:
        """Write to disk what changed; a disk that fails costs copies, which their authors renew, and is logged."""
        self.core.shelf.sweep(self._now_ms())
        changes = self.core.shelf.drain()
        if self._store is None or not changes:
            return
        try:
            with trio.CancelScope(shield=True):  # an abandoned thread would write beside the last `save`
                await self._run(partial(self._store.write, changes))
        except StorageError as exc:
            _log.warning("records_not_saved", records=len(changes), error=str(exc))

    def save(self) -> None:
        """Write changes and contacts, on the way out; as `flush`, a disk that fails is logged."""
        if self._store is None:
            return
        newest = sorted(self.core.table, key=lambda contact: -contact.answered_ms)
        try:
            self._store.write(self.core.shelf.drain())
            self._store.save_contacts(newest[:CONTACTS_SAVED_MAX])
        except StorageError as exc:
            _log.warning("contacts_not_saved", error=str(exc))

    def _jittered(self, period: float) -> float:
        return period * (1 + self._settings.jitter * (self._rng.random() - 0.5))


def _blame_nobody(error: RemoteError) -> None:
    """For callers that keep no score of their peers."""


@asynccontextmanager
async def open_dht(
    transport: Transport,
    rpc: Rpc,
    signer: Signer,
    now_ms: Callable[[], int],
    store_path: Path | None,
    bootstrap: Sequence[PeerId],
    *,
    blame: Callable[[RemoteError], None] = _blame_nobody,
    rng: Random | None = None,
    rules: Rules = RULES,
    quotas: Quotas | None = None,
    weight: Weight | None = None,
    settings: Settings | None = None,
    run: Run = in_thread,
) -> AsyncIterator[Dht]:
    """Run a node of the DHT for as long as the scope lasts; call `bootstrap` to join.

    Args:
        transport: whose addresses are told, and which learns those of others.
        rpc: calls on that transport; `dht.ask` is served on it.
        signer: our identity; the same peer as the transport's.
        now_ms: Unix time in milliseconds.
        store_path: SQLite file for records and contacts; None keeps them in memory only.
        bootstrap: peers to join through, whose addresses the transport knows.
        blame: told of every peer that broke a rule.
        rng: decides jitter and which part of a bucket is refreshed; by default seeded with our identity.
        rules: the namespaces kept here.
        quotas: how much is kept for others.
        weight: a peer's standing, when a key has more authors than seats (1 for a stranger).
        settings: times.
        run: where the disk is waited for.

    Raises:
        StorageError: the file cannot be opened or read.
        LocalError: the identities differ.
    """
    if signer.peer != transport.peer:
        raise LocalError("the signer is not the transport's peer")
    settings = settings or Settings()
    shelf = Shelf(_salt(signer), quotas=quotas, weight=weight or (lambda author: 1.0))
    core = Core(signer.peer, shelf, rules)
    store = RecordStore(store_path) if store_path is not None else None
    dht: Dht | None = None
    try:
        async with trio.open_nursery() as nursery:
            driver = Driver(transport, rpc, core, settings, now_ms, nursery, blame)
            rng = rng or Random(signer.peer)
            dht = Dht(core, driver, signer, now_ms, rng, rules, settings, bootstrap, transport, store, run)
            dht.load()
            rpc.serve(ASK, dht.answer)
            nursery.start_soon(dht.tend)
            nursery.start_soon(dht.refresh)
            nursery.start_soon(dht.stay)
            yield dht
            nursery.cancel_scope.cancel()
    finally:
        if dht is not None:
            dht.save()
        if store is not None:
            store.close()


def _salt(signer: Signer) -> bytes:
    """A secret that is ours for ever, from a signature that nobody else can make and that is never shown."""
    return digest("dht.seat.salt", signer.sign(digest("dht.seat.salt", signer.peer)))[:16]
