"""Canonical bytes, tagged hashes, envelopes and Merkle paths of receipts (docs/spec/receipt.md, Notation)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from quorate._ready import ready

T = TypeVar("T")

ENVELOPE_BYTES_MAX = 256 << 10
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PEER_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])


class NotCanonical(ValueError):
    """Bytes that are no canonical encoding of the expected type."""


class Struct(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the structs: encoded as an array of the fields in order."""


class Envelope(Struct, frozen=True):
    """A signed body; see `open_envelope`."""

    domain: str
    author: bytes
    body: bytes
    signature: bytes


def encode(value: object) -> bytes:
    """The canonical bytes of a value."""
    return _ENCODER.encode(value)


def decode(kind: type[T], raw: bytes, bytes_max: int) -> T:
    """Raises: NotCanonical if `raw` is too long or not exactly the encoding of a `kind`."""
    if len(raw) > bytes_max:
        raise NotCanonical(f"{len(raw)} bytes, at most {bytes_max}")
    try:
        value = msgspec.msgpack.decode(raw, type=ready(kind), strict=True)
    except (msgspec.DecodeError, RecursionError, OverflowError, UnicodeDecodeError) as exc:
        raise NotCanonical(str(exc)) from exc
    if encode(value) != raw:
        raise NotCanonical("not the canonical encoding of its value")
    return value


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 tagged with `domain`; two or more parts are preceded by their lengths."""
    tag = hashlib.sha256(b"quorate/1/" + domain.encode()).digest()
    if len(parts) == 1:
        return hashlib.sha256(tag + tag + parts[0]).digest()
    return hashlib.sha256(tag + tag + b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def open_envelope(envelope: Envelope, domain: str, kind: type[T]) -> T:
    """The body of an envelope of `domain` whose signature holds.

    Raises:
        NotCanonical: wrong domain, signature or body.
    """
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    if envelope.domain != domain:
        raise NotCanonical(f"domain {envelope.domain[:40]!r} instead of {domain!r}")
    if len(envelope.author) != 32 or len(envelope.signature) != 64 or len(envelope.body) > ENVELOPE_BYTES_MAX:
        raise NotCanonical("author, signature or body of a wrong length")
    message = digest("envelope", domain.encode(), envelope.author, envelope.body)
    try:
        crypto_sign_open(envelope.signature + message, envelope.author)
    except (BadSignatureError, ValueError) as exc:
        raise NotCanonical("the signature does not verify") from exc
    return decode(kind, envelope.body, ENVELOPE_BYTES_MAX)


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `leaf` stands at `index` of `size` leaves under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn = index, size - 1
    node = hashlib.sha256(b"\x00" + leaf).digest()
    for step in path:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            node = hashlib.sha256(b"\x01" + step + node).digest()
            while fn and not fn % 2:
                fn, sn = fn // 2, sn // 2
        else:
            node = hashlib.sha256(b"\x01" + node + step).digest()
        fn, sn = fn // 2, sn // 2
    return sn == 0 and node == root


def peer_text(peer: bytes) -> str:
    """The libp2p peer id of a 32-byte Ed25519 key: base58btc of the identity multihash."""
    raw = _PEER_PREFIX + peer
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = _ALPHABET[rest] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\x00"))) + text
