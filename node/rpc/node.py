"""All calls of a node, to any peer and from any peer.

    async with open_rpc(transport, blame=blame) as rpc:
        rpc.serve(DOUBLE, double)
        answer = await rpc.call(peer, DOUBLE, Ask(21), timeout_s=3.0)

One channel per peer for the calls we make, opened when it is needed and again when it was lost, and one for those it
makes; calls that are under way when a channel ends fail with it, for nobody knows whether they were carried out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import trio

from node.figures import Outcomes
from node.rpc.answering import Answering, Served
from node.rpc.calling import Link
from wire.codec import Wire
from wire.errors import (
    Busy,
    ChannelClosed,
    Expired,
    LocalError,
    Malformed,
    QuorateError,
    RemoteError,
    Unreachable,
)
from wire.memory import Memory
from wire.peer import PeerId
from wire.rpc import packet
from wire.rpc.caller import RETRY_S
from wire.rpc.frames import DEADLINE_MS_MAX, NAME_BYTES_MAX
from wire.rpc.packet import Packet
from wire.rpc.seam import PROTOCOL, Method, Stream
from wire.serving import Blame, Bug
from wire.transport import Channel, Transport

CHANNELS_MAX = 256
"""Peers to which a channel is kept."""

OUTCOMES: dict[type[QuorateError], str] = {
    Busy: "busy",
    ChannelClosed: "closed",
    Expired: "expired",
    RemoteError: "refused",
    Unreachable: "unreachable",
}
"""How a call that we made ended, for metrics."""

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)


class RpcNode:
    """See `wire.rpc.seam.Rpc`; made by `open_rpc`."""

    def __init__(
        self, transport: Transport, nursery: trio.Nursery, *, blame: Blame, on_bug: Bug | None, memory: Memory
    ) -> None:
        self._memory = memory
        self.answered, self.made = Outcomes(), Outcomes()
        self._transport = transport
        self._nursery = nursery
        self._blame = blame
        self._on_bug = on_bug
        self._links: dict[PeerId, Link] = {}
        self._served: dict[str, Served] = {}
        self._unary: dict[str, bool] = {}
        self._answering: dict[PeerId, tuple[Answering, trio.CancelScope, trio.Event]] = {}
        self._closed = self._stopping = False
        transport.serve(PROTOCOL, self._serve)

    def close(self) -> None:
        """Call and answer nobody any more: the transport, which runs our handlers, may outlive us."""
        self._closed = True
        for _, scope, _ in self._answering.values():
            scope.cancel()

    def take_no_more(self) -> None:
        """Refuse requests that come from now on, with `Busy`; those under way go on."""
        self._stopping = True
        for answering, _, _ in self._answering.values():
            answering.take_no_more()

    async def flushed(self) -> None:
        """Wait until the answers that we have are on their way."""
        while any(not answering.core.idle for answering, _, _ in self._answering.values()):  # noqa: ASYNC110 - at the end
            await trio.sleep(0.01)

    # ---- calling

    async def call(self, peer: PeerId, method: Method[Q, R], request: Q, *, timeout_s: float) -> R:
        """See `wire.rpc.seam.Rpc.call`."""
        return (await self.exchange(peer, method, Packet(request), timeout_s=timeout_s)).body

    async def exchange(self, peer: PeerId, method: Method[Q, R], packet_: Packet[Q], *, timeout_s: float) -> Packet[R]:
        """See `wire.rpc.seam.Rpc.exchange`."""
        parts = packet.encode(packet_.body, packet_.tensors)
        link = self._link(peer, timeout_s)
        began, outcome = trio.current_time(), "cancelled"
        try:
            message = await link.exchange(method.name.encode(), parts, zipping=method.compress, timeout_s=timeout_s)
            answer = packet.decode(method.answer, message)
            outcome = "ok"
            return answer
        except Malformed as exc:
            outcome = "malformed"
            raise RemoteError(peer, f"undecodable answer: {exc}") from exc
        except QuorateError as exc:
            outcome = next((name for kind, name in OUTCOMES.items() if isinstance(exc, kind)), "failed")
            raise
        finally:
            self.made.add(method.name, outcome, trio.current_time() - began)

    def stream(
        self, peer: PeerId, method: Method[Q, R], *, timeout_s: float
    ) -> AbstractAsyncContextManager[Stream[Q, R]]:
        """See `wire.rpc.seam.Rpc.stream`."""
        return self._link(peer, timeout_s).stream(method, timeout_s=timeout_s)

    def _link(self, peer: PeerId, timeout_s: float) -> Link:
        if not 0 < timeout_s <= DEADLINE_MS_MAX / 1000:
            raise LocalError(f"a call within {timeout_s} s")
        if self._closed:  # handlers that the transport runs may outlive us
            raise Unreachable("this node is stopping")
        link = self._links.get(peer)
        if link is not None and link.stale:
            link.close()
        if link is None or not link.alive:
            self._make_room()
            link = self._links[peer] = Link(self._transport, peer, self._blame, self._memory)
            self._nursery.start_soon(self._run_link, peer, link)
        return link

    def _make_room(self) -> None:
        """Close the channel that was not used for longest, if there are as many as there may be."""
        if len(self._links) < CHANNELS_MAX:
            return
        idle = [link for link in self._links.values() if link.alive and not link.core]
        if not idle:
            raise Busy(RETRY_S, "calls to too many peers under way")
        min(idle, key=lambda link: link.used_s).close()

    async def _run_link(self, peer: PeerId, link: Link) -> None:
        try:
            await link.run()
        finally:
            if self._links.get(peer) is link:
                del self._links[peer]

    def under_way(self) -> tuple[int, int]:
        """Calls that we make and requests that we answer, at this moment."""
        made = sum(len(link.core) for link in self._links.values())
        return made, sum(len(answering.core) for answering, _, _ in self._answering.values())

    # ---- answering

    def serve(self, method: Method[Q, R], handle: Callable[[PeerId, Q], Awaitable[R]]) -> None:
        """See `wire.rpc.seam.Rpc.serve`."""

        async def with_packets(peer: PeerId, request: Packet[Any]) -> Packet[Any]:
            if request.tensors:
                raise RemoteError(peer, f"tensors beside a request of {method.name}")
            return Packet(await handle(peer, request.body))

        self._register(Served(method, with_packets, None))

    def serve_packets(self, method: Method[Q, R], handle: Callable[[PeerId, Packet[Q]], Awaitable[Packet[R]]]) -> None:
        """See `wire.rpc.seam.Rpc.serve_packets`."""
        self._register(Served(method, handle, None))

    def serve_stream(self, method: Method[Q, R], handle: Callable[[Stream[R, Q]], Awaitable[None]]) -> None:
        """See `wire.rpc.seam.Rpc.serve_stream`."""
        self._register(Served(method, None, handle))

    def _register(self, served: Served) -> None:
        name = served.method.name
        assert 0 < len(name.encode()) <= NAME_BYTES_MAX, "a method has a short name"
        self._served[name] = served
        self._unary[name] = served.unary is not None

    async def _serve(self, channel: Channel) -> None:
        """A peer calls on one channel at a time: a newer one takes the place of the older, with its first frame.

        Handlers of channels that came together begin in any order, so that one that its peer has already given up may
        seem the newer; but it says nothing.
        """
        peer = channel.peer
        first = await channel.receive()
        if self._closed:
            return
        while (older := self._answering.get(peer)) is not None:
            older[1].cancel()
            await older[2].wait()
        answering = Answering(
            channel, self._served, self._unary, self._blame, self._on_bug, self._memory, self.answered
        )
        if self._stopping:
            answering.take_no_more()
        over = trio.Event()
        with trio.CancelScope() as scope:
            self._answering[peer] = (answering, scope, over)
            try:
                await answering.run(first)
            finally:
                del self._answering[peer]
                over.set()


@asynccontextmanager
async def open_rpc(
    transport: Transport, *, blame: Blame, on_bug: Bug | None = None, memory: Memory | None = None
) -> AsyncIterator[RpcNode]:
    """Calls over a transport that is up; leaving the scope ends those that are under way.

    Args:
        transport: any filling of the seam.
        blame: told of every peer that broke a rule.
        on_bug: told of errors of handlers that are nobody else's fault; without it they end the channel's handler,
            and what then happens is the transport's choice.
        memory: counts what peers make us hold, together with what the transport holds for them.
    """
    async with trio.open_nursery() as nursery:
        rpc = RpcNode(transport, nursery, blame=blame, on_bug=on_bug, memory=Memory() if memory is None else memory)
        try:
            yield rpc
        finally:
            rpc.close()
        nursery.cancel_scope.cancel()
