"""A WebSocket connection as two byte streams: bytes in, payload and bytes to answer with out. Sans-IO, over wsproto.

Only binary messages carry anything; where messages and frames end means nothing, since Noise cuts its own. Payload is
handed on as it arrives, so a frame of any announced length holds no memory. No extensions (a compressed frame is a
violation), no subprotocol, any path, any `Origin`: who connects is proven by Noise afterwards, and no cookie or other
standing of a browser's visitor counts for anything here.
Source: RFC 6455; github.com/libp2p/specs, websockets/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from h11 import LocalProtocolError as HttpMisuse
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from wire.errors import Malformed

HANDSHAKE_BYTES_MAX = 16 << 10
"""Bytes of the HTTP part; no browser sends a fourth of it."""

MESSAGE_BYTES_MAX = 16 << 20
"""Payload of one message, all its fragments together; we send at most 1 MiB, others a few Noise messages."""

IDLE_FRAMES_MAX = 64
"""Pings and frames without payload in a row, between two bytes of payload."""


class WebSocketViolation(Malformed):
    """The other side broke the protocol, or a bound of ours; says how."""


class WebSocketBytes:
    """One end of a connection, from its HTTP request on.

    Args:
        client: whether we asked.
    """

    def __init__(self, *, client: bool) -> None:
        self._ws = WSConnection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
        self._heard_bytes = 0
        self._message_bytes = 0
        self._idle_frames = 0
        self.opened = False
        """The HTTP part is over, and we are connected."""
        self.ended = False
        """The other side closed."""
        self.pong = b""
        """The answer to its newest ping, to be sent before anything else."""

    def ask(self, host: str, path: str = "/") -> bytes:
        """The client's request.

        Args:
            host: with the port, as in a URL.
        """
        return self._ws.send(Request(host=host, target=path))

    def answer(self) -> bytes:
        """The server's consent, once `feed` has returned because of a request.

        What the client sent before it is lost: it has to wait (RFC 6455, section 4.1).
        """
        self.opened = True
        return self._ws.send(AcceptConnection())

    def refusal(self, status: int) -> bytes:
        """The server's refusal of what is no WebSocket request; empty where HTTP permits no answer any more."""
        try:
            return self._ws.send(RejectConnection(status_code=status, headers=[(b"connection", b"close")]))
        except (LocalProtocolError, HttpMisuse):
            return b""

    def feed(self, data: bytes) -> tuple[list[bytes], bool]:
        """Take what arrived.

        Returns:
            payload, and whether a request waits for `answer`.

        Raises:
            WebSocketViolation: the protocol or a bound was broken, or a server refused us.
        """
        if not data:
            return [], False
        if not self.opened:
            self._heard_bytes += len(data)
            if self._heard_bytes > HANDSHAKE_BYTES_MAX:
                raise WebSocketViolation("the handshake is too long")
        try:
            self._ws.receive_data(data)
            return self._take()
        except (RemoteProtocolError, LocalProtocolError, HttpMisuse, UnicodeDecodeError) as exc:
            raise WebSocketViolation(str(exc) or "not a WebSocket") from exc

    def payload(self, data: bytes) -> bytes:
        """A binary message; empty once either side has closed."""
        if self._ws.state is not ConnectionState.OPEN:
            return b""
        return self._ws.send(BytesMessage(data=data))

    def goodbye(self, *, violated: bool = False) -> bytes:
        """A close frame; empty once we have closed or where no connection was made."""
        if self._ws.state not in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            return b""
        return self._ws.send(
            CloseConnection(code=CloseReason.PROTOCOL_ERROR if violated else CloseReason.NORMAL_CLOSURE)
        )

    def _take(self) -> tuple[list[bytes], bool]:
        found: list[bytes] = []
        asked = False
        for event in self._events():
            if isinstance(event, BytesMessage):
                if event.data:
                    found.append(bytes(event.data))
                self._count(len(event.data), ends=event.message_finished)
            elif isinstance(event, Request):
                asked = True
            elif isinstance(event, AcceptConnection):
                self.opened = True
            elif isinstance(event, Ping):
                self._count(0)
                if self._ws.state is ConnectionState.OPEN:
                    self.pong = self._ws.send(event.response())
            elif isinstance(event, CloseConnection):
                if self._ws.state is ConnectionState.OPEN:  # how wsproto reports a frame that breaks the protocol
                    raise WebSocketViolation(event.reason or "a broken frame")
                self.ended = True
            elif isinstance(event, TextMessage):
                raise WebSocketViolation("a text message")
            elif isinstance(event, RejectConnection):
                raise WebSocketViolation(f"the server refused with status {event.status_code}")
            else:
                self._count(0)
        return found, asked

    def _events(self) -> Iterator[Event]:
        for event in self._ws.events():
            yield event
            if self.ended:
                return

    def _count(self, size: int, *, ends: bool = False) -> None:
        self._message_bytes = 0 if ends else self._message_bytes + size
        self._idle_frames = 0 if size else self._idle_frames + 1
        if self._message_bytes > MESSAGE_BYTES_MAX:
            raise WebSocketViolation("a message is too long")
        if self._idle_frames > IDLE_FRAMES_MAX:
            raise WebSocketViolation("too many frames without payload")
