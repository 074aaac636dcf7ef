"""Requests and replies of `/quorate/dht/1`; every request carries the sender's addresses. Format: docs/spec/dht.md."""

from __future__ import annotations

from wire.codec import Wire
from wire.envelope import Envelope
from wire.peer import PeerId

PROTOCOL = "/quorate/dht/1"
CLOSER_MAX = 20
RECORDS_MAX = 64
"""Records in one request or reply."""


class Near(Wire, frozen=True):
    """A contact: a peer and where it may be dialled."""

    peer: PeerId
    addresses: list[str]


class FindNode(Wire, frozen=True, tag="find-node"):
    """Who is closest to `target` (32 bytes)?"""

    target: bytes
    mine: list[str]


class FindValue(Wire, frozen=True, tag="find-value"):
    """What is said under this key, and who is closest to it?"""

    namespace: str
    key: bytes
    mine: list[str]


class Store(Wire, frozen=True, tag="store"):
    """Keep these records."""

    records: list[Envelope]
    mine: list[str]


class Ask(Wire, frozen=True):
    """Any request."""

    body: FindNode | FindValue | Store


class Reply(Wire, frozen=True):
    """To FindNode: `closer`. To FindValue: `records` and `closer`. To Store: `stored` of the records are kept."""

    closer: list[Near]
    records: list[Envelope]
    stored: int
