"""How far each peer is trusted to relay: a sum of what it brought and what it broke, forgotten with time. Sans-IO.

    score = sum over topics of min(cap, mesh time + first deliveries + deficit + failures + invalid messages)
          + behaviour + blame + crowding of one address

Only first deliveries and time in the mesh count for a peer, and both are capped, so that no past good pays for an
attack. The deficit is measured against what really passed while the peer was in the mesh: in a quiet topic nobody is
in deficit. Messages of our own do not count, since nobody can bring us those. `blame` is what the rest of the node
reports as `RemoteError`: a peer that lied elsewhere is not believed here. A bad score outlives the connection.
Source: gossipsub v1.1, "Peer Scoring"; the deficit is ours.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from node.gossip.params import ScoreParams
from wire.peer import PeerId


@dataclass
class _Topic:
    grafted_at: float | None = None
    first: float = 0.0
    brought: float = 0.0
    passed: float = 0.0
    failures: float = 0.0
    invalid: float = 0.0


@dataclass
class _Peer:
    group: str | None = None
    until: float | None = None  # gone, and remembered until then
    behaviour: float = 0.0
    blame: float = 0.0
    topics: dict[str, _Topic] = field(default_factory=dict)


class Scores:
    """Of the peers that are here, and of those who left with a bad name."""

    def __init__(self, params: ScoreParams, topics_max: int = 64) -> None:
        self._params = params
        self._topics_max = topics_max
        self._peers: OrderedDict[PeerId, _Peer] = OrderedDict()
        self._groups: Counter[str] = Counter()
        self._at = 0.0

    def __len__(self) -> int:
        return len(self._peers)

    # ---- who is here

    def join(self, peer: PeerId, group: str | None) -> None:
        """A connection stands; `group` names its IPv4 address or IPv6 /64, None if that says nothing."""
        one = self._peers.setdefault(peer, _Peer())
        assert one.until is not None or one.group is None, "joined once"
        one.until, one.group = None, group
        if group is not None:
            self._groups[group] += 1

    def leave(self, peer: PeerId, now: float) -> None:
        """The connection is gone."""
        one = self._peers.get(peer)
        if one is None or one.until is not None:
            return
        bad = self.score(peer, now) < 0 or one.blame > 0
        for topic in one.topics:
            self.pruned(peer, topic)
        if one.group is not None:
            self._groups[one.group] -= 1
            if not self._groups[one.group]:
                del self._groups[one.group]
        one.group = None
        if not bad:
            del self._peers[peer]
            return
        self._remember(peer, now)

    def _remember(self, peer: PeerId, now: float) -> None:
        self._peers[peer].until = now + self._params.retain_s
        self._peers.move_to_end(peer)
        gone = [each for each, one in self._peers.items() if one.until is not None]
        for each in gone[: max(0, len(gone) - self._params.retained_max)]:
            del self._peers[each]

    # ---- what they do

    def grafted(self, peer: PeerId, topic: str, now: float) -> None:
        """The peer is in our mesh."""
        one = self._topic(peer, topic)
        if one is not None:
            one.grafted_at, one.brought, one.passed = now, 0.0, 0.0

    def pruned(self, peer: PeerId, topic: str) -> None:
        """It no longer is; what it then owed stays with it."""
        one = self._topic(peer, topic)
        if one is not None and one.grafted_at is not None:
            one.failures += self._deficit(one) ** 2
            one.grafted_at, one.brought, one.passed = None, 0.0, 0.0

    def brought(self, peers: Iterable[PeerId], topic: str, *, first: PeerId) -> None:
        """Peers brought a message that was accepted, `first` before the others."""
        for peer in peers:
            one = self._topic(peer, topic)
            if one is not None:
                one.brought += 1.0
                if peer == first:
                    one.first = min(one.first + 1.0, self._params.first_cap / self._params.first_weight)

    def passed(self, mesh: Iterable[PeerId], topic: str) -> None:
        """A message of somebody else was accepted while these were in the mesh."""
        for peer in mesh:
            one = self._topic(peer, topic)
            if one is not None:
                one.passed += 1.0

    def invalid(self, peer: PeerId, topic: str) -> None:
        """The peer brought what no honest peer would have relayed."""
        one = self._topic(peer, topic)
        if one is not None:
            one.invalid += 1.0

    def misbehaved(self, peer: PeerId, count: float = 1.0) -> None:
        """The peer broke a rule of the protocol."""
        if (one := self._peers.get(peer)) is not None:
            one.behaviour += count

    def blamed(self, peer: PeerId, penalty: float, now: float) -> None:
        """The rest of the node caught the peer, which need not be connected; `penalty` is from 0 to 1."""
        if penalty <= 0:
            return
        known = peer in self._peers
        one = self._peers.setdefault(peer, _Peer())
        one.blame = min(2.0, one.blame + penalty)
        if not known:
            self._remember(peer, now)

    def _topic(self, peer: PeerId, topic: str) -> _Topic | None:
        one = self._peers.get(peer)
        if one is None:
            return None
        if topic not in one.topics and len(one.topics) >= self._topics_max:
            return None
        return one.topics.setdefault(topic, _Topic())

    # ---- what follows

    def score(self, peer: PeerId, now: float) -> float:
        """0 for a stranger; the better the higher."""
        one, params = self._peers.get(peer), self._params
        if one is None:
            return 0.0
        total = sum(min(params.topic_score_cap, self._topic_score(each, now)) for each in one.topics.values())
        total += params.behaviour_weight * max(0.0, one.behaviour - params.behaviour_free) ** 2
        total += params.blame_weight * one.blame**2
        if one.group is not None:
            total += params.group_weight * max(0, self._groups[one.group] - params.group_free) ** 2
        return total

    def _topic_score(self, one: _Topic, now: float) -> float:
        params = self._params
        score = params.first_weight * one.first + params.failure_weight * one.failures
        score += params.invalid_weight * one.invalid**2
        if one.grafted_at is not None:
            score += min(params.mesh_time_cap, params.mesh_time_weight * (now - one.grafted_at))
            score += params.deficit_weight * self._deficit(one) ** 2
        return score

    def _deficit(self, one: _Topic) -> float:
        """The share that is missing of what a peer in the mesh must bring, 0 to 1."""
        wanted = self._params.deficit_share * one.passed
        if one.passed < self._params.deficit_least or one.brought >= wanted:
            return 0.0
        return 1.0 - one.brought / wanted

    def decay(self, now: float) -> None:
        """Let time pass up to `now`."""
        params, elapsed = self._params, max(0.0, now - self._at)
        self._at = now
        traffic, failure, invalid, behaviour, blame = (
            0.5 ** (elapsed / half)
            for half in (
                params.traffic_half_s,
                params.failure_half_s,
                params.invalid_half_s,
                params.behaviour_half_s,
                params.blame_half_s,
            )
        )
        for one in self._peers.values():
            one.behaviour = self._less(one.behaviour, behaviour)
            one.blame = self._less(one.blame, blame)
            for each in one.topics.values():
                each.first = self._less(each.first, traffic)
                each.brought, each.passed = each.brought * traffic, each.passed * traffic
                each.failures = self._less(each.failures, failure)
                each.invalid = self._less(each.invalid, invalid)
        for peer in [peer for peer, one in self._peers.items() if one.until is not None and one.until <= now]:
            del self._peers[peer]

    def _less(self, count: float, factor: float) -> float:
        count *= factor
        return count if count >= self._params.zero else 0.0
