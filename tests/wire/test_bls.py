"""The fast and the reference backend are one scheme, and neither accepts what the draft forbids."""

from __future__ import annotations

import random

import pytest
from py_ecc.bls.ciphersuites import G2ProofOfPossession as Oracle

from wire import bls
from wire.errors import LocalError, Malformed

FAST = bls.backend("fast")
REFERENCE = bls.backend("reference")
BOTH = pytest.mark.parametrize("using", [FAST, REFERENCE], ids=["fast", "reference"])

SECRETS = [bls.keygen(bytes([i]) * 32) for i in range(3)]
PUBLICS = [bls.public_key(secret, using=FAST) for secret in SECRETS]
MESSAGE = b"verdict"
SIGNATURES = [bls.sign(secret, MESSAGE, using=FAST) for secret in SECRETS]

INFINITY_G1 = b"\xc0" + bytes(47)
INFINITY_G2 = b"\xc0" + bytes(95)
FIELD = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB

INVALID_PUBLICS = {
    "empty": b"",
    "too short": PUBLICS[0][:47],
    "too long": PUBLICS[0] + b"\x00",
    "infinity": INFINITY_G1,
    "infinity with a sign": b"\xe0" + bytes(47),
    "infinity with junk": b"\xc0" + bytes(46) + b"\x01",
    "not compressed": bytes([PUBLICS[0][0] & 0x7F]) + PUBLICS[0][1:],
    "coordinate is the field's prime": ((1 << 383) | FIELD).to_bytes(48, "big"),
    "not on the curve": ((1 << 383) | 1).to_bytes(48, "big"),
    "outside the subgroup": ((1 << 383) | 4).to_bytes(48, "big"),
}

INVALID_SIGNATURES = {
    "empty": b"",
    "too short": SIGNATURES[0][:95],
    "too long": SIGNATURES[0] + b"\x00",
    "infinity with a sign": b"\xe0" + bytes(95),
    "infinity with junk": b"\xc0" + bytes(94) + b"\x01",
    "not compressed": bytes([SIGNATURES[0][0] & 0x7F]) + SIGNATURES[0][1:],
    "flag in the second half": SIGNATURES[0][:48] + bytes([SIGNATURES[0][48] | 0x80]) + SIGNATURES[0][49:],
    "coordinate is the field's prime": ((1 << 383) | FIELD).to_bytes(48, "big") + bytes(48),
}


def test_keygen_equals_the_reference() -> None:
    rng = random.Random(1)
    for length in (32, 33, 48, 64):
        seed = rng.randbytes(length)
        assert bls.keygen(seed) == Oracle.KeyGen(seed)


def test_keygen_refuses_a_short_seed() -> None:
    with pytest.raises(LocalError, match="32 bytes"):
        bls.keygen(bytes(31))


@pytest.mark.parametrize("secret", [1, 2, bls.ORDER - 1, SECRETS[0]], ids=["one", "two", "largest", "random"])
def test_both_backends_make_the_same_bytes(secret: int) -> None:
    message = secret.to_bytes(32, "big")
    assert bls.public_key(secret, using=FAST) == Oracle.SkToPk(secret)
    assert bls.public_key(secret, using=REFERENCE) == Oracle.SkToPk(secret)
    assert bls.sign(secret, message, using=FAST) == Oracle.Sign(secret, message)


def test_possession_and_aggregate_make_the_same_bytes() -> None:
    assert bls.prove_possession(SECRETS[0], using=FAST) == Oracle.PopProve(SECRETS[0])
    assert bls.prove_possession(SECRETS[0], using=REFERENCE) == Oracle.PopProve(SECRETS[0])
    assert bls.sign(SECRETS[0], b"", using=REFERENCE) == bls.sign(SECRETS[0], b"", using=FAST)
    assert bls.aggregate(SIGNATURES, using=FAST) == Oracle.Aggregate(SIGNATURES)  # type: ignore[arg-type]  # a NewType
    assert bls.aggregate(SIGNATURES, using=REFERENCE) == bls.aggregate(SIGNATURES, using=FAST)


@BOTH
def test_a_signature_verifies_for_its_key_and_message_only(using: bls.Backend) -> None:
    assert bls.verify(PUBLICS[0], MESSAGE, SIGNATURES[0], using=using)
    assert not bls.verify(PUBLICS[1], MESSAGE, SIGNATURES[0], using=using)
    assert not bls.verify(PUBLICS[0], b"another", SIGNATURES[0], using=using)
    assert not bls.verify(PUBLICS[0], MESSAGE, INFINITY_G2, using=using)


@BOTH
def test_an_aggregate_verifies_for_exactly_its_signers(using: bls.Backend) -> None:
    total = bls.aggregate(SIGNATURES, using=FAST)
    assert bls.fast_aggregate_verify(PUBLICS, MESSAGE, total, using=using)
    assert not bls.fast_aggregate_verify(PUBLICS[:2], MESSAGE, total, using=using)
    assert not bls.fast_aggregate_verify([], MESSAGE, total, using=using)
    assert not bls.fast_aggregate_verify([], MESSAGE, INFINITY_G2, using=using)


@BOTH
def test_keys_that_cancel_out_verify_nothing(using: bls.Backend) -> None:
    opposite = bls.public_key(bls.ORDER - SECRETS[0], using=FAST)
    assert not bls.fast_aggregate_verify([PUBLICS[0], opposite], MESSAGE, INFINITY_G2, using=using)


@BOTH
def test_possession_is_proven_by_the_holder_only(using: bls.Backend) -> None:
    proof = bls.prove_possession(SECRETS[0], using=FAST)
    assert bls.verify_possession(PUBLICS[0], proof, using=using)
    assert not bls.verify_possession(PUBLICS[0], proof, owner=bytes(32), using=using)
    assert not bls.verify_possession(PUBLICS[1], proof, using=using)
    assert not bls.verify_possession(PUBLICS[0], bls.sign(SECRETS[0], PUBLICS[0], using=FAST), using=using)
    assert not bls.verify_possession(INFINITY_G1, INFINITY_G2, using=using)


@BOTH
@pytest.mark.parametrize("public", INVALID_PUBLICS.values(), ids=INVALID_PUBLICS)
def test_an_invalid_public_key_verifies_nothing(public: bytes, using: bls.Backend) -> None:
    assert not bls.verify(public, MESSAGE, SIGNATURES[0], using=using)
    assert not bls.verify(public, MESSAGE, INFINITY_G2, using=using)
    assert not bls.fast_aggregate_verify([PUBLICS[0], public], MESSAGE, SIGNATURES[0], using=using)


@BOTH
@pytest.mark.parametrize("signature", INVALID_SIGNATURES.values(), ids=INVALID_SIGNATURES)
def test_an_invalid_signature_is_refused(signature: bytes, using: bls.Backend) -> None:
    assert not bls.verify(PUBLICS[0], MESSAGE, signature, using=using)
    with pytest.raises(Malformed):
        bls.aggregate([SIGNATURES[0], signature], using=using)


@BOTH
def test_a_signature_outside_the_subgroup_is_refused(using: bls.Backend) -> None:
    outside = _g2_outside_the_subgroup()
    assert not bls.verify(PUBLICS[0], MESSAGE, outside, using=using)
    with pytest.raises(Malformed):
        bls.aggregate([outside], using=using)


def _g2_outside_the_subgroup() -> bytes:
    from py_ecc.bls.g2_primitives import signature_to_G2, subgroup_check

    for x in range(100):
        raw = (1 << 383).to_bytes(48, "big") + x.to_bytes(48, "big")
        try:
            point = signature_to_G2(raw)  # type: ignore[arg-type]  # a NewType of bytes
        except ValueError:
            continue
        if not subgroup_check(point):
            return raw
    raise AssertionError("no such point")


def test_nothing_to_aggregate_is_refused() -> None:
    with pytest.raises(Malformed, match="no signature"):
        bls.aggregate([])


@pytest.mark.parametrize("secret", [0, -1, bls.ORDER, bls.ORDER + 1])
def test_an_impossible_secret_is_refused(secret: int) -> None:
    with pytest.raises(LocalError):
        bls.public_key(secret)
    with pytest.raises(LocalError):
        bls.sign(secret, MESSAGE)
    with pytest.raises(LocalError):
        bls.prove_possession(secret)


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORATE_BLS", "reference")
    assert bls.backend() is REFERENCE
    monkeypatch.setenv("QUORATE_BLS", "quantum")
    with pytest.raises(LocalError, match="quantum"):
        bls.backend()
    monkeypatch.delenv("QUORATE_BLS")
    assert bls.backend() is FAST
