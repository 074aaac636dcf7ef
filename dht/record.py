"""Signed records that expire: who says what under a key, until when.

A key holds at most one record per author (its subkey); of two by one author the higher sequence number stands, then the
smaller hash, so that every replica keeps the same one. Two different bodies under one number are kept as evidence by
whoever sees both. Format: docs/spec/dht.md.
"""

from __future__ import annotations

from typing import Literal

from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope, Signer, seal, unseal
from wire.errors import Malformed
from wire.hashing import digest
from wire.peer import PeerId

DOMAIN = "dht.record"
BODY_BYTES_MAX = 2048
NAMESPACE_BYTES_MAX = 32
SKEW_MS = 60_000
"""How far an author's clock may run ahead of ours."""

LIFE_MS_MAX = 600_000
"""Longest life of any record."""

PROVIDER = "provider"


class Record(Wire, frozen=True):
    """What an author says. `key` has 32 bytes; times are Unix milliseconds; `seq` orders one author's records."""

    namespace: str
    key: bytes
    seq: int
    issued_ms: int
    expires_ms: int
    body: bytes


class ProviderAd(Wire, frozen=True):
    """A peer offers a model.

    Attributes:
        model: CID of the model. kind, lanes: what it does.
        price_micro: micro-credits per unit. load: jobs in progress per slot, 0 when idle.
        addresses: where the peer can be dialled. key_record: its encoded envelope of domain "keys".
    """

    model: str
    kind: str
    lanes: list[str]
    price_micro: int
    addresses: list[str]
    load: float
    key_record: bytes


def provider_key(model: str) -> bytes:
    """The 32-byte key under which providers of a model (a CID) are found."""
    return digest("dht.provider", model.encode())


def make(signer: Signer, record: Record) -> Envelope:
    """Sign a record."""
    return seal(signer, DOMAIN, record)


def check(envelope: Envelope, now_ms: int) -> Record:
    """Check and decode a record.

    Raises:
        Malformed: a bad signature or field, too large, expired, from the future, or living too long.
    """
    record = unseal(envelope, DOMAIN, Record)
    if len(record.key) != 32 or not 0 < len(record.namespace.encode()) <= NAMESPACE_BYTES_MAX:
        raise Malformed("a record's key has 32 bytes and its namespace 1 to 32")
    if len(record.body) > BODY_BYTES_MAX:
        raise Malformed(f"a body of {len(record.body)} bytes, at most {BODY_BYTES_MAX}")
    if record.seq < 0 or record.issued_ms < 0:
        raise Malformed("a negative number")
    if record.issued_ms > now_ms + SKEW_MS:
        raise Malformed("issued in the future")
    if not 0 < record.expires_ms - record.issued_ms <= LIFE_MS_MAX:
        raise Malformed(f"a life of {record.expires_ms - record.issued_ms} ms, 1 to {LIFE_MS_MAX} allowed")
    if record.expires_ms <= now_ms:
        raise Malformed("expired")
    if record.namespace == PROVIDER:
        check_ad(record)
    return record


def check_ad(record: Record) -> ProviderAd:
    """The provider ad inside a record.

    Raises:
        Malformed: not an ad, out of bounds, or under another model's key.
    """
    ad = codec.decode(ProviderAd, record.body, bytes_max=BODY_BYTES_MAX)
    if provider_key(ad.model) != record.key:
        raise Malformed("an ad under the key of another model")
    if not 0 <= ad.price_micro <= 2**53 or not 0 <= ad.load < 1e6:
        raise Malformed("a price or load out of range")
    if len(ad.addresses) > 8 or len(ad.lanes) > 8:
        raise Malformed("too many addresses or lanes")
    return ad


Choice = Literal["old", "new", "conflict"]


def select(old: Envelope, new: Envelope) -> Choice:
    """Which of two checked records of one author under one key stands.

    "conflict" also means that the new one stands or not by its hash: see `stands`; both together are evidence.
    """
    ours, theirs = _decoded(old), _decoded(new)
    if ours.seq != theirs.seq:
        return "new" if theirs.seq > ours.seq else "old"
    return "old" if ours == theirs else "conflict"


def stands(old: Envelope, new: Envelope) -> Envelope:
    """The one of two checked records that every replica keeps."""
    choice = select(old, new)
    if choice == "conflict":
        return min(old, new, key=lambda envelope: envelope.id)
    return new if choice == "new" else old


def _decoded(envelope: Envelope) -> Record:
    return codec.decode(Record, envelope.body)


def merge(found: dict[PeerId, Envelope], envelope: Envelope) -> None:
    """Add a checked record to a union by author."""
    old = found.get(envelope.author)
    found[envelope.author] = envelope if old is None else stands(old, envelope)
