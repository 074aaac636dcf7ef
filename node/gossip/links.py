"""How RPCs travel: a channel in each direction between two peers, opened by whoever sends on it.

On libp2p it is the stream that gossipsub wants, each RPC behind its length as a varint, so that other stacks understand
it. On any other filling of the Transport seam an RPC is a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any, Protocol, cast, runtime_checkable

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.swarm import Swarm
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from node.channel_libp2p import LOST
from node.gossip.params import PROTOCOL, RPC_BYTES_MAX
from node.libp2p_host import libp2p_id, peer_id
from node.reach.addresses import endpoint, scope
from node.reach.protobuf import Delimited, delimit
from wire.errors import ChannelClosed, Malformed, RemoteError, Unreachable
from wire.peer import PeerId, short
from wire.transport import Channel, Handler, Transport

READ_BYTES = 64 << 10
SEND_S = 20.0
"""Seconds for one RPC, beyond which a peer is thought dead."""

PING = "/ipfs/ping/1.0.0"
PROTOCOLS = (PROTOCOL, "/meshsub/1.0.0")
"""Spoken when others ask; we ask for the first alone."""


class Links(Protocol):
    """What the service needs of the network."""

    def connected(self) -> list[PeerId]:
        """Peers with which a connection stands."""
        ...

    def group(self, peer: PeerId) -> str | None:
        """The public address that the peer is connected from, None if there is none or it says nothing."""
        ...

    async def open(self, peer: PeerId) -> Channel:
        """A channel to send on. Raises `Unreachable`; the caller bounds the time."""
        ...

    def serve(self, handler: Handler) -> None:
        """Run `handler` for each channel that a peer sends on."""
        ...


@runtime_checkable
class _Connected(Protocol):
    def connected(self) -> list[PeerId]: ...


@runtime_checkable
class _OverLibp2p(Protocol):
    @property
    def network(self) -> tuple[BasicHost, Swarm]: ...


def links_of(transport: Transport, blame: Callable[[RemoteError], None]) -> Links:
    """The links over a transport; `blame` is told of faults that its own handlers would not see."""
    if isinstance(transport, _OverLibp2p):
        return _StreamLinks(transport, *transport.network, blame)
    return _FrameLinks(transport)


class _FrameLinks:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def connected(self) -> list[PeerId]:
        return self._transport.connected() if isinstance(self._transport, _Connected) else []

    def group(self, peer: PeerId) -> str | None:
        return None

    async def open(self, peer: PeerId) -> Channel:
        return await self._transport.open(peer, PROTOCOL)

    def serve(self, handler: Handler) -> None:
        self._transport.serve(PROTOCOL, handler)


class StreamChannel:
    """A stream of the library as a `wire.transport.Channel` of messages behind varint lengths."""

    def __init__(self, peer: PeerId, stream: INetStream) -> None:
        self._peer = peer
        self._stream = stream
        self._messages = Delimited(RPC_BYTES_MAX)

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, frame: bytes) -> None:
        """Under a shield: half a message would be the end of more than this stream."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_S) as scope_:
            try:
                await self._stream.write(delimit(frame))
            except LOST as exc:
                raise ChannelClosed(f"the stream with {short(self._peer)} broke: {exc}") from exc
        if scope_.cancelled_caught:
            await self.abort()
            raise ChannelClosed(f"{short(self._peer)} takes nothing")
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        try:
            while (found := self._messages.next()) is None:
                more = await self._stream.read(READ_BYTES)
                if not more:
                    raise ChannelClosed(f"{short(self._peer)} ended the stream")
                self._messages.feed(more)
        except (StreamEOF, MuxedStreamEOF, *LOST) as exc:
            raise ChannelClosed(f"the stream with {short(self._peer)} ended: {exc}") from exc
        except Malformed as exc:
            raise RemoteError(self._peer, f"gossip: {exc}", penalty=0.5) from exc
        return found

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            try:
                await self._stream.close()
            except LOST:
                return

    async def abort(self) -> None:
        """Both ways, at once."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
            try:
                await self._stream.reset()
            except LOST:
                return


class _StreamLinks:
    def __init__(
        self, transport: Transport, host: BasicHost, swarm: Swarm, blame: Callable[[RemoteError], None]
    ) -> None:
        self._transport = transport
        self._host = host
        self._swarm = swarm
        self._blame = blame

    def connected(self) -> list[PeerId]:
        return self._transport.connected() if isinstance(self._transport, _Connected) else []

    def group(self, peer: PeerId) -> str | None:
        for connection in self._swarm.get_connections(libp2p_id(peer)):
            for address in cast(Any, connection).muxed_conn.get_transport_addresses():
                at = endpoint(str(address))
                if at is not None and scope(at.ip) == "public":
                    return network_of(at.ip)
        return None

    async def open(self, peer: PeerId) -> Channel:
        try:
            if peer not in self.connected():
                await self._connect(peer)
            return StreamChannel(peer, await self._host.new_stream(libp2p_id(peer), [TProtocol(PROTOCOL)]))
        except (StreamFailure, *LOST) as exc:
            raise Unreachable(f"{short(peer)} does not serve {PROTOCOL}: {exc}") from exc

    async def _connect(self, peer: PeerId) -> None:
        """By the seam's own dialling, with all its limits; on the channel that it opens nothing is said."""
        try:
            channel = await self._transport.open(peer, PING)
        except Unreachable:
            if peer not in self.connected():
                raise
        else:
            await channel.aclose()

    def serve(self, handler: Handler) -> None:
        async def accept(stream: INetStream) -> None:
            channel = StreamChannel(peer_id(stream.muxed_conn.peer_id), stream)
            try:
                await handler(channel)
            except RemoteError as exc:
                self._blame(exc)
            except ChannelClosed:
                pass  # the peer has gone
            finally:
                await channel.abort()

        for protocol in PROTOCOLS:
            self._host.set_stream_handler(TProtocol(protocol), accept)


def network_of(ip: str) -> str:
    """An IPv4 address itself; of an IPv6 address the /64, which one line has to itself."""
    address = ip_address(ip)
    if isinstance(address, IPv6Address):
        return address.exploded[:19] + "::/64"
    return str(address)
