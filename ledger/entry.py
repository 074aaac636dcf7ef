"""Entries: a signed header, and the body that its hash names.

An entry's id is `digest("entry", header)`: the signature is left out, so signing the same header again (or with another
valid signature) never makes a second entry. The author signs the id; the bytes that were signed are the only ones
accepted, because `wire.codec` refuses anything that does not re-encode to itself. Amounts are integer micro-credits.
Design after TrustChain's half-blocks (draft-pouwelse-trustchain), whose hash covers the signature; ours does not.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from wire import codec
from wire.codec import Wire
from wire.envelope import Signer, verify
from wire.errors import LocalError, Malformed, QuorateError
from wire.hashing import digest
from wire.limits import JURY_MAX
from wire.peer import PeerId

VERSION = 1
ZERO = bytes(32)
"""`previous` of the first entry of a chain, and `accept` of a receipt where the worker never accepted."""

MICRO_MAX = 2**53
"""Largest amount in micro-credits; every JSON reader can hold it exactly."""

TIME_MS_MAX = 2**53
ENTRY_BYTES_MAX = 16 << 10
"""Longest encoded entry; a receipt with a jury of 21 takes about 3 KiB."""

Id = Annotated[bytes, Meta(min_length=32, max_length=32)]
Peer = Annotated[PeerId, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Micro = Annotated[int, Meta(ge=0, le=MICRO_MAX)]
TimeMs = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
Verdict = Literal["accept", "reject", "unaudited"]
Reason = Literal["cancelled", "expired", "refused", "unaudited", "worker_died"]


class InvalidEntry(QuorateError):
    """An entry, proof or chain breaks a rule.

    Args:
        code: the rule, one word; stable, part of the specification.
        detail: what was seen.
        height: where in the chain, if known.
    """

    def __init__(self, code: str, detail: str, *, height: int | None = None) -> None:
        super().__init__(f"{code}: {detail}" if height is None else f"{code} at height {height}: {detail}")
        self.code = code
        self.detail = detail
        self.height = height


class Payment(Wire, frozen=True):
    """One payee's share of a receipt, more than nothing."""

    peer: Peer
    amount_micro: Annotated[int, Meta(ge=1, le=MICRO_MAX)]


class Offer(Wire, frozen=True, tag="offer"):
    """The payer reserves `price_micro + jurors * fee_micro` for `job`, to be done by `payee` until `expires_ms`."""

    job: Id
    payee: Peer
    price_micro: Micro
    fee_micro: Micro
    jurors: Annotated[int, Meta(ge=0, le=JURY_MAX)]
    expires_ms: TimeMs

    @property
    def reserve_micro(self) -> int:
        """What the offer holds back until it is received or released."""
        return self.price_micro + self.jurors * self.fee_micro


class Accept(Wire, frozen=True, tag="accept"):
    """The worker takes the offer whose entry id is `offer`."""

    job: Id
    offer: Id
    payer: Peer


class Receipt(Wire, frozen=True, tag="receipt"):
    """The payer records the verdict and owes `payments`; the only entry that debits.

    `certificate` is the canonical encoding of `wire.job.Certificate`, empty for "unaudited"; `accept` is the id of the
    worker's entry.
    """

    job: Id
    offer: Id
    accept: Id
    verdict: Verdict
    certificate: Annotated[bytes, Meta(max_length=8192)]
    payments: Annotated[list[Payment], Meta(max_length=JURY_MAX + 1)]


class Settle(Wire, frozen=True, tag="settle"):
    """The payee takes its share of the payer's receipt; the only entry that credits."""

    job: Id
    receipt: Id
    payer: Peer
    amount_micro: Annotated[int, Meta(ge=1, le=MICRO_MAX)]


class Release(Wire, frozen=True, tag="release"):
    """The payer takes a reservation back, for `reason`; nobody earns anything."""

    job: Id
    offer: Id
    reason: Reason


Body: TypeAlias = Offer | Accept | Receipt | Settle | Release


class Header(Wire, frozen=True):
    """What is signed. `height` counts from 0; `previous` is the id of the entry below, zeros at height 0."""

    version: int
    author: Peer
    height: Annotated[int, Meta(ge=0, le=2**53)]
    previous: Id
    body_hash: Id
    time_ms: TimeMs

    @property
    def id(self) -> bytes:
        """32-byte name of the entry, which is also what its author signs."""
        return digest("entry", codec.encode(self))


class Entry(Wire, frozen=True):
    """A header, its author's Ed25519 signature of the header's id, and the body."""

    header: Header
    signature: Signature
    body: Body

    @property
    def id(self) -> bytes:
        """The header's id; two entries with one id say the same, whatever their signatures."""
        return self.header.id


_BODY = msgspec.msgpack.Decoder(Body, strict=True)


def body_hash(body: Body) -> bytes:
    """32-byte hash of the body's canonical bytes."""
    return digest("entry.body", codec.encode(body))


def sign_entry(signer: Signer, height: int, previous: bytes, body: Body, time_ms: int) -> Entry:
    """Make and sign an entry.

    Raises:
        LocalError: a field of `body` is out of bounds: negative or absurd amount, key of a wrong length, too long.
    """
    try:
        raw = codec.encode(body)
        _BODY.decode(raw)
    except (msgspec.DecodeError, OverflowError, TypeError) as exc:
        raise LocalError(f"not a ledger entry: {exc}") from exc
    header = Header(VERSION, signer.peer, height, previous, digest("entry.body", raw), time_ms)
    return Entry(header, signer.sign(header.id), body)


def check_entry(entry: Entry) -> None:
    """Check what one entry alone can show: version, body hash, signature.

    Raises:
        InvalidEntry: "version", "body_hash" or "signature".
    """
    header = entry.header
    if header.version != VERSION:
        raise InvalidEntry("version", f"{header.version}, this node knows {VERSION}", height=header.height)
    if header.body_hash != body_hash(entry.body):
        raise InvalidEntry("body_hash", "the header names another body", height=header.height)
    if not verify(header.author, header.id, entry.signature):
        raise InvalidEntry("signature", "does not verify under the author's key", height=header.height)


def decode_entry(raw: bytes) -> Entry:
    """Decode one canonical entry; its signature is not checked.

    Raises:
        Malformed: too long, undecodable, out of bounds or not canonical.
    """
    return codec.decode(Entry, raw, bytes_max=ENTRY_BYTES_MAX)


def outcome(raw: bytes) -> str:
    """The hex id of a valid encoded entry, or the one word that says why it is refused (as in the vectors)."""
    try:
        entry = decode_entry(raw)
        check_entry(entry)
    except Malformed:
        return "malformed"
    except InvalidEntry as exc:
        return exc.code
    return entry.id.hex()
