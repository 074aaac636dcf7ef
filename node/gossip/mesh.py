"""The mesh: for each topic some peers to whom every message goes at once, kept between `d_lo` and `d_hi`. Sans-IO.

A link is agreed by GRAFT and ended by PRUNE, after which neither side asks again for a while (`backoff`). Peers with a
negative score are not kept; `d_out` links go to peers that we dialled, so that whoever dials us cannot surround us.
Source: gossipsub v1.0, "Control messages" and "Heartbeat"; v1.1, "Outbound mesh quotas", "Opportunistic grafting" and
"Adaptive gossip". Peer exchange is neither sent nor heeded: peers are found by the node's own means.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from random import Random

from node.gossip.params import Params
from node.gossip.peers import Peers
from node.gossip.scores import Scores
from wire.peer import PeerId

Score = Mapping[PeerId, float]


class Mesh:
    """Of all topics."""

    def __init__(self, params: Params, rng: Random, peers: Peers, scores: Scores) -> None:
        self._params = params
        self._rng = rng
        self._peers = peers
        self._scores = scores
        self._members: dict[str, dict[PeerId, None]] = {}
        self._backoff: OrderedDict[tuple[str, PeerId], float] = OrderedDict()
        self._ticks = 0

    def __len__(self) -> int:
        return len(self._backoff) + sum(map(len, self._members.values()))

    def members(self, topic: str) -> list[PeerId]:
        """Empty for a topic that we have not joined."""
        return list(self._members.get(topic, ()))

    # ---- our own doing

    def join(self, topic: str, now: float) -> None:
        """Take part in a topic; the next heartbeat would do the rest, but there is no need to wait."""
        self._members[topic] = {}
        self._fill(topic, self._now_scores(topic, now), now)

    def leave(self, topic: str, now: float) -> None:
        """Take leave of it."""
        for peer in self.members(topic):
            self._cut(topic, peer, self._params.unsubscribe_backoff_s, now)
        self._members.pop(topic, None)

    def forget(self, peer: PeerId) -> None:
        """The peer is gone, without a word."""
        for topic in self._members:
            self.left(peer, topic)

    def left(self, peer: PeerId, topic: str) -> None:
        """The peer no longer subscribes."""
        members = self._members.get(topic, {})
        if peer in members:
            del members[peer]
            self._scores.pruned(peer, topic)

    # ---- what peers say

    def on_graft(self, peer: PeerId, topic: str, now: float) -> None:
        """A peer wants a link; the answer, if any, waits in its outbox."""
        members = self._members.get(topic)
        state = self._peers.get(peer)
        if members is None or state is None or topic not in state.topics or peer in members:
            return  # a topic that we do not know is not worth an answer
        until = self._backoff.get((topic, peer), 0.0)
        if until > now:
            early = until - self._params.prune_backoff_s + self._params.graft_flood_s > now
            self._scores.misbehaved(peer, 2.0 if early else 1.0)
            self._refuse(topic, peer, now)
        elif self._scores.score(peer, now) < 0 or (len(members) >= self._params.d_hi and not state.outbound):
            self._refuse(topic, peer, now)
        else:
            members[peer] = None
            self._scores.grafted(peer, topic, now)

    def on_prune(self, peer: PeerId, topic: str, backoff_s: int | None, now: float) -> None:
        """A peer ends or refuses a link."""
        if topic not in self._members:
            return
        self.left(peer, topic)
        least = self._params.prune_backoff_s if backoff_s is None else float(min(backoff_s, 1 << 20))
        self._back_off(topic, peer, min(least, self._params.backoff_max_s), now)

    def _refuse(self, topic: str, peer: PeerId, now: float) -> None:
        self._peers.outbox(peer).prune(topic, self._params.prune_backoff_s)
        self._back_off(topic, peer, self._params.prune_backoff_s, now)

    def _cut(self, topic: str, peer: PeerId, backoff_s: float, now: float) -> None:
        self.left(peer, topic)
        self._peers.outbox(peer).prune(topic, backoff_s)
        self._back_off(topic, peer, backoff_s, now)

    def _back_off(self, topic: str, peer: PeerId, seconds: float, now: float) -> None:
        until = max(now + seconds, self._backoff.pop((topic, peer), 0.0))
        self._backoff[topic, peer] = until
        if len(self._backoff) > self._params.backoffs_max:
            self._backoff.popitem(last=False)

    # ---- heartbeat

    def heartbeat(self, scores: Score, now: float) -> None:
        """Bring every mesh back within its bounds."""
        self._ticks += 1
        for key in [key for key, until in self._backoff.items() if until + self._params.heartbeat_s <= now]:
            del self._backoff[key]
        for topic, members in self._members.items():
            for peer in [peer for peer in members if scores[peer] < 0]:
                self._cut(topic, peer, self._params.prune_backoff_s, now)
            self._fill(topic, scores, now)
            if len(members) > self._params.d_hi:
                self._thin(topic, scores, now)
            self._balance(topic, scores, now)
            if self._ticks % self._params.opportunistic_ticks == 0:
                self._improve(topic, scores, now)

    def _now_scores(self, topic: str, now: float) -> dict[PeerId, float]:
        return {peer: self._scores.score(peer, now) for peer in self._peers.in_topic(topic)}

    def _candidates(self, topic: str, scores: Score, now: float, *, outbound: bool = False) -> list[PeerId]:
        """Peers that could be grafted, in random order."""
        members = self._members[topic]
        found = [
            peer
            for peer in self._peers.in_topic(topic)
            if peer not in members
            and scores[peer] >= 0
            and self._backoff.get((topic, peer), 0.0) <= now
            and (not outbound or self._outbound(peer))
        ]
        self._rng.shuffle(found)
        return found

    def _outbound(self, peer: PeerId) -> bool:
        state = self._peers.get(peer)
        return state is not None and state.outbound

    def _graft(self, topic: str, peers: list[PeerId], now: float) -> None:
        for peer in peers:
            self._members[topic][peer] = None
            self._scores.grafted(peer, topic, now)
            self._peers.outbox(peer).graft(topic)

    def _fill(self, topic: str, scores: Score, now: float) -> None:
        have = len(self._members[topic])
        if have < self._params.d_lo:
            self._graft(topic, self._candidates(topic, scores, now)[: self._params.d - have], now)

    def _thin(self, topic: str, scores: Score, now: float) -> None:
        """Keep the best, and chance for the rest, so that a good score alone cannot fill a mesh."""
        params, members = self._params, self.members(topic)
        self._rng.shuffle(members)
        members.sort(key=lambda peer: -scores[peer])
        rest = members[params.d_score :]
        self._rng.shuffle(rest)
        ranked = members[: params.d_score] + rest
        keep, others = ranked[: params.d], ranked[params.d :]
        missing = params.d_out - sum(map(self._outbound, keep))
        spare = [peer for peer in others if self._outbound(peer)][: max(0, missing)]
        if spare:
            drop = [peer for peer in reversed(keep) if not self._outbound(peer)][: len(spare)]
            keep = [peer for peer in keep if peer not in drop] + spare
        for peer in [peer for peer in ranked if peer not in keep]:
            self._cut(topic, peer, params.prune_backoff_s, now)

    def _balance(self, topic: str, scores: Score, now: float) -> None:
        members = self.members(topic)
        if len(members) >= self._params.d_lo:
            missing = self._params.d_out - sum(map(self._outbound, members))
            if missing > 0:
                self._graft(topic, self._candidates(topic, scores, now, outbound=True)[:missing], now)

    def _improve(self, topic: str, scores: Score, now: float) -> None:
        """Where half of a mesh is worth little, add a few that are better than that half."""
        ranked = sorted(scores[peer] for peer in self._members[topic])
        if not ranked or (median := ranked[len(ranked) // 2]) >= self._params.scores.opportunistic_threshold:
            return
        better = [peer for peer in self._candidates(topic, scores, now) if scores[peer] > median]
        self._graft(topic, better[: self._params.opportunistic_peers], now)
