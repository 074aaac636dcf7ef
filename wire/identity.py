"""A node's identity: one 32-byte root seed, from which an Ed25519 and a BLS12-381 key follow.

    ed25519 seed = HKDF-SHA256(root, salt = "quorate/1/identity", info = "ed25519", 32 bytes)
    BLS secret   = KeyGen(HKDF-SHA256(root, salt = "quorate/1/identity", info = "bls12-381", 32 bytes))

(HKDF: RFC 5869; Ed25519: RFC 8032; KeyGen: draft-irtf-cfrg-bls-signature-05, section 2.3.) The Ed25519 key is
the peer's name and its libp2p key; the BLS key signs only verdicts. A `KeyRecord` in an envelope of domain
"keys" binds the second to the first, with a proof of possession that names the peer.

Invariant: no secret leaves through `repr`, `str`, pickling or an error message.
"""

from __future__ import annotations

import secrets
from functools import cached_property, lru_cache
from typing import NoReturn, final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.signing import SigningKey

from wire import bls
from wire.envelope import Envelope, seal, unseal
from wire.errors import LocalError, Malformed
from wire.job import KeyRecord
from wire.peer import PeerId, to_text

SEED_BYTES = 32
KEYS_DOMAIN = "keys"
_SALT = b"quorate/1/identity"


def _derive(root: bytes, label: bytes) -> bytes:
    return HKDF(SHA256(), 32, _SALT, label).derive(root)


@final
class Identity:
    """The secrets of one node, and what they sign. Immutable; equal when the peer is equal."""

    def __init__(self, seed: bytes) -> None:
        """Derive the keys from `seed` (32 bytes).

        Raises:
            LocalError: the seed has another length.
        """
        if len(seed) != SEED_BYTES:
            raise LocalError(f"an identity seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._seed = bytes(seed)
        self._key = SigningKey(_derive(self._seed, b"ed25519"))
        self._peer = PeerId(bytes(self._key.verify_key))

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the operating system's random source."""
        return cls(secrets.token_bytes(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity that the 32-byte root `seed` determines.

        Raises:
            LocalError: the seed has another length.
        """
        return cls(seed)

    @property
    def peer(self) -> PeerId:
        """The 32-byte Ed25519 public key."""
        return self._peer

    @property
    def seed(self) -> bytes:
        """The 32-byte root seed: everything secret about this node. Only key files need it."""
        return self._seed

    @property
    def ed25519_seed(self) -> bytes:
        """The 32-byte RFC 8032 private key, for libp2p."""
        return bytes(self._key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return self._key.sign(message).signature

    @cached_property
    def _bls_secret(self) -> int:
        return bls.keygen(_derive(self._seed, b"bls12-381"))

    @cached_property
    def bls_public(self) -> bytes:
        """The 48-byte BLS public key."""
        return bls.public_key(self._bls_secret)

    def bls_sign(self, message: bytes) -> bytes:
        """The 96-byte BLS signature of `message`."""
        return bls.sign(self._bls_secret, message)

    def key_record(self) -> Envelope:
        """The signed record that binds the BLS key to this identity; made once."""
        return self._key_record

    @cached_property
    def _key_record(self) -> Envelope:
        possession = bls.prove_possession(self._bls_secret, owner=self._peer)
        return seal(self, KEYS_DOMAIN, KeyRecord(self.bls_public, possession))

    def __repr__(self) -> str:
        return f"Identity({to_text(self._peer)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other._peer == self._peer

    def __hash__(self) -> int:
        return hash(self._peer)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity is not pickled; pass its key file instead")


@lru_cache(maxsize=1024)
def check_key_record(envelope: Envelope) -> tuple[PeerId, bytes]:
    """The peer and the 48-byte BLS key that a key record binds to it; checking the same record again is free.

    The proof covers the peer and the key, so nobody can announce another's key as its own.

    Raises:
        Malformed: wrong domain, signature, key or proof of possession.
    """
    record = unseal(envelope, KEYS_DOMAIN, KeyRecord)
    if not bls.verify_possession(record.bls, record.possession, owner=envelope.author):
        raise Malformed("the proof of possession of a BLS key does not hold")
    return envelope.author, record.bls
