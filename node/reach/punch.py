"""From a relayed to a direct connection: DCUtR over TCP, with the relayed one kept until nothing uses it any more.

The peer that was called opens `/libp2p/dcutr` over the relayed connection, both tell where others see their listening
port, the called one measures the round trip and says `SYNC`; the caller dials at once, the called one half a round trip
later, both from their listening ports. The two SYNs cross, each opens its own router for the other, and TCP merges them
into one connection (simultaneous open), on which the caller begins the handshake. Beside that the called peer dials
plainly from another port, which is all it takes where the caller can be dialled.
Source: github.com/libp2p/specs, relay/DCUtR.md; RFC 9293, section 3.5 (simultaneous open).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import trio
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from node.reach.addresses import Endpoint, endpoint, scope
from node.reach.circuit_messages import DCUTR, HolePunch
from node.reach.ways import FAILED, ByteStream, Ways
from wire.errors import Malformed, TransportError
from wire.peer import PeerId

ROUNDS = 3
ROUND_S = 1.5
"""Seconds for the dials of one round."""

TARGETS_MAX = 4
IDLE_LOOK_S = 1.0
"""How often a relayed connection beside a direct one is looked at."""


class Puncher:
    """Both parts.

    Args:
        here: where others may see our listening port, the likeliest first.
        source: where to dial an endpoint from; None for a fresh port.
    """

    def __init__(
        self,
        ways: Ways,
        here: Callable[[], Awaitable[Sequence[Endpoint]]],
        source: Callable[[Endpoint], tuple[str, int] | None],
    ) -> None:
        self._ways = ways
        self._here = here
        self._source = source

    def serve(self) -> None:
        """Answer those whom we called through a relay."""
        self._ways.serve(DCUTR, self._answer)

    async def upgrade(self, peer: PeerId) -> bool:
        """Try to get a direct connection with a peer that called us through a relay; whether there is one.

        One that stood before does not count: who comes through a relay has lost it, though we may not know yet.
        """
        before = self._ways.direct(peer)
        for _ in range(ROUNDS):
            try:
                await self._round(peer)
            except (*FAILED, TransportError, Malformed):
                await trio.sleep(ROUND_S)
            if any(conn not in before for conn in self._ways.direct(peer)):
                await self.retire(peer, before)
                return True
        return False

    async def _round(self, peer: PeerId) -> None:
        stream = await self._ways.open(peer, DCUTR)
        try:
            hello = await self._hello()
            began = trio.current_time()
            await stream.write(hello)
            there = _targets(HolePunch.decode(await stream.message()))
            round_trip_s = trio.current_time() - began
            await stream.write(HolePunch(sync=True).encode())
            async with trio.open_nursery() as nursery:
                for at in there:
                    nursery.start_soon(self._try, peer, at, None, False, nursery.cancel_scope)
                await trio.sleep(round_trip_s / 2)
                for at in there:
                    nursery.start_soon(self._try, peer, at, self._source(at), True, nursery.cancel_scope)
                await trio.sleep(ROUND_S)  # as long as the caller tries
        finally:
            await stream.close()

    async def _answer(self, stream: ByteStream) -> None:
        """The caller's part; over a relayed connection only, since it makes us dial."""
        asked = HolePunch.decode(await stream.message())
        if asked.sync or not stream.relayed:
            raise Malformed("a hole punch begins with addresses, over a relay")
        await stream.write(await self._hello())
        if not HolePunch.decode(await stream.message()).sync:
            raise Malformed("then comes the sign to begin")
        async with trio.open_nursery() as nursery:
            for at in _targets(asked):
                nursery.start_soon(self._try, stream.peer, at, self._source(at), False, nursery.cancel_scope)
        await stream.close()

    async def _try(
        self, peer: PeerId, at: Endpoint, source: tuple[str, int] | None, answering: bool, others: trio.CancelScope
    ) -> None:
        with trio.move_on_after(ROUND_S):
            try:
                await self._ways.dial(peer, at, source=source, answering=answering)
            except TransportError:
                return
            others.cancel()

    async def retire(self, peer: PeerId, stale: Sequence[object]) -> None:
        """Close the relayed connections once no stream uses them, for as long as the new direct one stands."""
        while any(conn not in stale for conn in self._ways.direct(peer)) and (relayed := self._ways.relayed(peer)):
            for conn in relayed:
                if not self._ways.in_use(conn):
                    await cast(Any, conn).close()
            await trio.sleep(IDLE_LOOK_S)

    async def _hello(self) -> bytes:
        here = (await self._here())[:TARGETS_MAX]
        return HolePunch(False, tuple(Multiaddr(at.text()).to_bytes() for at in here)).encode()


def _targets(said: HolePunch) -> list[Endpoint]:
    """Public addresses only: nobody has us knock on doors of our own network."""
    found = []
    for raw in said.addresses:
        try:
            at = endpoint(str(Multiaddr(raw)))
        except (MultiaddrError, ValueError):
            continue
        if at is not None and scope(at.ip) == "public":
            found.append(at)
    return list(dict.fromkeys(found))[:TARGETS_MAX]
