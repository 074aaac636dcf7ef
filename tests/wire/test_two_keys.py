"""Two key records of one peer prove that it shows different keys to different people."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wire import bls, codec
from wire.envelope import Envelope, seal
from wire.errors import Malformed
from wire.hashing import digest
from wire.identity import Identity
from wire.job import KeyRecord
from wire.two_keys import TwoKeys, check, prove

ALICE, BOB = (Identity.from_seed(digest("test.two-keys", name)) for name in (b"alice", b"bob"))


def second_record(identity: Identity) -> Envelope:
    """A proper record of another key of this identity's."""
    secret = bls.keygen(digest("test.bls", b"second"))
    record = KeyRecord(bls.public_key(secret), bls.prove_possession(secret, owner=identity.peer))
    return seal(identity, "keys", record)


def test_two_records_prove_it_whichever_was_seen_first() -> None:
    first, second = ALICE.key_record(), second_record(ALICE)
    proof = prove(first, second)
    assert proof is not None
    assert proof == prove(second, first)
    assert check(codec.decode(TwoKeys, codec.encode(proof))) == ALICE.peer
    assert len(codec.encode(proof)) < 600


def test_one_record_twice_or_two_peers_prove_nothing() -> None:
    assert prove(ALICE.key_record(), ALICE.key_record()) is None
    assert prove(ALICE.key_record(), BOB.key_record()) is None


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (lambda p: TwoKeys(p.first, p.first), "one key twice"),
        (lambda p: TwoKeys(p.second, p.first), "wrong order"),
        (lambda p: TwoKeys(p.first, BOB.key_record()), "different authors"),
        (lambda p: TwoKeys(p.first, seal(ALICE, "keys", codec.decode(KeyRecord, BOB.key_record().body))), "possession"),
        (lambda p: TwoKeys(p.first, Envelope("keys", ALICE.peer, p.second.body, bytes(64))), "signature"),
        (lambda p: TwoKeys(seal(ALICE, "job", codec.decode(KeyRecord, p.first.body)), p.second), "domain"),
    ],
)
def test_nobody_is_convicted_without_two_keys_of_its_own(forge: Callable[[TwoKeys], TwoKeys], says: str) -> None:
    proof = prove(ALICE.key_record(), second_record(ALICE))
    assert proof is not None
    with pytest.raises(Malformed, match=says):
        check(forge(proof))
