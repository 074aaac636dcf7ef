"""Signed envelopes: exact bytes, one author, one domain.

The signature covers `digest("envelope", domain, author, body)`, so an envelope of one domain can never be
passed off as one of another. The body is kept as received; it is decoded only after the signature holds.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from wire import codec
from wire.codec import Wire
from wire.errors import Malformed
from wire.hashing import digest
from wire.limits import ENVELOPE_BYTES_MAX
from wire.peer import PeerId

T = TypeVar("T")


class Signer(Protocol):
    """What an identity offers to whoever must sign."""

    @property
    def peer(self) -> PeerId: ...

    def sign(self, message: bytes) -> bytes: ...


class Envelope(Wire, frozen=True):
    """A signed message: `author` is a 32-byte Ed25519 public key, `signature` 64 bytes."""

    domain: str
    author: PeerId
    body: bytes
    signature: bytes

    @property
    def id(self) -> bytes:
        """32-byte identifier of the statement; the signature is left out, so re-signing does not change it."""
        return _message(self.domain, self.author, self.body)


def _message(domain: str, author: PeerId, body: bytes) -> bytes:
    return digest("envelope", domain.encode(), author, body)


def verify(author: PeerId, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is the author's Ed25519 signature of `message`; False on any bad length."""
    if len(author) != 32 or len(signature) != 64:
        return False
    try:
        crypto_sign_open(signature + message, author)
    except (BadSignatureError, ValueError):
        return False
    return True


def seal(signer: Signer, domain: str, body: Wire) -> Envelope:
    """Sign the canonical bytes of `body`."""
    raw = codec.encode(body)
    return Envelope(domain, signer.peer, raw, signer.sign(_message(domain, signer.peer, raw)))


def unseal(envelope: Envelope, domain: str, kind: type[T], *, author: PeerId | None = None) -> T:
    """Check and decode an envelope.

    Args:
        envelope: as received.
        domain: the only domain accepted.
        kind: the type of the body.
        author: if given, the only author accepted.

    Raises:
        Malformed: wrong domain, author, signature, size or body.
    """
    if envelope.domain != domain:
        raise Malformed(f"domain {envelope.domain[:40]!r}, expected {domain!r}")
    if author is not None and envelope.author != author:
        raise Malformed("signed by another author")
    if len(envelope.body) > ENVELOPE_BYTES_MAX:
        raise Malformed(f"body of {len(envelope.body)} bytes, at most {ENVELOPE_BYTES_MAX}")
    if not verify(envelope.author, envelope.id, envelope.signature):
        raise Malformed("signature does not verify")
    return codec.decode(kind, envelope.body, bytes_max=ENVELOPE_BYTES_MAX)
