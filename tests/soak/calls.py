"""The calls of the soak: each kind that there is, answered, refused, given up by either side, or cut off."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from random import Random

import numpy as np
import trio

from node.rpc.blobs import fetch_blob
from node.rpc.node import RpcNode
from node.transport_libp2p import Libp2pTransport
from wire.codec import Wire
from wire.errors import QuorateError
from wire.peer import PeerId
from wire.rpc.packet import Packet
from wire.rpc.seam import Method, Stream

ANSWER_S = 60.0
"""Patience with a call that is answered: on a busy machine that takes long, and one that is cut off ends at once."""

ENDS_S = 120.0
"""By then every call has ended, or the soak has found what it looks for."""

BLOB = bytes(range(256)) * 1200
BLOB_ID = hashlib.sha256(BLOB).digest()


class Number(Wire, frozen=True):
    """All that is said."""

    value: int
    filling: bytes = b""


ECHO = Method("soak.echo", Number, Number)
TENSOR = Method("soak.tensor", Number, Number)
COUNT = Method("soak.count", Number, Number)
SUM = Method("soak.sum", Number, Number)
NEVER = Method("soak.never", Number, Number)
NOWHERE = Method("soak.nowhere", Number, Number)


def serve_calls(rpc: RpcNode) -> None:
    """Answer all but `NOWHERE`."""

    async def echo(_peer: PeerId, number: Number) -> Number:
        return number

    async def tensor(_peer: PeerId, packet: Packet[Number]) -> Packet[Number]:
        return packet

    async def count(stream: Stream[Number, Number]) -> None:
        asked = await stream.receive()
        for value in range(asked.body.value if asked is not None else 0):
            await stream.send(Number(value, bytes(2000)))

    async def add(stream: Stream[Number, Number]) -> None:
        total = 0
        async for packet in stream:
            total += packet.body.value
        await stream.send(Number(total), last=True)

    async def never(_peer: PeerId, number: Number) -> Number:
        await trio.sleep_forever()
        return number

    rpc.serve(ECHO, echo)
    rpc.serve_packets(TENSOR, tensor)
    rpc.serve_stream(COUNT, count)
    rpc.serve_stream(SUM, add)
    rpc.serve(NEVER, never)


class Caller:
    """Makes them."""

    def __init__(self, transport: Libp2pTransport, rpc: RpcNode) -> None:
        self._transport = transport
        self._rpc = rpc
        self._kinds: dict[str, Callable[[PeerId, Random], Awaitable[None]]] = {
            "unary": self._unary,
            "tensor": self._tensor,
            "count": self._count,
            "sum": self._sum,
            "left": self._left,
            "expired": self._expired,
            "cancelled": self._cancelled,
            "unknown": self._unknown,
            "blob": self._blob,
            "no blob": self._no_blob,
        }

    async def one(self, peer: PeerId, rng: Random) -> str:
        """One call of any kind; its kind and how it ended, `ok` or the name of a typed error.

        Raises:
            Exception: another error than calls end with, a wrong answer, or no end at all.
        """
        kind = rng.choice(list(self._kinds))
        with trio.fail_after(ENDS_S):
            try:
                await self._kinds[kind](peer, rng)
            except QuorateError as exc:
                return f"{kind}: {type(exc).__name__}"
        return f"{kind}: ok"

    async def _unary(self, peer: PeerId, rng: Random) -> None:
        number = Number(rng.randrange(1 << 30), bytes(rng.choice((10, 1000, 10_000))))
        assert await self._rpc.call(peer, ECHO, number, timeout_s=ANSWER_S) == number

    async def _tensor(self, peer: PeerId, rng: Random) -> None:
        tensor = np.full(rng.randrange(100_000), 7, dtype="u1")
        got = await self._rpc.exchange(peer, TENSOR, Packet(Number(1), (tensor,)), timeout_s=ANSWER_S)
        assert np.array_equal(got.tensors[0], tensor)

    async def _count(self, peer: PeerId, rng: Random) -> None:
        wanted = rng.randrange(1, 40)
        async with self._rpc.stream(peer, COUNT, timeout_s=ANSWER_S) as stream:
            await stream.send(Number(wanted), last=True)
            assert [packet.body.value async for packet in stream] == list(range(wanted))

    async def _sum(self, peer: PeerId, rng: Random) -> None:
        values = [rng.randrange(100) for _ in range(rng.randrange(20))]
        async with self._rpc.stream(peer, SUM, timeout_s=ANSWER_S) as stream:
            for value in values:
                await stream.send(Number(value))
            stream.finish()
            answer = await stream.receive()
            assert answer is not None
            assert answer.body.value == sum(values)

    async def _left(self, peer: PeerId, _rng: Random) -> None:
        """A stream that its caller leaves in the middle."""
        async with self._rpc.stream(peer, COUNT, timeout_s=ANSWER_S) as stream:
            await stream.send(Number(1000), last=True)
            assert await stream.receive() is not None

    async def _expired(self, peer: PeerId, rng: Random) -> None:
        """Ends with `Expired` where nothing else happens first."""
        await self._rpc.call(peer, NEVER, Number(0), timeout_s=rng.choice((0.02, 0.2)))

    async def _cancelled(self, peer: PeerId, rng: Random) -> None:
        with trio.move_on_after(rng.choice((0.0, 0.01, 0.1))):
            await self._rpc.call(peer, NEVER, Number(0), timeout_s=ANSWER_S)

    async def _unknown(self, peer: PeerId, _rng: Random) -> None:
        """Ends with `Refused`."""
        await self._rpc.call(peer, NOWHERE, Number(0), timeout_s=ANSWER_S)

    async def _blob(self, peer: PeerId, _rng: Random) -> None:
        got = bytearray()

        async def keep(chunk: bytes) -> None:
            got.extend(chunk)

        assert await fetch_blob(self._transport, peer, BLOB_ID, keep, bytes_max=1 << 20) == len(BLOB)
        assert got == BLOB

    async def _no_blob(self, peer: PeerId, _rng: Random) -> None:
        """Ends with `Refused`."""

        async def keep(_chunk: bytes) -> None:
            raise AssertionError("there is no such blob")

        await fetch_blob(self._transport, peer, bytes(32), keep, bytes_max=1 << 20)
