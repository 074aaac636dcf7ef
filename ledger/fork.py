"""Fork proofs: two signed headers of one author at one height. Anyone can check one, and it never goes stale.

The header's id leaves the signature out, so a header that was signed twice, a duplicate delivery or a replay is no
fork: only two different statements at one height are. Holochain calls such evidence a warrant.
"""

from __future__ import annotations

from ledger.entry import Entry, Header, InvalidEntry, Signature
from wire.codec import Wire
from wire.envelope import verify
from wire.peer import PeerId


class SignedHeader(Wire, frozen=True):
    """A header and its author's signature of its id."""

    header: Header
    signature: Signature


class ForkProof(Wire, frozen=True):
    """Two conflicting signed headers; `first` has the smaller id, so that one pair has one encoding."""

    first: SignedHeader
    second: SignedHeader


def signed_header(entry: Entry) -> SignedHeader:
    """An entry without its body, which is still proof that its author signed it."""
    return SignedHeader(entry.header, entry.signature)


def prove(one: Entry, other: Entry) -> ForkProof | None:
    """The proof that two entries conflict; None if they do not (another author or height, or the same id)."""
    return prove_headers(signed_header(one), signed_header(other))


def prove_headers(one: SignedHeader, other: SignedHeader) -> ForkProof | None:
    """As `prove`, of headers whose signatures were checked."""
    a, b = one.header, other.header
    if a.author != b.author or a.height != b.height or a.id == b.id:
        return None
    return ForkProof(*sorted((one, other), key=lambda part: part.header.id))


def check(proof: ForkProof) -> PeerId:
    """The forker that `proof` convicts.

    Raises:
        InvalidEntry: "fork" (not two ordered headers of one author at one height) or "signature".
    """
    a, b = proof.first.header, proof.second.header
    if a.author != b.author or a.height != b.height:
        raise InvalidEntry("fork", "the headers are of different authors or heights")
    if a.id >= b.id:
        raise InvalidEntry("fork", "one header twice, or in the wrong order")
    for part in (proof.first, proof.second):
        if not verify(part.header.author, part.header.id, part.signature):
            raise InvalidEntry("signature", "a header of the proof is not signed by its author", height=a.height)
    return a.author
