"""Gossip at work: a router, its links to peers, and the application's judgement of what arrives.

    async with open_gossip(identity, transport, now_ms, peers=..., blame=blame) as gossip:
        gossip.subscribe("/quorate/heads/1", judge)
        gossip.publish("/quorate/heads/1", digest)

Every peer that is connected and speaks the protocol is linked; where these are few, known peers are dialled. One task
sends to a peer, so one that does not read holds up nobody else. A judgement may take its time: it runs beside the
others, and one that fails or comes too late relays nothing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import structlog
import trio

from node.gossip.links import Links, links_of
from node.gossip.params import PEERS_MAX, Params, TopicParams
from node.gossip.router import Arrived, Router, Verdict
from node.tasks import start_if_open
from wire.envelope import Signer
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.peer import PeerId, short
from wire.transport import Channel, Transport

_log = structlog.get_logger("gossip")

Judge = Callable[[Arrived], Verdict | Awaitable[Verdict]]
"""Says what becomes of a message. May raise: `Malformed` rejects it, other errors of ours ignore it."""

JUDGE_S = 10.0
OPEN_S = 5.0
RETRY_S = 30.0
"""Seconds before a peer that could not be linked is tried again."""

LINKS_WANTED = 12
DIALS_PER_BEAT = 2


@dataclass(eq=False)
class _Link:
    """With one peer: the task that sends, and the channels that it sends on."""

    news: trio.Event = field(default_factory=trio.Event)
    life: trio.CancelScope = field(default_factory=trio.CancelScope)
    reading: trio.CancelScope | None = None


class Gossip:
    """Made by `open_gossip`."""

    def __init__(
        self, router: Router, links: Links, nursery: trio.Nursery, peers: Callable[[], list[PeerId]], rng: Random
    ) -> None:
        self._router = router
        self._links_of = links
        self._nursery = nursery
        self._known = peers
        self._rng = rng
        self._links: dict[PeerId, _Link] = {}
        self._failed: dict[PeerId, float] = {}
        self._judges: dict[str, Judge] = {}
        self._blame: Callable[[RemoteError], None] = _log_fault
        self._heard = trio.Event()

    # ---- what the application does

    def subscribe(self, topic: str, judge: Judge, params: TopicParams | None = None) -> None:
        """Take part in a topic; `judge` sees every message of others once.

        Raises:
            LocalError: it is subscribed to already.
        """
        self._router.subscribe(topic, params or TopicParams(), trio.current_time())
        self._judges[topic] = judge
        self._flush()

    def unsubscribe(self, topic: str) -> None:
        """No longer."""
        self._router.unsubscribe(topic, trio.current_time())
        self._judges.pop(topic, None)
        self._flush()

    def publish(self, topic: str, data: bytes) -> None:
        """Send a message of our own to everybody in a topic; nothing waits.

        Raises:
            LocalError: empty, or longer than a digest may be.
        """
        self._router.publish(topic, data, trio.current_time())
        self._flush()

    def penalise(self, exc: RemoteError) -> None:
        """The node has caught a peer; what it did is remembered here too."""
        self._router.penalise(PeerId(exc.peer), exc.penalty, trio.current_time())

    def peers(self, topic: str | None = None) -> list[PeerId]:
        """Linked peers, or those of them in a topic."""
        return self._router.peers(topic)

    async def linked(self, topic: str, count: int) -> None:
        """Return once that many linked peers are in a topic; the caller bounds the time."""
        while len(self.peers(topic)) < count:
            await self._heard.wait()

    def score(self, peer: PeerId) -> float:
        """How far a peer is trusted to relay."""
        return self._router.score(peer, trio.current_time())

    def about(self) -> dict[str, int]:
        """Counters and sizes, for metrics."""
        return {**self._router.sizes(), **self._router.counts}

    # ---- links

    def serve(self, blame: Callable[[RemoteError], None]) -> None:
        """Take in what peers send from now on."""
        self._blame = blame
        self._links_of.serve(self._read)

    def _link(self, peer: PeerId, *, outbound: bool) -> _Link | None:
        """The link with a peer, made if there is room."""
        link = self._links.get(peer)
        if link is None and len(self._links) < PEERS_MAX:
            made = _Link()
            if not start_if_open(self._nursery, self._send, peer, made):
                return None
            link = self._links[peer] = made
            group = self._links_of.group(peer)
            self._router.add_peer(peer, trio.current_time(), outbound=outbound, group=group)
        return link

    async def _send(self, peer: PeerId, link: _Link) -> None:
        """Open our channel to a peer and send on it, until either fails."""
        channel: Channel | None = None
        try:
            with link.life:
                with trio.fail_after(OPEN_S):
                    channel = await self._links_of.open(peer)
                await self._pump(peer, link, channel)
        except (TransportError, trio.TooSlowError, RemoteError) as exc:
            self._failed[peer] = trio.current_time() + RETRY_S
            _log.debug("no_link", peer=short(peer), reason=str(exc))
        finally:
            del self._links[peer]
            self._router.remove_peer(peer, trio.current_time())
            if link.reading is not None:
                link.reading.cancel()
            if channel is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                    await channel.aclose()

    async def _pump(self, peer: PeerId, link: _Link, channel: Channel) -> None:
        while True:
            while (raw := self._router.take(peer)) is not None:
                await channel.send(raw)
            link.news = trio.Event()
            await link.news.wait()

    async def _read(self, channel: Channel) -> None:
        """Everything that a peer sends on one channel; a newer channel takes the place of an older one."""
        peer = channel.peer
        link = self._link(peer, outbound=False)
        if link is None:
            return
        with trio.CancelScope() as scope:
            if link.reading is not None:
                link.reading.cancel()
            link.reading = scope
            try:
                await self._take_in(peer, channel)
            finally:
                if link.reading is scope:
                    link.reading = None
                    link.life.cancel()

    async def _take_in(self, peer: PeerId, channel: Channel) -> None:
        while True:
            raw = await channel.receive()
            for arrived in self._router.on_rpc(peer, raw, trio.current_time()):
                self._judge(arrived)
            self._flush()
            self._heard.set()
            self._heard = trio.Event()

    def _flush(self) -> None:
        for peer in self._router.ready():
            if (link := self._links.get(peer)) is not None:
                link.news.set()

    # ---- judgement

    def _judge(self, arrived: Arrived) -> None:
        """At once if that is possible: what a judge only looks up is relayed without a turn of the scheduler."""
        judge = self._judges.get(arrived.topic)
        try:
            verdict = judge(arrived) if judge is not None else "ignore"
        except (Malformed, RemoteError, LocalError, TransportError, Busy) as exc:
            verdict = self._failure(arrived, exc)
        if inspect.isawaitable(verdict):
            if not start_if_open(self._nursery, self._judge_slowly, arrived, verdict) and inspect.iscoroutine(verdict):
                verdict.close()
        else:
            self._router.verdict(arrived.id, verdict, trio.current_time())

    async def _judge_slowly(self, arrived: Arrived, judging: Awaitable[Verdict]) -> None:
        verdict: Verdict = "ignore"
        with trio.move_on_after(JUDGE_S):
            try:
                verdict = await judging
            except (Malformed, RemoteError, LocalError, TransportError, Busy) as exc:
                verdict = self._failure(arrived, exc)
        self._router.verdict(arrived.id, verdict, trio.current_time())
        self._flush()

    def _failure(self, arrived: Arrived, exc: Exception) -> Verdict:
        """Whoever is at fault in a `RemoteError` is rarely the one who relayed the message."""
        if isinstance(exc, Malformed):
            return "reject"
        if isinstance(exc, RemoteError):
            self._blame(exc)
        _log.debug("not_judged", topic=arrived.topic, author=short(arrived.author), reason=str(exc))
        return "ignore"

    # ---- time

    async def run(self) -> None:
        """Heartbeats, for ever."""
        period_s = self._router.params.heartbeat_s
        await trio.sleep(period_s * self._rng.random())
        while True:
            self._find()
            self._router.heartbeat(trio.current_time())
            self._flush()
            await trio.sleep(period_s)

    def _find(self) -> None:
        """Link whoever is connected, and some known peers where links are few."""
        now = trio.current_time()
        self._failed = {peer: until for peer, until in self._failed.items() if until > now}
        for peer in self._links_of.connected():
            if peer not in self._links and peer not in self._failed:
                self._link(peer, outbound=True)
        if len(self._links) >= LINKS_WANTED:
            return
        others = [peer for peer in self._known() if peer not in self._links and peer not in self._failed]
        for peer in self._rng.sample(others, min(DIALS_PER_BEAT, len(others))):
            self._link(peer, outbound=True)


def _log_fault(fault: RemoteError) -> None:
    _log.info("peer_at_fault", peer=short(PeerId(fault.peer)), reason=fault.reason, penalty=fault.penalty)


@asynccontextmanager
async def open_gossip(
    signer: Signer,
    transport: Transport,
    now_ms: Callable[[], int],
    *,
    peers: Callable[[], list[PeerId]],
    blame: Callable[[RemoteError], None] = _log_fault,
    rng: Random | None = None,
    params: Params | None = None,
) -> AsyncIterator[Gossip]:
    """Take part in gossip until the scope ends.

    Args:
        signer: this node's identity.
        transport: where the protocol is served; over libp2p any gossipsub 1.1 understands it.
        now_ms: Unix time in milliseconds; our messages are numbered from it.
        peers: whom to dial where links are few, asked anew each time; without this node.
        blame: told of every fault of a peer.
        rng: chooses peers; seed it for a run that repeats.
        params: see `node.gossip.params`.
    """
    rng = rng or Random(os.urandom(16))
    router = Router(signer, rng, seqno=now_ms() * 1_000_000, params=params)
    async with trio.open_nursery() as nursery:
        gossip = Gossip(router, links_of(transport, blame), nursery, peers, rng)
        gossip.serve(blame)
        nursery.start_soon(gossip.run)
        yield gossip
        nursery.cancel_scope.cancel()
