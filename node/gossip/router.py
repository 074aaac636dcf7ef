"""A gossipsub router: RPCs and the heartbeat in, RPCs and arrived messages out. Sans-IO.

    arrived = router.on_rpc(peer, raw, now)             # check each, then:
    router.verdict(arrived.id, "accept", now)           # only now it is relayed
    for peer in router.ready(): send(peer, router.take(peer))

Invariants: nothing is relayed before the application has accepted it; of one author no more than a topic's rate is
relayed; whoever brings a message that no honest peer relays (forged, unsigned, too long, rejected) pays for it; all
state is bounded, whatever peers send.
Source: gossipsub v1.0 and v1.1 (github.com/libp2p/specs, pubsub/gossipsub); what differs is in docs/spec/gossip.md.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from node.gossip.caches import Buckets, Held, Seen
from node.gossip.lazy import Lazy
from node.gossip.mesh import Mesh
from node.gossip.message import Message, Verify, sign
from node.gossip.params import DATA_BYTES_MAX, PEER_TOPICS_MAX, PEERS_MAX, Params, TopicParams
from node.gossip.peers import Peer, Peers
from node.gossip.rpc import Rpc, Subscription
from node.gossip.scores import Scores
from wire.envelope import Signer
from wire.envelope import verify as verify_signature
from wire.errors import LocalError, Malformed, RemoteError
from wire.hashing import digest
from wire.peer import PeerId

Verdict = Literal["accept", "ignore", "reject"]
"""What the application says of a message: relay it; drop it, nobody's fault; drop it, and whoever brought it pays."""

MALFORMED_PENALTY = 0.5
MALFORMED_BEHAVIOUR = 6.0


@dataclass(frozen=True)
class Arrived:
    """A message that its author signed, waiting for a verdict; `via` brought it first."""

    id: bytes
    topic: str
    author: PeerId
    data: bytes
    via: PeerId


@dataclass
class _Delivery:
    """Who has brought a message so far; kept a while after the verdict."""

    message: Message
    by: dict[PeerId, None]
    verdict: Verdict | None = None
    until: float = field(default=float("inf"))


class Router:
    """One node's part in gossip."""

    def __init__(
        self,
        signer: Signer,
        rng: Random,
        *,
        seqno: int,
        params: Params | None = None,
        verify: Verify = verify_signature,
    ) -> None:
        """A router without peers.

        Args:
            signer: who we are.
            rng: seeded; chooses peers.
            seqno: the number of our first message, higher than any that we used before, such as the time in ns.
            params: defaults are the specification's.
            verify: checks signatures.
        """
        self.params = params or Params()
        self._signer = signer
        self._rng = rng
        self._seqno = seqno
        self._verify = verify
        self._topics: dict[str, TopicParams] = {}
        self._peers = Peers(self.params)
        self._scores = Scores(self.params.scores)
        self._seen = Seen(self.params)
        self._held = Held(self.params)
        self._mesh = Mesh(self.params, rng, self._peers, self._scores)
        self._lazy = Lazy(self.params, rng, self._peers, self._scores, self._held)
        self._authors = Buckets(self.params.authors_max)
        self._deliveries: dict[bytes, _Delivery] = {}
        self._copies: OrderedDict[bytes, bytes] = OrderedDict()
        self._pending = 0
        self._fanout: dict[str, tuple[float, dict[PeerId, None]]] = {}
        self.counts: Counter[str] = Counter()

    # ---- peers

    def add_peer(self, peer: PeerId, now: float, *, outbound: bool, group: str | None = None) -> bool:
        """A connection with a peer that speaks the protocol stands; False if we have no room for it.

        Args:
            outbound: whether we dialled it.
            group: names its address, see `Scores.join`; None if that says nothing.
        """
        if peer in self._peers or peer == self._signer.peer or len(self._peers) >= PEERS_MAX:
            return False
        self._peers.add(peer, outbound=outbound, now=now)
        self._scores.join(peer, group)
        if self._topics:
            outbox = self._peers.outbox(peer)
            for topic in self._topics:
                outbox.subscribe(topic, True)
        return True

    def remove_peer(self, peer: PeerId, now: float) -> None:
        """The connection is gone."""
        if peer not in self._peers:
            return
        self._mesh.forget(peer)
        self._lazy.forget(peer)
        self._scores.leave(peer, now)
        self._peers.remove(peer)
        for _, members in self._fanout.values():
            members.pop(peer, None)

    def penalise(self, peer: PeerId, penalty: float, now: float) -> None:
        """The rest of the node caught a peer; `penalty` as in `RemoteError`."""
        self._scores.blamed(peer, penalty, now)

    def score(self, peer: PeerId, now: float) -> float:
        """How far we trust a peer to relay."""
        return self._scores.score(peer, now)

    def graylisted(self, peer: PeerId, now: float) -> bool:
        """Whether nothing of a peer is looked at."""
        return self.score(peer, now) < self.params.scores.graylist_threshold

    def mesh(self, topic: str) -> list[PeerId]:
        """Whom every message of a topic goes to at once."""
        return self._mesh.members(topic)

    def peers(self, topic: str | None = None) -> list[PeerId]:
        """All, or those in a topic."""
        return list(self._peers) if topic is None else self._peers.in_topic(topic)

    def sizes(self) -> dict[str, int]:
        """How much is held, for tests and metrics."""
        return {
            "peers": len(self._peers),
            "scores": len(self._scores),
            "seen": len(self._seen),
            "held_messages": len(self._held),
            "held_bytes": self._held.bytes,
            "links": len(self._mesh),
            "asked": len(self._lazy),
            "authors": len(self._authors),
            "deliveries": len(self._deliveries),
            "copies": len(self._copies),
            "waiting_bytes": self._peers.waiting_bytes(),
        }

    # ---- topics

    def subscribe(self, topic: str, params: TopicParams, now: float) -> None:
        """Take part in a topic."""
        if topic in self._topics:
            raise LocalError(f"{topic} is subscribed to already")
        self._topics[topic] = params
        self._fanout.pop(topic, None)
        for peer in self._peers:
            self._peers.outbox(peer).subscribe(topic, True)
        self._mesh.join(topic, now)

    def unsubscribe(self, topic: str, now: float) -> None:
        """No longer."""
        if self._topics.pop(topic, None) is None:
            return
        self._mesh.leave(topic, now)
        for peer in self._peers:
            self._peers.outbox(peer).subscribe(topic, False)

    def publish(self, topic: str, data: bytes, now: float) -> bytes:
        """Sign and send a message of our own, to everybody in the topic; its id.

        Raises:
            LocalError: empty, or longer than `DATA_BYTES_MAX`.
        """
        if not 0 < len(data) <= DATA_BYTES_MAX:
            raise LocalError(f"gossip carries 1 to {DATA_BYTES_MAX} bytes, not {len(data)}")
        message = sign(self._signer, topic, data, self._seqno)
        self._seqno += 1
        raw = message.encode()
        self._seen.add(message.id, message.author, message.seqno, now)
        self._held.put(message.id, topic, raw)
        for peer in self._targets(topic, now):
            self._send(peer, message.id, raw)
        return message.id

    def _targets(self, topic: str, now: float) -> list[PeerId]:
        least = self.params.scores.publish_threshold
        fit = [peer for peer in self._peers.in_topic(topic) if self._scores.score(peer, now) >= least]
        if self.params.flood_publish:
            return fit
        if topic in self._topics and (members := self.mesh(topic)):
            return members
        _, members_of = self._fanout.get(topic, (0.0, {}))
        fresh = [peer for peer in fit if peer not in members_of]
        self._rng.shuffle(fresh)
        members_of.update(dict.fromkeys(fresh[: max(0, self.params.d - len(members_of))]))
        self._fanout[topic] = now, members_of
        return list(members_of)

    def _send(self, peer: PeerId, identity: bytes, raw: bytes) -> None:
        if self._peers.waiting_bytes_over(self.params.outboxes_bytes_max - len(raw)):
            self.counts["dropped"] += 1
            return
        self.counts["sent"] += 1
        self.counts["dropped"] += self._peers.outbox(peer).message(identity, raw)

    # ---- what peers send

    def on_rpc(self, peer: PeerId, raw: bytes, now: float) -> list[Arrived]:
        """Take in one RPC; what needs a verdict.

        Raises:
            RemoteError: it is malformed; end the stream.
        """
        state = self._peers.get(peer)
        if state is None or self.graylisted(peer, now):
            self.counts["refused"] += 1
            return []
        try:
            rpc = Rpc.decode(raw)
        except Malformed as exc:
            self._scores.misbehaved(peer, MALFORMED_BEHAVIOUR)
            raise RemoteError(peer, f"malformed gossip: {exc}", penalty=MALFORMED_PENALTY) from exc
        for subscription in rpc.subscriptions:
            self._on_subscription(peer, state, subscription)
        arrived = [found for each in rpc.publish if (found := self._on_message(peer, state, each, now)) is not None]
        for topic in rpc.graft:
            self._mesh.on_graft(peer, topic, now)
        for prune in rpc.prune:
            self._mesh.on_prune(peer, prune.topic, prune.backoff_s, now)
        self._lazy.on_ihave(peer, rpc.ihave, lambda topic, each: topic in self._topics and each not in self._seen, now)
        self.counts["dropped"] += self._lazy.on_iwant(peer, rpc.iwant, now)
        return arrived

    def _on_subscription(self, peer: PeerId, state: Peer, said: Subscription) -> None:
        if not said.subscribe:
            state.topics.pop(said.topic, None)
            self._mesh.left(peer, said.topic)
            if said.topic in self._fanout:
                self._fanout[said.topic][1].pop(peer, None)
        elif len(state.topics) < PEER_TOPICS_MAX:
            state.topics[said.topic] = None

    def _on_message(self, peer: PeerId, state: Peer, raw: bytes, now: float) -> Arrived | None:
        if not state.intake.take(now):
            self.counts["too_many"] += 1
            self._lazy.forget(peer)  # what it promised may be among what we do not look at
            return None
        copy = digest("gossip.copy", raw)
        if (known := self._copies.get(copy)) is not None and known in self._seen:
            self._again(peer, known)  # most of what arrives, and it need not be read for that
            return None
        try:
            message = Message.decode(raw)
        except Malformed:
            self._invalid(peer, "")
            return None
        topic = self._topics.get(message.topic)
        if topic is None or message.author == self._signer.peer:
            return None
        identity = message.id
        if identity in self._seen:
            self._again(peer, identity)
        elif (reason := self._unwanted(peer, state, message, topic, now)) is not None:
            self.counts[reason] += 1
            if reason == "too_many":
                self._lazy.arrived(identity)
            elif reason != "invalid":  # or a forged message could keep us from asking for the true one
                self._lazy.declined(identity)
        else:
            self._seen.add(identity, message.author, message.seqno if topic.ordered else None, now)
            self._lazy.arrived(identity)
            self._deliveries[identity] = _Delivery(message, {peer: None})
            self._copies[copy] = identity
            if len(self._copies) > self.params.held_messages_max:
                self._copies.popitem(last=False)
            self._pending += 1
            state.pending += 1
            return Arrived(identity, message.topic, message.author, message.data, peer)
        return None

    def _unwanted(self, peer: PeerId, state: Peer, message: Message, topic: TopicParams, now: float) -> str | None:
        """Why a new message is not looked at further; None if it is, and then it counts against its author's rate.

        Cheap checks come first, and the rate is spent by what the author signed, never by what is forged in his name.
        """
        if self.graylisted(message.author, now):
            return "refused"
        bucket = self._authors.of((message.author, message.topic), topic.rate, topic.burst, now)
        if not bucket.holds(now):
            if peer == message.author:
                self._scores.misbehaved(peer, 0.1)
            return "over_rate"
        if not message.verified(self._verify):
            self._scores.invalid(peer, message.topic)
            return "invalid"
        if topic.ordered and self._seen.stale(message.author, message.seqno):
            self._scores.misbehaved(peer)
            return "replayed"
        if self._pending >= self.params.pending_max or state.pending >= self.params.pending_per_peer_max:
            return "too_many"
        bucket.take(now)
        return None

    def _again(self, peer: PeerId, identity: bytes) -> None:
        """A message that was seen before; the peer need not be sent it."""
        self.counts["duplicates"] += 1
        state = self._peers.get(peer)
        if state is not None:
            state.outbox.discard(identity)
        delivery = self._deliveries.get(identity)
        if delivery is None or peer in delivery.by:
            return
        delivery.by[peer] = None
        if delivery.verdict == "reject":
            self._invalid(peer, delivery.message.topic)
        elif delivery.verdict == "accept":
            self._scores.brought([peer], delivery.message.topic, first=next(iter(delivery.by)))

    def _invalid(self, peer: PeerId, topic: str) -> None:
        self.counts["invalid"] += 1
        self._scores.invalid(peer, topic)

    # ---- what the application says

    def verdict(self, identity: bytes, verdict: Verdict, now: float) -> None:
        """Say what becomes of a message that arrived; a second verdict changes nothing."""
        delivery = self._deliveries.get(identity)
        if delivery is None or delivery.verdict is not None:
            return
        delivery.verdict, delivery.until = verdict, now + self.params.delivery_window_s
        first = next(iter(delivery.by))
        self._pending -= 1
        if (state := self._peers.get(first)) is not None and state.pending > 0:
            state.pending -= 1
        self.counts[verdict] += 1
        message = delivery.message
        if verdict == "reject":
            for peer in delivery.by:
                self._invalid(peer, message.topic)
        elif verdict == "accept":
            self._relay(message, delivery.by, first)

    def _relay(self, message: Message, by: dict[PeerId, None], first: PeerId) -> None:
        members = self.mesh(message.topic)
        self._scores.passed([peer for peer in members if peer != message.author], message.topic)
        self._scores.brought(by, message.topic, first=first)
        raw, identity = message.encode(), message.id
        self._held.put(identity, message.topic, raw)
        for peer in members:
            if peer not in by and peer != message.author:
                self._send(peer, identity, raw)

    # ---- time

    def heartbeat(self, now: float) -> None:
        """To be called every `params.heartbeat_s`."""
        self._scores.decay(now)
        self._seen.expire(now)
        self._lazy.heartbeat(now)
        for identity in [identity for identity, each in self._deliveries.items() if each.until <= now]:
            del self._deliveries[identity]
        for topic in [topic for topic, (at, _) in self._fanout.items() if at + self.params.fanout_ttl_s <= now]:
            del self._fanout[topic]
        scores = {peer: self._scores.score(peer, now) for peer in self._peers}
        self._mesh.heartbeat(scores, now)
        for topic in self._topics:
            self._lazy.emit(topic, self._mesh, scores)
        self._held.shift()

    # ---- what waits to be sent

    def ready(self) -> list[PeerId]:
        """Peers to whom something new must be sent; `take` until it is None."""
        return self._peers.ready()

    def take(self, peer: PeerId) -> bytes | None:
        """The next RPC to a peer, None if nothing waits."""
        return self._peers.take(peer)
