"""Round trips to a peer over the transport that everything else uses: is it there, and how far away.

One frame of `NONCE_BYTES` goes out and must come back before the next, at most `PINGS_MAX` on a channel. The first time
includes dialling and the opening of the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from wire.errors import ChannelClosed, Malformed, RemoteError
from wire.peer import PeerId
from wire.transport import Channel, Transport

PROTOCOL = "/quorate/ping/1"
NONCE_BYTES = 32
PINGS_MAX = 16


@dataclass(frozen=True)
class Pinged:
    """Milliseconds until the first answer, opening included, and of each round trip afterwards."""

    first_ms: float
    rest_ms: list[float]


async def answer(channel: Channel) -> None:
    """Send back what comes.

    Raises:
        Malformed: another length, or more than `PINGS_MAX` frames.
    """
    for _ in range(PINGS_MAX):
        try:
            frame = await channel.receive()
        except ChannelClosed:
            return
        if len(frame) != NONCE_BYTES:
            raise Malformed(f"a ping of {len(frame)} bytes")
        await channel.send(frame)


async def ping(transport: Transport, peer: PeerId, count: int, nonce: Callable[[], bytes]) -> Pinged:
    """`count` round trips, one after the other; the caller bounds the time.

    Args:
        count: 1 to `PINGS_MAX`. nonce: gives `NONCE_BYTES` that nobody can foresee.

    Raises:
        Unreachable, ChannelClosed: no connection, or it ended. RemoteError: the peer sent something else back.
    """
    assert 1 <= count <= PINGS_MAX, "as many as a channel takes"
    began = trio.current_time()
    channel = await transport.open(peer, PROTOCOL)
    times: list[float] = []
    try:
        for _ in range(count):
            sent = nonce()
            await channel.send(sent)
            if await channel.receive() != sent:
                raise RemoteError(peer, "answered a ping with other bytes")
            now = trio.current_time()
            times.append(1000 * (now - began))
            began = now
    finally:
        await channel.aclose()
    return Pinged(times[0], times[1:])
