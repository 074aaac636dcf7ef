"""What finding relays needs of the rest of the node: somewhere to publish that we are one, and to look others up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wire.peer import PeerId


@dataclass(frozen=True)
class Offer:
    """A relay as it describes itself; nothing of it is proven but who signed.

    Args:
        addresses: where it says that it can be dialled, as text.
        weight: how much likelier than a stranger (1.0) it is to be chosen, by our own view of trust.
        load: share of its reservations that it says are taken.
    """

    relay: PeerId
    addresses: Sequence[str]
    weight: float = 1.0
    load: float = 0.0


class Directory(Protocol):
    """Where relays are published and found."""

    async def look_up(self) -> Sequence[Offer]:
        """Everybody who offers to relay now."""
        ...

    async def publish(self, addresses: Sequence[str], load: float) -> int:
        """Offer to relay, until `withdraw`; a later offer replaces an earlier one. How many nodes keep it now."""
        ...

    def withdraw(self) -> None:
        """Offer no more."""
        ...
