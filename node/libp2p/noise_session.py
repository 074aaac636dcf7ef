"""A py-libp2p secure session that moves many Noise messages per system call.

Wraps the session that py-libp2p's Noise XX handshake made: same keys, same peer, own reading and writing. Reading
takes up to 256 KiB from the socket and opens every message in it; writing seals a batch and hands it to the kernel at
once, without waiting: what the kernel does not take stays in `unsent` for `drain`. The two halves never wait for each
other. A stream of messages that does not authenticate ends the session (`NoiseViolation`).
"""

from __future__ import annotations

import os
import socket
import struct
from time import thread_time
from typing import Any, cast

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.secure_session import SecureSession

from node.libp2p.noise_frames import NoiseOpener, NoiseSealer, NoiseViolation
from node.libp2p.pace import Pace
from node.libp2p.ticker import Ticker
from node.libp2p.websocket_stream import WebSocketStream
from wire.memory import Memory

READ_BYTES_MIN, READ_BYTES_MAX = 16 << 10, 256 << 10
"""Bytes asked of the socket at once: more after a full read, fewer after a small one."""

STALL_S = 20.0
"""Seconds after which a socket that takes no bytes is given up."""

WRITEV_MAX = 512


class NoiseSession(SecureSession):
    """See the module; made by `upgrade`."""

    has_windows = True

    def __init__(self, inner: SecureSession, acceptor: Any, memory: Memory) -> None:
        super().__init__(
            local_peer=inner.local_peer,
            local_private_key=inner.local_private_key,
            remote_peer=inner.remote_peer,
            remote_permanent_pubkey=inner.remote_permanent_pubkey,
            is_initiator=inner.is_initiator,
            conn=inner.conn,
        )
        noise = cast(Any, inner.conn).noise_state.noise_protocol
        sending, receiving = noise.cipher_state_encrypt, noise.cipher_state_decrypt
        self._sealer = NoiseSealer(sending.k, sending.n)
        self._opener = NoiseOpener(receiving.k, receiving.n)
        cast(Any, inner.conn).noise_state = None  # the handshake is over: its keys and hashes are of no further use
        self._raw = cast(Any, inner.conn).read_writer.read_write_closer
        tcp = self._raw.stream if isinstance(self._raw, RawConnection) else None
        self._socket = tcp.stream if isinstance(tcp, TrioTCPStream) else None
        self._websocket = tcp if isinstance(tcp, WebSocketStream) else None
        self._plain = b""
        self._read_bytes = READ_BYTES_MIN
        self.pace = Pace(trio.current_time(), READ_BYTES_MAX)
        self._began_s, self._took = 0.0, 0
        self.acceptor = acceptor
        self.memory = memory
        self.ticker: Ticker | None = None
        self.unsent: memoryview | None = None
        self.bytes_in = self.bytes_out = 0

    @property
    def held(self) -> int:
        """Bytes of the other side that are kept here."""
        below = self._websocket.held if self._websocket is not None else 0
        return self._opener.held + len(self._plain) + below

    async def receive(self) -> bytes:
        """Some plaintext, never empty.

        Raises:
            ConnectionClosedError: the other side, or we, closed.
            NoiseViolation: the other side did not seal what came.
        """
        if self._plain:
            plain, self._plain = self._plain, b""
            return plain
        while True:
            await self._keep_pace()
            size = min(self._read_bytes, self.pace.piece_bytes)
            chunk = await self._receive_sealed(size)
            if not chunk:
                raise ConnectionClosedError("the connection was closed")
            self.bytes_in += len(chunk)
            self._began_s, self._took = thread_time(), len(chunk)
            if len(chunk) == size:
                self._read_bytes = min(4 * size, READ_BYTES_MAX)
            elif 16 * len(chunk) < self._read_bytes:
                self._read_bytes = max(self._read_bytes // 4, READ_BYTES_MIN)
            plain = self._opener.open(chunk)
            if plain:
                return plain

    async def _keep_pace(self) -> None:
        """Whoever reads comes back at once, so what passed since the last piece is what it cost."""
        if self._took:
            pause_s = self.pace.spent(thread_time() - self._began_s, self._took, trio.current_time())
            self._took = 0
            if pause_s > 0:
                await trio.sleep(pause_s)

    async def _receive_sealed(self, size: int) -> bytes:
        if self._socket is None:
            return bytes(await self._raw.read(size))
        try:
            return bytes(await self._socket.receive_some(size))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionClosedError(f"the connection was lost: {exc}") from exc

    def send_now(self, plain: bytes) -> bool:
        """Seal and hand to the kernel what it takes now; whether that was all. The rest waits for `drain`.

        Raises:
            NoiseViolation: all nonces are used.
            OSError: the connection is gone.
        """
        assert self.unsent is None, "what is left of the last batch goes first"
        pieces = self._sealer.seal(plain)
        sent, size = 0, sum(map(len, pieces))
        self.bytes_out += size
        if self._websocket is not None:
            if self._websocket.send_now(b"".join(pieces)):
                return True
            self.unsent = memoryview(b"")  # it keeps the rest itself
            return False
        if self._socket is not None and len(pieces) <= WRITEV_MAX:
            try:
                sent = os.writev(self._socket.socket.fileno(), pieces)
            except (BlockingIOError, InterruptedError):
                sent = 0
        if sent == size:
            return True
        self.unsent = memoryview(b"".join(pieces))[sent:]
        return False

    async def drain(self) -> None:
        """Wait until the kernel has taken everything.

        Raises:
            trio.TooSlowError: it took nothing for `STALL_S`.
            OSError, trio.ClosedResourceError, ConnectionClosedError: the connection is gone.
        """
        while self.unsent is not None:
            with trio.fail_after(STALL_S):
                if self._socket is None:
                    await self._raw.write(bytes(self.unsent))
                    self.unsent = None
                    return
                await trio.lowlevel.wait_writable(cast(Any, self._socket.socket))
            if self.unsent is None:
                return
            try:
                sent = os.write(self._socket.socket.fileno(), self.unsent)
            except (BlockingIOError, InterruptedError):
                continue
            self.unsent = self.unsent[sent:] if sent < len(self.unsent) else None

    # ---- what py-libp2p calls while it negotiates the muxer, and the stock muxer afterwards

    async def read(self, n: int | None = None) -> bytes:
        """`n` bytes, or some if `n` is None."""
        if n == 0:
            return b""
        pieces, have = [self._plain], len(self._plain)
        self._plain = b""
        while have < (n or 1):
            try:
                pieces.append(await self.receive())
            except NoiseViolation as exc:
                raise ConnectionClosedError(str(exc)) from exc
            have += len(pieces[-1])
        plain = b"".join(pieces)
        if n is not None:
            plain, self._plain = plain[:n], plain[n:]
        return plain

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            if not self.send_now(data):
                await self.drain()
        except (OSError, NoiseViolation, trio.ClosedResourceError, trio.TooSlowError) as exc:
            raise ConnectionClosedError(f"the connection was lost: {exc}") from exc

    async def close(self) -> None:
        await self._raw.close()

    def cut(self) -> None:
        """Drop what waits to be sent and, if it is ours, the socket; whoever waits for it hears of it."""
        self.unsent = None
        if self._websocket is not None:
            self._websocket.cut()
        elif self._socket is not None:
            self._socket.socket.close()

    def forget(self) -> None:
        """Let `close` forget what is unsent and leave no trace of the connection: its two ports may be used again."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def upgrade(session: ISecureConn, acceptor: Any = None, memory: Memory | None = None) -> ISecureConn:
    """The fast session in place of the one that a Noise handshake made.

    Args:
        acceptor: takes the streams that the other side opens (`node.libp2p.muxer.Acceptor`).
        memory: counts what the connection holds; by default by itself alone.
    """
    memory = Memory() if memory is None else memory
    return NoiseSession(session, acceptor, memory) if isinstance(session, SecureSession) else session
