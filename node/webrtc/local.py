"""What the node and its WebRTC process say to one another about one connection, before its streams flow. Sans-IO.

Each connection has a socket of its own between the two processes; it begins with messages

    message = length (4 bytes, big-endian) || kind (1 byte) || payload of length - 1 bytes, UTF-8

and once the process has said `CONNECTED` and the node `GO`, each side speaks Yamux (`node.libp2p.yamux`) behind
its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from wire.errors import Malformed

PAYLOAD_BYTES_MAX = 16 << 10
HEAD_BYTES = 5


class Say(Enum):
    """Kinds of messages."""

    OFFER = b"o"
    ANSWER = b"a"
    CANDIDATE = b"c"
    CONNECTED = b"+"
    """The process: data channels work; the payload is where the other side is, `<address> <port>`."""
    FAILED = b"-"
    """The process: it came to nothing; the payload says why."""
    GO = b"g"
    """The node: from here on streams."""


@dataclass(frozen=True)
class Said:
    """One message."""

    kind: Say
    text: str = ""

    def encode(self) -> bytes:
        """As sent."""
        payload = self.text.encode()
        assert len(payload) <= PAYLOAD_BYTES_MAX
        return (1 + len(payload)).to_bytes(4, "big") + self.kind.value + payload


class Reader:
    """Cuts bytes into messages until told to stop; what follows is in `rest`."""

    def __init__(self) -> None:
        self._raw = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take what arrived."""
        self._raw += chunk

    def next(self) -> Said | None:
        """The next message, if it is complete.

        Raises:
            Malformed: not a message.
        """
        if len(self._raw) < HEAD_BYTES:
            return None
        size = int.from_bytes(self._raw[:4], "big")
        if not 1 <= size <= 1 + PAYLOAD_BYTES_MAX:
            raise Malformed(f"a message of {size} bytes")
        if len(self._raw) < 4 + size:
            return None
        kind, payload = bytes(self._raw[4:5]), bytes(self._raw[5 : 4 + size])
        del self._raw[: 4 + size]
        try:
            return Said(Say(kind), payload.decode())
        except ValueError as exc:
            raise Malformed(f"not a message: {exc}") from exc

    def rest(self) -> bytes:
        """What came behind the last message; it is not kept here any longer."""
        rest = bytes(self._raw)
        self._raw.clear()
        return rest
