"""Identities, operations and an in-memory network for the tests of `crdt`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import trio
from nacl.signing import SigningKey

from crdt.namespace import Namespace
from crdt.op import Change, Op, SignedOp, sign
from crdt.replica import Replica
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.peer import PeerId
from wire.serving import run_handler
from wire.transport import Channel, Handler

NOW_MS = 1_800_000_000_000


class Key:
    """A signer made from a name."""

    def __init__(self, name: str) -> None:
        self._key = SigningKey(hashlib.sha256(name.encode()).digest())
        self.peer = PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


def signed(
    key: Key,
    change: Change,
    *,
    namespace: str = "notes",
    after: SignedOp | None = None,
    parents: Sequence[SignedOp] = (),
    stamp: int = NOW_MS << 16,
) -> SignedOp:
    """An operation made by hand, as a liar could make it."""
    seq = 1 if after is None else after.op.seq + 1
    previous = None if after is None else after.id
    return sign(key, Op(1, namespace, seq, previous, sorted(one.id for one in parents), stamp, change))


def replica(kind: str = "map", policy: str = "open", **rules: int) -> Replica:
    """An empty replica of the namespace "notes"."""
    return Replica(Namespace("notes", kind, policy, **rules))  # type: ignore[arg-type]  # literals given as text


class _End:
    """One end of an in-memory channel; sending into a network that was cut ends it."""

    def __init__(
        self,
        net: Net,
        own: PeerId,
        peer: PeerId,
        send: trio.MemorySendChannel[bytes],
        receive: trio.MemoryReceiveChannel[bytes],
    ) -> None:
        self.peer = peer
        self._net = net
        self._own = own
        self._send = send
        self._receive = receive

    async def send(self, frame: bytes) -> None:
        if self._net.cut(self._own, self.peer):
            self._send.close()
        try:
            await self._send.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ChannelClosed("closed") from exc

    async def receive(self) -> bytes:
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as exc:
            raise ChannelClosed("closed") from exc

    async def aclose(self) -> None:
        self._send.close()


class Net:
    """A network in memory; `cut` says which pairs cannot reach each other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.handlers: dict[tuple[PeerId, str], Handler] = {}
        self.cut: Callable[[PeerId, PeerId], bool] = lambda one, other: False
        self.blamed: list[RemoteError] = []

    def transport(self, peer: PeerId) -> MemoryTransport:
        return MemoryTransport(self, peer)


class MemoryTransport:
    """The Transport seam of one peer on a `Net`."""

    def __init__(self, net: Net, peer: PeerId) -> None:
        self._net = net
        self.peer = peer

    async def open(self, peer: PeerId, protocol: str) -> Channel:
        await trio.lowlevel.checkpoint()
        handler = self._net.handlers.get((peer, protocol))
        if handler is None or self._net.cut(self.peer, peer):
            raise Unreachable("no such peer")
        there, from_here = trio.open_memory_channel[bytes](math.inf)
        back, from_there = trio.open_memory_channel[bytes](math.inf)
        self._net.nursery.start_soon(self._handle, handler, _End(self._net, peer, self.peer, back, from_here))
        return _End(self._net, self.peer, peer, there, from_there)

    async def _handle(self, handler: Handler, channel: Channel) -> None:
        try:
            await run_handler(handler, channel, blame=self._net.blamed.append, on_bug=None)
        finally:
            await channel.aclose()

    def serve(self, protocol: str, handler: Handler) -> None:
        self._net.handlers[self.peer, protocol] = handler

    def addresses(self) -> list[str]:
        return []

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        pass
