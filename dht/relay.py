"""Relay ads: who lets in callers of peers that nobody can dial; a record body in namespace "relay"."""

from __future__ import annotations

from dht.limits import PROVIDER_LIFE_MS
from dht.messages import check_addresses
from dht.record import Record, Rule
from wire import codec
from wire.codec import Wire
from wire.errors import Malformed
from wire.hashing import digest
from wire.peer import PeerId, to_text

NAMESPACE = "relay"
KEY = digest("dht.relay", b"")
"""The one key of all relays; which of them a node keeps, where they are too many, its salt decides."""


class RelayAd(Wire, frozen=True):
    """One peer relays for others.

    Attributes:
        addresses: direct addresses at which strangers reached it, each ending in its peer id.
        load: share of its reservations that are taken, 0.0 to 1.0.
    """

    addresses: list[str]
    load: float


def parse(record: Record, author: PeerId) -> RelayAd:
    """The ad in a record.

    Raises:
        Malformed: not an ad, out of bounds, or with an address that names somebody else.
    """
    ad = codec.decode(RelayAd, record.body)
    check_addresses(ad.addresses)
    if record.key != KEY:
        raise Malformed("a relay's ad under another key")
    if not ad.addresses or not all(address.endswith(f"/p2p/{to_text(author)}") for address in ad.addresses):
        raise Malformed("a relay's addresses end in its own peer id")
    if not 0 <= ad.load <= 1:  # refuses a NaN too
        raise Malformed(f"load {ad.load}")
    return ad


def _check(record: Record, author: PeerId) -> None:
    parse(record, author)


RULE = Rule(PROVIDER_LIFE_MS, _check)
