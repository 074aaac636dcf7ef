"""multistream-select 1.0 for one stream: both roles as state machines. Sans-IO.

    message = length (unsigned varint) || line || newline; the length counts the newline

The proposing side is lazy: its header and its one proposal go out before anything came back, together with the first
bytes of the application, and the answer is checked when it is read. Invariant: no message past
`NEGOTIATION_BYTES_MAX` is ever held, and a side that keeps proposing is cut off. Source: multistream-select
specification (github.com/multiformats/multistream-select).
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from wire.errors import Malformed, Unreachable

NEGOTIATION_BYTES_MAX = 1024
"""Longest message, newline included."""

PROPOSALS_MAX = 16
"""Lines that one side may send to find a protocol."""

HEADER = "/multistream/1.0.0"
NOT_AVAILABLE = "na"
LIST = "ls"


class ProtocolRefused(Unreachable):
    """The other side does not serve the protocol that was proposed."""


def encode(line: str) -> bytes:
    """One message."""
    body = line.encode() + b"\n"
    assert len(body) <= NEGOTIATION_BYTES_MAX, "a protocol name is short"
    return _varint(len(body)) + body


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, number >> 7])


class LineReader:
    """Cuts a byte stream into lines; what follows the last line that was asked for stays untouched."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream."""
        self._buffer += chunk

    def line(self) -> str | None:
        """The next line without its newline; None where more bytes are needed.

        Raises:
            Malformed: too long, not UTF-8, or no newline where the length says.
        """
        buffer = self._buffer
        if not buffer:
            return None
        size, start = buffer[0], 1
        if size & 0x80:
            if len(buffer) < 2:
                return None
            size, start = size & 0x7F | buffer[1] << 7, 2
        if size > NEGOTIATION_BYTES_MAX:  # a third byte of length makes it so, too
            raise Malformed(f"a negotiation message of {size} bytes; at most {NEGOTIATION_BYTES_MAX} are read")
        if len(buffer) < start + size:
            return None
        body = buffer[start : start + size]
        if body[-1:] != b"\n":
            raise Malformed("a negotiation message ends in a newline")
        try:
            line = body[:-1].decode()
        except UnicodeDecodeError:
            raise Malformed("a negotiation message is UTF-8") from None
        self._buffer = buffer[start + size :]
        return line

    def rest(self) -> bytes:
        """Everything behind the lines that were read; the reader is empty then."""
        rest, self._buffer = self._buffer, b""
        return rest


def proposal(protocol: str) -> bytes:
    """What the proposing side sends at once."""
    return encode(HEADER) + encode(protocol)


class Proposer:
    """Checks the answer to one proposal."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self._lines = LineReader()
        self._greeted = False

    def feed(self, chunk: bytes) -> bytes | None:
        """Take what came back; returns what follows the agreement, None while it is not complete.

        Raises:
            ProtocolRefused: the other side said no.
            Malformed: it said something else.
        """
        self._lines.feed(chunk)
        while (line := self._lines.line()) is not None:
            if not self._greeted:
                if line != HEADER:
                    raise Malformed(f"{line[:40]!r} instead of {HEADER}")
                self._greeted = True
            elif line == self.protocol:
                return self._lines.rest()
            elif line == NOT_AVAILABLE:
                raise ProtocolRefused(f"the peer does not serve {self.protocol}")
            else:
                raise Malformed(f"{line[:40]!r} in answer to {self.protocol}")
        return None


class Responder:
    """Answers proposals until one fits."""

    def __init__(self, serves: Container[str], names: Iterable[str]) -> None:
        self._serves = serves
        self._names = names
        self._lines = LineReader()
        self._greeted = False
        self._proposals = 0
        self.agreed: str | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Take what the other side sent; returns the bytes to answer. `agreed` is set when a protocol was found.

        Raises:
            Malformed: a line that cannot be, or too many of them.
        """
        self._lines.feed(chunk)
        out = b""
        while self.agreed is None and (line := self._lines.line()) is not None:
            out += self._answer(line)
        return out

    def rest(self) -> bytes:
        """What followed the agreement."""
        return self._lines.rest()

    def _answer(self, line: str) -> bytes:
        if not self._greeted:
            if line != HEADER:
                raise Malformed(f"{line[:40]!r} instead of {HEADER}")
            self._greeted = True
            return encode(HEADER)
        self._proposals += 1
        if self._proposals > PROPOSALS_MAX:
            raise Malformed(f"more than {PROPOSALS_MAX} proposals")
        if line == LIST:
            return self._listing()
        if line and line in self._serves:
            self.agreed = line
            return encode(line)
        return encode(NOT_AVAILABLE)

    def _listing(self) -> bytes:
        """All names in one message, as many as its length allows."""
        text = b""
        for name in self._names:
            line = name.encode() + b"\n"
            if len(text) + len(line) >= NEGOTIATION_BYTES_MAX:
                break
            text += line
        text += b"\n"
        return _varint(len(text)) + text
