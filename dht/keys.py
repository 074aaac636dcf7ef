"""Positions in the 256-bit XOR space, as integers (Kademlia, section 2.1)."""

from __future__ import annotations

from functools import lru_cache

from wire.hashing import digest
from wire.peer import PeerId

ID_BITS = 256


@lru_cache(maxsize=1 << 15)
def node_id(peer: PeerId) -> int:
    """Where `peer` stands: a digest of its key, so that nobody stands where it likes without searching for keys."""
    return int.from_bytes(digest("dht.node", peer), "big")


@lru_cache(maxsize=1 << 12)
def place_of(namespace: str, key: bytes) -> int:
    """Where the records of one key are kept."""
    return int.from_bytes(digest("dht.place", namespace.encode(), key), "big")
