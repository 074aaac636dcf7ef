"""Which connection with a peer is used: one of our own muxer that stands, a direct one before one through a relay.

A WebRTC connection as it is, without one of Noise and Yamux over it, comes between: its streams have no windows.
"""

from __future__ import annotations

from typing import Any, cast

from libp2p.connection_types import ConnectionType
from libp2p.network.swarm import Swarm

from node.libp2p.muxer import Muxer
from node.libp2p_host import libp2p_id
from wire.peer import PeerId


class Muxers:
    """Remembers the direct muxer used with each peer, for a look-up in the swarm costs as much as a small call."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._known: dict[PeerId, Muxer] = {}

    def of(self, peer: PeerId) -> Muxer | None:
        """None where no connection stands, or its muxer is py-libp2p's."""
        muxer = self._known.get(peer)
        if muxer is not None and not muxer.event_shutting_down.is_set():
            return muxer
        self._known = {each: known for each, known in self._known.items() if known.lost is None}
        muxers = [cast(Any, connection).muxed_conn for connection in self._swarm.get_connections(libp2p_id(peer))]
        standing = [one for one in muxers if isinstance(one, Muxer) and not one.event_shutting_down.is_set()]
        best = min(standing, key=_rank, default=None)
        if best is not None and not _rank(best):
            self._known[peer] = best
        return best


def _rank(muxer: Muxer) -> int:
    if muxer.get_connection_type() is not ConnectionType.DIRECT:
        return 2
    return int(not muxer.secured_conn.has_windows)
