"""Peer identities: a `PeerId` is the 32-byte Ed25519 public key; its text is the libp2p peer id of that key.

The libp2p peer id of an Ed25519 key is the identity multihash of its protobuf encoding, in base58btc
(libp2p peer-ids specification), so it always begins with `12D3KooW`.
"""

from __future__ import annotations

from typing import NewType

import base58

from wire.errors import Malformed

PeerId = NewType("PeerId", bytes)

_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])  # identity multihash of {Type: Ed25519, Data: 32 bytes}


def to_text(peer: PeerId) -> str:
    """The libp2p peer id, as text."""
    assert len(peer) == 32, "an Ed25519 public key has 32 bytes"
    return base58.b58encode(_PREFIX + peer).decode()


def to_multihash(peer: PeerId) -> bytes:
    """The libp2p peer id, as the 38 bytes that its text encodes."""
    assert len(peer) == 32, "an Ed25519 public key has 32 bytes"
    return _PREFIX + peer


def from_multihash(raw: bytes) -> PeerId:
    """The key inside the bytes of a libp2p peer id.

    Raises:
        Malformed: not the peer id of an Ed25519 key.
    """
    if len(raw) != 38 or not raw.startswith(_PREFIX):
        raise Malformed("not the peer id of an Ed25519 key")
    return PeerId(raw[6:])


def from_text(text: str) -> PeerId:
    """The key inside a libp2p peer id.

    Raises:
        Malformed: not the base58btc peer id of an Ed25519 key, in its one spelling.
    """
    try:
        raw = base58.b58decode(text) if len(text) <= 64 else b""
    except ValueError as exc:
        raise Malformed(f"not base58: {text[:70]!r}") from exc
    if len(raw) != 38 or not raw.startswith(_PREFIX):
        raise Malformed(f"not the peer id of an Ed25519 key: {text[:70]!r}")
    peer = PeerId(raw[6:])
    if to_text(peer) != text:  # the decoder forgives white space at the end
        raise Malformed(f"not the canonical spelling of a peer id: {text[:70]!r}")
    return peer


def short(peer: PeerId) -> str:
    """The last eight characters of the peer id: enough for people to tell peers apart."""
    return to_text(peer)[-8:]
