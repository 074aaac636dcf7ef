"""Pings over every filling of the seam: answered, refused where they are not pings, never more than were asked for."""

from __future__ import annotations

import pytest
import trio

from node import pings
from tests.contract.conftest import Pair
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.transport import Channel


def nonces() -> bytes:
    return bytes(range(pings.NONCE_BYTES))


async def asked(channel: Channel) -> bytes:
    """One more ping, and its answer."""
    await channel.send(nonces())
    return await channel.receive()


async def test_every_ping_comes_back(pair: Pair) -> None:
    pair.bob.serve(pings.PROTOCOL, pings.answer)
    found = await pings.ping(pair.alice, pair.bob.peer, pings.PINGS_MAX, nonces)
    assert len(found.rest_ms) == pings.PINGS_MAX - 1
    assert min(found.first_ms, *found.rest_ms) >= 0
    assert pair.blamed == []


async def test_a_peer_that_does_not_answer_pings_is_unreachable(pair: Pair) -> None:
    with pytest.raises((Unreachable, ChannelClosed)):
        await pings.ping(pair.alice, pair.bob.peer, 1, nonces)


async def test_other_bytes_are_the_peers_fault(pair: Pair) -> None:
    async def lie(channel: Channel) -> None:
        await channel.receive()
        await channel.send(bytes(pings.NONCE_BYTES))

    pair.bob.serve(pings.PROTOCOL, lie)
    with pytest.raises(RemoteError, match="other bytes"):
        await pings.ping(pair.alice, pair.bob.peer, 1, nonces)


@pytest.mark.parametrize("frame", [b"", b"x" * (pings.NONCE_BYTES + 1)])
async def test_what_is_no_ping_is_blamed_and_not_answered(pair: Pair, frame: bytes) -> None:
    pair.bob.serve(pings.PROTOCOL, pings.answer)
    channel = await pair.alice.open(pair.bob.peer, pings.PROTOCOL)
    await channel.send(frame)
    with pytest.raises(ChannelClosed):
        await channel.receive()
    assert [error.reason for error in pair.blamed] == [f"malformed frame: a ping of {len(frame)} bytes"]


async def test_a_channel_takes_so_many_pings_and_no_more(pair: Pair) -> None:
    pair.bob.serve(pings.PROTOCOL, pings.answer)
    channel = await pair.alice.open(pair.bob.peer, pings.PROTOCOL)
    for _ in range(pings.PINGS_MAX):
        await channel.send(nonces())
        assert await channel.receive() == nonces()
    with pytest.raises(ChannelClosed), trio.fail_after(30):
        await asked(channel)
