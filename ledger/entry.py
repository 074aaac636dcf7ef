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
from wire.limits import JURIES_MAX, JURY_MAX
from wire.peer import PeerId

VERSION = 1
ZERO = bytes(32)
"""`previous` of the first entry of a chain, and `accept` of a receipt where the worker never accepted."""

MICRO_MAX = 2**53
"""Largest amount in micro-credits; every JSON reader can hold it exactly."""

TIME_MS_MAX = 2**53
ENTRY_BYTES_MAX = 64 << 10
"""Longest encoded entry; a receipt with a jury of 21 takes about 3 KiB, an offer of 256 juries about 10 KiB."""

CERTIFICATE_BYTES_MAX = 8192
"""Longest encoded certificate."""

LADDER_MAX = 4
"""Juries of an offer by the rule "ladder"."""

AUDITS_MAX = 64
"""Juries that sit by the rule "batch"."""

SEATS_MAX = 384
"""Jurors that one offer may pay; each takes about 80 bytes of the receipt."""

RELAYED_MIB_MAX = 1024
"""MiB that one acknowledgement of relayed bytes may be for."""

RELAYED_PRICE_MICRO_MAX = 1000
"""Most micro-credits for one MiB relayed. With the bound above, what one entry may pay without a certificate."""

Id = Annotated[bytes, Meta(min_length=32, max_length=32)]
Peer = Annotated[PeerId, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Micro = Annotated[int, Meta(ge=0, le=MICRO_MAX)]
TimeMs = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
Verdict = Literal["accept", "reject", "unaudited"]
Rule = Literal["one", "ladder", "batch"]
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


class Jury(Wire, frozen=True):
    """A jury of `size` (odd) that may judge the job `job`; `needed` equal votes, more than half, decide."""

    job: Id
    size: Annotated[int, Meta(ge=1, le=JURY_MAX)]
    needed: Annotated[int, Meta(ge=1, le=JURY_MAX)]


def majority(job: bytes, size: int) -> list[Jury]:
    """The juries of a plain job: one that decides by majority, or none if `size` is 0."""
    return [Jury(job, size, size // 2 + 1)] if size else []


class Offer(Wire, frozen=True, tag="offer"):
    """The payer reserves the price and a fee per juror who may sit, for `job`, done by `payee` until `expires_ms`.

    `juries` are those that may judge, none where nobody checks: one jury of `job` itself (rule "one"); the levels of a
    ladder, smallest first, of which each sits only if those below did not decide ("ladder"); one per job of a batch, of
    which `audits` sit ("batch", and 0 otherwise).
    """

    job: Id
    payee: Peer
    price_micro: Micro
    fee_micro: Micro
    rule: Rule
    juries: Annotated[list[Jury], Meta(max_length=JURIES_MAX)]
    audits: Annotated[int, Meta(ge=0, le=AUDITS_MAX)]
    expires_ms: TimeMs

    @property
    def seats(self) -> int:
        """The most jurors that can come to sit."""
        sizes = [jury.size for jury in self.juries]
        return self.audits * max(sizes, default=0) if self.rule == "batch" else sum(sizes)

    @property
    def reserve_micro(self) -> int:
        """What the offer holds back until it is received or released."""
        return self.price_micro + self.seats * self.fee_micro


class Accept(Wire, frozen=True, tag="accept"):
    """The worker takes the offer whose entry id is `offer`."""

    job: Id
    offer: Id
    payer: Peer


class Receipt(Wire, frozen=True, tag="receipt"):
    """The payer records the verdict and owes `payments`; debits, as only `relayed` does besides.

    `certificates` are canonical encodings of `wire.job.Certificate`, in the order of the offer's juries, none for
    "unaudited"; `accept` is the id of the worker's entry. `dispute` is empty where a jury decided. Where a dispute over
    single steps did (rule "ladder" only), it is the 32-byte hash of the evidence that convicts the worker, zeros where
    there is none to show: a disputed answer that stands, a worker that fell silent. `canary` is empty, or the 32-byte
    hash of the marks of a canary, whose worker only lent its name: then the verdict says nothing about the worker.
    """

    job: Id
    offer: Id
    accept: Id
    verdict: Verdict
    certificates: Annotated[
        list[Annotated[bytes, Meta(min_length=1, max_length=CERTIFICATE_BYTES_MAX)]], Meta(max_length=AUDITS_MAX)
    ]
    payments: Annotated[list[Payment], Meta(max_length=SEATS_MAX + 1)]
    dispute: Annotated[bytes, Meta(max_length=32)] = b""
    canary: Annotated[bytes, Meta(max_length=32)] = b""


class Relayed(Wire, frozen=True, tag="relayed"):
    """The payer acknowledges `mib` more MiB that `relay` passed for it, and owes `price_micro` for each; debits.

    `job` names the session, 32 bytes of the payer's choice; `number` counts its acknowledgements.
    """

    job: Id
    relay: Peer
    number: Annotated[int, Meta(ge=0, le=2**32)]
    mib: Annotated[int, Meta(ge=1, le=RELAYED_MIB_MAX)]
    price_micro: Annotated[int, Meta(ge=1, le=RELAYED_PRICE_MICRO_MAX)]

    @property
    def amount_micro(self) -> int:
        """What is owed."""
        return self.mib * self.price_micro


class Settle(Wire, frozen=True, tag="settle"):
    """The payee takes its share of the payer's receipt, or what a `relayed` owes it; the only entry that credits."""

    job: Id
    receipt: Id
    payer: Peer
    amount_micro: Annotated[int, Meta(ge=1, le=MICRO_MAX)]


class Release(Wire, frozen=True, tag="release"):
    """The payer takes a reservation back, for `reason`; nobody earns anything."""

    job: Id
    offer: Id
    reason: Reason


Body: TypeAlias = Offer | Accept | Receipt | Relayed | Settle | Release


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
