"""An envelope is one author's, in one domain, to the last bit."""

from __future__ import annotations

import msgspec
import pytest
from nacl.signing import VerifyKey

from wire import codec, envelope
from wire.codec import Wire
from wire.envelope import Envelope, seal, unseal
from wire.errors import Malformed
from wire.hashing import digest
from wire.identity import Identity
from wire.limits import ENVELOPE_BYTES_MAX
from wire.peer import PeerId


class Note(Wire, frozen=True):
    text: str


class Number(Wire, frozen=True):
    value: int


ALICE = Identity.from_seed(b"\x01" * 32)
BOB = Identity.from_seed(b"\x02" * 32)
SEALED = seal(ALICE, "note", Note("hello"))
ORDER_ED25519 = 2**252 + 27742317777372353535851937790883648493


def test_what_was_sealed_opens() -> None:
    assert unseal(SEALED, "note", Note) == Note("hello")
    assert unseal(SEALED, "note", Note, author=ALICE.peer) == Note("hello")


def test_the_signature_covers_domain_author_and_body() -> None:
    message = digest("envelope", b"note", ALICE.peer, codec.encode(Note("hello")))
    assert SEALED.id == message
    assert VerifyKey(ALICE.peer).verify(message, SEALED.signature) == message


def _changed(**changes: object) -> Envelope:
    return msgspec.structs.replace(SEALED, **changes)


BAD = {
    "another domain": (_changed(domain="vote"), "domain 'vote', expected 'note'"),
    "another author": (_changed(author=BOB.peer), "signature"),
    "another body": (_changed(body=codec.encode(Note("hellO"))), "signature"),
    "no signature": (_changed(signature=b""), "signature"),
    "no author": (_changed(author=b""), "signature"),
    "author of small order": (_changed(author=b"\x01" + bytes(31), signature=b"\x01" + bytes(63)), "signature"),
    "too long": (_changed(body=bytes(ENVELOPE_BYTES_MAX + 1)), "at most"),
    "another type": (seal(ALICE, "note", Number(1)), "not a Note"),
}


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD)
def test_a_bad_envelope_is_refused(bad: Envelope, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        unseal(bad, "note", Note)


def test_an_envelope_sealed_for_one_domain_is_none_of_another() -> None:
    moved = _changed(domain="vote")
    with pytest.raises(Malformed, match="signature"):
        unseal(moved, "vote", Note)


def test_only_the_named_author_will_do() -> None:
    with pytest.raises(Malformed, match="another author"):
        unseal(SEALED, "note", Note, author=BOB.peer)


def test_every_tampered_byte_is_noticed() -> None:
    raw = codec.encode(SEALED)
    for at in range(len(raw)):
        for bit in (0x01, 0x80):
            tampered = raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :]
            with pytest.raises(Malformed):
                unseal(codec.decode(Envelope, tampered), "note", Note)


def test_a_malleated_signature_is_refused() -> None:
    """S + L satisfies the curve equation too; RFC 8032 and libsodium demand S < L."""
    s = int.from_bytes(SEALED.signature[32:], "little") + ORDER_ED25519
    with pytest.raises(Malformed, match="signature"):
        unseal(_changed(signature=SEALED.signature[:32] + s.to_bytes(32, "little")), "note", Note)


@pytest.mark.parametrize(("author", "signature"), [(b"", b""), (ALICE.peer, bytes(63)), (ALICE.peer[:31], bytes(64))])
def test_bad_lengths_verify_nothing(author: bytes, signature: bytes) -> None:
    assert not envelope.verify(PeerId(author), b"message", signature)
