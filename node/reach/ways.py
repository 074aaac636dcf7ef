"""The connections with a peer and byte streams over them: what relays and hole punching need of py-libp2p.

Only this file and its siblings `relay`, `circuit`, `punch` and `fresh` know the library's streams. A stream here is
bytes both ways with an end; messages on it are cut by `protobuf.Delimited`, and what came behind the last message is
not lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from libp2p.abc import INetConn, INetStream
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.swarm import Swarm
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from multiaddr import Multiaddr

from node.channel_libp2p import LOST
from node.libp2p.muxer import Muxer
from node.libp2p_host import GOODBYE_S, give_up, libp2p_id, peer_id
from node.reach.addresses import CIRCUIT, Circuit, Endpoint, Scope, endpoint, scope
from node.reach.circuit_messages import MESSAGE_BYTES_MAX
from node.reach.protobuf import Delimited
from wire.errors import ChannelClosed, Malformed, Unreachable
from wire.peer import PeerId, short, to_text

READ_BYTES = 64 << 10
ANSWER_S = 5.0
"""Seconds for one message of the other side."""

FAILED = (*LOST, StreamFailure, trio.TooSlowError)
"""What the library raises where a connection or a stream cannot be had."""


class ByteStream(ReadWriteCloser):
    """A stream of the library: messages first, then whatever the two ends send."""

    def __init__(self, stream: INetStream, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._stream = stream
        self._messages = Delimited(bytes_max)
        self._early = b""
        self._ended = False
        self.tally: Callable[[int], None] | None = None
        """Told how many bytes came or went, from `raw` on."""
        self.peer = peer_id(stream.muxed_conn.peer_id)
        self.closed = trio.Event()

    async def message(self, within_s: float = ANSWER_S) -> bytes:
        """The next message, without its length.

        Raises:
            ChannelClosed: the stream ended first.
            Malformed: a longer one than allowed.
            trio.TooSlowError: none came within so many seconds.
        """
        with trio.fail_after(within_s):
            while (found := self._messages.next()) is None:
                more = await self._read()
                if not more:
                    raise ChannelClosed(f"{short(self.peer)} ended the stream instead of answering")
                self._messages.feed(more)
        return found

    def raw(self) -> ByteStream:
        """From here on no messages: bytes that came behind the last one are read first."""
        self._early += self._messages.rest()
        self._count(len(self._early))
        return self

    def _count(self, size: int) -> None:
        if self.tally is not None:
            self.tally(size)

    async def read(self, n: int | None = None) -> bytes:
        """At most `n` bytes; empty at the end."""
        if not self._early:
            return await self._read(n)
        size = len(self._early) if n is None else n
        data, self._early = self._early[:size], self._early[size:]
        return data

    async def _read(self, n: int | None = None) -> bytes:
        if self._ended:
            return b""
        try:
            data = await self._stream.read(min(n or READ_BYTES, READ_BYTES))
        except (StreamEOF, MuxedStreamEOF):
            data = b""
        except LOST as exc:
            self._ended = True
            raise IOException(f"the stream with {short(self.peer)} broke: {exc}") from exc
        self._ended = not data
        self._count(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send all of it."""
        self._count(len(data))
        try:
            await self._stream.write(data)
        except LOST as exc:
            raise IOException(f"the stream with {short(self.peer)} broke: {exc}") from exc

    async def close(self) -> None:
        """No more bytes from us."""
        self.closed.set()
        try:
            await self._stream.close()
        except LOST:
            return

    async def reset(self) -> None:
        """No more bytes either way."""
        self.closed.set()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + ANSWER_S):
            try:
                await self._stream.reset()
            except LOST:
                return

    def get_remote_address(self) -> tuple[str, int] | None:
        """None: whoever is behind a relay has no address here."""
        return None

    @property
    def muxed_conn(self) -> Any:
        """The library's connection that it runs over."""
        return cast(Any, self._stream).muxed_conn

    @property
    def relayed(self) -> bool:
        """Whether this stream runs over a relayed connection."""
        return _is_relayed(self.muxed_conn)


class Ways:
    """What the library knows of connections, in our terms."""

    def __init__(self, host: BasicHost, swarm: Swarm) -> None:
        self._host = host
        self._swarm = swarm

    # ---- connections

    def direct(self, peer: PeerId) -> list[INetConn]:
        """Direct connections that stand."""
        return [conn for conn in self._standing(peer) if not _is_relayed(conn)]

    def over_udp(self, peer: PeerId) -> list[INetConn]:
        """Those of the direct ones that are WebRTC."""
        return [conn for conn in self.direct(peer) if any("/udp/" in str(at) for at in conn.get_transport_addresses())]

    def relayed(self, peer: PeerId) -> list[INetConn]:
        """Relayed connections that stand."""
        return [conn for conn in self._standing(peer) if _is_relayed(conn)]

    def _standing(self, peer: PeerId) -> list[INetConn]:
        return [conn for conn in self._swarm.get_connections(libp2p_id(peer)) if not conn.is_closed]

    def in_use(self, conn: INetConn) -> bool:
        """Whether a stream is open on a connection."""
        muxer = cast(Any, conn).muxed_conn
        return bool(muxer.core.streams if isinstance(muxer, Muxer) else conn.get_streams())

    def seen(self, peer: PeerId) -> Endpoint | None:
        """Where the other end of the newest direct connection is; an older one may have died in silence."""
        ends = [at for conn in self.direct(peer) if (at := _far_end(conn)) is not None]
        return ends[-1] if ends else None

    async def supersede(self, stream: ByteStream) -> None:
        """A peer speaks from another IP address than before: its connections from there are dead, and closed."""
        here = _far_end(stream)
        for conn in self.direct(stream.peer):
            at = _far_end(conn)
            if here is not None and at is not None and at.ip != here.ip:
                with trio.move_on_after(GOODBYE_S):
                    await cast(Any, conn).close()

    async def lost(self, peer: PeerId) -> None:
        """Wait until the direct connections that stand now have ended."""
        for conn in self.direct(peer):
            await cast(Any, conn).event_closed.wait()

    async def drop(self, peer: PeerId) -> None:
        """Close all connections with a peer, which are thought dead."""
        await give_up(self._swarm, peer)

    async def dial(
        self, peer: PeerId, at: Endpoint, *, source: tuple[str, int] | None = None, answering: bool = False
    ) -> None:
        """Connect directly.

        Args:
            source: the local address and port to dial from.
            answering: take the answering part of the handshake although we dial (TCP simultaneous open).

        Raises:
            Unreachable: it failed.
        """
        dial = self._swarm.dial_addr_as_responder if answering else self._swarm.dial_addr
        try:
            await dial(Multiaddr(at.text()), libp2p_id(peer), source=source)
        except FAILED as exc:
            raise Unreachable(f"{at.text()}: {exc.__cause__ or exc}") from exc

    async def adopt(self, stream: ByteStream, peer: PeerId, through: Circuit, *, dialled: bool) -> None:
        """Make a connection with `peer` out of a relay's stream: handshake and muxer, end to end.

        Raises:
            Unreachable: the handshake failed, or proved another peer.
        """
        address = Multiaddr(f"{through.text()}/p2p/{to_text(peer)}")
        raw = RawConnection(stream.raw(), dialled, ConnectionType.RELAYED, [address])
        try:
            if dialled:
                await self._swarm.upgrade_outbound_raw_conn(raw, libp2p_id(peer))
                return
            muxed = await self._swarm.upgrade_inbound_raw_conn(raw, address)
        except FAILED as exc:
            await stream.reset()
            raise Unreachable(f"{through.text()}: {exc}") from exc
        if muxed.peer_id != libp2p_id(peer):
            await muxed.close()
            raise Unreachable(f"{through.text()}: the relay announced another peer")

    async def add(self, muxer: Muxer, *, dialled: bool) -> None:
        """Take in a connection that was not made by dialling: it runs as long as it stands.

        Raises:
            Unreachable: there are too many.
        """
        try:
            await self._swarm.add_conn(muxer, "outbound" if dialled else "inbound")
        except FAILED as exc:
            raise Unreachable(f"{short(muxer.peer)}: {exc}") from exc

    async def adopt_over(self, stream: ByteStream, peer: PeerId, *, dialled: bool) -> None:
        """Make a direct connection with `peer` out of a stream of another one: handshake and muxer, end to end.

        Raises:
            Unreachable: the handshake failed, or proved another peer.
        """
        addresses = list(stream.muxed_conn.get_transport_addresses())
        raw = RawConnection(stream.raw(), dialled, ConnectionType.DIRECT, addresses)
        try:
            if dialled:
                await self._swarm.upgrade_outbound_raw_conn(raw, libp2p_id(peer))
                return
            muxed = await self._swarm.upgrade_inbound_raw_conn(raw, addresses[0] if addresses else Multiaddr("/webrtc"))
        except FAILED as exc:
            await stream.reset()
            raise Unreachable(f"{short(peer)}: {exc}") from exc
        if muxed.peer_id != libp2p_id(peer):
            await muxed.close()
            raise Unreachable(f"{short(peer)} is another peer")

    def path(self, stream: ByteStream) -> tuple[Scope, Endpoint | None]:
        """How far the path of a stream reaches, which its nearest address decides; the relay on it, if any."""
        for address in stream.muxed_conn.get_transport_addresses():
            text = str(address)
            parts = text.split("/")
            if len(parts) > 2 and parts[1] in ("ip4", "ip6"):
                near, found, _ = text.partition(CIRCUIT)
                return scope(parts[2]), endpoint(near) if found else None
        return "none", None

    # ---- streams

    async def open(self, peer: PeerId, protocol: str, *, bytes_max: int = MESSAGE_BYTES_MAX) -> ByteStream:
        """A stream over a connection that stands; nobody is dialled.

        Raises:
            Unreachable: no connection, or the peer does not serve `protocol`.
        """
        if not self._standing(peer):
            raise Unreachable(f"no connection with {short(peer)}")
        try:
            with trio.fail_after(ANSWER_S):
                return ByteStream(await self._host.new_stream(libp2p_id(peer), [TProtocol(protocol)]), bytes_max)
        except FAILED as exc:
            raise Unreachable(f"{short(peer)} does not serve {protocol}: {exc}") from exc

    def serve(
        self, protocol: str, handler: Callable[[ByteStream], Awaitable[None]], *, bytes_max: int = MESSAGE_BYTES_MAX
    ) -> None:
        """Answer streams; one whose peer breaks the protocol, or leaves, is reset."""

        async def accept(stream: INetStream) -> None:
            opened = ByteStream(stream, bytes_max)
            try:
                await handler(opened)
            except (*FAILED, Malformed, ChannelClosed, Unreachable):
                await opened.reset()

        self._host.set_stream_handler(TProtocol(protocol), accept)

    def refuse(self, protocol: str) -> None:
        """Serve a protocol no more."""
        self._host.remove_stream_handler(TProtocol(protocol))


def _far_end(conn: Any) -> Endpoint | None:
    for address in conn.muxed_conn.get_transport_addresses():
        if (at := endpoint(str(address))) is not None:
            return at
    return None


def _is_relayed(conn: Any) -> bool:
    return bool(conn.get_connection_type() is ConnectionType.RELAYED)
