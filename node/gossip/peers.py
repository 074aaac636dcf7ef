"""The peers of a router: what each has subscribed to, and what waits to be sent to it. Sans-IO."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from node.gossip.caches import Bucket
from node.gossip.outbox import Outbox
from node.gossip.params import RPC_SENT_BYTES, Params
from wire.peer import PeerId


@dataclass
class Peer:
    """One connected peer. Counts are of the present heartbeat, but for `pending`."""

    outbound: bool
    outbox: Outbox
    intake: Bucket
    topics: dict[str, None] = field(default_factory=dict)
    ihaves: int = 0
    asked: int = 0
    pending: int = 0


class Peers:
    """Iterates in the order in which they came, so that a run depends on its seed alone."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._of: dict[PeerId, Peer] = {}
        self._ready: dict[PeerId, None] = {}

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._of

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[PeerId]:
        return iter(self._of)

    def get(self, peer: PeerId) -> Peer | None:
        """None for a stranger."""
        return self._of.get(peer)

    def add(self, peer: PeerId, *, outbound: bool, now: float) -> Peer:
        """A connection stands."""
        params = self._params
        self._of[peer] = Peer(outbound, Outbox(params), Bucket(params.intake_rate, params.intake_burst, now))
        return self._of[peer]

    def remove(self, peer: PeerId) -> None:
        """It is gone."""
        self._of.pop(peer, None)
        self._ready.pop(peer, None)

    def all(self) -> list[Peer]:
        """Their states."""
        return list(self._of.values())

    def in_topic(self, topic: str) -> list[PeerId]:
        """Who has subscribed to it."""
        return [peer for peer, state in self._of.items() if topic in state.topics]

    def outbox(self, peer: PeerId) -> Outbox:
        """To write to a peer that is here; it is ready then."""
        self._ready[peer] = None
        return self._of[peer].outbox

    def ready(self) -> list[PeerId]:
        """Peers for whom something waits since this was last asked."""
        ready, self._ready = [peer for peer in self._ready if self._of[peer].outbox], {}
        return ready

    def take(self, peer: PeerId) -> bytes | None:
        """The next RPC to a peer, None if nothing waits."""
        state = self._of.get(peer)
        return state.outbox.take(RPC_SENT_BYTES).encode() if state is not None and state.outbox else None

    def waiting_bytes_over(self, most: int) -> bool:
        """Whether all outboxes together hold more; seldom has to add them up."""
        return len(self._of) * self._params.outbox_bytes_max > most and self.waiting_bytes() > most

    def waiting_bytes(self) -> int:
        """Of messages in all outboxes."""
        return sum(state.outbox.bytes for state in self._of.values())
