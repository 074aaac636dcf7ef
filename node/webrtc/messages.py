"""Streams on data channels: each message a varint length and a protobuf of a flag and data. Sans-IO.

A data channel carries one stream. Half-closing is a flag of its own, and so is its receipt, because closing the channel
may lose what was sent before. Invariant: whatever arrives, at most one message of `MESSAGE_BYTES_MAX` is held here.
Source: github.com/libp2p/specs, webrtc/README.md, "Multiplexing".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from node.reach import protobuf
from node.reach.protobuf import Delimited, Value, delimit
from wire.errors import Malformed

MESSAGE_BYTES_MAX = 16 << 10
"""A message with its length; other implementations take no longer ones."""

OVERHEAD_BYTES = 9
"""Length of the message (3), flag (2), tag and length of the data (4)."""

DATA_BYTES_MAX = MESSAGE_BYTES_MAX - OVERHEAD_BYTES

_FLAG, _DATA = 1, 2


class Flag(IntEnum):
    """What a message says about its sender's half of the stream, or about the other half."""

    FIN = 0
    """No more data from the sender."""
    STOP_SENDING = 1
    """The sender drops what arrives from now on."""
    RESET = 2
    """Both halves end at once."""
    FIN_ACK = 3
    """The sender has seen FIN."""


@dataclass(frozen=True)
class Message:
    """Data, a flag, or both."""

    data: bytes = b""
    flag: Flag | None = None

    def encode(self) -> bytes:
        """As sent, behind its length."""
        assert len(self.data) <= DATA_BYTES_MAX, "the caller cuts data"
        fields: list[tuple[int, Value]] = [] if self.flag is None else [(_FLAG, int(self.flag))]
        if self.data:
            fields.append((_DATA, self.data))
        return delimit(protobuf.encode(fields))


def decode(raw: bytes) -> Message:
    """A message without its length; flags that nobody knows are ignored.

    Raises:
        Malformed: not such a message.
    """
    fields = protobuf.decode(raw)
    number = protobuf.number(fields, _FLAG)
    flag = None if number is None or number not in Flag._value2member_map_ else Flag(number)
    return Message(b"".join(protobuf.strings(fields, _DATA)), flag)


class Reader:
    """Cuts what arrives on a data channel into messages, wherever its own messages begin and end."""

    def __init__(self) -> None:
        self._delimited = Delimited(MESSAGE_BYTES_MAX)

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that are complete now.

        Raises:
            Malformed: no such messages; the reader is of no further use.
        """
        if len(chunk) > 4 * MESSAGE_BYTES_MAX:
            raise Malformed(f"a data channel message of {len(chunk)} bytes")
        self._delimited.feed(chunk)
        while (raw := self._delimited.next()) is not None:
            yield decode(raw)
