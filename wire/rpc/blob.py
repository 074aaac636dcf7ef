"""Content by its hash, in chunks on a channel of its own (docs/spec/rpc.md, "Blobs"). Sans-IO.

What was received is believed only when all of it is there and hashes to what was asked for.
"""

from __future__ import annotations

import hashlib

from wire.errors import Malformed
from wire.rpc.frames import REASON_BYTES_MAX, cut

PROTOCOL = "/quorate/blob/1"
CHUNK_BYTES = 256 << 10
BLOBS_PER_PEER_MAX = 4
HASH_BYTES = 32
_GIVEN, _REFUSED = b"\0", b"\1"


def ask(sha256: bytes, offset: int) -> bytes:
    """The request for a blob from `offset` (bytes) on."""
    assert len(sha256) == HASH_BYTES, "a SHA-256 has 32 bytes"
    return sha256 + offset.to_bytes(8, "big")


def read_ask(frame: bytes) -> tuple[bytes, int]:
    """Hash and offset.

    Raises:
        Malformed: of another length.
    """
    if len(frame) != HASH_BYTES + 8:
        raise Malformed(f"{len(frame)} bytes do not ask for a blob")
    return frame[:HASH_BYTES], int.from_bytes(frame[HASH_BYTES:], "big")


def give(size: int) -> bytes:
    """The blob has `size` bytes, and those from the offset on follow."""
    return _GIVEN + size.to_bytes(8, "big")


def refuse(reason: str) -> bytes:
    """The blob is not given."""
    return _REFUSED + cut(reason, REASON_BYTES_MAX)


def read_given(frame: bytes) -> int | str:
    """The size of the whole blob, or the reason why it is refused.

    Raises:
        Malformed: neither.
    """
    if frame[:1] == _GIVEN and len(frame) == 9:
        return int.from_bytes(frame[1:], "big")
    if frame[:1] == _REFUSED and len(frame) <= 1 + REASON_BYTES_MAX:
        return frame[1:].decode(errors="replace")
    raise Malformed("not the answer to a request for a blob")


class BlobReader:
    """Checks a blob while it arrives.

    Args:
        sha256: of the whole.
        size: of the whole, bytes, as the server says.
        known: what is already here, from the start.
    """

    def __init__(self, sha256: bytes, size: int, known: bytes = b"") -> None:
        if len(known) > size:
            raise Malformed(f"a blob of {size} bytes, of which {len(known)} are here")
        self._sha256 = sha256
        self._state = hashlib.sha256(known)
        self.size = size
        self.at = len(known)

    @property
    def whole(self) -> bool:
        """Whether all bytes are here."""
        return self.at == self.size

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk.

        Raises:
            Malformed: empty, too long, or past the end.
        """
        if not 0 < len(chunk) <= min(CHUNK_BYTES, self.size - self.at):
            raise Malformed(f"a chunk of {len(chunk)} bytes at {self.at} of {self.size}")
        self._state.update(chunk)
        self.at += len(chunk)

    def check(self) -> None:
        """Of a whole blob, that it is the one that was asked for.

        Raises:
            Malformed: it is another one.
        """
        assert self.whole, "only a whole blob has its hash"
        if self._state.digest() != self._sha256:
            raise Malformed("the blob has another hash")
