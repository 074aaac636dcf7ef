"""One seed, two keys, one name; secrets stay inside."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
from pathlib import Path

import pytest
from libp2p.crypto.ed25519 import Ed25519PublicKey, create_new_key_pair
from libp2p.peer.id import ID

from wire import bls, codec, envelope
from wire.envelope import Envelope, seal
from wire.errors import LocalError, Malformed
from wire.identity import Identity, check_key_record
from wire.job import KeyRecord
from wire.peer import from_text, to_text

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "identity.json").read_text())
ALICE = Identity.from_seed(b"\x01" * 32)
BOB = Identity.from_seed(b"\x02" * 32)


def _hkdf(root: bytes, label: bytes) -> bytes:
    """RFC 5869 for one block, written out."""
    key = hmac.digest(b"quorate/1/identity", root, "sha256")
    return hmac.digest(key, label + b"\x01", "sha256")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vector(vector: dict[str, str]) -> None:
    identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
    assert vector["ed25519_seed"] == identity.ed25519_seed.hex()
    assert vector["peer"] == identity.peer.hex()
    assert vector["peer_text"] == to_text(identity.peer)
    assert vector["bls_public"] == identity.bls_public.hex()
    assert vector["key_record_sha256"] == hashlib.sha256(codec.encode(identity.key_record())).hexdigest()


def test_the_derivation_is_the_documented_one() -> None:
    assert ALICE.ed25519_seed == _hkdf(b"\x01" * 32, b"ed25519")
    assert ALICE.bls_public == bls.public_key(bls.keygen(_hkdf(b"\x01" * 32, b"bls12-381")))


def test_the_peer_id_is_libp2p_s_own_for_the_same_key() -> None:
    pair = create_new_key_pair(ALICE.ed25519_seed)
    assert to_text(ALICE.peer) == ID.from_pubkey(pair.public_key).to_string()
    assert to_text(ALICE.peer) == ID.from_pubkey(Ed25519PublicKey.from_bytes(ALICE.peer)).to_string()
    assert from_text(to_text(ALICE.peer)) == ALICE.peer


def test_a_signature_verifies_under_the_peer() -> None:
    signature = ALICE.sign(b"hello")
    assert envelope.verify(ALICE.peer, b"hello", signature)
    assert not envelope.verify(BOB.peer, b"hello", signature)
    assert bls.verify(ALICE.bls_public, b"hello", ALICE.bls_sign(b"hello"))


def test_generated_identities_differ_and_come_back_from_their_seed() -> None:
    new = Identity.generate()
    assert new != Identity.generate()
    assert Identity.from_seed(new.seed) == new
    assert len({new, Identity.from_seed(new.seed)}) == 1


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(LocalError, match="32 bytes"):
        Identity.from_seed(bytes(length))


def test_no_secret_shows() -> None:
    identity = Identity.from_seed(bytes(range(32)))
    for text in (repr(identity), str(identity), f"{identity}"):
        assert text == f"Identity({to_text(identity.peer)})"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(identity)


def test_a_key_record_binds_the_bls_key() -> None:
    assert check_key_record(ALICE.key_record()) == (ALICE.peer, ALICE.bls_public)
    assert ALICE.key_record() is ALICE.key_record()


def test_checking_a_record_again_is_free() -> None:
    check_key_record(ALICE.key_record())
    hits = check_key_record.cache_info().hits
    check_key_record(codec.decode(Envelope, codec.encode(ALICE.key_record())))
    assert check_key_record.cache_info().hits == hits + 1


def test_a_record_without_possession_is_refused() -> None:
    stolen = codec.decode(KeyRecord, BOB.key_record().body)
    forged = seal(ALICE, "keys", KeyRecord(stolen.bls, ALICE.bls_sign(stolen.bls)))
    with pytest.raises(Malformed, match="possession"):
        check_key_record(forged)


def test_anothers_key_and_proof_cannot_be_announced_as_ones_own() -> None:
    copied = seal(ALICE, "keys", codec.decode(KeyRecord, BOB.key_record().body))
    with pytest.raises(Malformed, match="possession"):
        check_key_record(copied)


def test_a_record_of_another_domain_or_author_is_refused() -> None:
    record = codec.decode(KeyRecord, ALICE.key_record().body)
    with pytest.raises(Malformed, match="domain"):
        check_key_record(seal(ALICE, "job", record))
    good = ALICE.key_record()
    with pytest.raises(Malformed, match="signature"):
        check_key_record(Envelope(good.domain, BOB.peer, good.body, good.signature))


def test_an_infinite_key_is_refused() -> None:
    with pytest.raises(Malformed, match="possession"):
        check_key_record(seal(ALICE, "keys", KeyRecord(b"\xc0" + bytes(47), b"\xc0" + bytes(95))))
