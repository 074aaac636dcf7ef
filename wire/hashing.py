"""Domain-separated SHA-256, as BIP-340's tagged hash: sha256(sha256(tag) || sha256(tag) || data)."""

from __future__ import annotations

import hashlib
from functools import lru_cache

PREFIX = "quorate/1/"


@lru_cache(maxsize=64)
def _midstate(domain: str) -> hashlib._Hash:
    tag = hashlib.sha256((PREFIX + domain).encode()).digest()
    return hashlib.sha256(tag + tag)


def digest(domain: str, *parts: bytes) -> bytes:
    """32-byte hash of `parts` under `domain`; two or more parts are length-prefixed (8 bytes, big-endian).

    One part stands alone, without a prefix: a domain hashes either one part, always, or two and more.
    """
    state = _midstate(domain).copy()
    if len(parts) == 1:
        state.update(parts[0])
        return state.digest()
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()
