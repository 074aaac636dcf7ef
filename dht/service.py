"""The DHT at work: answers peers, looks things up, keeps our own records alive.

Whoever speaks to us is authenticated by the transport, so it enters the table as alive with the addresses it states.
What others mention is tried before it counts. Records are checked by whoever receives them, storer and reader alike.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from dht import record as records
from dht.lookup import Lookup
from dht.messages import CLOSER_MAX, PROTOCOL, RECORDS_MAX, Ask, FindNode, FindValue, Near, Reply, Store
from dht.record import PROVIDER, ProviderAd, Record, provider_key
from dht.shelf import Shelf
from dht.store import RecordFile
from dht.table import Contact, RoutingTable, key_id, node_id, trim
from wire import codec
from wire.call import Refused, answer_calls, call
from wire.envelope import Envelope, Signer
from wire.errors import LocalError, Malformed, RemoteError, TransportError
from wire.peer import PeerId
from wire.transport import Transport

T = TypeVar("T")

CALL_S = 3.0
"""Seconds one peer has to answer."""

AD_LIFE_MS = 300_000
REPUBLISH_S = 100.0
REFRESH_S = 300.0
SWEEP_S = 30.0
OWN_RECORDS_MAX = 256


class Run(Protocol):
    """Runs a blocking function away from the event loop; the simulator runs it inline."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


async def in_thread(function: Callable[[], T], /) -> T:
    """Run a blocking function in a worker thread (the default `Run`)."""
    return await trio.to_thread.run_sync(function)


@dataclass(frozen=True, slots=True)
class StoreResult:
    """How many of the peers that were asked keep the record now."""

    stored: int
    attempted: int


class Dht:
    """Made by `open_dht`."""

    def __init__(
        self,
        transport: Transport,
        signer: Signer,
        now_ms: Callable[[], int],
        file: RecordFile | None,
        bootstrap: Sequence[PeerId],
        *,
        blame: Callable[[RemoteError], None],
        rng: random.Random,
        run: Run,
    ) -> None:
        self._transport, self._signer, self._now_ms, self._file = transport, signer, now_ms, file
        self._bootstrap = list(bootstrap)
        self._report, self._rng, self._run = blame, rng, run
        self._table = RoutingTable(signer.peer)
        self._shelf = Shelf()
        self._own: dict[tuple[str, bytes], tuple[bytes, int]] = {}
        self._seq = 0
        self._write_lock = trio.Lock()
        self.requests = 0

    # ---- reading and writing

    def contacts(self) -> list[Contact]:
        """Everyone in the routing table, by peer."""
        return self._table.contacts()

    def heard(self, peer: PeerId) -> None:
        """Consider a peer that the transport can reach: it is asked like any other contact, and dropped if silent."""
        self._table.heard(Contact(peer, ()))

    async def bootstrap(self) -> int:
        """Join through the bootstrap peers: look ourselves up; returns how many contacts are known."""
        for peer in self._bootstrap:
            self._table.heard(Contact(peer, ()))
        await self._walk(node_id(self._signer.peer))
        return len(self._table)

    async def provide(self, ad: ProviderAd) -> StoreResult:
        """Say that we offer a model, now and, until the scope ends, again before the record expires.

        Raises:
            LocalError: the ad is out of bounds, or too many records are ours.
        """
        return await self.put(PROVIDER, provider_key(ad.model), codec.encode(ad), AD_LIFE_MS)

    async def providers(self, model: str) -> list[tuple[PeerId, ProviderAd]]:
        """Everyone who offers a model (a CID) now, ourselves included, by peer."""
        found = await self.get(PROVIDER, provider_key(model))
        return [
            (envelope.author, codec.decode(ProviderAd, codec.decode(Record, envelope.body).body)) for envelope in found
        ]

    async def put(self, namespace: str, key: bytes, body: bytes, life_ms: int) -> StoreResult:
        """Publish a record under a 32-byte key, on the `K` closest peers and here; it is kept alive as our own.

        Raises:
            LocalError: out of bounds.
        """
        if (namespace, key) not in self._own and len(self._own) >= OWN_RECORDS_MAX:
            raise LocalError(f"{OWN_RECORDS_MAX} records are ours already")
        envelope = self._sign(namespace, key, body, life_ms)
        self._own[namespace, key] = body, life_ms
        return await self._publish(envelope, key)

    def _sign(self, namespace: str, key: bytes, body: bytes, life_ms: int) -> Envelope:
        now = self._now_ms()
        self._seq = max(self._seq + 1, now)
        envelope = records.make(self._signer, Record(namespace, key, self._seq, now, now + life_ms, body))
        try:
            record = records.check(envelope, now)
        except Malformed as exc:
            raise LocalError(str(exc)) from exc
        self._shelf.put(envelope, record)
        return envelope

    async def _publish(self, envelope: Envelope, key: bytes) -> StoreResult:
        closest = (await self._walk(key_id(key))).result()
        stored: list[int] = []

        async def give(contact: Contact) -> None:
            reply = await self._ask(contact.peer, Store([envelope], self._mine()))
            stored.append(reply.stored if reply is not None else 0)

        async with trio.open_nursery() as nursery:
            for contact in closest:
                nursery.start_soon(give, contact)
        return StoreResult(sum(count > 0 for count in stored), len(closest))

    async def get(self, namespace: str, key: bytes) -> list[Envelope]:
        """All valid records under a 32-byte key: the union by author of what the `K` closest peers and we hold."""
        found: dict[PeerId, Envelope] = {}
        now = self._now_ms()
        for envelope in self._shelf.get(namespace, key, now):
            records.merge(found, envelope)

        def take(peer: PeerId, reply: Reply) -> None:
            for envelope in reply.records:
                record = records.check(envelope, now)
                if (record.namespace, record.key) != (namespace, key):
                    raise Malformed("a record that was not asked for")
                records.merge(found, envelope)

        await self._walk(key_id(key), lambda: FindValue(namespace, key, self._mine()), take)
        return [found[author] for author in sorted(found)]

    async def find_peer(self, peer: PeerId) -> list[str]:
        """Where a peer may be dialled; empty if nobody knows."""
        lookup = await self._walk(node_id(peer))
        known = [contact for contact in (*lookup.result(), *self.contacts()) if contact.peer == peer]
        return list(known[0].addresses) if known else []

    # ---- look-ups

    async def _walk(
        self,
        target: int,
        request: Callable[[], FindValue] | None = None,
        take: Callable[[PeerId, Reply], None] | None = None,
    ) -> Lookup:
        """Run one look-up to its end."""
        lookup = Lookup(target, self._signer.peer, self._table.closest(target))

        async def ask(contact: Contact) -> None:
            body = request() if request is not None else FindNode(target.to_bytes(32, "big"), self._mine())
            if contact.addresses:
                self._transport.learn(contact.peer, contact.addresses)
            reply = await self._ask(contact.peer, body, take)
            if reply is None:
                actions = lookup.on_failure(contact.peer)
            else:
                actions = lookup.on_reply(contact.peer, self._learn(reply))
            for action in actions:
                nursery.start_soon(ask, action)

        async with trio.open_nursery() as nursery:
            for contact in lookup.start():
                nursery.start_soon(ask, contact)
        return lookup

    def _learn(self, reply: Reply) -> list[Contact]:
        closer = [Contact(near.peer, trim(near.addresses)) for near in reply.closer[:CLOSER_MAX]]
        for contact in closer:
            self._table.heard(contact)
        return closer

    async def _ask(
        self,
        peer: PeerId,
        body: FindNode | FindValue | Store,
        take: Callable[[PeerId, Reply], None] | None = None,
    ) -> Reply | None:
        """One request; None, with the consequences for the table, if it brought nothing."""
        self.requests += 1
        try:
            with trio.fail_after(CALL_S):
                reply = await call(self._transport, peer, PROTOCOL, Ask(body), Reply)
            if take is not None:
                take(peer, reply)
        except Refused:
            return None
        except Malformed as exc:
            self._blame(RemoteError(peer, f"dht: {exc}", penalty=0.3))
            return None
        except RemoteError as exc:
            self._blame(exc)
            return None
        except (TransportError, trio.TooSlowError):
            self._table.failed(peer)
            return None
        self._table.alive(Contact(peer, ()))
        return reply

    def _blame(self, error: RemoteError) -> None:
        self._table.blame(PeerId(error.peer), error.penalty)
        self._report(error)

    def _mine(self) -> list[str]:
        return list(trim(self._transport.addresses()))

    # ---- answering

    async def _answer(self, peer: PeerId, ask: Ask) -> Reply:
        body = ask.body
        mine = trim(body.mine)
        self._table.alive(Contact(peer, mine))
        if mine:
            self._transport.learn(peer, mine)
        match body:
            case FindNode():
                return Reply(self._near(body.target, peer), [], 0)
            case FindValue():
                held = self._shelf.get(body.namespace, body.key, self._now_ms())
                chosen = held if len(held) <= RECORDS_MAX else self._rng.sample(held, RECORDS_MAX)
                return Reply(self._near(body.key, peer), chosen, 0)
            case Store():
                return Reply([], [], await self._keep(peer, body.records))

    def _near(self, target: bytes, asker: PeerId) -> list[Near]:
        if len(target) != 32:
            raise Malformed(f"a target of {len(target)} bytes")
        closest = self._table.closest(key_id(target), without=[asker])
        return [Near(contact.peer, list(contact.addresses)) for contact in closest if contact.addresses]

    async def _keep(self, sender: PeerId, offered: Sequence[Envelope]) -> int:
        if len(offered) > RECORDS_MAX:
            raise RemoteError(sender, f"{len(offered)} records at once", penalty=0.2)
        now = self._now_ms()
        kept: list[tuple[Envelope, Record]] = []
        gone: list[tuple[tuple[str, bytes], PeerId]] = []
        for envelope in offered:
            try:
                record = records.check(envelope, now)
            except Malformed as exc:
                raise RemoteError(sender, f"dht: {exc}", penalty=0.2) from exc
            is_kept, dropped = self._shelf.put(envelope, record)
            gone += dropped
            if is_kept:
                kept.append((envelope, record))
        await self._write(kept, gone)
        return len(kept)

    async def _write(self, kept: list[tuple[Envelope, Record]], gone: list[tuple[tuple[str, bytes], PeerId]]) -> None:
        file = self._file
        if file is not None and (kept or gone):
            async with self._write_lock:
                await self._run(partial(file.write, kept, gone))

    # ---- background

    def _restore(self, kept: Sequence[Envelope]) -> None:
        for envelope in kept:
            try:
                record = records.check(envelope, self._now_ms())
            except Malformed:
                continue  # expired while we were away
            self._shelf.put(envelope, record)

    async def _every(self, period_s: float, action: Callable[[], Awaitable[object]]) -> None:
        while True:
            await trio.sleep(period_s * self._rng.uniform(0.8, 1.2))
            await action()

    async def _republish(self) -> None:
        for (namespace, key), (body, life_ms) in list(self._own.items()):
            await self._publish(self._sign(namespace, key, body, life_ms), key)

    async def _refresh(self) -> None:
        for point in self._table.refresh_points():
            await self._walk(point)

    async def _sweep(self) -> None:
        await self._write([], self._shelf.sweep(self._now_ms()))


def _blame_nobody(error: RemoteError) -> None:
    """The default for callers that keep no score of their peers."""


@asynccontextmanager
async def open_dht(
    transport: Transport,
    signer: Signer,
    now_ms: Callable[[], int],
    store_path: Path | None,
    bootstrap: Sequence[PeerId],
    *,
    blame: Callable[[RemoteError], None] = _blame_nobody,
    rng: random.Random | None = None,
    run: Run = in_thread,
) -> AsyncIterator[Dht]:
    """Take part in the DHT until the scope ends; call `bootstrap` to join.

    Args:
        transport: where `/quorate/dht/1` is served and peers are called.
        signer: our identity.
        now_ms: Unix time in milliseconds.
        store_path: SQLite file of the records that we hold for others; None keeps them in memory.
        bootstrap: peers to join through, whose addresses the transport knows.
        blame: told of every peer that broke a rule.
        rng: jitter and sampling; seed it for a run that repeats.
        run: where the disk is waited for.

    Raises:
        StorageError: the file cannot be used.
    """
    file = await run(partial(RecordFile, store_path)) if store_path is not None else None
    dht = Dht(transport, signer, now_ms, file, bootstrap, blame=blame, rng=rng or random.Random(signer.peer), run=run)
    if file is not None:
        dht._restore(await run(file.load))
    try:
        async with trio.open_nursery() as nursery:
            transport.serve(PROTOCOL, answer_calls(Ask, dht._answer, dht._blame))
            nursery.start_soon(dht._every, REPUBLISH_S, dht._republish)
            nursery.start_soon(dht._every, REFRESH_S, dht._refresh)
            nursery.start_soon(dht._every, SWEEP_S, dht._sweep)
            yield dht
            nursery.cancel_scope.cancel()
    finally:
        if file is not None:
            file.close()
