"""A WebSocket connection as py-libp2p's byte stream, in trio; the protocol is `node.libp2p.websocket`.

Invariants: a reader never waits for a send (the answer to a ping leaves at once if the socket takes it, else before
the next payload); what the socket did not take stays in `_unsent`, so a cancelled write leaves no half frame behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError

from node.libp2p.websocket import WebSocketBytes, WebSocketViolation

READ_BYTES_MIN, READ_BYTES_MAX = 2 << 10, 64 << 10
"""Bytes taken at once; few from who sends crumbs, so that taking them apart never holds up the others."""

CRUMB_BYTES = 16
"""Payload per piece on average; below it somebody sends crumbs."""

STALL_S = 20.0
"""Seconds after which a socket that takes no bytes is given up."""


class WebSocketStream(ReadWriteCloser):
    """One connection; `accept` or `ask` comes first.

    Args:
        stream: TCP, or TLS over it.
        tcp: the socket beneath.
        client: whether we dialled.
    """

    def __init__(self, stream: trio.abc.Stream, tcp: trio.SocketStream, *, client: bool) -> None:
        self.stream = stream
        self._tcp = tcp
        self._plain = stream is tcp
        self._remote = remote_of(tcp)
        self._ws = WebSocketBytes(client=client)
        self._unsent = bytearray()
        self._received = bytearray()
        self._reading, self._writing = trio.Lock(), trio.Lock()
        self._read_bytes = 16 << 10
        self._over, self._closed = False, False

    @property
    def opened(self) -> bool:
        """The HTTP part is over, and we are connected."""
        return self._ws.opened

    @property
    def held(self) -> int:
        """Bytes kept here, of the other side and for it."""
        return len(self._received) + len(self._unsent)

    def cut(self) -> None:
        """Drop what waits to be sent, and the socket; whoever waits for it hears of it."""
        self._unsent.clear()
        self._tcp.socket.close()

    # ---- the HTTP part

    async def accept(self) -> None:
        """Answer the other side's request, and wait for its first payload.

        Who listens does not speak first: a client may lose what comes together with our consent (js-libp2p over `ws`
        does, before it listens for messages), and in libp2p it is the dialler who begins.

        Raises:
            ConnectionClosedError: it sent none, or something else.
        """
        asked = False
        try:
            while not asked:
                _, asked = self._ws.feed(await self._more())
        except WebSocketViolation as exc:
            self._say(self._ws.refusal(400))
            raise ConnectionClosedError(f"no WebSocket request: {exc}") from exc
        self._unsent += self._ws.answer()
        await self._flush()
        while not self._received:
            data = await self._more()
            self._take_in(data, partial(self._feed, data))

    async def ask(self, host: str) -> None:
        """Send a request and wait for consent.

        Args:
            host: with the port, as in a URL.

        Raises:
            ConnectionClosedError: the other side has something else to say.
        """
        self._unsent += self._ws.ask(host)
        await self._flush()
        while not self._ws.opened:
            data = await self._more()
            self._take_in(data, partial(self._feed, data))

    async def _more(self) -> bytes:
        data = bytes(await self._receive())
        if not data:
            raise ConnectionClosedError("closed during the handshake")
        return data

    # ---- bytes

    async def read(self, n: int | None = None) -> bytes:
        """At most `n` bytes; empty at the end."""
        if n == 0:
            return b""
        async with self._reading:
            while not self._received and not self._over:
                data = await self._receive()
                if not data:
                    self._over = True
                else:
                    self._take_in(data, partial(self._feed, data))
            size = len(self._received) if n is None else n
            found = bytes(self._received[:size])
            del self._received[:size]
            return found

    def _feed(self, data: bytes) -> list[bytes]:
        return self._ws.feed(data)[0]

    def _take_in(self, data: bytes, feed: Callable[[], list[bytes]]) -> None:
        try:
            pieces = feed()
        except WebSocketViolation as exc:
            self._over = True
            self._say(self._ws.goodbye(violated=True))
            raise ConnectionClosedError(f"the WebSocket protocol was broken: {exc}") from exc
        for piece in pieces:
            self._received += piece
        if len(pieces) > 1 and sum(map(len, pieces)) < CRUMB_BYTES * len(pieces):
            self._read_bytes = READ_BYTES_MIN
        elif len(data) == self._read_bytes:
            self._read_bytes = min(2 * self._read_bytes, READ_BYTES_MAX)
        self._over = self._over or self._ws.ended
        if self._ws.pong and not self._writing.locked():
            self._frame(b"")
            self._send_some()

    async def write(self, data: bytes) -> None:
        """Send all of it as one message."""
        async with self._writing:
            self._frame(data)
            await self._flush()

    def send_now(self, data: bytes) -> bool:
        """Hand to the kernel what it takes now; whether that was all. The rest waits for `write`.

        Raises:
            OSError: the connection is gone.
        """
        self._frame(data)
        if not self._writing.locked():
            self._send_some()
        return not self._unsent

    def _frame(self, data: bytes) -> None:
        self._unsent += self._ws.pong
        self._ws.pong = b""
        if data:
            self._unsent += self._ws.payload(data)

    def _send_some(self) -> None:
        if not self._plain or not self._unsent:
            return
        try:
            sent = os.write(self._tcp.socket.fileno(), self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        del self._unsent[:sent]

    async def _flush(self) -> None:
        try:
            while self._unsent:
                with trio.fail_after(STALL_S):
                    await self._send_more()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError) as exc:
            raise ConnectionClosedError(f"the WebSocket was lost: {exc}") from exc

    async def _send_more(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("closed here")
        if self._plain:
            await trio.lowlevel.wait_writable(cast(Any, self._tcp.socket))
            self._send_some()
            return
        batch = bytes(self._unsent)
        self._unsent.clear()  # half a TLS record cannot be taken back: whoever cancels this has ended the connection
        await self.stream.send_all(batch)

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(self._read_bytes))
        except trio.ClosedResourceError:
            return b""
        except (trio.BrokenResourceError, OSError) as exc:
            raise ConnectionClosedError(f"the WebSocket was lost: {exc}") from exc

    # ---- the end

    def _say(self, last: bytes) -> None:
        """A last word, if the socket takes it at once."""
        if self._writing.locked():
            return
        self._unsent += last
        try:
            self._send_some()
        except OSError:
            self._unsent.clear()

    async def close(self) -> None:
        """Close, in order if that is possible without waiting."""
        if not self._closed:
            self._closed = self._over = True
            self._say(self._ws.goodbye())
        await trio.aclose_forcefully(self.stream)

    def get_remote_address(self) -> tuple[str, int] | None:
        """The IP address and the port of the other end."""
        return self._remote


def remote_of(tcp: trio.SocketStream) -> tuple[str, int] | None:
    """The IP address, in its plain spelling, and the port of the other end; None if it has gone already."""
    try:
        ip, port = tcp.socket.getpeername()[:2]
    except OSError:
        return None
    return str(ip).removeprefix("::ffff:") if "." in str(ip) else str(ip), int(port)
