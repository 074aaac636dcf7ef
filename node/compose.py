"""A running node, put together: every service opened in the order in which they need one another, each a scope.

    identity -> transport -> pool -> ledger, DHT, shared state -> market -> API

`assemble` does all that lies between the network and the API, over any filling of the Transport seam: libp2p, or the
simulated network.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from random import Random

import structlog
import trio

from crdt import service as crdt_service
from crdt.service import Replicas, open_replicas
from dht import service as dht_service
from dht.service import Dht, open_dht
from ledger import ports as ledger_ports
from ledger import service as ledger_service
from ledger.service import Ledger, open_ledger
from node import log
from node.ads import AdNews
from node.calibrations import usable
from node.config import Settings
from node.doors.mapping import MEANS
from node.doors.mdns import open_mdns
from node.gossip.service import open_gossip
from node.identity import load_or_create
from node.jobs import Board
from node.keys import Keyring
from node.libp2p.gate import Gate
from node.light.allowances import Allowances, Limits
from node.light.messages import PROTOCOL as LIGHT_PROTOCOL
from node.light.service import LightService
from node.market.context import Context, Executors, NodeIdentity, Slots
from node.market.material import Fetcher
from node.market.pricing import relayed_price_micro
from node.news import News, Sources
from node.node import NAMESPACES, Node, now_ms
from node.peer_store import open_peer_store
from node.reach.addresses import on_this_machine
from node.reach.quota import MODEST
from node.reach.quota import Limits as RelayLimits
from node.reach.service import Reach, open_reach
from node.records import Records
from node.relay_accounts import RelayBooks, RelayPayer
from node.relay_directory import RelayDirectory
from node.rpc.node import open_rpc
from node.tasks import start_if_open
from node.transport_libp2p import Libp2pTransport, open_transport
from node.trust import Trust
from node.webrtc.helper import installed
from node.webrtc.service import open_webrtc
from wire.errors import LocalError, Malformed, RemoteError, StorageError
from wire.memory import Memory
from wire.peer import PeerId, from_text, short
from wire.rpc.seam import Rpc
from wire.serving import Bug
from wire.transport import Transport
from workloads.catalog import built_in
from workloads.executor import ModelInfo
from workloads.service import Pool, open_pool

MEETINGS_MAX = 4
"""Peers on the local network that are met at a time."""

REMEMBERED_MAX = 8
"""Peers reached in an earlier run through which a node joins again."""

BATCHES_OPEN_MAX = 8
"""Own open batches before new ones are refused."""

LIGHT_OPEN_MAX = 16
"""Jobs of all light peers at once."""

RELAY_LIMITS = {"on": RelayLimits(), "auto": MODEST, "off": None}
"""What the setting `relay` gives to others."""


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
        open_peer_store(settings.home / "peers.db", on_fault=faults.disk) as book,
        open_transport(
            identity.ed25519_seed,
            listen=settings.listen,
            blame=faults.blame,
            on_bug=faults.bug,
            fast_path=settings.fast_path,
            gate=Gate(map(from_text, settings.deny_peers), settings.deny_subnets),
            book=book,
            same_machine=any(on_this_machine(text) for text in (*settings.bootstrap, *settings.relays)),
        ) as transport,
        open_reach(
            transport,
            relays=settings.relays,
            limits=RELAY_LIMITS[settings.relay],
            relay_only_proven=settings.relay == "auto",
            map_port=tuple(MEANS) if settings.map_port else (),
            blame=faults.blame,
        ) as reach,
        _open_webrtc(settings, transport, reach),
        _open_pool(settings) as pool,
        assemble(
            settings,
            identity,
            transport,
            pool,
            now_ms,
            faults=faults,
            on_bug=faults.bug,
            remembered=book.reached(REMEMBERED_MAX),
            memory=transport.memory,
        ) as node,
        open_api(node, settings.home, settings.api_port),
    ):
        node.reach_view = reach.view
        async with _open_relaying(node, reach), _open_neighbours(node, transport):
            yield node


@asynccontextmanager
async def _open_neighbours(node: Node, transport: Libp2pTransport) -> AsyncIterator[None]:
    """Peers on the same local network are asked into the DHT, a few at a time."""
    meeting = trio.CapacityLimiter(MEETINGS_MAX)

    async def found(peer: PeerId, addresses: list[str]) -> None:
        transport.learn(peer, addresses)
        if meeting.available_tokens > 0 and peer not in transport.connected():
            start_if_open(nursery, meet, peer)

    async def meet(peer: PeerId) -> None:
        async with meeting:
            await node.dht.meet(peer)

    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        if node.context.settings.mdns:
            await stack.enter_async_context(open_mdns(transport.peer, transport.listening, found))
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_relaying(node: Node, reach: Reach) -> AsyncIterator[None]:
    """Relays found and offered through the DHT, and what is passed accounted for in the ledger."""
    context, settings = node.context, node.context.settings
    reach.discover(RelayDirectory(node.dht, node.trust), Random(os.urandom(16)))
    async with trio.open_nursery() as nursery:
        if reach.relay is not None:
            price_micro = relayed_price_micro(settings.price_percent)
            allowance_micro = settings.credit_limit_micro
            books = RelayBooks(
                context.rpc,
                context.ledger,
                reach.relay.meter,
                reach.relay.paid,
                reach.relay.quota.subnet,
                price_micro=price_micro,
                allowance_micro=allowance_micro,
            )
            reach.earned_micro = lambda: books.earned_micro
            nursery.start_soon(books.collect_forever)
        if settings.relay_budget_micro:
            payer = RelayPayer(
                context.rpc,
                context.ledger,
                lambda: {relay: reach.circuits.carried[relay] for relay in reach.circuits.held},
                budget_micro=settings.relay_budget_micro,
                session=lambda: os.urandom(32),
            )
            reach.paid_micro = lambda: payer.spending.total_micro
            nursery.start_soon(payer.run)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_webrtc(settings: Settings, transport: Libp2pTransport, reach: Reach) -> AsyncIterator[None]:
    """WebRTC beside TCP, where it is wanted and there."""
    if not settings.webrtc or not installed():
        yield
        return
    servers = [(host, int(port)) for host, _, port in (text.rpartition(":") for text in settings.stun_servers)]
    async with open_webrtc(transport, servers=servers, deny_subnets=settings.deny_subnets) as rtc:
        reach.over_udp = rtc.upgrade
        try:
            yield
        finally:
            reach.over_udp = None


class Faults:
    """Where the faults of peers and our own go: the log."""

    def __init__(self, logger: structlog.typing.FilteringBoundLogger) -> None:
        self.log = logger
        self.listeners: list[Callable[[RemoteError], None]] = []

    def blame(self, exc: RemoteError) -> None:
        """A peer broke a rule."""
        for listener in self.listeners:
            listener(exc)
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
    on_bug: Bug | None = None,
    offload: Offload | None = None,
    remembered: Sequence[PeerId] = (),
    memory: Memory | None = None,
) -> AsyncIterator[Node]:
    """Everything between the network and the API, over any filling of the Transport seam.

    Args:
        on_bug: told of errors of handlers that are nobody else's fault, as by the transport.
        memory: counts what peers make calls hold.
        remembered: peers of an earlier run, whose addresses the transport knows, to join through besides `bootstrap`.

    Raises:
        LocalError: as `open_node`.
    """
    async with AsyncExitStack() as stack:
        keyring = Keyring()
        keyring.learn(identity.key_record(), author=identity.peer)
        seeds = list(dict.fromkeys([*_bootstrap(transport, settings), *remembered]))
        rpc = await stack.enter_async_context(open_rpc(transport, blame=faults.blame, on_bug=on_bug, memory=memory))
        stores = _open_stores(
            settings, identity, transport, rpc, clock_ms, keyring, seeds, faults, offload or Offload()
        )
        ledger, dht, replicas = await stack.enter_async_context(stores)
        board, batches = _boards(settings, clock_ms, faults, stack)
        records = Records(settings.home / "records.db", on_fault=faults.disk)
        stack.callback(records.close)
        context = Context(
            settings=settings,
            identity=identity,
            transport=transport,
            rpc=rpc,
            fetcher=Fetcher(transport),
            ledger=ledger,
            pool=pool,
            calibrations=usable(settings, identity.peer, faults.log),
            keyring=keyring,
            records=records,
            models=_served(settings),
            now_ms=clock_ms,
            blame=faults.blame,
            log=faults.log,
            slots=Slots(settings.worker_slots),
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        node = Node(context, board, batches, dht, replicas, Trust(identity.peer, ledger), nursery)
        faults.listeners.append(node.penalties.note)
        node.learn_keys()
        await node.recover(seeds)
        node.serve()
        if settings.light:
            await stack.enter_async_context(_open_light(node, faults, clock_ms))
        nursery.start_soon(_join, node)
        nursery.start_soon(node.catch_up_forever)
        if settings.gossip:
            await stack.enter_async_context(_open_news(node, faults, clock_ms, nursery))
        yield node


def _boards(
    settings: Settings, clock_ms: Callable[[], int], faults: Faults, stack: AsyncExitStack
) -> tuple[Board, Board]:
    """The jobs of this node's user, and the batches."""
    board = Board(settings.home / "jobs.db", clock_ms, open_max=settings.jobs_queued_max, on_fault=faults.disk)
    stack.callback(board.close)
    batches = Board(settings.home / "batches.db", clock_ms, open_max=BATCHES_OPEN_MAX, on_fault=faults.disk)
    stack.callback(batches.close)
    return board, batches


@asynccontextmanager
async def _open_light(node: Node, faults: Faults, clock_ms: Callable[[], int]) -> AsyncIterator[None]:
    """Serve light peers, within what the settings allow them."""
    settings = node.context.settings
    limits = Limits(
        jobs_max=settings.light_jobs_max,
        credit_micro=settings.light_credit_micro,
        open_max=min(LIGHT_OPEN_MAX, max(1, settings.jobs_queued_max // 2)),
    )
    listed = [from_text(peer) for peer in settings.light_peers]
    with closing(Allowances(settings.home / "light.db", limits, listed, clock_ms)) as allowances:
        async with trio.open_nursery() as nursery:
            node.light = LightService(node, allowances, nursery, on_fault=faults.disk)
            node.context.transport.serve(LIGHT_PROTOCOL, node.light.serve)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_news(
    node: Node, faults: Faults, clock_ms: Callable[[], int], nursery: trio.Nursery
) -> AsyncIterator[None]:
    context, rng = node.context, Random(os.urandom(16))
    me = context.identity.peer

    def known() -> list[PeerId]:
        return [contact.peer for contact in node.dht.contacts()]

    sources = Sources(
        me=me,
        ledger=context.ledger,
        replicas=node.replicas,
        keyring=context.keyring,
        known=lambda peer: peer == me or context.ledger.head(peer) > 0 or peer in known(),
        pull=node.catch_up,
    )
    async with open_gossip(
        context.identity, context.transport, clock_ms, peers=known, blame=faults.blame, rng=rng
    ) as gossip:
        node.gossip = gossip
        faults.listeners.append(gossip.penalise)
        news = News(gossip, sources, rng, nursery)
        news.subscribe()
        nursery.start_soon(news.run)
        own = AdNews(gossip, node.ads, node.own_ads, node.dht.sign_ad, clock_ms)
        own.subscribe()
        nursery.start_soon(own.run)
        try:
            yield
        finally:
            node.gossip = None
            faults.listeners.remove(gossip.penalise)


@asynccontextmanager
async def _open_stores(
    settings: Settings,
    identity: NodeIdentity,
    transport: Transport,
    rpc: Rpc,
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
            rpc,
            clock_ms,
            keyring.check,
            allowance_micro=settings.credit_limit_micro,
            run=run.ledger,
        ) as ledger,
        open_dht(transport, rpc, identity, clock_ms, home / "dht.db", seeds, blame=blame, run=run.dht) as dht,
        open_replicas(
            home / "shared.db",
            identity,
            rpc,
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
        variant=settings.worker_backend,
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
