"""A peer that keeps no rule: real TCP, a real Noise handshake, and then whatever bytes a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.patterns import PatternXX
from multiaddr import Multiaddr

from node.libp2p.multiselect import HEADER, encode
from node.libp2p.muxer import Muxer
from node.libp2p.noise_session import NoiseSession
from node.libp2p.yamux_frames import DATA, SYN, WINDOW_UPDATE, FrameParser, Header, frame_header
from node.libp2p_host import libp2p_id
from node.transport_libp2p import Libp2pTransport
from wire.memory import Memory
from wire.peer import PeerId

HELLO = encode(HEADER)


class Victim(Protocol):
    """Somebody to attack, here or in another process."""

    @property
    def peer(self) -> PeerId: ...

    def addresses(self) -> list[str]: ...


def port_of(transport: Victim) -> int:
    """The TCP port it listens on."""
    return int(cast(Any, Multiaddr(transport.addresses()[0])).value_for_protocol("tcp"))


async def tcp(victim: Victim) -> trio.SocketStream:
    """A connection on which nothing was said yet."""
    return await trio.open_tcp_stream("127.0.0.1", port_of(victim))


async def lines(stream: trio.SocketStream, *said: str) -> None:
    """Propose, and read the same back."""
    raw = b"".join(map(encode, said))
    await stream.send_all(raw)
    got = b""
    while len(got) < len(raw):
        piece = await stream.receive_some()
        assert piece, f"closed after {got!r}"
        got += piece
    assert got == raw


class Attacker:
    """An authenticated connection whose Yamux frames a test writes by hand."""

    def __init__(self, session: NoiseSession, socket: trio.SocketStream) -> None:
        self.session = session
        self.socket = socket
        self._parser = FrameParser()
        self._found: list[Header | bytes] = []

    async def send(self, *frames: bytes) -> None:
        """Bytes of any kind, sealed."""
        await self.session.write(b"".join(frames))

    async def until(self, wanted: Any) -> list[Header | bytes]:
        """Read until an item fits; everything read up to and including it."""
        seen: list[Header | bytes] = []
        while True:
            while self._found:
                seen.append(self._found.pop(0))
                if wanted(seen[-1]):
                    return seen
            self._found += self._parser.feed(await self.session.receive())

    async def ended(self) -> bool:
        """Wait until the victim has closed the connection."""
        try:
            while await self.socket.receive_some():
                pass
        except trio.BrokenResourceError:
            return True
        return True


@asynccontextmanager
async def attacker(victim: Victim, seed: bytes = b"m" * 32, pair: KeyPair | None = None) -> AsyncIterator[Attacker]:
    """Connected and authenticated, with Yamux agreed on."""
    key_pair = create_new_key_pair(seed) if pair is None else pair
    socket = await tcp(victim)
    async with socket:
        await lines(socket, HEADER, "/noise")
        noise_key = create_new_noise_key_pair().private_key
        pattern = PatternXX(ID.from_pubkey(key_pair.public_key), key_pair.private_key, noise_key)
        raw = RawConnection(TrioTCPStream(socket), True)
        session = NoiseSession(cast(Any, await pattern.handshake_outbound(raw, libp2p_id(victim.peer))), None, Memory())
        await session.write(HELLO + encode("/yamux/1.0.0"))
        assert await session.read(len(HELLO + encode("/yamux/1.0.0"))) == HELLO + encode("/yamux/1.0.0")
        yield Attacker(session, socket)


def syn(stream: int) -> bytes:
    """Open a stream."""
    return frame_header(WINDOW_UPDATE, SYN, stream, 0)


def data(stream: int, payload: bytes) -> bytes:
    """A data frame."""
    return frame_header(DATA, 0, stream, len(payload)) + payload


def proposing(stream: int, protocol: str) -> bytes:
    """Open a stream and propose a protocol on it."""
    return syn(stream) + data(stream, HELLO + encode(protocol))


def muxers(victim: Libp2pTransport) -> list[Muxer]:
    """The victim's connections."""
    return [c.muxed_conn for cs in cast(Any, victim)._swarm.connections.values() for c in cs]


def held(victim: Libp2pTransport) -> int:
    """Bytes that all of its connections together keep for others: received, queued, and half a Noise message."""
    return sum(
        m.core.held + m.core.queued + len(m.secured_conn.unsent or b"") + m.secured_conn.held for m in muxers(victim)
    )
