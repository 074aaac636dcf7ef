"""One WebRTC connection in the process that speaks WebRTC: aiortc on one side, a local socket to the node on the other.

What the node says arrives as messages of `local`; then streams flow through a `Bridge`. The connection lives as long as
its socket: when either end goes, the other does. Whatever aiortc raises on what a stranger sent ends this connection
alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from node.reach.addresses import Scope
from node.webrtc import description
from node.webrtc.bridge import INIT, Bridge
from node.webrtc.candidates import CANDIDATES_MAX, Candidate, Subnet, parse, within
from node.webrtc.local import Reader, Said, Say
from wire.errors import Malformed

CONNECT_S = 25.0
"""Seconds until data channels work."""

SOCKET_BYTES_HIGH = 256 << 10
"""Bytes for the node that wait in this process beyond the kernel's buffer."""


@dataclass(frozen=True)
class Order:
    """How a connection is to be made.

    Args:
        offer: begin, instead of waiting for the offer of the other side.
        path: how far the path of the signalling reaches; decides which candidates are told and tried.
        stun: where to ask how we are seen from outside, or None.
        denied: where nothing is sent.
    """

    offer: bool
    path: Scope
    stun: tuple[str, int] | None
    denied: Sequence[Subnet] = ()


class Connection(asyncio.Protocol):
    """See the module; `run` makes one of a socket."""

    def __init__(self, order: Order) -> None:
        self._order = order
        servers = [] if order.stun is None else [RTCIceServer(f"stun:{order.stun[0]}:{order.stun[1]}")]
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._bridge = Bridge(self._open_channel, self._write, self._on_gone)
        self._reader = Reader()
        self._orders: asyncio.Queue[Said] = asyncio.Queue(CANDIDATES_MAX + 4)
        self._going = False
        self._transport: asyncio.Transport | None = None
        self._over = asyncio.Event()
        self._connected = asyncio.Event()
        self._pc.on("datachannel", self._bridge.on_channel)
        self._pc.on("connectionstatechange", self._on_state)

    # ---- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=SOCKET_BYTES_HIGH)

    def data_received(self, data: bytes) -> None:
        if self._going:
            self._bridge.receive(data)
            return
        self._reader.feed(data)
        try:
            while not self._going and (said := self._reader.next()) is not None:
                if said.kind is Say.GO:
                    self._going = True
                    self._bridge.receive(self._reader.rest())
                else:
                    self._orders.put_nowait(said)
        except (Malformed, asyncio.QueueFull):
            self._over.set()

    def pause_writing(self) -> None:
        self._bridge.pause()

    def resume_writing(self) -> None:
        self._bridge.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.set()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _say(self, kind: Say, text: str = "") -> None:
        self._write(Said(kind, text).encode())

    # ---- the connection

    def _open_channel(self) -> Any:
        return self._pc.createDataChannel("")

    def _on_gone(self, reason: str) -> None:
        self._over.set()

    def _on_state(self) -> None:
        if self._pc.connectionState == "connected":
            self._connected.set()
        elif self._pc.connectionState in ("failed", "closed"):
            self._over.set()

    async def live(self) -> None:
        """Connect, then carry streams until either end goes."""
        over = asyncio.ensure_future(self._over.wait())
        work = asyncio.ensure_future(asyncio.wait_for(self._connect(), CONNECT_S))
        try:
            await asyncio.wait([over, work], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self._say(Say.FAILED, "the two sides do not reach each other")
                return
            try:
                where = work.result()
            except Exception as exc:  # noqa: BLE001 - a stranger's words may make aiortc raise anything; it ends here
                self._say(Say.FAILED, f"{type(exc).__name__}: {exc}"[:500])
                return
            self._say(Say.CONNECTED, where)
            self._bridge.start()
            await over
        finally:
            over.cancel()
            work.cancel()
            self._bridge.stop("the connection ended")
            if self._transport is not None:
                self._transport.close()
            await self._pc.close()

    async def _connect(self) -> str:
        if self._order.offer:
            opened = self._pc.createDataChannel(INIT)
            await self._pc.setLocalDescription(await self._pc.createOffer())
            self._say(Say.OFFER, self._local())
        later = asyncio.ensure_future(self._obey())
        try:
            await self._first(later)
            if self._order.offer:
                await _open_and_closed(opened)
        finally:
            later.cancel()
        return self._where()

    async def _first(self, obeying: asyncio.Future[None]) -> None:
        """Wait for the connection, or for what keeps us from it."""
        connected = asyncio.ensure_future(self._connected.wait())
        both: list[asyncio.Future[Any]] = [connected, obeying]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()
        if obeying.done():
            obeying.result()

    async def _obey(self) -> None:
        """Take what the other side says, in order."""
        expected = Say.ANSWER if self._order.offer else Say.OFFER
        candidates = 0
        while True:
            said = await self._orders.get()
            if said.kind is expected:
                await self._take(said, "answer" if self._order.offer else "offer")
            elif said.kind is Say.CANDIDATE and candidates < CANDIDATES_MAX:
                candidates += 1
                await self._try(said.text)
            else:
                raise Malformed(f"{said.kind.name} is not expected")

    async def _take(self, said: Said, kind: str) -> None:
        theirs = description.read(said.text).only(self._may_try)
        await self._pc.setRemoteDescription(RTCSessionDescription(theirs.text(), kind))
        if kind == "offer":
            await self._pc.setLocalDescription(await self._pc.createAnswer())
            self._say(Say.ANSWER, self._local())

    async def _try(self, text: str) -> None:
        found = parse(text)
        if found is None or not self._may_try(found):
            return
        candidate = candidate_from_sdp(found.text().removeprefix("candidate:"))
        candidate.sdpMLineIndex = 0
        candidate.sdpMid = self._pc.sctp.mid if self._pc.sctp is not None else "0"
        await self._pc.addIceCandidate(candidate)

    def _may_try(self, candidate: Candidate) -> bool:
        return within(candidate, self._order.path, self._order.denied)

    def _local(self) -> str:
        ours = description.read(self._pc.localDescription.sdp)
        return ours.only(lambda candidate: within(candidate, self._order.path)).text()

    def _where(self) -> str:
        """Where the other side is, as the checks found out."""
        assert self._pc.sctp is not None
        pair = self._pc.sctp.transport.transport._connection._nominated.get(1)
        return "" if pair is None else f"{pair.remote_addr[0]} {pair.remote_addr[1]}"


async def _open_and_closed(channel: RTCDataChannel) -> None:
    """Wait until a data channel was open at both ends, and is gone at both."""
    opened, closed = asyncio.Event(), asyncio.Event()
    channel.on("open", opened.set)
    channel.on("close", closed.set)
    if channel.readyState != "open":
        await opened.wait()
    channel.close()
    await closed.wait()


async def run(order: Order, sock: Any) -> None:
    """Make a connection for the node at the other end of `sock`, and carry it to its end."""
    connection = Connection(order)
    await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
    await connection.live()
