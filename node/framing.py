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


class FrameAssembler:
    """The same as `FrameReader` for pieces that stay where they are: a frame of many pieces is joined once."""

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._at = 0
        self._size: int | None = None
        self.have = 0

    def feed(self, piece: bytes | bytearray) -> None:
        """Take the next bytes of the stream; they must not change any more."""
        if piece:
            self._pieces.append(piece)
            self.have += len(piece)

    def next_frame(self) -> bytes | None:
        """The next whole frame; None where more bytes are needed.

        Raises:
            FrameTooLarge: the next header announces too much; the assembler is of no further use.
        """
        if self._size is None:
            if self.have < HEADER_BYTES:
                return None
            self._size = int.from_bytes(self._pull(HEADER_BYTES), "big")
            if self._size > FRAME_BYTES_MAX:
                raise FrameTooLarge(f"the peer announced {self._size} bytes; a frame has at most {FRAME_BYTES_MAX}")
        if self.have < self._size:
            return None
        frame = self._pull(self._size)
        self._size = None
        return frame

    @property
    def missing(self) -> int:
        """Bytes without which the next frame, as far as it is known, is not whole; 0 where no part of one is here."""
        if self._size is not None:
            return self._size - self.have
        return HEADER_BYTES - self.have if self.have else 0

    def _pull(self, size: int) -> bytes:
        self.have -= size
        parts: list[bytes] = []
        done = 0
        while size:
            piece = self._pieces[done]
            part = piece[self._at : self._at + size]
            size -= len(part)
            self._at += len(part)
            if self._at == len(piece):
                done += 1
                self._at = 0
            parts.append(bytes(part))
        del self._pieces[:done]
        return parts[0] if len(parts) == 1 else b"".join(parts)
