"""BLS signatures with proof of possession, for compact quorum certificates.

Ciphersuite BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_ of draft-irtf-cfrg-bls-signature-05 (minimal public
keys: 48-byte keys in G1, 96-byte signatures in G2), as Ethereum uses it. Two backends with identical bytes:
`py_arkworks_bls12381` (fast: about 1 ms to sign) and `py_ecc` (the reference: about 130 ms). The first that
imports is used; the environment variable QUORATE_BLS=fast|reference or an argument overrides that.

Invariant: nothing verifies under the point at infinity, a point outside the prime-order subgroup, or a
spelling of a point other than its canonical one. `fast_aggregate_verify` is sound only for keys whose
possession was proven (draft, section 3.3): check `verify_possession` before you use a key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wire.errors import LocalError, Malformed

if TYPE_CHECKING:
    from py_arkworks_bls12381 import G1Point, G2Point, Scalar

ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Order of the groups: secrets are 1..ORDER-1."""

PUBLIC_BYTES = 48
SIGNATURE_BYTES = 96
SEED_BYTES_MIN = 32

_SIGN_TAG = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
_POSSESSION_TAG = b"BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"


class Backend(Protocol):
    """The curve under the scheme. Lengths and secrets are checked before it is called."""

    def public_key(self, secret: int) -> bytes:
        """The compressed public key (48 bytes)."""
        ...

    def valid_public(self, public: bytes) -> bool:
        """Whether `public` is the canonical spelling of a point of the subgroup other than infinity."""
        ...

    def sign(self, secret: int, message: bytes, tag: bytes) -> bytes:
        """The compressed signature (96 bytes) of `message` hashed to G2 under `tag`."""
        ...

    def verify(self, publics: Sequence[bytes], message: bytes, signature: bytes, tag: bytes) -> bool:
        """Whether `signature` is the sum of the keys' signatures; False on any invalid point."""
        ...

    def aggregate(self, signatures: Sequence[bytes]) -> bytes:
        """The sum of the signatures; ValueError on a point that does not decode or is outside the subgroup."""
        ...


class _Fast:
    """py_arkworks_bls12381: a Rust binding; its decoder checks curve and subgroup, not the unused bits."""

    def __init__(self) -> None:
        import py_arkworks_bls12381 as curve

        self._curve = curve
        self._minus_base = -curve.G1Point()

    def _scalar(self, secret: int) -> Scalar:
        return self._curve.Scalar.from_be_bytes(secret.to_bytes(32, "big"))

    def _key(self, raw: bytes) -> G1Point:
        point = self._curve.G1Point.from_compressed_bytes(raw)
        if point.to_compressed_bytes() != raw or point == self._curve.G1Point.identity():
            raise ValueError("not canonical, or the point at infinity")
        return point

    def _signature(self, raw: bytes) -> G2Point:
        point = self._curve.G2Point.from_compressed_bytes(raw)
        if point.to_compressed_bytes() != raw:
            raise ValueError("not canonical")
        return point

    def valid_public(self, public: bytes) -> bool:
        try:
            self._key(public)
        except ValueError:
            return False
        return True

    def public_key(self, secret: int) -> bytes:
        return bytes((self._curve.G1Point() * self._scalar(secret)).to_compressed_bytes())

    def sign(self, secret: int, message: bytes, tag: bytes) -> bytes:
        return bytes((self._curve.G2Point.hash_to_curve(message, tag) * self._scalar(secret)).to_compressed_bytes())

    def verify(self, publics: Sequence[bytes], message: bytes, signature: bytes, tag: bytes) -> bool:
        try:
            total = self._curve.G1Point.identity()
            for public in publics:
                total = total + self._key(public)
            point = self._signature(signature)
        except ValueError:
            return False
        if total == self._curve.G1Point.identity():
            return False
        hashed = self._curve.G2Point.hash_to_curve(message, tag)
        return self._curve.GT.pairing_check([self._minus_base, total], [point, hashed])

    def aggregate(self, signatures: Sequence[bytes]) -> bytes:
        total = self._curve.G2Point.identity()
        for signature in signatures:
            total = total + self._signature(signature)
        return bytes(total.to_compressed_bytes())


class _Reference:
    """py_ecc: plain Python, the oracle for the fast backend and the fallback where it has no wheel."""

    def __init__(self) -> None:
        from eth_utils.exceptions import ValidationError
        from py_ecc.bls import g2_primitives
        from py_ecc.bls.ciphersuites import G2ProofOfPossession

        self._scheme = G2ProofOfPossession
        self._points = g2_primitives
        self._invalid = (ValidationError, ValueError, AssertionError)

    def valid_public(self, public: bytes) -> bool:
        return bool(self._scheme.KeyValidate(public))  # type: ignore[arg-type]  # a NewType of bytes

    def public_key(self, secret: int) -> bytes:
        return bytes(self._scheme.SkToPk(secret))

    def sign(self, secret: int, message: bytes, tag: bytes) -> bytes:
        return bytes(self._scheme._CoreSign(secret, message, tag))

    def verify(self, publics: Sequence[bytes], message: bytes, signature: bytes, tag: bytes) -> bool:
        try:
            if not all(self.valid_public(public) for public in publics):
                return False
            total = self._scheme._AggregatePKs(publics)  # type: ignore[arg-type]  # a NewType of bytes
        except self._invalid:
            return False
        return bool(self._scheme._CoreVerify(total, message, signature, tag))  # type: ignore[arg-type]  # a NewType of bytes

    def aggregate(self, signatures: Sequence[bytes]) -> bytes:
        try:
            for signature in signatures:
                if not self._points.subgroup_check(self._points.signature_to_G2(signature)):  # type: ignore[arg-type]  # a NewType of bytes
                    raise ValueError("outside the subgroup")
            return bytes(self._scheme.Aggregate(signatures))  # type: ignore[arg-type]  # a NewType of bytes
        except self._invalid as exc:
            raise ValueError(str(exc)) from exc


def backend(name: str | None = None) -> Backend:
    """The backend called `name` ("fast" or "reference"); without a name, the one to use by default.

    Raises:
        LocalError: no such backend, or the fast one was named and its library is not installed.
    """
    name = name or os.environ.get("QUORATE_BLS")
    if name:
        return _load(name)
    try:
        return _load("fast")
    except LocalError:
        return _load("reference")


@lru_cache(maxsize=2)
def _load(name: str) -> Backend:
    if name == "reference":
        return _Reference()
    if name != "fast":
        raise LocalError(f"no BLS backend {name!r}; there are 'fast' and 'reference'")
    try:
        return _Fast()
    except ImportError as exc:
        raise LocalError("the fast BLS backend needs py_arkworks_bls12381") from exc


def _check_secret(secret: int) -> None:
    if not 0 < secret < ORDER:
        raise LocalError("a BLS secret lies between 1 and the group order")


def keygen(seed: bytes) -> int:
    """The secret that `seed` (at least 32 bytes) determines (KeyGen: draft section 2.3, EIP-2333 without key_info).

    Raises:
        LocalError: the seed is shorter than 32 bytes.
    """
    if len(seed) < SEED_BYTES_MIN:
        raise LocalError(f"a BLS seed has at least {SEED_BYTES_MIN} bytes")
    salt = b"BLS-SIG-KEYGEN-SALT-"
    secret = 0
    while secret == 0:
        state = Hash(SHA256())
        state.update(salt)
        salt = state.finalize()
        okm = HKDF(SHA256(), 48, salt, (48).to_bytes(2, "big")).derive(seed + b"\x00")
        secret = int.from_bytes(okm, "big") % ORDER
    return secret


def public_key(secret: int, *, using: Backend | None = None) -> bytes:
    """The 48-byte public key of `secret`.

    Raises:
        LocalError: the secret is zero or not below the group order.
    """
    _check_secret(secret)
    return (using or backend()).public_key(secret)


def valid_public(public: bytes, *, using: Backend | None = None) -> bool:
    """Whether `public` can be a key at all (KeyValidate: draft, section 2.5)."""
    return len(public) == PUBLIC_BYTES and (using or backend()).valid_public(public)


def sign(secret: int, message: bytes, *, using: Backend | None = None) -> bytes:
    """The 96-byte signature of `message`; the same bytes every time.

    Raises:
        LocalError: the secret is zero or not below the group order.
    """
    _check_secret(secret)
    return (using or backend()).sign(secret, message, _SIGN_TAG)


def verify(public: bytes, message: bytes, signature: bytes, *, using: Backend | None = None) -> bool:
    """Whether `signature` is `public`'s signature of `message`; False on invalid lengths and points."""
    return fast_aggregate_verify([public], message, signature, using=using)


def aggregate(signatures: Sequence[bytes], *, using: Backend | None = None) -> bytes:
    """The sum (96 bytes) of one or more signatures.

    Raises:
        Malformed: none given, or one of them is no canonical point of the subgroup.
    """
    if not signatures:
        raise Malformed("no signature to aggregate")
    if any(len(signature) != SIGNATURE_BYTES for signature in signatures):
        raise Malformed(f"a BLS signature has {SIGNATURE_BYTES} bytes")
    try:
        return (using or backend()).aggregate(signatures)
    except ValueError as exc:
        raise Malformed("a BLS signature that is no point of the group") from exc


def fast_aggregate_verify(
    publics: Sequence[bytes], message: bytes, signature: bytes, *, using: Backend | None = None
) -> bool:
    """Whether `signature` aggregates the signatures of one `message` by all of `publics`.

    False for no keys, for invalid lengths and points, and for keys that sum to the point at infinity.
    """
    return _verify(publics, message, signature, _SIGN_TAG, using)


def _verify(publics: Sequence[bytes], message: bytes, signature: bytes, tag: bytes, using: Backend | None) -> bool:
    if not publics or len(signature) != SIGNATURE_BYTES or any(len(public) != PUBLIC_BYTES for public in publics):
        return False
    return (using or backend()).verify(publics, message, signature, tag)


def prove_possession(secret: int, *, owner: bytes = b"", using: Backend | None = None) -> bytes:
    """The 96-byte proof that whoever publishes the public key holds `secret`.

    Args:
        secret: of the key.
        owner: whose key it is; its bytes are signed before those of the key, so that nobody else can claim it. Empty,
            this is the proof of the draft, section 3.3.2.
        using: the backend.

    Raises:
        LocalError: the secret is zero or not below the group order.
    """
    _check_secret(secret)
    chosen = using or backend()
    return chosen.sign(secret, owner + chosen.public_key(secret), _POSSESSION_TAG)


def verify_possession(public: bytes, proof: bytes, *, owner: bytes = b"", using: Backend | None = None) -> bool:
    """Whether `proof` proves that `owner` has the secret behind `public` (draft, section 3.3.3, if it is empty)."""
    return _verify([public], owner + public, proof, _POSSESSION_TAG, using)
