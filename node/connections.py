"""The connections that stand, as an operator sees them: how each peer is reached, since when, and what it has carried.

Hooks into py-libp2p's swarm where it takes in and lets go of a connection (`watch`). The path to a peer is `direct` if
any connection with it is, else `relayed`; that it appears, changes or goes is an event. What closed connections have
carried stays in the sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

from libp2p.connection_types import ConnectionType
from libp2p.network.swarm import Swarm

from node.libp2p.muxer import Muxer
from node.libp2p_host import peer_id
from node.reach.addresses import Endpoint, kind_of
from wire.peer import PeerId, to_text

Path = Literal["direct", "relayed"]
Emit = Callable[..., None]


@dataclass(frozen=True)
class ConnectionView:
    """One connection, for people. Bytes are those on the wire; None where py-libp2p's muxer does not count.

    Attributes:
        path, via: `direct`, or `relayed` and through which relay. direction: `inbound` if the peer made it.
        address: of the other end. transport: what carries it, such as `tcp`. since_ms: Unix milliseconds.
        streams: open now. rtt_ms: the last round trip measured.
    """

    path: Path
    via: str | None
    direction: str
    address: str | None
    transport: str
    since_ms: int
    streams: int
    bytes_in: int | None
    bytes_out: int | None
    rtt_ms: float | None


class Connections:
    """What stands; changed by the hooks that `watch` installs.

    Args:
        now_ms: Unix time in milliseconds.
        arrived: told of each peer that connects.
    """

    def __init__(self, now_ms: Callable[[], int], arrived: Callable[[PeerId], None]) -> None:
        self._now_ms = now_ms
        self._arrived = arrived
        self._of: dict[PeerId, dict[Any, int]] = {}
        self.emit: Emit | None = None
        self.opened: Counter[tuple[str, str]] = Counter()
        self.closed_bytes = [0, 0]
        self.closed_figures: Counter[str] = Counter()

    def watch(self, swarm: Swarm) -> None:
        """Follow what the swarm does from now on."""
        stock_add, stock_remove = swarm.add_conn, swarm.remove_conn

        async def add_conn(*args: Any, **options: Any) -> Any:
            connection = await stock_add(*args, **options)
            if connection.is_closed:  # it ended while the library took it in
                stock_remove(connection)
            self._open(connection)
            return connection

        def remove_conn(connection: Any) -> None:
            stock_remove(connection)
            self._close(connection)

        cast(Any, swarm).add_conn = add_conn
        cast(Any, swarm).remove_conn = remove_conn

    def _open(self, connection: Any) -> None:
        peer = peer_id(connection.muxed_conn.peer_id)
        known = self._of.setdefault(peer, {})
        if connection in known or connection.is_closed:
            if not known:
                del self._of[peer]
            return
        before = self.path(peer)
        known[connection] = self._now_ms()
        view = _view(connection, known[connection])
        self.opened[view.direction, view.path] += 1
        self._arrived(peer)
        self._tell(peer, before, view)

    def _close(self, connection: Any) -> None:
        peer = peer_id(connection.muxed_conn.peer_id)
        known = self._of.get(peer, {})
        if connection not in known:
            return
        before = self.path(peer)
        del known[connection]
        if not known:
            del self._of[peer]
        muxer = connection.muxed_conn
        if isinstance(muxer, Muxer):
            self.closed_bytes[0] += muxer.secured_conn.bytes_in
            self.closed_bytes[1] += muxer.secured_conn.bytes_out
            self.closed_figures.update(vars(muxer.core.figures))
        self._tell(peer, before, None)

    def _tell(self, peer: PeerId, before: Path | None, view: ConnectionView | None) -> None:
        now, emit = self.path(peer), self.emit
        if emit is None or now == before:
            return
        name = to_text(peer)
        if now is None:
            emit("peer_disconnected", peer=name)
        elif before is None:
            assert view is not None, "a peer appears with a connection"
            emit("peer_connected", peer=name, path=now, direction=view.direction, address=view.address)
        else:
            emit("path_changed", peer=name, path=now)

    # ---- what stands

    def path(self, peer: PeerId) -> Path | None:
        """How a peer is reached; None if no connection stands."""
        known = self._of.get(peer)
        if not known:
            return None
        return "direct" if any(not is_relayed(connection) for connection in known) else "relayed"

    def views(self, peer: PeerId) -> list[ConnectionView]:
        """The connections with a peer, the oldest first."""
        return [_view(connection, since) for connection, since in self._of.get(peer, {}).items()]

    def standing(self) -> Counter[tuple[str, str]]:
        """How many there are, by direction and path."""
        views = (_view(connection, 0) for known in self._of.values() for connection in known)
        return Counter((view.direction, view.path) for view in views)

    def muxers(self) -> list[Muxer]:
        """Our own muxers among them."""
        return [
            connection.muxed_conn
            for known in self._of.values()
            for connection in known
            if isinstance(connection.muxed_conn, Muxer)
        ]

    def bytes_moved(self) -> tuple[int, int]:
        """Bytes received and sent over all connections so far."""
        sessions = [muxer.secured_conn for muxer in self.muxers()]
        moved_in = self.closed_bytes[0] + sum(session.bytes_in for session in sessions)
        return moved_in, self.closed_bytes[1] + sum(session.bytes_out for session in sessions)

    def figures(self) -> Counter[str]:
        """What happened on all connections so far (`node.libp2p.yamux_state.Figures`)."""
        total = Counter(self.closed_figures)
        for muxer in self.muxers():
            total.update(vars(muxer.core.figures))
        return total

    def near(self) -> bool:
        """Whether a connection comes from this machine itself."""
        ends = (muxer.get_remote_address() for muxer in self.muxers())
        return any(end is not None and end[0] in ("127.0.0.1", "::1") for end in ends)


def is_relayed(connection: Any) -> bool:
    """Whether a connection of the library runs through a relay."""
    return connection.get_connection_type() is ConnectionType.RELAYED


def _view(connection: Any, since_ms: int) -> ConnectionView:
    muxer = connection.muxed_conn
    relayed, address, via = is_relayed(connection), None, None
    if relayed:
        through = [str(each) for each in muxer.get_transport_addresses()]
        address = next((each for each in through if "/p2p-circuit" in each), None)
        via = address.partition("/p2p-circuit")[0].rpartition("/p2p/")[2] if address else None
    elif (end := muxer.get_remote_address()) is not None:
        address = Endpoint(str(end[0]).partition("%")[0], int(end[1])).text()
    ours = muxer if isinstance(muxer, Muxer) else None
    rtt_s = ours.rtt_s if ours is not None else None
    return ConnectionView(
        path="relayed" if relayed else "direct",
        via=via,
        direction=str(connection.direction.name).lower(),
        address=address,
        transport=_transport(muxer, address),
        since_ms=since_ms,
        streams=len(ours.core.streams) if ours is not None else len(connection.get_streams()),
        bytes_in=ours.secured_conn.bytes_in if ours is not None else None,
        bytes_out=ours.secured_conn.bytes_out if ours is not None else None,
        rtt_ms=round(1000 * rtt_s, 3) if rtt_s is not None else None,
    )


def _transport(muxer: Any, address: str | None) -> str:
    """What carries the connection, as its addresses name it."""
    named = [kind_of(str(each)) for each in muxer.get_transport_addresses()]
    return next(iter(named), kind_of(address) if address else "tcp")
