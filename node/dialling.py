"""Making connections: which address of a peer is tried when, and by what means.

Direct addresses are dialled one after the other, what worked last first, and those of the other version of IP beside
them after `STAGGER_S`; circuits through relays beside them after
`HEAD_START_S`, or at once when all direct ones have failed. Each kind of address has a way to be dialled (`ways`); a
kind without one is skipped. What became of every address goes into the book, so that the next dial is wiser.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import trio
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from node.address_book import AddressBook
from node.channel_libp2p import LOST
from node.figures import Outcomes
from node.libp2p_host import libp2p_id
from node.reach.addresses import Circuit, Endpoint, circuit, endpoint, kind_of, scope
from wire.errors import TransportError, Unreachable
from wire.peer import PeerId, short

DIAL_S = 5.0
"""Seconds for one address: TCP, Noise and Yamux together."""

STAGGER_S = 0.25
"""Seconds for the addresses of one version of IP before those of the other are dialled beside them."""

HEAD_START_S = 1.0
"""Seconds for the direct addresses of a peer before its relays are dialled beside them."""

DialCircuit = Callable[[PeerId, Circuit], Awaitable[None]]
"""Connects with a peer through a relay; raises `TransportError`."""

Way = Callable[[PeerId, str], Awaitable[None]]
"""Connects with a peer at an address of one kind; raises `TransportError` or one of `LOST`."""


class Dialler:
    """Connects with peers, one connection each; made by `node.transport_libp2p`.

    Args:
        book: where peers are, and what became of dialling them.
        now_ms: Unix time in milliseconds, for the book.
    """

    def __init__(self, host: BasicHost, swarm: Swarm, book: AddressBook, now_ms: Callable[[], int]) -> None:
        self._host = host
        self._swarm = swarm
        self._book = book
        self._now_ms = now_ms
        self._dialling: dict[PeerId, trio.Lock] = {}
        self._from_listening: set[PeerId] = set()
        self.dial_circuit: DialCircuit | None = None
        self.ways: dict[str, Way] = dict.fromkeys(("tcp", "ws", "wss"), self._dial_tcp)
        self.figures = Outcomes()

    # ---- what there is

    def is_connected(self, peer: PeerId) -> bool:
        """Whether a connection with `peer` stands."""
        return any(
            not connection.is_closed and not cast(Any, connection.muxed_conn).event_shutting_down.is_set()
            for connection in self._swarm.get_connections(libp2p_id(peer))
        )

    def from_listening(self, peer: PeerId) -> bool:
        """Whether the connection with `peer` was dialled from our listening port."""
        return peer in self._from_listening and self.is_connected(peer)

    def source(self, target: Endpoint) -> tuple[str, int] | None:
        """Where to dial a public endpoint from: the listening port, so that routers map it and hole punching works."""
        if scope(target.ip) != "public":
            return None
        for listened in self._host.get_addrs():
            at = endpoint(str(listened))
            if at is not None and (":" in at.ip) == (":" in target.ip) and scope(at.ip) != "loopback":
                return at.ip, at.port
        return None

    # ---- connecting

    async def connect(self, peer: PeerId) -> None:
        """Make sure of one connection; concurrent callers share the dial.

        Raises:
            Unreachable: no address is known, or each of them failed, now or a moment ago.
        """
        if self.is_connected(peer):
            return
        lock = self._dialling.setdefault(peer, trio.Lock())
        try:
            async with lock:
                if not self.is_connected(peer):
                    await self._dial(peer)
        finally:
            if not lock.locked():
                self._dialling.pop(peer, None)

    async def connect_directly(self, peer: PeerId, address: str) -> None:
        """Make a direct connection at one address, whatever connections there are.

        Raises:
            Unreachable: it failed.
        """
        reasons: list[str] = []
        if not await self._dial_directly(peer, [address], reasons):
            raise Unreachable(f"{short(peer)}: {'; '.join(reasons)}")

    async def _dial(self, peer: PeerId) -> None:
        """Directly; where the peer is known behind relays, through one of them if that takes long or fails."""
        reasons: list[str] = []
        known = self._book.addresses(peer, self._now_ms())
        if not known and (rest_ms := self._book.rest_ms(peer, self._now_ms())):
            raise Unreachable(f"{short(peer)}: nothing answered a moment ago; next try in {rest_ms / 1000:.1f} s")
        relayed = [found for address in known if (found := circuit(address, peer)) is not None]
        direct = [address for address in known if circuit(address, peer) is None]
        over = trio.Event()
        async with trio.open_nursery() as nursery:

            async def directly() -> None:
                if await self._dial_directly(peer, direct, reasons):
                    nursery.cancel_scope.cancel()
                over.set()

            nursery.start_soon(directly)
            if relayed:
                with trio.move_on_after(HEAD_START_S):
                    await over.wait()
                if await self._dial_relayed(peer, relayed, reasons):
                    nursery.cancel_scope.cancel()
        if not self.is_connected(peer):
            raise Unreachable(f"{short(peer)}: {'; '.join(reasons) or 'no address known'}")

    async def _dial_directly(self, peer: PeerId, addresses: Sequence[str], reasons: list[str]) -> bool:
        """In two lanes, one for each version of IP, the second a moment later; in a lane one after the other.

        Source: RFC 8305, section 5, which also puts the versions side by side.
        """
        lanes: dict[bool, list[str]] = {}
        for address in addresses:
            lanes.setdefault(address.startswith(("/ip6/", "/dns6/")), []).append(address)
        connected = False

        async def run(lane: list[str], over: trio.Event) -> None:
            nonlocal connected
            if await self._dial_in_turn(peer, lane, reasons):
                connected = True
                nursery.cancel_scope.cancel()
            over.set()

        async with trio.open_nursery() as nursery:
            for lane in lanes.values():
                over = trio.Event()
                nursery.start_soon(run, lane, over)
                with trio.move_on_after(STAGGER_S):
                    await over.wait()
        return connected

    async def _dial_in_turn(self, peer: PeerId, addresses: Sequence[str], reasons: list[str]) -> bool:
        for address in addresses:
            way = self.ways.get(kind_of(address))
            if way is None:
                reasons.append(f"{address}: this node has no way to dial it")
            elif await self._try(way, peer, address, reasons):
                return True
        return False

    async def _dial_relayed(self, peer: PeerId, relays: Sequence[Circuit], reasons: list[str]) -> bool:
        for relay in relays:
            through = self.dial_circuit
            if through is None:
                reasons.append(f"{relay.text()}: this node uses no relays")
                continue

            async def dial(peer: PeerId, _: str, relay: Circuit = relay, through: DialCircuit = through) -> None:
                await through(peer, relay)

            if await self._try(dial, peer, relay.text(), reasons):
                return True
        return False

    async def _try(self, way: Way, peer: PeerId, address: str, reasons: list[str]) -> bool:
        """Dial one address; the book and the figures hear what became of it, unless it was given up on our side."""
        kind, began = kind_of(address), trio.current_time()
        try:
            with trio.fail_after(DIAL_S):
                await way(peer, address)
        except trio.TooSlowError:
            reasons.append(f"{address}: no connection within {DIAL_S:g} s")
            outcome = "timeout"
        except TransportError as exc:
            reasons.append(f"{address}: {exc}")
            outcome = "failed"
        except LOST as exc:
            reasons.append(f"{address}: {exc.__cause__ or exc}")
            outcome = "failed"
        else:
            self._book.worked(peer, address, self._now_ms())
            outcome = "ok"
        if outcome != "ok":
            self._book.failed(peer, address, self._now_ms())
        self.figures.add(kind, outcome, trio.current_time() - began)
        return outcome == "ok"

    async def _dial_tcp(self, peer: PeerId, address: str) -> None:
        self._from_listening.discard(peer)
        at = endpoint(address)
        source = self.source(at) if at is not None else None
        if source is not None:
            # an earlier connection between the same two ports may linger, here or in a router that then swallows
            # what we send; a fresh port has no past
            with suppress(*LOST):
                await self._swarm.dial_addr(Multiaddr(address), libp2p_id(peer), source=source)
                self._from_listening = {known for known in self._from_listening if self.is_connected(known)} | {peer}
                return
        await self._swarm.dial_addr(Multiaddr(address), libp2p_id(peer))
