"""One node, put together: every service opened in the order in which they need one another, each a scope.

    identity -> transport -> ledger -> pool -> DHT -> shared state -> market -> API

Background work here is only glue: publishing our models, catching up with peers' chains, and telling the DHT about
new connections. Each loop survives what peers do and ends with the node.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import structlog
import trio

from crdt import service as crdt_service
from crdt.namespace import Namespace, author_key
from crdt.service import Replicas, open_replicas
from dht import service as dht_service
from dht.provider import ProviderAd
from dht.service import Dht, open_dht
from ledger import ports as ledger_ports
from ledger import service as ledger_service
from ledger.service import Ledger, open_ledger
from node import intake, log
from node.config import Settings
from node.identity import load_or_create
from node.jobs import Board, Job
from node.keys import Keyring
from node.market import pricing
from node.market.context import Context, Executors, NodeIdentity, Slots
from node.market.finder import Finder
from node.market.juror import JurorService
from node.market.messages import AUDIT_PROTOCOL, JOB_PROTOCOL, PAID_PROTOCOL, REVEAL_PROTOCOL, Paid
from node.market.payer import Payer
from node.market.requester import Requester
from node.market.worker import Worker
from node.transport_libp2p import open_transport
from node.trust import Trust
from node.views import entry_view
from verify.calibrated import calibrations
from verify.messages import JuryAsk, RevealAsk
from wire import codec
from wire.call import answer_calls
from wire.codec import Wire
from wire.envelope import Envelope
from wire.errors import Busy, LocalError, Malformed, RemoteError, StorageError, TransportError
from wire.peer import PeerId, from_text, short, to_text
from wire.transport import Transport
from workloads.catalog import built_in
from workloads.executor import ModelInfo
from workloads.service import Pool, open_pool

NAMESPACES = (
    Namespace("keys", "map", "author-keyed"),
    Namespace("models", "map", "author-keyed"),
    Namespace("ratings", "map", "author-keyed"),
    Namespace("tags", "set"),
)
PROVIDE_PERIOD_S = 120.0
AD_MS = 300_000
"""How long a provider record lives; it is renewed well before that."""

SHOWN_ENTRIES = 100
PULL_S = 5.0
LOST_PER_ROUND = 4
"""Peers that we lost sight of and look for in one round of catching up."""
RECOVER_S = 5.0
"""Seconds to look for a longer history of our own before we sign anything."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Node:
    """A running node; made by `open_node`."""

    def __init__(
        self, context: Context, board: Board, dht: Dht, replicas: Replicas, trust: Trust, nursery: trio.Nursery
    ) -> None:
        self.context = context
        self.board = board
        self.dht = dht
        self.replicas = replicas
        self.trust = trust
        self._nursery = nursery
        self._payer = Payer(context, nursery)
        self._finder = Finder(context, dht, trust)
        self._requester = Requester(context, board, self._finder, self._payer)
        self._started = time.monotonic()
        self._turn = 0

    # ---- what the API shows

    def about(self) -> dict[str, Any]:
        """Who this node is and how it does."""
        context = self.context
        roles = ["requester", *(["worker", "juror"] if context.settings.serve else [])]
        return {
            "peer": to_text(context.identity.peer),
            "version": version("quorate-node"),
            "addresses": context.transport.addresses(),
            "models": [_model_view(model) for model in context.models],
            "peers_connected": len(_connected(context.transport)),
            "balance_micro": context.ledger.balance(),
            "roles": roles,
            "uptime_s": round(time.monotonic() - self._started, 1),
        }

    async def model_list(self) -> list[dict[str, Any]]:
        """Every model that can be named in a job, with how many other peers offer it now."""
        views = []
        for model in self.known_models():
            providers = await self._finder.providers(model.cid)
            views.append({**_model_view(model), "providers": len(providers), "card": _card(model)})
        return views

    def known_models(self) -> list[ModelInfo]:
        """Installed models and those that peers have registered in the shared state."""
        known = {model.cid: model for model in built_in().capabilities().models}
        for raw in self.replicas.map_items("models").values():
            model = _registered(raw)
            if model is not None:
                known.setdefault(model.cid, model)
        return list(known.values())

    def peer_list(self) -> list[dict[str, Any]]:
        """Peers in the routing table, with what they are trusted for."""
        connected = set(_connected(self.context.transport))
        known = connected | {contact.peer for contact in self.dht.contacts()}
        ranks = {ranked.peer: ranked for ranked in self.trust.rank(known)}
        addresses = {contact.peer: list(contact.addresses) for contact in self.dht.contacts()}
        registered = self._models_by_author()
        return [
            {
                "peer": to_text(peer),
                "addresses": addresses.get(peer, []),
                "connected": peer in connected,
                "models": registered.get(to_text(peer), []),
                "trust": ranks[peer].score if peer in ranks else 0.0,
            }
            for peer in sorted(known)
        ]

    def _models_by_author(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, raw in self.replicas.map_items("models").items():
            if (model := _registered(raw)) is not None:
                found.setdefault(key.partition("/")[0], []).append(model.name)
        return found

    def ranking(self) -> list[dict[str, Any]]:
        """Peers in the order of our trust, with reasons."""
        known = {contact.peer for contact in self.dht.contacts()} | set(_connected(self.context.transport))
        return [
            {"peer": to_text(r.peer), "score": r.score, "rank": r.rank, "why": r.why}
            for r in self.trust.rank(known)
            if r.peer != self.context.identity.peer
        ]

    async def ledger_view(self) -> dict[str, Any]:
        """Balance and newest entries of our own chain."""
        ledger = self.context.ledger
        me = self.context.identity.peer
        height = ledger.head()
        entries = await ledger.entries(me, max(0, height - SHOWN_ENTRIES), SHOWN_ENTRIES)
        return {
            "balance_micro": ledger.balance(),
            "reserved_micro": ledger.reserved(),
            "height": height,
            "head": ledger.head_id().hex(),
            "entries": [entry_view(entry) for entry in entries],
        }

    async def ledger_audit(self) -> dict[str, Any]:
        """Our chain, checked from its first entry."""
        report = await self.context.ledger.audit()
        return {"ok": report.ok, "entries": report.entries, "issues": [str(issue) for issue in report.issues]}

    # ---- what the user asks for

    async def submit(self, body: Any) -> Job:
        """Check a request and start on it."""
        request = intake.parse(body, self.known_models(), random_seed=secrets.randbits(63))
        job = self.board.add(secrets.token_hex(16), request)
        self._nursery.start_soon(self._requester.run, job)
        return job

    # ---- background

    def serve(self) -> None:
        """Register every protocol that this node answers."""
        context = self.context
        transport = context.transport
        transport.serve(PAID_PROTOCOL, answer_calls(Paid, self._payer.on_paid, context.blame))
        if context.settings.serve:
            juror = JurorService(context)
            transport.serve(JOB_PROTOCOL, Worker(context).serve)
            transport.serve(AUDIT_PROTOCOL, answer_calls(JuryAsk, juror.audit, context.blame))
            transport.serve(REVEAL_PROTOCOL, answer_calls(RevealAsk, juror.reveal, context.blame))

    async def recover(self, peers: Sequence[PeerId]) -> None:
        """Clear up after an unclean stop, before anything new is signed.

        Peers are asked for a longer history of ours than the disk holds (a restored backup); then nothing stays
        reserved for a job that nobody drives any more.
        """
        if self.context.ledger.unclean:
            with trio.move_on_after(RECOVER_S):
                await self.context.ledger.recover_head(peers)
        for job in self.board.interrupted():
            error = {"code": "interrupted", "message": "the node was stopped during this job; submit it again"}
            self.board.update(job, "failed", error=error)
        for offer_id, _ in self.context.ledger.open_offers():
            await self.context.ledger.release(offer_id, "cancelled")

    async def announce_forever(self) -> None:
        """Keep our models in the DHT, and, once, models and key record in the shared state."""
        me = self.context.identity
        await self._share("keys", "bls", me.key_record())
        if not self.context.settings.serve:
            return
        for model in self.context.models:
            await self._share("models", model.cid, model)
        while True:
            if not self.dht.contacts():
                await self.dht.bootstrap()
            stored = 0
            for model in self.context.models:
                stored += (await self.dht.provide(self._ad(model))).stored
            # alone so far, or hardly known: try again soon
            await trio.sleep(PROVIDE_PERIOD_S if stored > len(self.context.models) else 1.0)

    async def _share(self, namespace: str, subject: str, value: Wire) -> None:
        key, raw = author_key(self.context.identity.peer, subject), codec.encode(value)
        if self.replicas.map_get(namespace, key) != raw:
            await self.replicas.map_set(namespace, key, raw)

    def learn_keys(self) -> None:
        """Take key records from the shared state into the keyring; what does not check is somebody's noise."""
        for key, raw in self.replicas.map_items("keys").items():
            with suppress(Malformed):
                self.context.keyring.learn(
                    codec.decode(Envelope, raw, bytes_max=1024), author=from_text(key.partition("/")[0])
                )

    def _ad(self, model: ModelInfo) -> ProviderAd:
        context = self.context
        return ProviderAd(
            model=model.cid,
            kind=model.kind,
            lanes=list(model.lanes),
            price_micro=pricing.unit_price_micro(model.kind, context.settings.price_percent),
            addresses=context.transport.addresses(),
            load=context.slots.load,
            key_record=codec.encode(context.identity.key_record()),
        )

    async def catch_up_forever(self) -> None:
        """Fetch what is new on the chains of the peers we know, settle what they owe us, learn whom they trust.

        Peers that are merely connected count: a node that others join through knows nobody when it starts again.
        """
        while True:
            await trio.sleep(self.context.settings.sync_period_s)
            self.learn_keys()
            known = dict.fromkeys(contact.peer for contact in self.dht.contacts())
            for peer in _connected(self.context.transport):
                if peer not in known:
                    known[peer] = None
                    await self.dht.meet(peer)
            for peer in [*known, *await self._lost(known)]:
                await self.catch_up(peer)

    async def _lost(self, known: Collection[PeerId]) -> list[PeerId]:
        """A few peers whose chains we keep but of whom we lost sight, looked for in turn.

        Two peers that found each other dead for a moment forget one another, and one may owe the other something.
        """
        me = self.context.identity.peer
        lost = [author for author in self.context.ledger.authors() if author != me and author not in known]
        if not lost:
            return []
        start = self._turn % len(lost)
        self._turn = start + LOST_PER_ROUND
        found = (lost[start:] + lost[:start])[:LOST_PER_ROUND]
        for peer in found:
            with trio.move_on_after(PULL_S):
                self.context.transport.learn(peer, await self.dht.find_peer(peer))
                await self.dht.meet(peer)
        return found

    async def catch_up(self, peer: PeerId) -> None:
        """One peer's chain."""
        with trio.move_on_after(PULL_S):
            try:
                await self.context.ledger.pull(peer, peer)
                await self._payer.settle()
            except (TransportError, RemoteError, LocalError, Busy) as exc:
                self.context.log.debug("not_caught_up", peer=short(peer), reason=str(exc))


@runtime_checkable
class _Connected(Protocol):
    def connected(self) -> list[PeerId]: ...


def _connected(transport: Transport) -> list[PeerId]:
    return transport.connected() if isinstance(transport, _Connected) else []


def _model_view(model: ModelInfo) -> dict[str, Any]:
    return {"name": model.name, "cid": model.cid, "kind": model.kind, "lanes": list(model.lanes)}


def _card(model: ModelInfo) -> dict[str, object]:
    installed = built_in().models.get(model.name)
    return installed.card() if installed is not None and installed.cid == model.cid else {}


def _registered(raw: bytes) -> ModelInfo | None:
    """A model from the shared registry; whatever does not decode is somebody's noise."""
    try:
        return codec.decode(ModelInfo, raw, bytes_max=4096)
    except Malformed:
        return None


def _served(settings: Settings) -> Sequence[ModelInfo]:
    installed = built_in().capabilities().models
    names = {model.name for model in installed}
    unknown = sorted(set(settings.models) - names)
    if unknown:
        raise LocalError(f"models: {unknown[0]!r} is not installed; known: {', '.join(sorted(names))}")
    return [model for model in installed if not settings.models or model.name in settings.models]


@dataclass(frozen=True)
class Offload:
    """Where blocking work runs: worker threads, or, under a virtual clock, right here."""

    ledger: ledger_ports.RunSync = ledger_service.in_thread
    dht: dht_service.Run = dht_service.in_thread
    shared: crdt_service.Offload = trio.to_thread.run_sync


@asynccontextmanager
async def open_node(settings: Settings) -> AsyncIterator[Node]:
    """A running node with its API; leaving the scope stops it in the opposite order.

    Raises:
        LocalError: something of this machine's (a file, a port, a setting) prevents it; says what.
    """
    from node.api import open_api

    identity = load_or_create(settings)
    faults = Faults(log.get().bind(node=short(identity.peer)))
    async with (
        open_transport(
            identity.ed25519_seed, listen=settings.listen, blame=faults.blame, on_bug=faults.bug
        ) as transport,
        _open_pool(settings) as pool,
        assemble(settings, identity, transport, pool, now_ms, faults=faults) as node,
        open_api(node, settings.home, settings.api_port),
    ):
        yield node


class Faults:
    """Where the faults of peers and our own go: the log."""

    def __init__(self, logger: structlog.typing.FilteringBoundLogger) -> None:
        self.log = logger

    def blame(self, exc: RemoteError) -> None:
        """A peer broke a rule."""
        self.log.warning("peer_at_fault", peer=short(PeerId(exc.peer)), reason=exc.reason, penalty=exc.penalty)

    def disk(self, exc: StorageError) -> None:
        """Our disk refused something that can be done without."""
        self.log.error("not_stored", reason=str(exc))

    def bug(self, exc: Exception) -> None:
        """A handler of ours failed."""
        self.log.error("handler_failed", error=repr(exc), exc_info=exc)


@asynccontextmanager
async def assemble(
    settings: Settings,
    identity: NodeIdentity,
    transport: Transport,
    pool: Executors,
    clock_ms: Callable[[], int],
    *,
    faults: Faults,
    offload: Offload | None = None,
) -> AsyncIterator[Node]:
    """Everything between the network and the API, over any filling of the Transport seam.

    Raises:
        LocalError: as `open_node`.
    """
    async with AsyncExitStack() as stack:
        keyring = Keyring()
        keyring.learn(identity.key_record(), author=identity.peer)
        seeds = _bootstrap(transport, settings)
        stores = _open_stores(settings, identity, transport, clock_ms, keyring, seeds, faults, offload or Offload())
        ledger, dht, replicas = await stack.enter_async_context(stores)
        board = Board(settings.home / "jobs.db", clock_ms, open_max=settings.jobs_queued_max, on_fault=faults.disk)
        stack.callback(board.close)
        context = Context(
            settings=settings,
            identity=identity,
            transport=transport,
            ledger=ledger,
            pool=pool,
            calibrations=calibrations(),
            keyring=keyring,
            models=_served(settings),
            now_ms=clock_ms,
            blame=faults.blame,
            log=faults.log,
            slots=Slots(settings.worker_slots),
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        node = Node(context, board, dht, replicas, Trust(identity.peer, ledger), nursery)
        await node.recover(seeds)
        node.serve()
        nursery.start_soon(_join, node)
        nursery.start_soon(node.catch_up_forever)
        yield node


@asynccontextmanager
async def _open_stores(
    settings: Settings,
    identity: NodeIdentity,
    transport: Transport,
    clock_ms: Callable[[], int],
    keyring: Keyring,
    seeds: Sequence[PeerId],
    faults: Faults,
    run: Offload,
) -> AsyncIterator[tuple[Ledger, Dht, Replicas]]:
    """What a node keeps with others, each in a file of its own."""
    home, blame = settings.home, faults.blame
    async with (
        open_ledger(
            home / "ledger.db",
            identity,
            transport,
            clock_ms,
            keyring.check,
            allowance_micro=settings.credit_limit_micro,
            blame=blame,
            run=run.ledger,
        ) as ledger,
        open_dht(transport, identity, clock_ms, home / "dht.db", seeds, blame=blame, run=run.dht) as dht,
        open_replicas(
            home / "shared.db",
            identity,
            transport,
            clock_ms,
            namespaces=NAMESPACES,
            peers=lambda: [contact.peer for contact in dht.contacts()],
            period_s=settings.sync_period_s,
            blame=blame,
            offload=run.shared,
        ) as replicas,
    ):
        yield ledger, dht, replicas


async def _join(node: Node) -> None:
    await node.dht.bootstrap()
    await node.announce_forever()


def _open_pool(settings: Settings) -> AbstractAsyncContextManager[Pool]:
    return open_pool(
        workers=settings.worker_processes,
        threads=settings.worker_threads,
        idle_s=settings.worker_idle_s,
        cheat=settings.cheat or None,
    )


def _bootstrap(transport: Transport, settings: Settings) -> list[PeerId]:
    """The peers to join through, their addresses learned.

    Raises:
        LocalError: an address without a peer id.
    """
    peers = []
    for address in settings.bootstrap:
        try:
            peer = from_text(address.rpartition("/p2p/")[2])
        except Malformed as exc:
            raise LocalError(f"bootstrap: {address!r} does not end in /p2p/<peer id>: {exc}") from exc
        transport.learn(peer, [address])
        peers.append(peer)
    return peers
