"""The routing table: who has answered us, by distance (Kademlia, section 2.2).

Invariants: a seat is held only by a peer that answered a call of ours; no bucket holds more than `K`; a peer
that answers is never displaced by a newcomer, so that flooding does not help; a peer that fails or misbehaves
loses its seat to the newest of the bucket's replacement cache. Time and replies come from the caller, who is
told whom to probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from random import Random

from dht.keys import ID_BITS, node_id
from dht.limits import ADDRESSES_MAX, FAILURES_MAX, PENALTY_YIELD, PROBE_AGE_MS, K
from dht.penalties import Penalties
from wire.peer import PeerId


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer with the addresses it stated itself; `answered_ms` is 0 until it answered a call of ours."""

    peer: PeerId
    addresses: tuple[str, ...]
    answered_ms: int = 0
    failures: int = 0


@dataclass(slots=True)
class _Bucket:
    """Seats and replacement cache, both least recently seen first."""

    seats: dict[PeerId, Contact] = field(default_factory=dict)
    cache: dict[PeerId, Contact] = field(default_factory=dict)
    looked_ms: int = 0


class RoutingTable:
    """All contacts of the node `me`; bucket i holds those at a distance of i + 1 bits."""

    def __init__(self, me: PeerId, *, k: int = K) -> None:
        self._me = me
        self._id = node_id(me)
        self._k = k
        self._buckets: dict[int, _Bucket] = {}
        self._penalties = Penalties()

    def __len__(self) -> int:
        return sum(len(bucket.seats) for bucket in self._buckets.values())

    def __iter__(self) -> Iterator[Contact]:
        for bucket in self._buckets.values():
            yield from bucket.seats.values()

    def get(self, peer: PeerId) -> Contact | None:
        """The seated contact, if it is one."""
        bucket = self._buckets.get(self.bucket_of(peer))
        return bucket.seats.get(peer) if bucket else None

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """What a seated or waiting peer stated; empty for others."""
        bucket = self._buckets.get(self.bucket_of(peer))
        known = (bucket.seats.get(peer) or bucket.cache.get(peer)) if bucket else None
        return known.addresses if known else ()

    def bucket_of(self, peer: PeerId) -> int:
        """Index of the bucket of `peer`; -1 for ourselves."""
        return (self._id ^ node_id(peer)).bit_length() - 1

    def banned(self, peer: PeerId, now_ms: int) -> bool:
        """Whether the peer's penalties forbid dealing with it."""
        return self._penalties.banned(peer, now_ms)

    def answered(self, peer: PeerId, addresses: Sequence[str], now_ms: int) -> PeerId | None:
        """Note that `peer` answered a call of ours.

        Args:
            peer: who; ourselves and banned peers are ignored.
            addresses: its own statement; empty leaves what was known.
            now_ms: Unix time.

        Returns:
            Whom to probe: the least recently seen contact, if it stands in the newcomer's way.
        """
        if peer == self._me or self.banned(peer, now_ms):
            return None
        bucket = self._bucket(peer)
        old = bucket.seats.pop(peer, None) or bucket.cache.pop(peer, None)
        kept = _bounded(addresses) or (old.addresses if old else ())
        contact = Contact(peer, kept, answered_ms=now_ms)
        if len(bucket.seats) < self._k:
            bucket.seats[peer] = contact
            return None
        for seated in bucket.seats:
            if self._penalties.of(seated, now_ms) >= PENALTY_YIELD:
                del bucket.seats[seated]
                bucket.seats[peer] = contact
                return None
        self._remember(bucket, contact)
        return _overdue(bucket, now_ms)

    def heard(self, peer: PeerId, addresses: Sequence[str], now_ms: int) -> PeerId | None:
        """Note that `peer` sent us a request; it takes a seat only once it has answered one of ours.

        Returns:
            Whom to probe: the peer, if there is a free seat, or whoever may have left one.
        """
        if peer == self._me or self.banned(peer, now_ms):
            return None
        bucket = self._bucket(peer)
        seated = bucket.seats.get(peer)
        if seated is not None:
            bucket.seats[peer] = replace(seated, addresses=_bounded(addresses) or seated.addresses)
            return None
        old = bucket.cache.pop(peer, None)
        kept = _bounded(addresses) or (old.addresses if old else ())
        self._remember(bucket, Contact(peer, kept, old.answered_ms if old else 0))
        return peer if len(bucket.seats) < self._k else _overdue(bucket, now_ms)

    def failed(self, peer: PeerId, now_ms: int) -> PeerId | None:
        """Note that `peer` left a call of ours unanswered.

        Returns:
            A replacement to probe, if a seat fell free.
        """
        bucket = self._buckets.get(self.bucket_of(peer))
        if bucket is None:
            return None
        seated = bucket.seats.get(peer)
        if seated is None:
            bucket.cache.pop(peer, None)
            return None
        if seated.failures + 1 < FAILURES_MAX:
            bucket.seats[peer] = replace(seated, failures=seated.failures + 1)
            return None
        del bucket.seats[peer]
        found = self._promote(bucket, now_ms)
        if len(bucket.cache) < self._k:  # the oldest: tried again while nobody better is there
            bucket.cache = {peer: Contact(peer, seated.addresses), **bucket.cache}
        return found

    def blame(self, peer: PeerId, penalty: float, now_ms: int) -> PeerId | None:
        """Add a penalty (0..1) to the peer's; at 1 it loses its seat and stays out until half of that has decayed.

        Returns:
            A replacement to probe, if a seat fell free.
        """
        self._penalties.add(peer, penalty, now_ms)
        bucket = self._buckets.get(self.bucket_of(peer))
        if bucket is None or not self.banned(peer, now_ms):
            return None
        bucket.cache.pop(peer, None)
        if bucket.seats.pop(peer, None) is None:
            return None
        return self._promote(bucket, now_ms)

    def closest(self, target: int, count: int, *, without: PeerId | None = None) -> list[Contact]:
        """At most `count` contacts closest to `target`, closest first; those that last failed come last."""
        found = (contact for contact in self if contact.peer != without)
        return nsmallest(count, found, key=lambda c: (c.failures > 0, node_id(c.peer) ^ target))

    def waiting(self, count: int) -> list[PeerId]:
        """At most `count` peers that wait for a seat in a bucket with free ones, newest first."""
        free = [bucket for bucket in self._buckets.values() if len(bucket.seats) < self._k]
        return [peer for bucket in free for peer in reversed(bucket.cache)][:count]

    def looked(self, target: int, now_ms: int) -> None:
        """Note that a look-up for `target` was made, which refreshes its bucket."""
        bucket = self._buckets.get((self._id ^ target).bit_length() - 1)
        if bucket is not None:
            bucket.looked_ms = now_ms

    def stale(self, age_ms: int, now_ms: int) -> list[int]:
        """Buckets without a look-up for `age_ms`, farthest first."""
        old = [index for index, bucket in self._buckets.items() if now_ms - bucket.looked_ms >= age_ms]
        return sorted(old, reverse=True)

    def target_in(self, index: int, random: Random) -> int:
        """A random position inside bucket `index`."""
        assert 0 <= index < ID_BITS, "there are 256 buckets"
        return self._id ^ (1 << index) ^ random.getrandbits(index)

    def _bucket(self, peer: PeerId) -> _Bucket:
        return self._buckets.setdefault(self.bucket_of(peer), _Bucket())

    def _remember(self, bucket: _Bucket, contact: Contact) -> None:
        bucket.cache.pop(contact.peer, None)
        if len(bucket.cache) >= self._k:
            del bucket.cache[next(iter(bucket.cache))]
        bucket.cache[contact.peer] = contact

    def _promote(self, bucket: _Bucket, now_ms: int) -> PeerId | None:
        """The newest waiting peer that may have a seat, to be probed: what it answered before may be long ago."""
        return next((peer for peer in reversed(bucket.cache) if not self.banned(peer, now_ms)), None)


def _overdue(bucket: _Bucket, now_ms: int) -> PeerId | None:
    oldest = next(iter(bucket.seats.values()))
    return oldest.peer if now_ms - oldest.answered_ms >= PROBE_AGE_MS else None


def _bounded(addresses: Sequence[str]) -> tuple[str, ...]:
    return tuple(addresses[:ADDRESSES_MAX])
