"""Blobs on every filling of the Transport seam: whole and with the right hash, or a typed error."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import trio

from node.rpc.blobs import Blob, fetch_blob, of_bytes, serve_blobs
from wire.errors import Busy, ChannelClosed, Malformed, Refused, RemoteError
from wire.peer import PeerId
from wire.rpc import blob
from wire.rpc.blob import BLOBS_PER_PEER_MAX, CHUNK_BYTES, PROTOCOL, BlobReader
from wire.transport import Channel

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).digest()


async def find(_peer: PeerId, sha256: bytes) -> Blob | None:
    """The one blob there is."""
    return of_bytes(CONTENT) if sha256 == SHA256 else None


async def fetch(pair: Any, sha256: bytes = SHA256, *, bytes_max: int = 1 << 22, known: bytes = b"") -> bytes:
    """What arrives, in ten seconds."""
    got = bytearray(known)

    async def keep(chunk: bytes) -> None:
        got.extend(chunk)

    with trio.fail_after(10):
        size = await fetch_blob(pair.alice, pair.bob.peer, sha256, keep, bytes_max=bytes_max, known=known)
    assert size == len(got)
    return bytes(got)


@pytest.mark.parametrize("known", [0, 1, CHUNK_BYTES, len(CONTENT)])
async def test_a_blob_arrives_from_any_offset(pair: Any, known: int) -> None:
    serve_blobs(pair.bob, find)
    assert await fetch(pair, known=CONTENT[:known]) == CONTENT


async def test_what_is_not_there_is_refused(pair: Any) -> None:
    serve_blobs(pair.bob, find)
    with pytest.raises(Refused, match="not here"):
        await fetch(pair, bytes(32))
    with pytest.raises(Refused, match="bytes"):
        await fetch(pair, known=CONTENT + b"x")


def liar(*frames: bytes) -> Any:
    """A server that sends these frames whatever it is asked for."""

    async def serve(channel: Channel) -> None:
        await channel.receive()
        for frame in frames:
            await channel.send(frame)

    return serve


LIES = {
    "another content": (blob.give(3), b"abc"),
    "more than it said": (blob.give(3), b"abcd"),
    "an empty chunk": (blob.give(3), b""),
    "a long chunk": (blob.give(1 << 21), bytes(CHUNK_BYTES + 1)),
    "more than is wanted": (blob.give(1 << 40),),
    "no answer at all": (b"\7",),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_the_servers_fault(pair: Any, name: str) -> None:
    pair.bob.serve(PROTOCOL, liar(*LIES[name]))
    with pytest.raises(RemoteError, match="blob"):
        await fetch(pair)


async def test_a_blob_that_ends_early_is_not_whole(pair: Any) -> None:
    pair.bob.serve(PROTOCOL, liar(blob.give(3), b"ab"))
    with pytest.raises(ChannelClosed):
        await fetch(pair)


async def test_a_request_that_is_none_is_blamed(pair: Any) -> None:
    serve_blobs(pair.bob, find)
    channel = await pair.alice.open(pair.bob.peer, PROTOCOL)
    await channel.send(b"give")
    with trio.fail_after(10), pytest.raises(ChannelClosed):
        await channel.receive()
    assert [error.peer for error in pair.blamed] == [pair.alice.peer]


async def test_one_peer_gets_only_so_many_at_once(pair: Any) -> None:
    release, all_at_work = trio.Event(), trio.Event()
    at_work = 0

    async def slow(_peer: PeerId, _sha256: bytes) -> Blob:
        nonlocal at_work
        at_work += 1
        if at_work == BLOBS_PER_PEER_MAX:
            all_at_work.set()
        await release.wait()
        return of_bytes(CONTENT)

    serve_blobs(pair.bob, slow)
    channels = [await pair.alice.open(pair.bob.peer, PROTOCOL) for _ in range(BLOBS_PER_PEER_MAX)]
    for channel in channels:
        await channel.send(blob.ask(SHA256, 0))
    with trio.fail_after(10):
        await all_at_work.wait()
    with pytest.raises(Busy):
        await fetch(pair)
    release.set()
    for channel in channels:
        with trio.fail_after(10):
            assert blob.read_given(await channel.receive()) == len(CONTENT)
        await channel.aclose()


def test_a_reader_does_not_begin_past_the_end() -> None:
    with pytest.raises(Malformed):
        BlobReader(SHA256, 3, b"abcd")
