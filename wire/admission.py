"""How many channels that one peer opened are worked on at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from wire.limits import CHANNELS_PER_PEER_MAX
from wire.peer import PeerId

HANDLERS_PER_PEER_MAX = 4 * CHANNELS_PER_PEER_MAX
"""Handlers at work for one peer, those included whose channel it has finished."""

C = TypeVar("C", bound=Hashable)


class Admission(Generic[C]):
    """Counts channels, or the streams under them, in the order in which they were opened.

    Args:
        finished: whether the peer sends no more on a channel. What it has finished, while our handler is about to, is
            not open: a peer that closes one may open the next at once.
    """

    def __init__(self, finished: Callable[[C], bool]) -> None:
        self._finished = finished
        self._of: dict[PeerId, set[C]] = {}

    def admit(self, peer: PeerId, channel: C) -> bool:
        """Whether `peer` may have one more."""
        known = self._of.setdefault(peer, set())
        still_open = sum(not self._finished(each) for each in known)
        if still_open >= CHANNELS_PER_PEER_MAX or len(known) >= HANDLERS_PER_PEER_MAX:
            return False
        known.add(channel)
        return True

    def done(self, peer: PeerId, channel: C) -> None:
        """Our handler has ended."""
        known = self._of[peer]
        known.discard(channel)
        if not known:
            del self._of[peer]
