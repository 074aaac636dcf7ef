"""What a router remembers of messages: that it has seen them, the newest ones themselves, and how fast authors write.

All of it is bounded: the oldest goes first, and what is forgotten stays refused where authors number upwards. Sans-IO.
Source: gossipsub v1.0, "Message Cache" and "Seen messages cache"; token bucket: RFC 2697, section 3.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from node.gossip.params import Params
from wire.peer import PeerId


class Seen:
    """Ids seen in the last `seen_s` seconds, and for authors who number upwards the highest number forgotten."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._ids: OrderedDict[bytes, tuple[float, PeerId, int | None]] = OrderedDict()
        self._floors: OrderedDict[PeerId, int] = OrderedDict()

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._ids

    def __len__(self) -> int:
        return len(self._ids) + len(self._floors)

    def stale(self, author: PeerId, seqno: int) -> bool:
        """Whether a number belongs to the forgotten past of an author who numbers upwards."""
        return seqno <= self._floors.get(author, -1)

    def add(self, identity: bytes, author: PeerId, seqno: int | None, now: float) -> None:
        """Remember an id; `seqno` is None where numbers have no order."""
        self._ids[identity] = (now + self._params.seen_s, author, seqno)
        if len(self._ids) > self._params.seen_max:
            self._forget(next(iter(self._ids)))

    def expire(self, now: float) -> None:
        """Forget what is old."""
        while self._ids:
            identity, (until, _, _) = next(iter(self._ids.items()))
            if until > now:
                return
            self._forget(identity)

    def _forget(self, identity: bytes) -> None:
        _, author, seqno = self._ids.pop(identity)
        if seqno is None:
            return
        self._floors[author] = max(seqno, self._floors.pop(author, -1))
        if len(self._floors) > self._params.authors_max:
            self._floors.popitem(last=False)


@dataclass
class _Held:
    topic: str
    raw: bytes
    sent: dict[PeerId, int] = field(default_factory=dict)


class Held:
    """The messages of the last `history_length` heartbeats, to be had by IWANT."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._messages: OrderedDict[bytes, _Held] = OrderedDict()
        self._windows: deque[list[bytes]] = deque([[]], maxlen=params.history_length)
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, identity: bytes, topic: str, raw: bytes) -> None:
        """Hold a message that was accepted."""
        self._messages[identity] = _Held(topic, raw)
        self._windows[0].append(identity)
        self.bytes += len(raw)
        while len(self._messages) > self._params.held_messages_max or self.bytes > self._params.held_bytes_max:
            self._drop(next(iter(self._messages)))

    def ids(self, topic: str) -> list[bytes]:
        """Of the last `history_gossip` heartbeats, newest first."""
        recent = list(self._windows)[: self._params.history_gossip]
        return [
            identity
            for window in recent
            for identity in reversed(window)
            if (held := self._messages.get(identity)) is not None and held.topic == topic
        ]

    def fetch(self, identity: bytes, peer: PeerId) -> bytes | None:
        """A message for a peer that asks, unless it has asked too often."""
        held = self._messages.get(identity)
        if held is None or held.sent.get(peer, 0) >= self._params.retransmissions_max:
            return None
        held.sent[peer] = held.sent.get(peer, 0) + 1
        return held.raw

    def shift(self) -> None:
        """A heartbeat has passed."""
        if len(self._windows) == self._windows.maxlen:
            for identity in self._windows[-1]:
                self._drop(identity)
        self._windows.appendleft([])

    def _drop(self, identity: bytes) -> None:
        held = self._messages.pop(identity, None)
        if held is not None:
            self.bytes -= len(held.raw)


class Bucket:
    """Tokens that come back at `rate` a second, at most `burst` of them."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def holds(self, now: float) -> bool:
        """Whether there is a token."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens >= 1.0

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        if not self.holds(now):
            return False
        self._tokens -= 1.0
        return True


class Buckets:
    """One bucket for each of at most `most` keys; the one least recently used is forgotten, which fills it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, key: Hashable, rate: float, burst: float, now: float) -> Bucket:
        """The bucket of `key`."""
        bucket = self._of.get(key)
        if bucket is None:
            bucket = self._of[key] = Bucket(rate, burst, now)
            if len(self._of) > self._most:
                self._of.popitem(last=False)
        else:
            self._of.move_to_end(key)
        return bucket
