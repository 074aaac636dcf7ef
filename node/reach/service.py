"""Reachability of a node as one scope: the check, reservations on relays, hole punching, and the relay as a role.

    async with open_reach(transport, relays=[...], blame=blame) as reach:
        reach.view()

What is advertised follows from it: proven addresses first, then circuits through relays that hold a reservation for us,
then what we listen on and nobody has disproved. A node that strangers reach gives its reservations back. One that they
cannot reach, and for which `relays` names too few, finds others through a directory (`discover`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import trio

from node.doors.mapping import Mapping, open_mapping
from node.reach.check import Checker, ReachServer
from node.reach.circuit import Circuits
from node.reach.discovery import Discovery, offer
from node.reach.fresh import dial_back
from node.reach.messages import REACH_PROTOCOL
from node.reach.ports import Directory
from node.reach.punch import Puncher
from node.reach.quota import Limits
from node.reach.relay import Relay, relay_address
from node.reach.stun_server import StunServer
from node.reach.ways import Ways
from node.tasks import start_if_open
from node.transport_libp2p import Libp2pTransport
from wire.errors import LocalError
from wire.limits import ADDRESSES_PER_PEER_MAX
from wire.peer import PeerId, to_text
from wire.serving import Blame

RELAYS_MAX = 3
"""Relays on which a reservation is held at a time."""

UNSURE_S = 10.0
"""Seconds after which a node that nobody could check looks for relays."""

HOPE_S = 20.0
"""Seconds for which addresses that nobody has reached yet, and relays that were named, may come good."""

UPGRADES_MAX = 32
"""Peers with which a direct connection is being tried at a time."""


class Reach:
    """See `open_reach`."""

    def __init__(
        self,
        transport: Libp2pTransport,
        nursery: trio.Nursery,
        relays: Sequence[tuple[PeerId, str]],
        limits: Limits | None,
        relay_only_proven: bool,
        blame: Blame,
    ) -> None:
        self._transport = transport
        self._nursery = nursery
        self._relays = [relay for relay in relays if relay[0] != transport.peer][:RELAYS_MAX]
        self._keeping: trio.CancelScope | None = None
        self._upgrading: set[PeerId] = set()
        self.ways = Ways(*transport.network)
        self.checker = Checker(transport, transport, self.ways.seen, self._connections, self._changed)
        self.circuits = Circuits(self.ways, self._connect, self._changed, self._arrived)
        self.relay = Relay(self.ways, limits, self._direct_addresses) if limits is not None else None
        self.over_udp: Callable[[PeerId], Awaitable[bool]] | None = None
        """Tries a connection over UDP with a peer, where TCP could not be punched through."""
        self.stun = StunServer()
        self.discovery: Discovery | None = None
        self.earned_micro: Callable[[], int] = int
        self.paid_micro: Callable[[], int] = int
        """Micro-credits earned by relaying, and paid to relays, since the start: set by who keeps accounts."""
        self.mapping: Mapping | None = None
        self._began = trio.current_time()
        self._always_relays = not relay_only_proven
        self.puncher = Puncher(self.ways, self.checker.guesses, transport.dialler.source)
        self.server = ReachServer(self.ways.seen, dial_back, blame)

    def start(self) -> None:
        """Serve, and begin to check."""
        self._transport.serve(REACH_PROTOCOL, self.server.serve)
        self._transport.dialler.dial_circuit = self.circuits.dial
        self.circuits.serve()
        self.puncher.serve()
        self._changed()
        self._nursery.start_soon(self.checker.run)
        if self.relay is not None:
            self._nursery.start_soon(self.stun.serve, self._transport.bound())

    def map_by(self, mapping: Mapping) -> None:
        """Check the port that a router says it opened, too."""
        self.mapping = mapping
        self.checker.mapped_port = lambda: mapping.port

    def discover(self, directory: Directory, rng: Random) -> None:
        """Find relays where strangers cannot reach us; be found as one where they can, and we are."""
        named = [relay for relay, _ in self._relays]
        self.discovery = Discovery(self._transport.peer, self.circuits, directory, named, self._relays_wanted, rng)
        start_if_open(self._nursery, self.discovery.run)
        if (relay := self.relay) is not None:
            start_if_open(self._nursery, offer, directory, self._offered, lambda: relay.quota.load)

    # ---- what it shows

    def view(self) -> dict[str, Any]:
        """How we are reached, for the API and the doctor."""
        seen = self.checker.seen
        peers = self._transport.connected()
        return {
            "nat": self.checker.kind.value,
            "seen": seen.text() if seen is not None else None,
            "proven": [at.text() for at in self.checker.proven()],
            "claims": [
                {"address": at.text(), "reached": reached, "failed": failed}
                for at, reached, failed in self.checker.claims()
            ],
            "relays": [to_text(relay) for relay in self.circuits.held],
            "relays_configured": len(self._relays),
            "relays_known": self.discovery.known if self.discovery is not None else 0,
            "peers_direct": sum(bool(self.ways.direct(peer)) for peer in peers),
            "peers_over_udp": sum(bool(self.ways.over_udp(peer)) for peer in peers),
            "peers_relayed": sum(not self.ways.direct(peer) for peer in peers),
            "relays_paid_micro": self.paid_micro(),
            "relaying": self._relaying(),
            "mapping": self.mapping.view() if self.mapping is not None else None,
        }

    def _relaying(self) -> dict[str, Any] | None:
        if self.relay is None:
            return None
        quota = self.relay.quota
        return {
            "serving": self.relay.serving,
            "reservations": quota.reservations,
            "reservations_max": quota.limits.reservations_max,
            "circuits": quota.circuits,
            "circuits_max": quota.limits.circuits_max,
            "refused": quota.refused,
            "bytes_passed": self.relay.bytes_passed,
            "earned_micro": self.earned_micro(),
        }

    # ---- what follows from what

    def _changed(self) -> None:
        """Advertise what is true now, and hold reservations as long as strangers cannot reach us."""
        me = to_text(self._transport.peer)
        proven = [at.text() for at in self.checker.proven()]
        circuits = [] if proven else [circuit.text() for circuit in self.circuits.held.values()]
        self._transport.advertise(
            [f"{text}/p2p/{me}" for text in [*proven, *circuits][:ADDRESSES_PER_PEER_MAX]],
            hide=self.checker.disproved(),
        )
        if self.relay is not None:
            self.relay.serve(self._always_relays or bool(proven))
        if proven and self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
            self.circuits.held.clear()
        elif not proven and self._keeping is None and self._relays:
            self._keeping = trio.CancelScope()
            start_if_open(self._nursery, self._keep, self._keeping)

    def _relays_wanted(self) -> int:
        """How many relays to find; none while strangers may yet reach us, or relays that were named let us in."""
        up_s = trio.current_time() - self._began
        settled = self.checker.checked or up_s >= UNSURE_S
        hopeful = up_s < HOPE_S and (self.checker.hopeful or bool(self._relays))
        if self.checker.proven() or not settled or hopeful:
            return 0
        named = sum(relay in self.circuits.held for relay, _ in self._relays)
        return RELAYS_MAX - named

    def _offered(self) -> list[str]:
        """Where strangers reach us as a relay; empty while we are none."""
        if self.relay is None or not self.relay.serving:
            return []
        me = to_text(self._transport.peer)
        return [f"{at.text()}/p2p/{me}" for at in self.checker.proven()]

    async def _keep(self, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for relay, address in self._relays:
                    nursery.start_soon(self.circuits.keep, relay, address)

    def _connections(self, peer: PeerId) -> object:
        return [id(conn) for conn in self.ways.direct(peer)]

    async def _connect(self, relay: PeerId, address: str) -> None:
        if not self.ways.direct(relay):
            await self._transport.dialler.connect_directly(relay, address)

    def _arrived(self, peer: PeerId) -> None:
        if peer in self._upgrading or len(self._upgrading) >= UPGRADES_MAX:
            return
        if start_if_open(self._nursery, self._upgrade, peer):
            self._upgrading.add(peer)

    async def _upgrade(self, peer: PeerId) -> None:
        before = self.ways.direct(peer)
        try:
            if await self.puncher.upgrade(peer) or self.over_udp is None:
                return
            if await self.over_udp(peer):
                await self.puncher.retire(peer, before)
        finally:
            self._upgrading.discard(peer)

    def _direct_addresses(self) -> list[str]:
        me = to_text(self._transport.peer)
        proven = [f"{at.text()}/p2p/{me}" for at in self.checker.proven()]
        return list(dict.fromkeys([*proven, *self._transport.listening()]))[:ADDRESSES_PER_PEER_MAX]


@asynccontextmanager
async def open_reach(
    transport: Libp2pTransport,
    *,
    relays: Sequence[str] = (),
    limits: Limits | None = None,
    relay_only_proven: bool = False,
    map_port: Collection[str] = (),
    blame: Blame,
) -> AsyncIterator[Reach]:
    """Being reached, for as long as the scope lasts.

    Args:
        relays: direct addresses, each ending in the relay's peer id; the first `RELAYS_MAX` are used.
        limits: be a relay for others, within these; None is no relay.
        relay_only_proven: be one only while strangers are known to reach us.
        map_port: by which means (`node.doors.mapping.MEANS`) to have the router open our port.
        blame: told of peers that send malformed requests.

    Raises:
        LocalError: a relay's address does not end in its peer id.
    """
    known = []
    for text in relays:
        if (relay := relay_address(text)) is None:
            raise LocalError(f"relays: {text!r} does not end in /p2p/<peer id>")
        known.append(relay)
    async with trio.open_nursery() as nursery:
        reach = Reach(transport, nursery, known, limits, relay_only_proven, blame)
        reach.start()
        async with AsyncExitStack() as stack:
            if map_port:
                reach.map_by(await stack.enter_async_context(open_mapping(reach.checker.listening, means=map_port)))
            yield reach
        nursery.cancel_scope.cancel()
