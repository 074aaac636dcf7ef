"""A connection of the WebRTC process as the muxer's session: bytes over a local socket, sealed by DTLS further out.

The other side is who the signalling's handshake proved: the fingerprint of the certificate that DTLS shows came through
it. Source: github.com/libp2p/specs, webrtc/webrtc.md.
"""

from __future__ import annotations

import os
from time import thread_time
from typing import Any

import trio
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from multiaddr import Multiaddr

from node.libp2p.pace import Pace
from node.libp2p.ticker import Ticker
from wire.memory import Memory

READ_BYTES = 256 << 10
STALL_S = 20.0
"""Seconds after which a process that takes no bytes is given up."""

PROTOCOL = "/webrtc"
"""What stands for security and muxer in figures."""


class RtcSession:
    """See `node.libp2p.muxer.Session`.

    Args:
        plain: what came behind the last message.
        where: the address of the other side; empty where it is not known.
    """

    negotiated_security_protocol = PROTOCOL
    has_windows = False  # the muxer's end at the local process: data channels have none

    def __init__(
        self, local: trio.SocketStream, plain: bytes, where: str, *, offered: bool, acceptor: Any, memory: Memory
    ) -> None:
        self._local = local
        self._plain = plain
        self._where = where
        self.is_initiator = offered
        self.acceptor = acceptor
        self.memory = memory
        self.bytes_in, self.bytes_out = len(plain), 0
        self.pace = Pace(trio.current_time(), READ_BYTES)
        self._took, self._began_s = 0, thread_time()
        self.unsent: memoryview | None = None
        self.ticker: Ticker | None = None

    @property
    def held(self) -> int:
        """Bytes of the other side that are kept here."""
        return len(self._plain)

    async def receive(self) -> bytes:
        """Some bytes, never none.

        Raises:
            ConnectionClosedError: the connection, or the process, has ended.
        """
        if self._plain:
            plain, self._plain = self._plain, b""
            return plain
        await self._keep_pace()
        try:
            chunk = bytes(await self._local.receive_some(self.pace.piece_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionClosedError(f"the WebRTC connection was lost: {exc}") from exc
        if not chunk:
            raise ConnectionClosedError("the WebRTC connection was closed")
        self.bytes_in += len(chunk)
        self._took, self._began_s = len(chunk), thread_time()
        return chunk

    async def _keep_pace(self) -> None:
        """What the other side sends costs processor time within bounds, here as on any connection."""
        if self._took:
            pause_s = self.pace.spent(thread_time() - self._began_s, self._took, trio.current_time())
            self._took = 0
            if pause_s:
                await trio.sleep(pause_s)

    def send_now(self, plain: bytes) -> bool:
        """Hand over what is taken now; whether that was all. The rest waits for `drain`.

        Raises:
            OSError: the process is gone.
        """
        assert self.unsent is None, "what is left of the last batch goes first"
        self.bytes_out += len(plain)
        try:
            sent = os.write(self._local.socket.fileno(), plain)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == len(plain):
            return True
        self.unsent = memoryview(plain)[sent:]
        return False

    async def drain(self) -> None:
        """Wait until everything is handed over.

        Raises:
            trio.TooSlowError: nothing was taken for `STALL_S`.
            OSError, trio.ClosedResourceError: the process is gone.
        """
        while self.unsent is not None:
            with trio.fail_after(STALL_S):
                await trio.lowlevel.wait_writable(self._local.socket.fileno())
            try:
                sent = os.write(self._local.socket.fileno(), self.unsent)
            except (BlockingIOError, InterruptedError):
                continue
            self.unsent = self.unsent[sent:] if sent < len(self.unsent) else None

    def cut(self) -> None:
        """Drop what waits to be sent, and the socket; whoever waits for it hears of it."""
        self.unsent = None
        self._local.socket.close()

    async def close(self) -> None:
        """Let the connection go."""
        await self._local.aclose()

    def get_transport_addresses(self) -> list[Multiaddr]:
        """Where the other side is."""
        ip, found, port = self._where.rpartition(" ")
        return [Multiaddr(f"/ip{6 if ':' in ip else 4}/{ip}/udp/{port}{PROTOCOL}")] if found else []

    def get_connection_type(self) -> ConnectionType:
        """Direct: no relay carries it."""
        return ConnectionType.DIRECT

    def get_remote_address(self) -> tuple[str, int] | None:
        """None: the library takes it for one of TCP."""
        return None
