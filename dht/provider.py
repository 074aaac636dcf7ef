"""Provider ads: who runs a model, on which terms; a record body in namespace "provider"."""

from __future__ import annotations

from dht import relay
from dht.limits import PROVIDER_LIFE_MS
from dht.messages import check_addresses
from dht.record import VALUE_RULE, Record, Rule, Rules
from wire import cid, codec
from wire.codec import Wire
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Kind, Lane
from wire.peer import PeerId

NAMESPACE = "provider"
KEY_RECORD_BYTES_MAX = 512
AMOUNT_MAX = 2**53
LOAD_MAX = 1e6


class ProviderAd(Wire, frozen=True):
    """One peer offers to run one model.

    Attributes:
        model: CID of the weights manifest.
        kind: the workload.
        lanes: how answers may be compared, without repetition.
        price_micro: what a job costs, in micro-credits.
        addresses: where the peer may be dialled.
        load: jobs in progress per slot when the ad was signed; 0.0 when idle.
        key_record: canonical bytes of the peer's `KeyRecord` envelope (its BLS key); empty if it judges nothing.
    """

    model: str
    kind: Kind
    lanes: list[Lane]
    price_micro: int
    addresses: list[str]
    load: float
    key_record: bytes

    def check(self) -> None:
        """Raises: Malformed on anything out of bounds."""
        cid.to_digest(self.model)
        check_addresses(self.addresses)
        if not self.lanes or len(set(self.lanes)) != len(self.lanes):
            raise Malformed(f"lanes {self.lanes[:4]}")
        if not 0 <= self.price_micro <= AMOUNT_MAX or not 0 <= self.load <= LOAD_MAX:  # refuses a NaN too
            raise Malformed(f"price {self.price_micro}, load {self.load}")
        if len(self.key_record) > KEY_RECORD_BYTES_MAX:
            raise Malformed(f"a key record of {len(self.key_record)} bytes")


def key_of(model: str) -> bytes:
    """The 32-byte key under which the providers of a model are found."""
    return digest("dht.provider", model.encode())


def parse(record: Record) -> ProviderAd:
    """The ad in a record.

    Raises:
        Malformed: not an ad, out of bounds, or under another model's key.
    """
    ad = codec.decode(ProviderAd, record.body)
    ad.check()
    if record.key != key_of(ad.model):
        raise Malformed("an ad under another model's key")
    return ad


def _check(record: Record, author: PeerId) -> None:
    parse(record)


RULES: Rules = {NAMESPACE: Rule(PROVIDER_LIFE_MS, _check), relay.NAMESPACE: relay.RULE, "value": VALUE_RULE}
"""The namespaces of this network: ads of providers and of relays, and opaque values of at most a day."""
