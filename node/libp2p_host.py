"""A py-libp2p host without its unsafe defaults: TCP or WebSocket, Noise and Yamux only, everything bounded.

The stock `new_host()` also offers plaintext, secio and TLS, so whoever dials may claim to be any peer. Here the
only way in is a Noise XX handshake (libp2p noise specification) in which the remote proves an Ed25519 key; that
key is the `PeerId` that the rest of the node sees.

Hooks into py-libp2p 0.8.1, all of them in this file:

- `sec_opt` with our Noise transport, which refuses keys other than Ed25519 and remembers the raw sockets, so
  that shutting down never waits for a peer that stopped reading; on the fast path it hands out our own session;
- multistream-select reads at most `NEGOTIATION_BYTES_MAX` per message, in UTF-8 (stock: any 64-bit length);
- Yamux is our own muxer over sessions of ours; over stock sessions it is the stock one with `MAX_WINDOW_SIZE` set
  (16 MiB per stream otherwise) and a buffer that enforces it;
- the automatic identify, identify push and the auto-connector are off: peers are found and dialled by us, never
  because a stranger told the library of an address;
- where our own muxer hands streams over, the library keeps no task that waits for them;
- who connects passes our gate, and leaves its place when the connection ends (stock: a place is kept for the life of
  the node, so that after as many connections as there are places nobody gets in);
- `swarm_connection` logs below `libp2p` (stock: through the root logger, which configures the whole process).
"""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, cast

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.protocol_muxer.multiselect_communicator as multiselect_communicator
import libp2p.stream_muxer.muxer_multistream as muxer_multistream
import libp2p.stream_muxer.yamux.yamux as yamux
import libp2p.transport.tcp.tcp as tcp
import trio
from libp2p import new_swarm
from libp2p.abc import IMuxedConn, IRawConnection, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import ParseError
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify_push.identify_push import ID_PUSH as IDENTIFY_PUSH
from libp2p.io.abc import Reader, ReadWriteCloser
from libp2p.io.trio import TrioTCPStream
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.rcmgr import ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.rcmgr.manager import ResourceLimits
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from node.libp2p.gate import Gate
from node.libp2p.multiselect import NEGOTIATION_BYTES_MAX
from node.libp2p.muxer import Acceptor, Muxer
from node.libp2p.noise_session import NoiseSession, upgrade
from node.libp2p.ticker import Ticker
from node.libp2p.turns import BRING_UP_S, TakingTurns, Turns, returned
from node.libp2p.websocket_stream import WebSocketStream, remote_of
from node.libp2p.websocket_transport import WebSocket
from wire.errors import Malformed
from wire.memory import Memory
from wire.peer import PeerId, from_text, to_text

WINDOW_BYTES_MAX = 1 << 20
"""Largest Yamux receive window, and so the most that one unread stream holds in memory."""

CONNECTIONS_MAX = 512
"""Connections, in and out together."""

CONNECTIONS_PER_PEER_MAX = 4
"""Connections with one peer; two arise when both sides dial at the same moment."""

STREAMS_MAX = 8192
"""Streams over all connections."""

GOODBYE_S = 0.25
"""Seconds for closing connections in order before their sockets are closed under them."""

FROM_LISTENING_S = 2.0
"""Seconds for TCP itself where it is dialled from our listening port."""

HANDSHAKE_S = 5
"""Seconds for each step of bringing up a connection or a stream."""


@lru_cache(4096)
def libp2p_id(peer: PeerId) -> ID:
    """The libp2p form of a peer identity."""
    return ID.from_base58(to_text(peer))


@lru_cache(4096)
def peer_id(identity: ID) -> PeerId:
    """Our form of a libp2p peer id.

    Raises:
        Malformed: the key behind it is not Ed25519.
    """
    return from_text(identity.to_base58())


class NoiseOnly(StockNoise):
    """Noise that accepts Ed25519 identities only and knows every socket it was given.

    Args:
        fast: hand out our own sessions, over which our own muxer runs.
    """

    acceptor: Acceptor | None = None
    """Takes the streams that others open on the fast path; without it py-libp2p does."""

    ticker: Ticker | None = None
    """Looks at the clock for all connections; without it each does so itself."""

    def __init__(self, key_pair: KeyPair, *, fast: bool, gate: Gate, memory: Memory) -> None:
        super().__init__(key_pair, noise_privkey=create_new_noise_key_pair().private_key)
        self.sockets: weakref.WeakSet[IRawConnection] = weakref.WeakSet()
        self._fast = fast
        self._gate = gate
        self._memory = memory
        self.turns = Turns()

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        self.sockets.add(conn)
        waiting = TakingTurns(conn, self.turns)
        try:
            session = await super().secure_inbound(waiting)
        finally:
            waiting.pause()
        self.turns.spent(BRING_UP_S)
        returned(session, conn)
        return await self._session(session)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        self.sockets.add(conn)
        address = conn.get_remote_address()
        if address is not None and self._gate.denies_address(address[0]):
            self._gate.refusals["denied_address"] += 1
            raise HandshakeFailure(f"{address[0]} is denied")
        return await self._session(await super().secure_outbound(conn, peer_id))

    async def _session(self, session: ISecureConn) -> ISecureConn:
        session = await _ed25519_only(session)
        if self._gate.denies(peer_id(session.get_remote_peer())):
            self._gate.refusals["denied_peer"] += 1
            await session.close()
            raise HandshakeFailure("the peer is denied")
        if not self._fast:
            return session
        session = upgrade(session, self.acceptor, self._memory)
        if isinstance(session, NoiseSession):
            session.ticker = self.ticker
        return session


async def _ed25519_only(session: ISecureConn) -> ISecureConn:
    try:
        peer_id(session.get_remote_peer())
    except Malformed as exc:
        await session.close()
        raise HandshakeFailure("the remote identity is not an Ed25519 key") from exc
    return session


class _BoundedBuffer(bytearray):
    """What a stream has received and nobody has read; a peer that ignores the window loses the stream."""

    def extend(self, data: Any) -> None:
        if len(self) + len(data) > 2 * WINDOW_BYTES_MAX:
            raise MuxedStreamError("the peer sent past its window")
        super().extend(data)


class _Buffers(dict[int, bytearray]):
    def __setitem__(self, stream: int, buffer: bytearray) -> None:
        super().__setitem__(stream, _BoundedBuffer(buffer))


class BoundedYamux(yamux.Yamux):
    """Yamux whose receive windows are enforced (the stock one only logs an overrun)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stream_buffers = _Buffers()


def _muxer(
    conn: ISecureConn,
    peer_id: ID,
    is_initiator: bool | None = None,
    on_close: Callable[[], Awaitable[Any]] | None = None,
) -> IMuxedConn:
    """Our muxer over our session, the bounded stock one over a stock session."""
    if isinstance(conn, NoiseSession):
        return Muxer(conn, peer_id, is_initiator, on_close)
    return BoundedYamux(conn, peer_id, is_initiator=is_initiator, on_close=on_close)


async def _read_negotiation(reader: Reader) -> bytes:
    """One multistream-select message, bounded, without its newline; replaces the stock `read_delim`."""
    message = await read_varint_prefixed_bytes_limited(reader, NEGOTIATION_BYTES_MAX)
    if not message.endswith(b"\n"):
        raise ParseError("a negotiation message ends in a newline")
    try:
        message.decode()
    except UnicodeDecodeError as exc:
        raise ParseError("a negotiation message is UTF-8") from exc
    return message[:-1]


class TcpStream(TrioTCPStream):
    """A TCP stream that knows its other end over IPv6 too (the stock one has only two parts for an address)."""

    def get_remote_address(self) -> tuple[str, int] | None:
        if self._cached_remote_address is None:
            self._cached_remote_address = remote_of(self.stream)
        return self._cached_remote_address


class Tcp(tcp.TCP):
    """TCP whose dials from the listening port leave time for one from a fresh port."""

    async def _dial_resolved(self, maddr: Multiaddr, source: tuple[str, int] | None = None) -> IRawConnection:
        with trio.move_on_after(FROM_LISTENING_S if source is not None else math.inf):
            return await super()._dial_resolved(maddr, source)
        raise OpenConnectionError(f"{maddr}: no answer to a dial from the listening port")


def set_socket_options(sock: trio.socket.SocketType) -> None:
    """Let dials leave from the listening port; and keep the two versions of IP apart, so that each has its own sockets.

    Without that `/ip6/::` would take IPv4 as well, under addresses that are neither (RFC 3493, section 5.3).
    """
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
    sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEPORT, 1)
    if sock.family == trio.socket.AF_INET6:
        sock.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 1)


_accept_on = swarm_connection.SwarmConn._handle_new_streams


async def _accept_or_leave(self: swarm_connection.SwarmConn) -> None:
    """No task that waits for streams where our own muxer hands them over."""
    muxer = self.muxed_conn
    if isinstance(muxer, Muxer) and muxer.hand_to(cast(Any, self._handle_muxed_stream)):
        self.event_started.set()
    else:
        await _accept_on(self)


def harden() -> None:
    """Install the process-wide hooks; doing it again changes nothing."""
    cast(Any, multiselect_communicator).read_delim = _read_negotiation
    cast(Any, swarm_connection.SwarmConn)._handle_new_streams = _accept_or_leave
    cast(Any, muxer_multistream).Yamux = _muxer  # the stock code ignores muxer_opt for Yamux
    yamux.MAX_WINDOW_SIZE = WINDOW_BYTES_MAX
    cast(Any, tcp).TrioTCPStream = TcpStream
    cast(Any, tcp)._set_reuse_flags = set_socket_options
    log = logging.getLogger("libp2p")
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    # this module logs through the root logger, whose first use would install a handler for the whole process
    cast(Any, swarm_connection).logging = logging.getLogger("libp2p.network.connection")


def _guard(swarm: Swarm, gate: Gate) -> None:
    """Let who connects pass `gate`; a connection keeps its place until it ends."""
    stock = swarm._handle_inbound_connection

    async def handle(stream: ReadWriteCloser, listener: Multiaddr) -> None:
        if not isinstance(stream, TrioTCPStream | WebSocketStream):
            await stock(stream, listener)
            return
        remote = remote_of(stream.stream) if isinstance(stream, TrioTCPStream) else stream.get_remote_address()
        visit = gate.enter(remote[0]) if remote is not None else None
        if visit is None:
            await trio.aclose_forcefully(stream.stream)
            return
        raw, done = RawConnection(stream, False), False
        try:
            if isinstance(stream, WebSocketStream):
                with trio.fail_after(HANDSHAKE_S):
                    await stream.accept()
            muxer = cast(Any, await swarm.upgrade_inbound_raw_conn(raw, listener))
            done = True
            if visit.authenticated():
                await muxer.event_closed.wait()
            else:
                await muxer.close()
        finally:
            visit.leave()
            gate.refusals["failed"] += not done
            with trio.CancelScope(shield=True):
                await raw.close()

    cast(Any, swarm)._handle_inbound_connection = handle


class NoAutoConnector(AutoConnector):
    """The stock one dials every address it ever heard of until it has half of `max_connections`."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """Nothing to do in the background."""

    async def maybe_connect(self) -> None:
        """Not after a disconnect either."""


def build_host(
    seed: bytes, *, fast: bool = True, gate: Gate | None = None, memory: Memory | None = None
) -> tuple[BasicHost, Swarm, NoiseOnly]:
    """A host with the identity of a 32-byte Ed25519 seed; it listens nowhere yet.

    Args:
        fast: use our own session and muxer instead of py-libp2p's.
        gate: who may connect; everybody within its bounds if left out.
        memory: what all connections together may hold.

    Returns:
        the host, its swarm, and the Noise transport that knows all sockets.
    """
    assert len(seed) == 32, "an Ed25519 seed has 32 bytes"
    harden()
    key_pair = create_new_key_pair(seed)
    gate = Gate() if gate is None else gate
    noise = NoiseOnly(key_pair, fast=fast, gate=gate, memory=Memory() if memory is None else memory)
    swarm = new_swarm(
        key_pair=key_pair,
        sec_opt={NOISE: noise},
        muxer_opt={TProtocol(YAMUX): BoundedYamux},
        transports=[Tcp(), WebSocket(gate.denies_address)],
        connection_config=ConnectionConfig(
            max_connections=CONNECTIONS_MAX,
            min_connections=0,
            low_watermark=0,
            high_watermark=CONNECTIONS_MAX,
            max_connections_per_peer=1,
            inbound_upgrade_timeout=HANDSHAKE_S,
            outbound_upgrade_timeout=HANDSHAKE_S,
            inbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
            outbound_stream_protocol_negotiation_timeout=HANDSHAKE_S,
        ),
        retry_config=RetryConfig(max_retries=0),
        resource_manager=_resource_manager(),
    )
    assert isinstance(swarm, Swarm)
    _guard(swarm, gate)
    swarm.auto_connector = NoAutoConnector(swarm)
    host = BasicHost(network=swarm, negotiate_timeout=HANDSHAKE_S, disable_identify_address_discovery=True)
    # who connects is proven by Noise and asked for nothing else: no identify of our own after each connection
    swarm.notifees = [n for n in swarm.notifees if type(n).__name__ != "_IdentifyNotifee"]
    host.remove_stream_handler(IDENTIFY_PUSH)
    return host, swarm, noise


def _resource_manager() -> ResourceManager:
    """Plain counters; the stock extras (circuit breaker, memory guesses) would refuse honest peers."""
    return ResourceManager(
        limits=ResourceLimits(max_connections=CONNECTIONS_MAX, max_streams=STREAMS_MAX),
        connection_limits=ConnectionLimits(
            max_established_per_peer=CONNECTIONS_PER_PEER_MAX, max_established_total=CONNECTIONS_MAX
        ),
        enable_metrics=False,
        enable_memory_limits=False,
        enable_circuit_breaker=False,
        enable_graceful_degradation=False,
        enable_rate_limiting=False,
    )


async def give_up(swarm: Swarm, peer: PeerId) -> None:
    """Close all connections with a peer that have died, in order if that is quick, without a trace otherwise.

    A router between us may have forgotten them, so that nothing we send arrives; a new connection between the same
    two ports must not wait for the kernel to notice.
    """
    for connection in swarm.get_connections(libp2p_id(peer)):
        session = getattr(cast(Any, connection).muxed_conn, "secured_conn", None)
        if isinstance(session, NoiseSession):
            try:
                session.forget()
            except OSError:
                continue  # its socket is closed already
    with trio.move_on_after(GOODBYE_S):
        await swarm.close_peer(libp2p_id(peer))
