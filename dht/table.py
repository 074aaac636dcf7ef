"""The routing table: contacts in buckets by XOR distance from ourselves. No clock, socket or random.

Invariants: a bucket holds at most `K` contacts and a cache of `K` more; a contact that answers is never pushed out by
one that was only heard of; whoever failed `FAILURES_MAX` times in a row or was blamed past `PENALTY_MAX` is out.
Kademlia, sections 2.2 and 4.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from wire.hashing import digest
from wire.peer import PeerId

K = 20
"""Contacts per bucket, and replicas of a record."""

ALPHA = 3
"""Look-up requests in flight."""

ID_BITS = 256
ADDRESSES_MAX = 4
ADDRESS_BYTES_MAX = 128
FAILURES_MAX = 2
PENALTY_MAX = 1.0


@lru_cache(maxsize=65536)
def node_id(peer: PeerId) -> int:
    """Where a peer stands in the 256-bit key space; hashed, so that places cannot be chosen bit by bit."""
    return int.from_bytes(digest("dht.node", peer), "big")


def key_id(key: bytes) -> int:
    """Where a 32-byte key stands."""
    return int.from_bytes(key, "big")


def trim(addresses: Iterable[str]) -> tuple[str, ...]:
    """At most `ADDRESSES_MAX` addresses, none longer than `ADDRESS_BYTES_MAX`."""
    return tuple(a for a in dict.fromkeys(addresses) if len(a.encode()) <= ADDRESS_BYTES_MAX)[:ADDRESSES_MAX]


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer and where it may be dialled (multiaddr text)."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(slots=True)
class _Entry:
    contact: Contact
    alive: bool = False
    failures: int = 0
    penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Least recently seen first, in both."""

    live: OrderedDict[PeerId, _Entry]
    cache: OrderedDict[PeerId, _Entry]


class RoutingTable:
    """Contacts known to `me`."""

    def __init__(self, me: PeerId, *, k: int = K) -> None:
        assert k > 0, "a bucket holds contacts"
        self._me = me
        self._my_id = node_id(me)
        self._k = k
        self._buckets: dict[int, _Bucket] = {}
        self._banned: OrderedDict[PeerId, None] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(bucket.live) for bucket in self._buckets.values())

    def __contains__(self, peer: object) -> bool:
        return any(peer in bucket.live for bucket in self._buckets.values())

    def contacts(self) -> list[Contact]:
        """All contacts in use, by peer."""
        found = [entry.contact for bucket in self._buckets.values() for entry in bucket.live.values()]
        return sorted(found, key=lambda contact: contact.peer)

    def heard(self, contact: Contact) -> None:
        """Somebody mentioned this peer: it is kept where there is room, and pushes nobody out."""
        self._seen(contact, alive=False)

    def alive(self, contact: Contact) -> None:
        """The peer itself spoke to us, authenticated, and said where it is."""
        self._seen(contact, alive=True)

    def _seen(self, contact: Contact, *, alive: bool) -> None:
        peer = contact.peer
        if peer == self._me or len(peer) != 32 or peer in self._banned:
            return
        bucket = self._bucket(peer)
        known = bucket.live.get(peer) or bucket.cache.get(peer)
        if known is None:
            self._insert(bucket, _Entry(Contact(peer, trim(contact.addresses)), alive))
            return
        if contact.addresses and (alive or not known.alive):
            known.contact = Contact(peer, trim(contact.addresses))
        if alive:
            known.alive, known.failures = True, 0
            home = bucket.live if peer in bucket.live else bucket.cache
            home.move_to_end(peer)
            if home is bucket.cache:
                del bucket.cache[peer]
                self._insert(bucket, known)

    def _insert(self, bucket: _Bucket, entry: _Entry) -> None:
        peer = entry.contact.peer
        if len(bucket.live) >= self._k and entry.alive:
            unproven = next((p for p, e in bucket.live.items() if not e.alive), None)
            if unproven is not None:
                del bucket.live[unproven]
        if len(bucket.live) < self._k:
            bucket.live[peer] = entry
            return
        bucket.cache[peer] = entry
        while len(bucket.cache) > self._k:
            bucket.cache.popitem(last=False)

    def failed(self, peer: PeerId) -> None:
        """The peer did not answer; after `FAILURES_MAX` times in a row a cached contact takes its place."""
        bucket = self._bucket(peer)
        entry = bucket.live.get(peer)
        if entry is None:
            bucket.cache.pop(peer, None)
            return
        entry.failures += 1
        if entry.failures >= FAILURES_MAX or not entry.alive:
            self._remove(bucket, peer)

    def blame(self, peer: PeerId, penalty: float) -> None:
        """The peer broke a rule; once its penalties sum to `PENALTY_MAX` it is out and stays out."""
        bucket = self._bucket(peer)
        entry = bucket.live.get(peer) or bucket.cache.get(peer)
        if entry is None:
            return
        entry.penalty += penalty
        if entry.penalty >= PENALTY_MAX:
            bucket.cache.pop(peer, None)
            self._remove(bucket, peer)
            self._banned[peer] = None
            while len(self._banned) > 1024:
                self._banned.popitem(last=False)

    def _remove(self, bucket: _Bucket, peer: PeerId) -> None:
        bucket.live.pop(peer, None)
        if bucket.cache and len(bucket.live) < self._k:
            promoted, entry = bucket.cache.popitem(last=True)
            bucket.live[promoted] = entry

    def closest(self, target: int, count: int | None = None, *, without: Sequence[PeerId] = ()) -> list[Contact]:
        """The `count` (default `k`) contacts closest to a 256-bit point, closest first."""
        wanted = self._k if count is None else count
        found = [c for c in self.contacts() if c.peer not in without]
        return sorted(found, key=lambda contact: node_id(contact.peer) ^ target)[:wanted]

    def _bucket(self, peer: PeerId) -> _Bucket:
        index = (node_id(peer) ^ self._my_id).bit_length()
        return self._buckets.setdefault(index, _Bucket(OrderedDict(), OrderedDict()))

    def refresh_points(self) -> list[int]:
        """One point in each bucket range that holds contacts; looking them up keeps the table fresh."""
        return [self._my_id ^ (1 << (index - 1)) for index in sorted(self._buckets) if index > 0]
