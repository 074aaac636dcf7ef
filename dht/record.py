"""Signed, expiring records: what a node may keep for others, and which of two it keeps.

A record belongs to its author: (namespace, key, author) is its slot, and authors never share one, so two who
write at once cannot lose each other. Within a slot the higher `seq` wins, then the smaller id; both orders of
arrival end the same. Two different records of one author with one `seq` are an equivocation, which anybody
can check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dht.keys import place_of
from dht.limits import (
    CLOCK_SKEW_MS,
    NAMESPACE_CHARS_MAX,
    RECORD_BODY_BYTES_MAX,
    RECORD_BYTES_MAX,
    VALUE_LIFE_MS,
)
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope, Signer, seal, unseal
from wire.errors import LocalError, Malformed
from wire.peer import PeerId

DOMAIN = "dht.record"
SEQ_MAX = 2**63 - 1


class Untimely(Malformed):
    """Expired, or issued in our future: clocks differ, so nobody is blamed."""


class Record(Wire, frozen=True):
    """What is signed; the author is the envelope's, and is the subkey.

    Attributes:
        namespace: which rule applies, e.g. "provider".
        key: 32 bytes.
        seq: 0..2**63-1; the author raises it with every change.
        issued_ms, expires_ms: Unix time.
        body: at most 4096 bytes; what they mean is the namespace's.
    """

    namespace: str
    key: bytes
    seq: int
    issued_ms: int
    expires_ms: int
    body: bytes


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """Where one author's record under one key is kept."""

    namespace: str
    key: bytes
    author: PeerId


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record whose envelope, limits and rule have been checked; made by `validate` and `sign` only."""

    record: Record
    envelope: Envelope
    id: bytes
    size_bytes: int

    @property
    def author(self) -> PeerId:
        """Who signed it."""
        return self.envelope.author

    @property
    def slot(self) -> Slot:
        """Where it is kept."""
        return Slot(self.record.namespace, self.record.key, self.envelope.author)

    @property
    def place(self) -> int:
        """Where in the network it is kept."""
        return place_of(self.record.namespace, self.record.key)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a namespace demands: `check(record, author)` raises `Malformed`."""

    life_ms_max: int
    check: Callable[[Record, PeerId], None]


Rules = Mapping[str, Rule]


def anything(record: Record, author: PeerId) -> None:
    """The check of a namespace whose bodies are opaque."""


VALUE_RULE = Rule(VALUE_LIFE_MS, anything)


def sign(signer: Signer, record: Record, rules: Rules) -> SignedRecord:
    """Sign a record of our own.

    Raises:
        LocalError: it breaks a rule that every other node would refuse it for.
    """
    envelope = seal(signer, DOMAIN, record)
    try:
        return validate(envelope, rules, record.issued_ms)
    except Malformed as exc:
        raise LocalError(f"not a record that others would keep: {exc}") from exc


def validate(envelope: Envelope, rules: Rules, now_ms: int) -> SignedRecord:
    """Check everything about a record from the network.

    Args:
        envelope: as received.
        rules: by namespace; any other namespace is refused.
        now_ms: Unix time.

    Raises:
        Untimely: expired, or issued more than `CLOCK_SKEW_MS` in the future.
        Malformed: forged, oversized, or against its namespace's rule.
    """
    if len(envelope.body) > RECORD_BYTES_MAX or len(envelope.domain) > NAMESPACE_CHARS_MAX:
        raise Malformed(f"a record of {len(envelope.body)} bytes")
    record = unseal(envelope, DOMAIN, Record)
    size_bytes = len(envelope.body) + len(envelope.domain) + 96
    rule = rules.get(record.namespace)
    if rule is None:
        raise Malformed(f"namespace {record.namespace[:NAMESPACE_CHARS_MAX]!r} is not kept here")
    _check_shape(record, rule)
    rule.check(record, envelope.author)
    check_time(record, now_ms)
    return SignedRecord(record, envelope, envelope.id, size_bytes)


def check_time(record: Record, now_ms: int) -> None:
    """Raises: Untimely if the record has expired, or was issued too far in our future."""
    if record.expires_ms <= now_ms:
        raise Untimely(f"expired {now_ms - record.expires_ms} ms ago")
    if record.issued_ms > now_ms + CLOCK_SKEW_MS:
        raise Untimely(f"issued {record.issued_ms - now_ms} ms in the future")


def _check_shape(record: Record, rule: Rule) -> None:
    if len(record.key) != 32:
        raise Malformed(f"a key of {len(record.key)} bytes")
    if len(record.body) > RECORD_BODY_BYTES_MAX:
        raise Malformed(f"a body of {len(record.body)} bytes")
    if not 0 <= record.seq <= SEQ_MAX:
        raise Malformed(f"seq {record.seq}")
    if not 0 <= record.issued_ms < record.expires_ms:
        raise Malformed("expires before it was issued")
    if record.expires_ms - record.issued_ms > rule.life_ms_max:
        raise Malformed(f"lives {record.expires_ms - record.issued_ms} ms, at most {rule.life_ms_max}")


class Equivocation(Wire, frozen=True):
    """Two different records of one author in one slot with one `seq`; the one with the smaller id first."""

    first: Envelope
    second: Envelope

    def author(self) -> PeerId:
        """Who is proven to have signed both.

        Raises:
            Malformed: it proves nothing.
        """
        one, two = (unseal(envelope, DOMAIN, Record) for envelope in (self.first, self.second))
        if self.first.author != self.second.author or self.first.id >= self.second.id:
            raise Malformed("not two records of one author in order")
        if (one.namespace, one.key, one.seq) != (two.namespace, two.key, two.seq):
            raise Malformed("not in one slot with one seq")
        return self.first.author


def select(one: SignedRecord, two: SignedRecord) -> SignedRecord:
    """Which of two records of one slot is kept: higher `seq`, then smaller id."""
    assert one.slot == two.slot, "only records of one slot compete"
    return min(one, two, key=lambda signed: (-signed.record.seq, signed.id))


def equivocation(one: SignedRecord, two: SignedRecord) -> Equivocation | None:
    """Evidence against the author of two records of one slot, if they are one."""
    if one.record.seq != two.record.seq or one.id == two.id:
        return None
    first, second = sorted((one, two), key=lambda signed: signed.id)
    return Equivocation(first.envelope, second.envelope)


def to_bytes(signed: SignedRecord) -> bytes:
    """Canonical bytes of the envelope, for a file or a database."""
    return codec.encode(signed.envelope)


def from_bytes(raw: bytes, rules: Rules, now_ms: int) -> SignedRecord:
    """The reverse of `to_bytes`, checked as if it came from the network.

    Raises:
        Malformed: as `validate`.
    """
    return validate(codec.decode(Envelope, raw), rules, now_ms)
