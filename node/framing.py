"""Frames in a byte stream: a 4-byte big-endian length, then that many bytes (docs/spec/transport.md).

Sans-IO. A length past `FRAME_BYTES_MAX` is refused when its header arrives, before anything is buffered for it.
"""

from __future__ import annotations

from wire.errors import FrameTooLarge
from wire.limits import FRAME_BYTES_MAX

HEADER_BYTES = 4


def encode_frame(frame: bytes) -> bytes:
    """The bytes of one frame on the wire.

    Raises:
        FrameTooLarge: longer than `FRAME_BYTES_MAX`.
    """
    if len(frame) > FRAME_BYTES_MAX:
        raise FrameTooLarge(f"{len(frame)} bytes; a frame has at most {FRAME_BYTES_MAX}")
    return len(frame).to_bytes(HEADER_BYTES, "big") + frame


class FrameReader:
    """Cuts a byte stream into frames; holds at most one incomplete frame and one chunk."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += chunk

    def next_frame(self) -> bytes | None:
        """The next whole frame; None where more bytes are needed.

        Raises:
            FrameTooLarge: the next header announces too much; the reader is of no further use.
        """
        start = self._at + HEADER_BYTES
        if len(self._buffer) < start:
            return None
        size = int.from_bytes(self._buffer[self._at : start], "big")
        if size > FRAME_BYTES_MAX:
            raise FrameTooLarge(f"the peer announced {size} bytes; a frame has at most {FRAME_BYTES_MAX}")
        if len(self._buffer) < start + size:
            return None
        self._at = start + size
        return bytes(self._buffer[start : self._at])
