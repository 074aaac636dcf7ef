"""Lazy gossip: peers outside the mesh hear which messages we hold, and ask for what they lack. Sans-IO.

Whoever says to hold a message promises it: one id of each request is remembered, and if it does not come in time, from
anybody, the peer misbehaved. Requests and answers are bounded for each peer and heartbeat.
Source: gossipsub v1.0, "IHAVE" and "IWANT"; v1.1, "Spam Protection Measures".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from node.gossip.caches import Held
from node.gossip.mesh import Mesh, Score
from node.gossip.params import Params
from node.gossip.peers import Peers
from node.gossip.rpc import Ihave
from node.gossip.scores import Scores
from wire.peer import PeerId


class Lazy:
    """Of all topics that we have joined."""

    def __init__(self, params: Params, rng: Random, peers: Peers, scores: Scores, held: Held) -> None:
        self._params = params
        self._rng = rng
        self._peers = peers
        self._scores = scores
        self._held = held
        self._asked: OrderedDict[bytes, dict[PeerId, float]] = OrderedDict()
        self._promised: OrderedDict[bytes, dict[PeerId, float]] = OrderedDict()
        self._declined: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._asked) + len(self._promised) + len(self._declined)

    def on_ihave(self, peer: PeerId, said: tuple[Ihave, ...], lacks: Callable[[str, bytes], bool], now: float) -> None:
        """Ask for what we lack of it; `lacks` knows of a topic and an id."""
        state = self._peers.get(peer)
        if state is None or not said or self._scores.score(peer, now) < self._params.scores.gossip_threshold:
            return
        state.ihaves += 1
        room = self._params.iwant_ids_max - state.asked
        if state.ihaves > self._params.ihave_per_heartbeat_max or room <= 0:
            return
        wanted = dict.fromkeys(
            identity
            for each in said
            for identity in each.ids[: self._params.ihave_ids_max]
            if lacks(each.topic, identity) and self._may_ask(identity, peer, now)
        )
        ids = list(wanted)
        self._rng.shuffle(ids)
        if not (ids := ids[:room]):
            return
        state.asked += len(ids)
        for identity in ids:
            self._asked.setdefault(identity, {})[peer] = now + self._params.iwant_followup_s
        self._promised.setdefault(self._rng.choice(ids), {})[peer] = now + self._params.iwant_followup_s
        for kept in (self._asked, self._promised):
            while len(kept) > self._params.promises_max:
                kept.popitem(last=False)
        self._peers.outbox(peer).iwant(ids)

    def _may_ask(self, identity: bytes, peer: PeerId, now: float) -> bool:
        asked = self._asked.get(identity, {})
        return identity not in self._declined and peer not in asked and len(asked) < self._params.iwant_askers_max

    def on_iwant(self, peer: PeerId, ids: tuple[bytes, ...], now: float) -> int:
        """Send what we hold; how many messages of the outbox were dropped for it."""
        if not ids or self._scores.score(peer, now) < self._params.scores.gossip_threshold:
            return 0
        dropped = 0
        for identity in ids[: self._params.ihave_ids_max]:
            raw = self._held.fetch(identity, peer)
            if raw is not None:
                dropped += self._peers.outbox(peer).message(identity, raw)
        return dropped

    def arrived(self, identity: bytes) -> None:
        """A message came, from whomever."""
        self._asked.pop(identity, None)
        self._promised.pop(identity, None)

    def declined(self, identity: bytes) -> None:
        """A message came that we did not want, for its author writes too much: whoever promised it kept his word."""
        self.arrived(identity)
        self._declined[identity] = None
        if len(self._declined) > self._params.promises_max:
            self._declined.popitem(last=False)

    def forget(self, peer: PeerId) -> None:
        """A peer that is gone owes nothing."""
        for kept in (self._asked, self._promised):
            for identity in [identity for identity, of in kept.items() if of.pop(peer, None) is not None and not of]:
                del kept[identity]

    def heartbeat(self, now: float) -> None:
        """Charge broken promises, and start counting anew."""
        for identity, of in list(self._promised.items()):
            for peer in [peer for peer, until in of.items() if until <= now]:
                del of[peer]
                self._scores.misbehaved(peer)
            if not of:
                del self._promised[identity]
        for identity, of in list(self._asked.items()):
            for peer in [peer for peer, until in of.items() if until <= now]:
                del of[peer]
            if not of:
                del self._asked[identity]
        for state in self._peers.all():
            state.ihaves = state.asked = 0

    def emit(self, topic: str, mesh: Mesh, scores: Score) -> None:
        """Tell some peers outside the mesh what we hold."""
        ids = self._held.ids(topic)[: self._params.ihave_ids_max]
        members = mesh.members(topic)
        least = self._params.scores.gossip_threshold
        others = [peer for peer in self._peers.in_topic(topic) if peer not in members and scores[peer] >= least]
        if not ids or not others:
            return
        count = max(self._params.d_lazy, int(self._params.gossip_factor * len(others)))
        for peer in self._rng.sample(others, min(count, len(others))):
            self._peers.outbox(peer).ihave(topic, ids)
