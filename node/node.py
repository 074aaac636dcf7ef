"""One node: what it shows, what it does for its user, what it serves to peers, and what it does unasked.

Background work here is only glue: publishing our models, catching up with peers' chains, and telling the DHT about
new connections. Each loop survives what peers do and ends with the node. `node.compose` puts a node together.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import trio

from crdt.namespace import Namespace, author_key
from crdt.service import Replicas
from dht.provider import ProviderAd
from dht.service import Dht
from node import intake, pings
from node.ads import Ads
from node.batch_intake import parse_batch
from node.events import Events
from node.gossip.service import Gossip
from node.jobs import Board, Job
from node.light.service import LightService
from node.market import pricing
from node.market.batch_messages import BATCH
from node.market.batch_requester import BatchRequester
from node.market.batch_worker import BatchWorker
from node.market.canaries import Canaries
from node.market.context import Context
from node.market.finder import Finder
from node.market.juror import JurorService
from node.market.lending import LEND, Lender
from node.market.messages import AUDIT, DISPUTE_ENTRY, DISPUTE_OPENING, DISPUTE_SHOWN, HIRE, PAID, REVEAL
from node.market.payer import Payer
from node.market.requester import Requester
from node.market.sides import (
    ACCUSED_MAX,
    ACCUSED_PER_REQUESTER_MAX,
    DEFENDED_MAX,
    DEFENDED_PER_REQUESTER_MAX,
    Keeper,
    Sides,
)
from node.market.taken import Taken
from node.market.worker import Worker
from node.penalties import Penalties
from node.rpc.blobs import serve_blobs
from node.transport_libp2p import Libp2pTransport
from node.trust import Trust
from node.views import entry_view
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.peer import PeerId, from_text, short, to_text
from wire.rpc.seam import Rpc
from wire.transport import Transport
from workloads.catalog import built_in
from workloads.executor import ModelInfo

NAMESPACES = (
    Namespace("keys", "map", "author-keyed"),
    Namespace("models", "map", "author-keyed"),
    Namespace("ratings", "map", "author-keyed"),
    Namespace("tags", "set"),
)
PROVIDE_PERIOD_S = 120.0
SHOWN_ENTRIES = 100
PULL_S = 5.0
LOST_PER_ROUND = 4
"""Peers that we lost sight of and look for in one round of catching up."""
PING_S = 10.0
"""Seconds for finding a peer and for each round trip to it."""

RECOVER_S = 5.0
"""Seconds to look for a longer history of our own before we sign anything."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Node:
    """A running node; made by `node.compose.assemble`."""

    def __init__(
        self,
        context: Context,
        board: Board,
        batches: Board,
        dht: Dht,
        replicas: Replicas,
        trust: Trust,
        nursery: trio.Nursery,
    ) -> None:
        self.context = context
        self.board = board
        self.batches = batches
        self.dht = dht
        self.replicas = replicas
        self.trust = trust
        self.gossip: Gossip | None = None
        self.light: LightService | None = None  # where the settings have light peers
        self.rpc: Rpc = context.rpc
        self.events = Events(context.now_ms)
        self.penalties = Penalties()
        if isinstance(context.transport, Libp2pTransport):
            context.transport.connections.emit = self.events.emit
        self._nursery = nursery
        self._payer = Payer(context, nursery)
        self.ads = Ads(context.identity.peer, os.urandom(16), lambda author: 1.0)
        self._finder = Finder(context, dht, trust, self.ads)
        self._requester = Requester(context, board, self._finder, self._payer)
        canaries = Canaries(context, self._finder, self._payer, nursery)
        self._batch_requester = BatchRequester(context, batches, self._finder, self._payer, canaries)
        self.reach_view: Callable[[], dict[str, Any]] | None = None  # set where the transport is the real one
        self._started = time.monotonic()
        self._turn = 0

    # ---- stopping

    def begin_to_stop(self) -> None:
        """Take on no further work, from anybody, and publish our models no more."""
        self.context.slots.close()
        for model in self.context.models:
            self.dht.withdraw(model.cid)
        self.events.emit("draining")

    def jobs_under_way(self) -> int:
        """Jobs and batches of our user that have not ended, and pieces of work for others."""
        work = self.context.slots.busy if self.context.settings.serve else 0
        return self.board.open_count() + self.batches.open_count() + work

    # ---- what the API shows

    def about(self) -> dict[str, Any]:
        """Who this node is and how it does."""
        context = self.context
        roles = ["requester", *(["worker", "juror"] if context.settings.serve else [])]
        reach = self.reach_view() if self.reach_view is not None else None
        roles += ["relay"] if reach is not None and (reach["relaying"] or {}).get("serving") else []
        return {
            "peer": to_text(context.identity.peer),
            "version": version("quorate-node"),
            "addresses": context.transport.addresses(),
            "models": [_model_view(model) for model in context.models],
            "peers_connected": len(_connected(context.transport)),
            "balance_micro": context.ledger.balance(),
            "roles": roles,
            "reach": reach,
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
        names = {model.cid: model.name for model in self.known_models()}
        return [
            {
                "peer": to_text(peer),
                "addresses": addresses.get(peer, []),
                "connected": peer in connected,
                "connections": _connections(self.context.transport, peer),
                "penalties": self.penalties.of(peer),
                "models": registered.get(to_text(peer), []),
                "trust": ranks[peer].score if peer in ranks else 0.0,
                "records": [
                    {**asdict(standing), "model": names.get(standing.model, standing.model)}
                    for standing in self.context.records.of(peer)
                ],
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
        self.learn_keys()
        report = await self.context.ledger.audit()
        return {"ok": report.ok, "entries": report.entries, "issues": [str(issue) for issue in report.issues]}

    # ---- what the user asks for

    async def submit(self, body: Any) -> Job:
        """Check a request and start on it."""
        self.context.slots.check()
        known = self.context.calibrations
        request = intake.parse(body, self.known_models(), random_seed=secrets.randbits(63), calibrations=known)
        job = self.board.add(secrets.token_hex(16), request)
        self._nursery.start_soon(self._requester.run, job)
        return job

    async def submit_batch(self, body: Any) -> Job:
        """Check a request for many jobs and start on it."""
        self.context.slots.check()
        saving = self.context.settings.saving_percent
        request = parse_batch(
            body,
            self.known_models(),
            draw_seed=lambda: secrets.randbits(63),
            calibrations=self.context.calibrations,
            saving_percent=saving,
        )
        batch = self.batches.add(secrets.token_hex(16), request)
        self._nursery.start_soon(self._batch_requester.run, batch)
        return batch

    async def ping(self, peer: str, count: int) -> pings.Pinged:
        """Round trips to a peer, within `PING_S` seconds each.

        Raises:
            intake.Refused: no peer id, a count out of range, or no answer.
        """
        if not 1 <= count <= pings.PINGS_MAX:
            raise intake.Refused("bad_request", f"1 to {pings.PINGS_MAX} pings, not {count}")
        try:
            target = from_text(peer)
        except Malformed as exc:
            raise intake.Refused("bad_request", str(exc)) from exc
        if target == self.context.identity.peer:
            raise intake.Refused("bad_request", "that is this node itself")
        try:
            with trio.fail_after(PING_S * count):
                self.context.transport.learn(target, await self.dht.find_peer(target))
                return await pings.ping(self.context.transport, target, count, lambda: secrets.token_bytes(32))
        except (TransportError, trio.TooSlowError) as exc:
            raise intake.Refused("unreachable", f"no answer from {peer}: {exc or 'none in time'}", status=504) from exc
        except RemoteError as exc:
            self.context.blame(exc)
            raise intake.Refused("unreachable", str(exc), status=504) from exc

    # ---- background

    def serve(self) -> None:
        """Register everything that this node answers."""
        context, rpc = self.context, self.context.rpc
        context.transport.serve(pings.PROTOCOL, pings.answer)
        serve_blobs(context.transport, context.shelf.find)
        rpc.serve(PAID, self._payer.on_paid)
        if context.settings.serve:
            defended = Keeper(context.now_ms, DEFENDED_MAX, DEFENDED_PER_REQUESTER_MAX)
            accused = Keeper(context.now_ms, ACCUSED_MAX, ACCUSED_PER_REQUESTER_MAX)
            juror, taken = JurorService(context, accused), Taken(context.ledger, context.now_ms)
            sides = Sides(context.identity, defended, accused)
            rpc.serve_stream(HIRE, Worker(context, taken, defended).serve)
            rpc.serve_stream(BATCH, BatchWorker(context, taken).serve)
            rpc.serve(LEND, Lender(context, taken).lend)
            rpc.serve(DISPUTE_ENTRY, sides.entry)
            rpc.serve(DISPUTE_OPENING, sides.opening)
            rpc.serve(DISPUTE_SHOWN, sides.shown)
            rpc.serve(AUDIT, juror.audit)
            rpc.serve(REVEAL, juror.reveal)

    async def recover(self, peers: Sequence[PeerId]) -> None:
        """Clear up after an unclean stop, before anything new is signed.

        Peers are asked for a longer history of ours than the disk holds (a restored backup); then nothing stays
        reserved for a job that nobody drives any more.
        """
        if self.context.ledger.unclean:
            with trio.move_on_after(RECOVER_S):
                await self.context.ledger.recover_head(peers)
        for board in (self.board, self.batches):
            for job in board.interrupted():
                error = {"code": "interrupted", "message": "the node was stopped during this job; submit it again"}
                board.update(job, "failed", error=error)
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
            stored = 0
            for ad in self.own_ads():
                stored += (await self.dht.provide(ad)).stored
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

    def own_ads(self) -> list[ProviderAd]:
        """What we offer, as it is now; nothing once we are about to stop."""
        serving = self.context.settings.serve and not self.context.slots.closed
        return [self._ad(model) for model in self.context.models] if serving else []

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

    async def catch_up(self, peer: PeerId, author: PeerId | None = None) -> None:
        """What a peer has of a chain, its own unless another is named."""
        with trio.move_on_after(PULL_S):
            try:
                await self.context.ledger.pull(peer, author or peer)
                await self._payer.settle()
            except (TransportError, RemoteError, LocalError, Busy) as exc:
                self.context.log.debug("not_caught_up", peer=short(peer), reason=str(exc))


@runtime_checkable
class _Connected(Protocol):
    def connected(self) -> list[PeerId]: ...


def _connected(transport: Transport) -> list[PeerId]:
    return transport.connected() if isinstance(transport, _Connected) else []


def _connections(transport: Transport, peer: PeerId) -> list[dict[str, Any]]:
    if not isinstance(transport, Libp2pTransport):
        return []
    return [asdict(view) for view in transport.connections.views(peer)]


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
