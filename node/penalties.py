"""What peers were blamed for since the start: how often, how much in all, and the last reason. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any

from wire.errors import RemoteError
from wire.peer import PeerId

PEERS_MAX = 1024
REASON_CHARS_MAX = 200


@dataclass
class Record:
    """`total` sums the penalties of all faults."""

    count: int = 0
    total: float = 0.0
    last: str | None = None


class Penalties:
    """Told of every fault of a peer since the node started."""

    def __init__(self) -> None:
        self._of: OrderedDict[PeerId, Record] = OrderedDict()

    def note(self, fault: RemoteError) -> None:
        """One more."""
        peer = PeerId(fault.peer)
        record = self._of.setdefault(peer, Record())
        self._of.move_to_end(peer)
        record.count += 1
        record.total = round(record.total + fault.penalty, 6)
        record.last = fault.reason[:REASON_CHARS_MAX]
        if len(self._of) > PEERS_MAX:
            self._of.popitem(last=False)

    def of(self, peer: PeerId) -> dict[str, Any]:
        """As JSON; zeros for a peer without fault."""
        return asdict(self._of.get(peer) or Record())

    @property
    def count(self) -> int:
        """Faults of all peers that are remembered."""
        return sum(record.count for record in self._of.values())
