"""Content identifiers: CIDv1, raw codec, SHA-256, base32 lower case (multiformats CID specification)."""

from __future__ import annotations

import base64
import hashlib

from wire.errors import Malformed

_HEADER = bytes([0x01, 0x55, 0x12, 0x20])  # CIDv1, raw, sha2-256, 32 bytes


def of_digest(sha256: bytes) -> str:
    """The CID of content whose SHA-256 is `sha256` (32 bytes)."""
    assert len(sha256) == 32, "a SHA-256 digest has 32 bytes"
    return "b" + base64.b32encode(_HEADER + sha256).decode().rstrip("=").lower()


def of(data: bytes) -> str:
    """The CID of `data`, as text that starts with `bafkrei`."""
    return of_digest(hashlib.sha256(data).digest())


def to_digest(text: str) -> bytes:
    """The 32-byte SHA-256 inside a CID.

    Raises:
        Malformed: not a CIDv1 of raw bytes under SHA-256 in base32, or not its canonical spelling.
    """
    if len(text) != 59 or not text.startswith("b"):
        raise Malformed(f"not a CIDv1 in base32: {text[:70]!r}")
    try:
        raw = base64.b32decode(text[1:].upper() + "=" * 6)
    except ValueError as exc:
        raise Malformed(f"not base32: {text[:70]!r}") from exc
    if raw[:4] != _HEADER or of_digest(raw[4:]) != text:
        raise Malformed(f"not a canonical CIDv1 of raw bytes under SHA-256: {text[:70]!r}")
    return raw[4:]
