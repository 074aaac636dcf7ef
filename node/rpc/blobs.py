"""Blobs over any transport: content by its SHA-256, of any length, on a channel of its own.

serve_blobs(transport, find)
size = await fetch_blob(transport, peer, sha256, keep, bytes_max=1 << 30)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from wire.errors import Busy, FrameTooLarge, Malformed, Refused, RemoteError
from wire.peer import PeerId
from wire.rpc import blob
from wire.rpc.blob import BLOBS_PER_PEER_MAX, CHUNK_BYTES, PROTOCOL, BlobReader
from wire.transport import Channel, Transport

BUSY = "busy"
RETRY_S = 1.0


@dataclass(frozen=True)
class Blob:
    """Something to be sent: its size, and its bytes from an offset on."""

    size: int
    read: Callable[[int, int], Awaitable[bytes]]
    """`read(offset, count)`: that many bytes, fewer only at the end."""


class Find(Protocol):
    """Whether and what a peer is given for a hash."""

    async def __call__(self, peer: PeerId, sha256: bytes) -> Blob | None:
        """None if it is not here, or not for this peer."""
        ...


def of_bytes(content: bytes) -> Blob:
    """A blob that is in memory."""

    async def read(offset: int, count: int) -> bytes:
        return content[offset : offset + count]

    return Blob(len(content), read)


def serve_blobs(transport: Transport, find: Find) -> None:
    """Give peers what `find` finds, `BLOBS_PER_PEER_MAX` at once to each; the transport blames who asks badly."""
    busy: Counter[PeerId] = Counter()

    async def serve(channel: Channel) -> None:
        peer = channel.peer
        busy[peer] += 1
        full = busy[peer] > BLOBS_PER_PEER_MAX
        try:
            asked = blob.read_ask(await channel.receive())
            if full:
                await channel.send(blob.refuse(BUSY))
            else:
                await _send(channel, find, *asked)
        finally:
            busy[peer] -= 1
            if not busy[peer]:
                del busy[peer]

    transport.serve(PROTOCOL, serve)


async def _send(channel: Channel, find: Find, sha256: bytes, offset: int) -> None:
    found = await find(channel.peer, sha256)
    if found is None or offset > found.size:
        await channel.send(blob.refuse("not here" if found is None else f"it has {found.size} bytes"))
        return
    await channel.send(blob.give(found.size))
    while offset < found.size:
        chunk = await found.read(offset, CHUNK_BYTES)
        assert chunk, "a blob has as many bytes as it says"
        await channel.send(chunk)
        offset += len(chunk)


async def fetch_blob(
    transport: Transport,
    peer: PeerId,
    sha256: bytes,
    keep: Callable[[bytes], Awaitable[None]],
    *,
    bytes_max: int,
    known: bytes = b"",
) -> int:
    """Fetch a blob; the caller bounds the time.

    Args:
        sha256: of the whole, 32 bytes.
        keep: takes each chunk as it comes; nothing is to be believed before this function returns.
        bytes_max: refuse anything longer.
        known: bytes from the start that are already here, and are not sent again.

    Returns:
        The size of the whole, bytes.

    Raises:
        Unreachable, ChannelClosed: the connection.
        Busy: the peer sends us enough already.
        Refused: it does not give it.
        RemoteError: it is too long, or another one than was asked for.
    """
    channel = await transport.open(peer, PROTOCOL)
    try:
        await channel.send(blob.ask(sha256, len(known)))
        given = blob.read_given(await channel.receive())
        if isinstance(given, str):
            raise Busy(RETRY_S) if given == BUSY else Refused(peer, "refused", given)
        if given > bytes_max:
            raise Malformed(f"{given} bytes, at most {bytes_max} wanted")
        reader = BlobReader(sha256, given, known)
        while not reader.whole:
            chunk = await channel.receive()
            reader.feed(chunk)
            await keep(chunk)
        reader.check()
    except (Malformed, FrameTooLarge) as exc:
        raise RemoteError(peer, f"blob: {exc}") from exc
    finally:
        await channel.aclose()
    return given
