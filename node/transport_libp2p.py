"""The Transport seam over py-libp2p: TCP, Noise and Yamux between authenticated peers.

    async with open_transport(identity, listen=["/ip4/127.0.0.1/tcp/0"], blame=blame) as transport:
        transport.serve("/echo/1", handler)
        channel = await transport.open(peer, "/echo/1")

The peer of a channel is the Ed25519 key that its Noise handshake proved. Everything is bounded: addresses kept,
connections, channels per peer, bytes queued per channel, seconds per step. Dialling tries each known address in
turn and makes one connection per peer, which all channels share. Wire format: docs/spec/transport.md.

On the fast path (`node.libp2p`) opening a channel waits for the answer to its protocol only the first time on a
connection; afterwards the proposal travels with the first frame, and a refusal ends the channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import time_ns
from typing import Any, cast

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import StreamFailure
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from node.address_book import ANYWHERE, AddressBook, dialed_at
from node.channel_libp2p import LOST, Libp2pChannel
from node.connections import Connections
from node.dialling import Dialler
from node.libp2p.channel import MuxedChannel
from node.libp2p.connections import Muxers
from node.libp2p.gate import Gate
from node.libp2p.muxed_stream import MuxedStream
from node.libp2p.negotiating import agree, open_stream
from node.libp2p.ticker import Ticker
from node.libp2p_host import GOODBYE_S, HANDSHAKE_S, NoiseOnly, build_host, give_up, libp2p_id, peer_id
from node.reach.addresses import Endpoint, Scope, endpoint, scope, worth_telling
from wire.admission import Admission
from wire.errors import LocalError, Malformed, TransportError, Unreachable
from wire.identity import Identity
from wire.limits import CHANNELS_PER_PEER_MAX
from wire.memory import Memory
from wire.peer import PeerId, short
from wire.serving import Blame, Bug, run_handler
from wire.transport import Channel, Handler

PUBLIC: frozenset[Scope] = frozenset(("public",))
NETWORKS_S = 5.0
"""How often we look which networks we are in."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time_ns() // 1_000_000


class _Opening:
    """An `open` under way: what its worker task tells the caller."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.channel: Libp2pChannel | None = None
        self.error: TransportError | None = Unreachable("the transport is closing")
        self.abandoned = False


class Libp2pTransport:
    """See `wire.transport.Transport`; made by `open_transport`."""

    def __init__(
        self,
        host: BasicHost,
        swarm: Swarm,
        nursery: trio.Nursery,
        book: AddressBook,
        gate: Gate,
        *,
        blame: Blame,
        on_bug: Bug | None,
    ) -> None:
        self._host = host
        self._swarm = swarm
        self._nursery = nursery
        self._blame = blame
        self._on_bug = on_bug
        self._peer = peer_id(host.get_id())
        self.book, self.gate = book, gate
        self.dialler = Dialler(host, swarm, book, now_ms)
        self._inbound: Counter[PeerId] = Counter()
        self._admission = Admission[MuxedStream](lambda stream: stream.state.received_all)
        self._muxers = Muxers(swarm)
        self._advertised: tuple[str, ...] = ()
        self._hidden: frozenset[Endpoint] = frozenset()
        self._handlers: dict[str, Handler] = {}
        self.connections = Connections(now_ms, book.alive)
        self.connections.watch(swarm)
        self.channels: Counter[str] = Counter()
        """Channels that peers have opened, by protocol."""
        self.serving: Counter[str] = Counter()
        """Those among them on which a handler is at work."""
        self._going = self._closing = False
        self._look_again_s = 0.0
        self.same_machine = False
        """See `open_transport`."""
        self.memory = Memory()
        self._negotiate = swarm.common_stream_handler
        swarm.set_stream_handler(self._accept)

    @property
    def peer(self) -> PeerId:
        return self._peer

    def addresses(self) -> list[str]:
        shown = [address for address in self.listening() if endpoint(address) not in self._hidden]
        return list(dict.fromkeys([*self._advertised, *worth_telling(shown, self._advertised)]))

    def listening(self) -> list[str]:
        """Where we listen; a wildcard stands for the addresses of this machine's interfaces."""
        return [str(address) for listened in self._host.get_addrs() for address in dialed_at(listened)]

    def bound(self) -> list[Endpoint]:
        """The endpoints we listen on, wildcards as they are."""
        return [at for listened in self._host.get_addrs() if (at := endpoint(str(listened))) is not None]

    def advertise(self, addresses: Sequence[str], *, hide: Sequence[Endpoint] = ()) -> None:
        """Where else we are reached, before what we listen on; and where we listen in vain."""
        before = self.addresses()
        self._advertised, self._hidden = tuple(addresses), frozenset(hide)
        if self.connections.emit is not None and (now := self.addresses()) != before:
            self.connections.emit("reachability_changed", addresses=now)

    @property
    def network(self) -> tuple[BasicHost, Swarm]:
        """The library's own objects, for `node.reach`."""
        return self._host, self._swarm

    def from_listening(self, peer: PeerId) -> bool:
        """Whether the connection with `peer` was dialled from our listening port."""
        return self.dialler.from_listening(peer)

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        now_s = trio.current_time()
        if now_s >= self._look_again_s:
            self._look_again_s = now_s + NETWORKS_S
            self.book.reach = self._networks()
        self.book.learn(peer, addresses, now_ms())

    def _networks(self) -> frozenset[Scope]:
        """Whose addresses we believe: a node that others can reach has no use for those of its own machine or site."""
        ours = {scope(at.ip) for text in self.listening() if (at := endpoint(text)) is not None}
        if not ours:
            return ANYWHERE
        here = self.same_machine or self.connections.near() or ours == {"loopback"}
        narrow: set[Scope] = {"loopback"} if here else set()
        if "private" in ours:
            narrow.add("private")
        return frozenset(narrow | PUBLIC)

    def connected(self) -> list[PeerId]:
        """Peers with which a connection stands."""
        return [
            peer_id(identity)
            for identity, connections in self._swarm.connections.items()
            if any(not connection.is_closed for connection in connections)
        ]

    # ---- opening

    async def open(self, peer: PeerId, protocol: str) -> Channel:
        if self._closing:
            raise Unreachable("the transport is closed")
        if peer == self._peer:
            raise Unreachable("a node opens no channel to itself")
        await trio.lowlevel.checkpoint_if_cancelled()
        for _ in range(2):
            muxer = self._muxers.of(peer)
            if muxer is None and not self.dialler.is_connected(peer):
                await self._connect_aside(peer)
                muxer = self._muxers.of(peer)
            if muxer is None:
                return await self._open_stock(peer, protocol)
            try:
                return MuxedChannel(peer, await open_stream(muxer, peer, protocol))
            except LOST as exc:
                # the connection died under us: it may have been stale, so dial once more
                lost: Exception = exc
                await give_up(self._swarm, peer)
        raise Unreachable(f"connection with {short(peer)} lost: {lost}") from lost

    async def _connect_aside(self, peer: PeerId) -> None:
        """Dial in a task of ours, so that a cancelled caller never leaves half a handshake behind."""
        opening = _Opening()

        async def dial() -> None:
            try:
                await self.dialler.connect(peer)
            except TransportError as exc:
                opening.error = exc
            else:
                opening.error = None
            finally:
                opening.done.set()

        self._nursery.start_soon(dial)
        await opening.done.wait()
        if opening.error is not None:
            raise opening.error

    async def _open_stock(self, peer: PeerId, protocol: str) -> Channel:
        opening = _Opening()
        self._nursery.start_soon(self._run_outbound, peer, protocol, opening)
        try:
            await opening.done.wait()
        except trio.Cancelled:
            opening.abandoned = True
            if opening.channel is not None:
                await opening.channel.abort()
            raise
        if opening.channel is None:
            assert opening.error is not None, "an opening ends with a channel or an error"
            raise opening.error
        return opening.channel

    async def _run_outbound(self, peer: PeerId, protocol: str, opening: _Opening) -> None:
        """Open in a task of ours, so that a cancelled caller never leaves half a negotiation behind."""
        try:
            channel = Libp2pChannel(peer, await self._new_stream(peer, protocol))
            opening.channel = channel
        except TransportError as exc:
            opening.error = exc
            return
        finally:
            opening.done.set()
        if opening.abandoned:
            await channel.abort()
        await channel.pump()

    async def _new_stream(self, peer: PeerId, protocol: str) -> INetStream:
        for attempt in (1, 2):
            await self.dialler.connect(peer)
            began = trio.current_time()
            try:
                return await self._host.new_stream(libp2p_id(peer), [TProtocol(protocol)])
            except StreamFailure as exc:
                silent = trio.current_time() - began >= 0.9 * HANDSHAKE_S  # nothing came back: an address has changed
                if self.dialler.is_connected(peer) and not silent:
                    raise Unreachable(f"{short(peer)} does not serve {protocol}") from exc
                lost: Exception = exc
            except (*LOST, trio.TooSlowError) as exc:
                lost = exc
            # the connection died under us: it may have been stale, so dial once more
            await give_up(self._swarm, peer)
            if attempt == 2:
                raise Unreachable(f"connection with {short(peer)} lost: {lost}") from lost
        raise AssertionError("unreachable code")

    # ---- serving

    def serve(self, protocol: str, handler: Handler) -> None:
        async def accept(stream: INetStream) -> None:
            await self._serve_stream(handler, stream)

        self._handlers[protocol] = handler
        self._host.set_stream_handler(TProtocol(protocol), accept)

    def accept_stream(self, stream: MuxedStream) -> bool:
        """Take a stream that a peer opened on our own muxer; called by its reader, so they count as they came."""
        peer = stream.conn.peer
        if self._going:
            stream.abort("this node is stopping")
        elif self._closing or not self._admission.admit(peer, stream):
            stream.abort("too many channels")
        else:
            self._nursery.start_soon(self._serve_muxed, peer, stream)
        return True

    async def _serve_muxed(self, peer: PeerId, stream: MuxedStream) -> None:
        try:
            ours = await self._serve_ours(peer, stream)
        finally:
            self._admission.done(peer, stream)
        if not ours:
            await stream.conn.hand_over(stream)

    async def _serve_ours(self, peer: PeerId, stream: MuxedStream) -> bool:
        """Agree on a protocol, and run its handler; false if it is py-libp2p's."""
        try:
            protocol = await agree(stream, cast(Any, self._host.multiselect.handlers))
            handler = self._handlers.get(protocol)
            if handler is None:
                stream.negotiated = protocol
                return False
            channel = MuxedChannel(peer, stream)
            self.channels[protocol] += 1
            self.serving[protocol] += 1
            try:
                await run_handler(handler, channel, blame=self._blame, on_bug=self._on_bug)
            finally:
                self.serving[protocol] -= 1
                await channel.aclose()
        except (Malformed, *LOST, trio.TooSlowError) as exc:
            stream.abort(f"negotiation: {exc}")
        return True

    async def _accept(self, stream: INetStream) -> None:
        """Negotiate a stream; whatever a peer sends here, an error may end this stream only, never the host."""
        protocol = getattr(cast(Any, stream).muxed_stream, "negotiated", None)
        try:
            if protocol is None:
                await self._negotiate(stream)
            else:
                stream.set_protocol(protocol)
                handler = self._host.multiselect.handlers[protocol]
                assert handler is not None, "a protocol that was agreed on has a handler"
                await handler(stream)
        except (*LOST, ValueError):
            await stream.reset()

    async def _serve_stream(self, handler: Handler, stream: INetStream) -> None:
        peer = peer_id(stream.muxed_conn.peer_id)
        if self._going or self._closing or self._inbound[peer] >= CHANNELS_PER_PEER_MAX:
            await stream.reset()
            return
        self._inbound[peer] += 1
        self.channels[str(stream.get_protocol())] += 1
        done = trio.Event()
        self._nursery.start_soon(self._run_inbound, handler, Libp2pChannel(peer, stream), done)
        await done.wait()

    async def _run_inbound(self, handler: Handler, channel: Libp2pChannel, done: trio.Event) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.pump)
                try:
                    await run_handler(handler, channel, blame=self._blame, on_bug=self._on_bug)
                finally:
                    await channel.aclose()
        finally:
            self._inbound[channel.peer] -= 1
            if not self._inbound[channel.peer]:
                del self._inbound[channel.peer]
            done.set()

    # ---- closing

    def go_away(self) -> None:
        """Take no further connections and channels, and tell peers so; what is open goes on, and we may still dial."""
        self._going = self.gate.closed = True
        for muxer in self.connections.muxers():
            muxer.going_away()

    async def shut(self, noise: NoiseOnly) -> None:
        """Close all connections, in order if they let us, within `GOODBYE_S`; `open_transport` calls it."""
        self._closing = True
        self._nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(GOODBYE_S):
                async with trio.open_nursery() as nursery:
                    for connections in list(self._swarm.connections.values()):
                        for connection in connections:
                            nursery.start_soon(connection.close)
            for socket in list(noise.sockets):
                await socket.close()
            await self._host.close()


@asynccontextmanager
async def open_transport(
    identity: Identity | bytes,
    *,
    listen: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    blame: Blame,
    on_bug: Bug | None = None,
    fast_path: bool = True,
    gate: Gate | None = None,
    book: AddressBook | None = None,
    same_machine: bool = False,
    memory: Memory | None = None,
) -> AsyncIterator[Libp2pTransport]:
    """A running transport; leaving the scope closes every connection and ends every handler within a second.

    Args:
        identity: who we are; also taken is a bare Ed25519 private seed of 32 bytes.
        listen: multiaddrs to listen on; port 0 picks a free one, an empty list only dials.
        blame: told of every peer whose frames made a handler raise `RemoteError` or `Malformed`.
        on_bug: told of any other exception of a handler; without it such an exception ends the transport.
        fast_path: our own Noise session, Yamux and negotiation instead of py-libp2p's; the bytes on the wire agree.
        gate: who may connect; by default everybody within its bounds.
        book: where peers are; by default nothing is known at first.
        same_machine: peers run on this machine, too: its own addresses are worth learning, whatever else we listen on.
        memory: bounds what all peers together make us hold; by default as `wire.memory` says.

    Raises:
        LocalError: an address cannot be listened on.
    """
    seed = identity if isinstance(identity, bytes) else identity.ed25519_seed
    memory = Memory() if memory is None else memory
    gate = Gate() if gate is None else gate
    host, swarm, noise = build_host(seed, fast=fast_path, gate=gate, memory=memory)
    async with host.run([]), trio.open_nursery() as nursery:
        book = AddressBook() if book is None else book
        transport = Libp2pTransport(host, swarm, nursery, book, gate, blame=blame, on_bug=on_bug)
        transport.same_machine, transport.memory = same_machine, memory
        noise.acceptor, noise.ticker = transport.accept_stream, Ticker()
        nursery.start_soon(noise.ticker.run)
        try:
            for address in listen:
                if not await swarm.listen(Multiaddr(address)):
                    raise LocalError(f"cannot listen on {address}")
            yield transport
        finally:
            await transport.shut(noise)
