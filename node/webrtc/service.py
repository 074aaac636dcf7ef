"""WebRTC between this node and others: signalling both ways, the connection among the others, and its seal.

    async with open_webrtc(transport) as rtc:
        await rtc.upgrade(peer)

Whoever is called through a relay offers, where hole punching over TCP has failed; browsers offer to us. A connection
that comes about carries libp2p streams, one data channel each, like any other connection of the host. Between nodes one
of these streams then carries a connection of its own, with Noise and Yamux from end to end (`SEALED`): streams on it
have windows, which data channels do not, and its handshake proves the peer again. The connection over which signalling
went stays until that one stands, and is there again when it is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import trio

from node.libp2p.muxer import Muxer
from node.libp2p.negotiating import open_stream
from node.libp2p_host import libp2p_id
from node.reach.addresses import Endpoint, Scope
from node.reach.ways import FAILED, ByteStream, Ways
from node.transport_libp2p import Libp2pTransport
from node.webrtc import signalling
from node.webrtc.candidates import CANDIDATES_MAX
from node.webrtc.helper import Helper, Local, open_helper
from node.webrtc.local import Say
from node.webrtc.session import RtcSession
from node.webrtc.signalling import SIGNAL_BYTES_MAX, SIGNALLING, Kind, Signal
from wire.errors import ChannelClosed, Malformed, TransportError, Unreachable
from wire.peer import PeerId, short

SEALED = "/quorate/webrtc/1"
"""The stream that carries a connection with Noise and Yamux of its own."""

SIGNALLING_S = 30.0
"""Seconds from the first message until data channels work."""

SHAKING_MAX = 16
"""Connections being made at a time; 2 of them with one peer."""

SHAKING_PER_PEER_MAX = 2


class WebRtc:
    """See `open_webrtc`."""

    def __init__(self, transport: Libp2pTransport, helper: Helper, servers: Sequence[tuple[str, int]] = ()) -> None:
        self._transport = transport
        self._ways = Ways(*transport.network)
        self._helper = helper
        self._servers = servers
        self._shaking: list[PeerId] = []
        self.made = self.failed = 0
        self.last_failure = ""

    def serve(self) -> None:
        """Answer offers, and those who seal."""
        self._ways.serve(SIGNALLING, self._answer, bytes_max=SIGNAL_BYTES_MAX)
        self._ways.serve(SEALED, self._sealed)

    # ---- the side that offers

    async def upgrade(self, peer: PeerId) -> bool:
        """Try to get a connection over UDP with a peer to whom one stands; whether there is one now."""
        try:
            stream = await self._ways.open(peer, SIGNALLING, bytes_max=SIGNAL_BYTES_MAX)
            muxer = await self._shake(stream, offered=True)
        except (*FAILED, TransportError, Malformed) as exc:
            self.last_failure = str(exc) or type(exc).__name__
            return False
        try:
            sealing = ByteStream(cast(Any, await open_stream(muxer, peer, SEALED)))
            await self._ways.adopt_over(sealing, peer, dialled=True)
        except (*FAILED, TransportError):
            return muxer.lost is None  # not one of ours: streams go over data channels as they are
        return True

    async def _offer(self, stream: ByteStream, local: Local) -> str:
        offer = await local.heard()
        if offer.kind is not Say.OFFER:
            raise Unreachable(f"no WebRTC offer: {offer.text}")
        await stream.write(Signal(Kind.OFFER, offer.text).encode())
        return await self._until_connected(stream, local, Kind.ANSWER)

    # ---- the side that answers

    async def _answer(self, stream: ByteStream) -> None:
        await self._shake(stream, offered=False)

    async def _respond(self, stream: ByteStream, local: Local) -> str:
        return await self._until_connected(stream, local, Kind.OFFER)

    async def _sealed(self, stream: ByteStream) -> None:
        """A peer to whom a WebRTC connection stands begins a handshake on it."""
        if not isinstance(getattr(stream.muxed_conn, "secured_conn", None), RtcSession):
            raise Malformed("only a WebRTC connection is sealed")
        await self._ways.adopt_over(stream, stream.peer, dialled=False)
        await stream.closed.wait()

    # ---- both

    def view(self) -> dict[str, int]:
        """What came of it so far."""
        return {"made": self.made, "failed": self.failed, "process_starts": self._helper.starts}

    def under_way(self, peer: PeerId) -> bool:
        """Whether a connection with a peer is being made."""
        return peer in self._shaking

    def _stun(self, path: Scope, relay: Endpoint | None) -> tuple[str, int] | None:
        """Where to ask how we are seen: servers that were named, else the relay, which sees us anyway."""
        if path != "public":
            return None
        if self._servers:
            return self._servers[self.made % len(self._servers)]
        return (relay.ip, relay.port) if relay is not None else None

    async def _shake(self, stream: ByteStream, *, offered: bool) -> Muxer:
        """Play one part of the signalling; the connection that comes of it, added to the host's."""
        peer, (path, relay) = stream.peer, self._ways.path(stream)
        if len(self._shaking) >= SHAKING_MAX or self._shaking.count(peer) >= SHAKING_PER_PEER_MAX or path == "none":
            await stream.reset()
            raise Unreachable("too many WebRTC connections are being made")
        self._shaking.append(peer)
        local: Local | None = None
        muxer: Muxer | None = None
        try:
            with trio.fail_after(SIGNALLING_S):
                local = await self._helper.connect(offer=offered, path=path, stun=self._stun(path, relay))
                where = await (self._offer if offered else self._respond)(stream, local)
                await local.say(Say.GO)
                session = self._session(local, where, offered=offered)
                # between the two processes it is always the node that begins
                added = Muxer(session, libp2p_id(peer), True)
                await self._ways.add(added, dialled=offered)
                muxer = added
        finally:
            self._shaking.remove(peer)
            if muxer is None:
                self.failed += 1
                if local is not None:
                    await trio.aclose_forcefully(local.stream)
                await stream.reset()
        self.made += 1
        await stream.close()
        return muxer

    def _session(self, local: Local, where: str, *, offered: bool) -> RtcSession:
        mine = self._transport
        return RtcSession(
            local.stream, local.rest(), where, offered=offered, acceptor=mine.accept_stream, memory=mine.memory
        )

    async def _until_connected(self, stream: ByteStream, local: Local, expected: Kind) -> str:
        """Carry messages both ways until data channels work; where the other side is."""
        where: list[str] = []
        errors: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def ours() -> None:
                where.append(await self._ours(stream, local))
                nursery.cancel_scope.cancel()

            async def guarded(part: Callable[[], Awaitable[None]]) -> None:
                try:
                    await part()
                except (*FAILED, TransportError, Malformed) as exc:  # an error in a nursery would come out as a group
                    errors.append(exc)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(guarded, ours)
            nursery.start_soon(guarded, lambda: self._theirs(stream, local, expected))
        if not where:
            raise errors[0]
        return where[0]

    async def _ours(self, stream: ByteStream, local: Local) -> str:
        while True:
            said = await local.heard()
            if said.kind is Say.ANSWER:
                await stream.write(Signal(Kind.ANSWER, said.text).encode())
            elif said.kind is Say.CONNECTED:
                return said.text
            else:
                raise Unreachable(f"no WebRTC connection with {short(stream.peer)}: {said.text}")

    async def _theirs(self, stream: ByteStream, local: Local, expected: Kind) -> None:
        first = signalling.decode(await stream.message(SIGNALLING_S))
        if first.kind is not expected:
            raise Malformed(f"{expected.name} is expected")
        await local.say(Say.OFFER if expected is Kind.OFFER else Say.ANSWER, first.text)
        try:
            for _ in range(2 * CANDIDATES_MAX):
                said = signalling.decode(await stream.message(SIGNALLING_S))
                if said.kind is not Kind.CANDIDATE:
                    raise Malformed("after the descriptions come candidates")
                found = signalling.candidate(said.text)
                if found is not None:
                    await local.say(Say.CANDIDATE, found.text())
        except (ChannelClosed, *FAILED):
            return  # the other side is done with its part, and may see the connection before we do; the checks go on
        raise Malformed("candidates without end")


@asynccontextmanager
async def open_webrtc(
    transport: Libp2pTransport, *, servers: Sequence[tuple[str, int]] = (), deny_subnets: Sequence[str] = ()
) -> AsyncIterator[WebRtc]:
    """WebRTC, for as long as the scope lasts.

    Args:
        servers: STUN servers, each a host and a port; without any, relays are asked.
        deny_subnets: where nothing is sent.
    """
    async with open_helper(deny_subnets) as helper:
        rtc = WebRtc(transport, helper, servers)
        rtc.serve()
        yield rtc
