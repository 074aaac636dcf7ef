"""The messages of the method `dht.ask`: one `Request`, one `Reply`, each with its sender's own addresses.

A peer's addresses come from that peer itself, in the messages it sends, or from a peer that had them so.
"""

from __future__ import annotations

from collections.abc import Sequence

from dht.limits import ADDRESS_CHARS_MAX, ADDRESSES_MAX, RECORDS_PER_KEY_MAX, STORE_RECORDS_MAX, K
from wire.codec import Wire
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.peer import PeerId
from wire.rpc.seam import Method


class Node(Wire, frozen=True):
    """A peer and where it may be dialled."""

    peer: PeerId
    addresses: list[str]


class Ping(Wire, frozen=True, tag="ping"):
    """Are you there?"""


class FindNode(Wire, frozen=True, tag="find-node"):
    """Whom do you know closest to `target` (32 bytes)?"""

    target: bytes


class FindValue(Wire, frozen=True, tag="find-value"):
    """What do you hold under this key, and whom do you know closest to it?"""

    namespace: str
    key: bytes


class Store(Wire, frozen=True, tag="store"):
    """Please keep these records, each an envelope of domain "dht.record"."""

    records: list[Envelope]


class Pong(Wire, frozen=True, tag="pong"):
    """I am here."""


class Nodes(Wire, frozen=True, tag="nodes"):
    """Contacts, closest first, and the records under the key that was asked for."""

    nodes: list[Node]
    records: list[Envelope]


class Stored(Wire, frozen=True, tag="stored"):
    """For each record in the request, in order: is it, or one that it equals, kept here?"""

    kept: list[bool]


Ask = Ping | FindNode | FindValue | Store
Told = Pong | Nodes | Stored


class Request(Wire, frozen=True):
    """What a node asks."""

    ask: Ask
    addresses: list[str]

    def check(self) -> None:
        """Raises: Malformed on a wrong length, or more than the limits allow."""
        check_addresses(self.addresses)
        if isinstance(self.ask, FindNode) and len(self.ask.target) != 32:
            raise Malformed(f"a target of {len(self.ask.target)} bytes")
        if isinstance(self.ask, FindValue) and len(self.ask.key) != 32:
            raise Malformed(f"a key of {len(self.ask.key)} bytes")
        if isinstance(self.ask, Store) and not 1 <= len(self.ask.records) <= STORE_RECORDS_MAX:
            raise Malformed(f"{len(self.ask.records)} records in one request")


class Reply(Wire, frozen=True):
    """What a node answers."""

    told: Told
    addresses: list[str]

    def check(self) -> None:
        """Raises: Malformed on a wrong length, or more than the limits allow."""
        check_addresses(self.addresses)
        if not isinstance(self.told, Nodes):
            return
        if len(self.told.nodes) > K or len(self.told.records) > RECORDS_PER_KEY_MAX:
            raise Malformed(f"{len(self.told.nodes)} contacts and {len(self.told.records)} records in one reply")
        for node in self.told.nodes:
            if len(node.peer) != 32:
                raise Malformed(f"a peer of {len(node.peer)} bytes")
            check_addresses(node.addresses)


ASK = Method("dht.ask", Request, Reply)


def check_addresses(addresses: Sequence[str]) -> None:
    """Raises: Malformed if there are too many, or one is too long or not printable ASCII."""
    if len(addresses) > ADDRESSES_MAX:
        raise Malformed(f"{len(addresses)} addresses of one peer")
    for address in addresses:
        if not 0 < len(address) <= ADDRESS_CHARS_MAX or not address.isascii() or not address.isprintable():
            raise Malformed(f"address {address[:40]!r}")


def fitting(addresses: Sequence[str]) -> list[str]:
    """The first of our own addresses that may be sent."""
    return [address for address in addresses if len(address) <= ADDRESS_CHARS_MAX][:ADDRESSES_MAX]
