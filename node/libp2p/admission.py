"""How many streams of one peer are worked on at once, over all of its connections."""

from __future__ import annotations

from node.libp2p.muxed_stream import MuxedStream
from wire.limits import CHANNELS_PER_PEER_MAX
from wire.peer import PeerId

HANDLERS_PER_PEER_MAX = 4 * CHANNELS_PER_PEER_MAX
"""Handlers at work for one peer, those included whose stream it has finished."""


class Admission:
    """Counts streams in the order in which they were opened."""

    def __init__(self) -> None:
        self._of: dict[PeerId, set[MuxedStream]] = {}

    def admit(self, peer: PeerId, stream: MuxedStream) -> bool:
        """Whether `peer` may have one more. What it has finished, while our handler is about to, is not open."""
        known = self._of.setdefault(peer, set())
        still_open = sum(not each.state.received_all for each in known)
        if still_open >= CHANNELS_PER_PEER_MAX or len(known) >= HANDLERS_PER_PEER_MAX:
            return False
        known.add(stream)
        return True

    def done(self, peer: PeerId, stream: MuxedStream) -> None:
        """Our handler has ended."""
        known = self._of[peer]
        known.discard(stream)
        if not known:
            del self._of[peer]
