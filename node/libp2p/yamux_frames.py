"""Yamux frames: their headers, and cutting a byte stream into headers and payload. Sans-IO.

    header = version 0 (1) || type (1) || flags (2) || stream (4) || length (4), big-endian; payload only after DATA

Payload is handed on as it arrives, so that at most one incomplete header is held here whatever a frame announces.
Source: github.com/hashicorp/yamux, spec.md, "Framing".
"""

from __future__ import annotations

import struct

from wire.errors import Malformed

HEADER = struct.Struct("!BBHII")
HEADER_BYTES = 12

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

INITIAL_WINDOW_BYTES = 256 << 10
"""What each side of a new stream may send before it hears of more; fixed by the specification."""

NORMAL, PROTOCOL_ERROR, INTERNAL_ERROR = range(3)
"""Why a side goes away."""

Header = tuple[int, int, int, int]
"""Type, flags, stream, length."""


class YamuxViolation(Malformed):
    """The other side broke a rule of Yamux that concerns the whole connection."""


def frame_header(kind: int, flags: int, stream: int, length: int) -> bytes:
    """Twelve bytes."""
    return HEADER.pack(0, kind, flags, stream, length)


class FrameParser:
    """Headers and pieces of payload out of a byte stream that is cut anywhere."""

    def __init__(self) -> None:
        self._partial = b""
        self._left = 0

    def feed(self, chunk: bytes) -> list[Header | bytes]:
        """What `chunk` holds: headers as tuples, and payload, never empty, as bytes in one or more pieces.

        Raises:
            YamuxViolation: another version, type or flag, or flags where none belong.
        """
        found: list[Header | bytes] = []
        data = self._partial + chunk if self._partial else chunk
        self._partial = b""
        at, end, left = 0, len(data), self._left
        while at < end:
            if left:
                piece = data[at : at + left]
                found.append(piece)
                at += len(piece)
                left -= len(piece)
                continue
            if end - at < HEADER_BYTES:
                self._partial = data[at:]
                break
            version, kind, flags, stream, length = HEADER.unpack_from(data, at)
            if version or kind > GO_AWAY or flags > 15:
                raise YamuxViolation(f"a header of version {version}, type {kind}, flags {flags}")
            at += HEADER_BYTES
            found.append((kind, flags, stream, length))
            if kind == DATA:
                left = length
        self._left = left
        return found
