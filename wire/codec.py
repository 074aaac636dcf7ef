"""Canonical MessagePack of typed structs: one value, one encoding, and only that encoding is accepted.

Structs are encoded as arrays (no field names), maps in sorted key order. `decode` refuses anything longer
or deeper than its limits, anything of another type, and any bytes that would not be encoded back to
themselves, so the bytes that were signed are the bytes that are kept.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

from wire.errors import Malformed
from wire.limits import DEPTH_MAX, FRAME_BYTES_MAX

T = TypeVar("T")


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything that is signed, hashed or sent: frozen, encoded as an array of its fields."""


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


_BUILDING = threading.Lock()


@lru_cache(maxsize=256)
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of `kind`, built by one thread at a time.

    msgspec (0.22) puts a struct's type information in place before it is complete; a thread that decodes the same
    struct at that moment follows a null pointer and takes the process with it.
    """
    with _BUILDING:
        return msgspec.msgpack.Decoder(kind, strict=True)


def prepare(*kinds: type[Any]) -> None:
    """Complete what msgspec must know of `kinds`; before `msgspec.convert` or `msgspec.json` of structs in a thread."""
    for kind in kinds:
        _decoder(cast(Any, kind))


def encode(value: Any) -> bytes:
    """The canonical bytes of `value` (a `Wire` struct or plain builtins)."""
    return _ENCODER.encode(value)


def decode(kind: type[T], raw: bytes, *, bytes_max: int = FRAME_BYTES_MAX) -> T:
    """Decode canonical bytes.

    Args:
        kind: the expected type; must not contain `Any`.
        raw: the bytes.
        bytes_max: refuse anything longer.

    Raises:
        Malformed: too long, too deep, undecodable, of another type, or not canonical.
    """
    if len(raw) > bytes_max:
        raise Malformed(f"{len(raw)} bytes, at most {bytes_max} allowed")
    _check_depth(raw)
    try:
        value: T = _decoder(cast(Any, kind)).decode(raw)
    except (msgspec.DecodeError, RecursionError, OverflowError, UnicodeDecodeError) as exc:
        raise Malformed(f"not a {getattr(kind, '__name__', kind)}: {exc}") from exc
    if encode(value) != raw:
        raise Malformed("not the canonical encoding of its value")
    return value


def _fixed_bytes(tag: int) -> int:
    """Bytes that follow a tag of fixed size; -1 where a length or a count follows instead."""
    sizes = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    if tag <= 0x7F or tag >= 0xE0 or tag in (0xC0, 0xC2, 0xC3):
        return 0
    if 0xA0 <= tag <= 0xBF:
        return tag & 0x1F
    return sizes.get(tag, -1)


_FIXED = [_fixed_bytes(tag) for tag in range(256)]
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNTS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _check_depth(raw: bytes) -> None:
    """Refuse nesting past `DEPTH_MAX` and trailing bytes, without building any object."""
    at, left, size = 0, 1, len(raw)
    outer: list[int] = []
    while left or outer:
        if not left:
            left = outer.pop()
            continue
        left -= 1
        if at >= size:
            raise Malformed("truncated")
        tag = raw[at]
        fixed = _FIXED[tag]
        at += 1
        if fixed >= 0:
            at += fixed
            continue
        if tag in _LENGTHS:
            width = _LENGTHS[tag]
            at += width + int.from_bytes(raw[at : at + width], "big")
            continue
        outer.append(left)
        if 0x80 <= tag <= 0x9F:
            left = (tag & 0x0F) * (1 if tag >= 0x90 else 2)
        elif tag in _COUNTS:
            width, per = _COUNTS[tag]
            left = int.from_bytes(raw[at : at + width], "big") * per
            at += width
        else:
            raise Malformed(f"tag 0x{tag:02x} is not allowed")
        if len(outer) >= DEPTH_MAX:
            raise Malformed(f"nested deeper than {DEPTH_MAX}")
    if at != size:
        raise Malformed("truncated" if at > size else "trailing bytes")
