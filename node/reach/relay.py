"""A circuit relay v2: lets peers that nobody can dial be reached through us. Bytes pass as they are, sealed end to end.

    guest  --RESERVE-->  relay                       a reservation, while the guest stays connected
    caller --CONNECT-->  relay --CONNECT--> guest    then both streams are spliced

A guest is whoever the handshake proved, never a name in a message; nobody is dialled on anybody's behalf; nothing is
accepted over a connection that is itself relayed. What each may use is decided by `quota`. A circuit that is used up,
too old or idle ends by a reset, and its ends come back through another.
Source: github.com/libp2p/specs, relay/circuit-v2.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import trio
from multiaddr import Multiaddr

from node.libp2p_host import libp2p_id, peer_id
from node.reach.circuit_messages import HOP, STOP, Hop, Kind, Reservation, Status, Stop
from node.reach.meter import Meter
from node.reach.quota import Limits, Pace, Quota
from node.reach.ways import FAILED, READ_BYTES, ByteStream, Ways
from wire.errors import ChannelClosed, Malformed, TransportError
from wire.peer import PeerId, from_text

IDLE_S = 900.0
"""Seconds without a byte after which a circuit is ended."""


PATIENCE_S = 10.0
"""Seconds for which a circuit waits for its guest to acknowledge what was passed before."""


class Budget:
    """Bytes that a circuit may still pass, both ways together."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether so many may pass."""
        self.left -= size
        return self.left >= 0


class Relay:
    """See the module.

    Args:
        addresses: where this relay is dialled, as direct addresses that end in its peer id.
    """

    def __init__(self, ways: Ways, limits: Limits, addresses: Callable[[], Sequence[str]]) -> None:
        self._ways = ways
        self._addresses = addresses
        self.quota = Quota(limits)
        self.pace = Pace(limits.bytes_per_s)
        self.meter = Meter(limits)
        self._somebody_paid = trio.Event()
        self.bytes_passed = 0
        self.serving = False

    def serve(self, wanted: bool) -> None:
        """Answer, or answer no more; circuits that stand stay."""
        if wanted and not self.serving:
            self._ways.serve(HOP, self._hop)
        elif self.serving and not wanted:
            self._ways.refuse(HOP)
        self.serving = wanted

    async def _hop(self, stream: ByteStream) -> None:
        try:
            asked = Hop.decode(await stream.message())
        except Malformed:
            await self._refuse(stream, Status.MALFORMED_MESSAGE)
            return
        if stream.relayed:
            await self._refuse(stream, Status.PERMISSION_DENIED)
        elif asked.kind is Kind.RESERVE:
            await self._reserve(stream)
        elif asked.kind is Kind.CONNECT:
            await self._connect(stream, asked)
        else:
            await self._refuse(stream, Status.UNEXPECTED_MESSAGE)

    async def _refuse(self, stream: ByteStream, status: Status) -> None:
        await stream.write(Hop(Kind.STATUS, status=status).encode())
        await stream.close()

    async def _reserve(self, stream: ByteStream) -> None:
        await self._ways.supersede(stream)
        seen = self._ways.seen(stream.peer)
        ends = self.quota.reserve(stream.peer, seen.ip, trio.current_time()) if seen is not None else None
        if ends is None:
            await self._refuse(stream, Status.RESERVATION_REFUSED)
            return
        here = tuple(Multiaddr(address).to_bytes() for address in self._addresses())
        expire_s = int(time.time() + ends - trio.current_time())
        limit = self.quota.limits.of_circuit()
        await stream.write(Hop(Kind.STATUS, b"", Status.OK, Reservation(expire_s, here), limit).encode())
        await stream.close()

    async def _connect(self, stream: ByteStream, asked: Hop) -> None:
        guest = _named(asked.peer)
        if guest is not None and not self._ways.direct(guest):
            self.quota.drop(guest)
        status = Status.MALFORMED_MESSAGE
        seen = self._ways.seen(stream.peer)
        if guest is not None and seen is not None:
            status = self.quota.connect(stream.peer, seen.ip, guest, trio.current_time())
            if status is Status.OK and not self.meter.may(guest, self._subnet(guest), trio.current_time()):
                self.quota.disconnect(stream.peer, seen.ip, guest)
                status = Status.RESOURCE_LIMIT_EXCEEDED
        if guest is None or seen is None or status is not Status.OK:
            await self._refuse(stream, status)
            return
        try:
            inner = await self._call(stream.peer, guest)
            if inner is None:
                await self._refuse(stream, Status.CONNECTION_FAILED)
                return
            await self._splice(stream, inner)
        finally:
            self.quota.disconnect(stream.peer, seen.ip, guest)

    async def _call(self, caller: PeerId, guest: PeerId) -> ByteStream | None:
        """The guest's end of a circuit, if it wants the caller."""
        try:
            inner = await self._ways.open(guest, STOP)
        except TransportError:
            return None
        try:
            name = libp2p_id(caller).to_bytes()
            await inner.write(Stop(True, name, limit=self.quota.limits.of_circuit()).encode())
            answer = Stop.decode(await inner.message())
        except (*FAILED, Malformed, ChannelClosed):
            await inner.reset()
            return None
        if answer.connect or answer.status != Status.OK:
            await inner.reset()
            return None
        return inner

    async def _splice(self, outer: ByteStream, inner: ByteStream) -> None:
        limits = self.quota.limits
        budget = Budget(limits.circuit_bytes_max)
        over = False
        try:
            await outer.write(Hop(Kind.STATUS, b"", Status.OK, None, limits.of_circuit()).encode())
            with trio.move_on_after(limits.circuit_s):
                async with trio.open_nursery() as nursery:
                    for source, sink in ((outer.raw(), inner), (inner.raw(), outer)):
                        nursery.start_soon(self._pass, inner.peer, source, sink, budget, nursery.cancel_scope)
                over = not nursery.cancel_scope.cancelled_caught
        except FAILED:
            over = False
        finally:
            if not over:
                await outer.reset()
                await inner.reset()

    async def _pass(
        self, guest: PeerId, source: ByteStream, sink: ByteStream, budget: Budget, circuit: trio.CancelScope
    ) -> None:
        try:
            while True:
                with trio.fail_after(IDLE_S):
                    data = await source.read(READ_BYTES)
                if not data:
                    await sink.close()
                    return
                if not budget.take(len(data)) or not await self._metered(guest, len(data)):
                    circuit.cancel()
                self.bytes_passed += len(data)
                if wait_s := self.pace.take(guest, len(data), trio.current_time()):
                    await trio.sleep(wait_s)
                await sink.write(data)
        except FAILED:
            circuit.cancel()

    def _subnet(self, guest: PeerId) -> str:
        return self.quota.subnet(guest) or ""

    async def _metered(self, guest: PeerId, size: int) -> bool:
        """Whether so many bytes may pass, after waiting for the guest to acknowledge earlier ones if need be."""
        with trio.move_on_after(PATIENCE_S):
            while (answer := self.meter.take(guest, self._subnet(guest), size, trio.current_time())) == "wait":
                await self._somebody_paid.wait()
            return answer == "pass"
        return False

    def paid(self, guest: PeerId, size: int) -> None:
        """A guest has paid for so many bytes."""
        self.meter.paid(guest, size)
        self._somebody_paid.set()
        self._somebody_paid = trio.Event()


def _named(identity: bytes) -> PeerId | None:
    from libp2p.peer.id import ID

    try:
        return peer_id(ID(identity)) if identity else None
    except Malformed:
        return None


def relay_address(text: str) -> tuple[PeerId, str] | None:
    """A relay and where it is dialled, from a direct address that ends in its peer id."""
    address, found, name = text.rpartition("/p2p/")
    try:
        return (from_text(name), address) if found else None
    except Malformed:
        return None
