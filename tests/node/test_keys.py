"""The keyring: only proven keys, bounded, and honest about what it does not know."""

from __future__ import annotations

import pytest

from node.keys import COMBINATIONS_MAX, Keyring, SecondKey
from tests.wire.test_two_keys import second_record
from wire import bls
from wire.certificate import assemble
from wire.errors import Malformed
from wire.hashing import digest
from wire.identity import Identity
from wire.job import Statement
from wire.two_keys import check

PEERS = [Identity.from_seed(bytes([n]) * 32) for n in range(4)]
STATEMENT = Statement(bytes(32), bytes(32), "accept", "exact", bytes(32))


def test_a_record_of_another_peer_is_refused() -> None:
    with pytest.raises(Malformed, match="another peer"):
        Keyring().learn(PEERS[0].key_record(), author=PEERS[1].peer)


def test_a_certificate_is_unknown_until_every_key_is_there() -> None:
    votes = {peer.peer: peer.bls_sign(STATEMENT.message) for peer in PEERS[:2]}
    certificate = assemble(STATEMENT, votes)
    keyring = Keyring()
    keyring.learn(PEERS[0].key_record(), author=PEERS[0].peer)
    assert keyring.check(certificate, quorum=2) == "unknown"
    keyring.learn(PEERS[1].key_record(), author=PEERS[1].peer)
    assert keyring.check(certificate, quorum=2) == "valid"
    assert keyring.check(certificate, quorum=3) == "invalid"


def test_the_oldest_key_goes_when_the_ring_is_full() -> None:
    keyring = Keyring(keys_max=2)
    for peer in PEERS[:3]:
        keyring.learn(peer.key_record(), author=peer.peer)
    assert [keyring.record(peer.peer) is not None for peer in PEERS[:3]] == [False, True, True]


def test_a_second_key_is_refused_and_kept_as_proof() -> None:
    keyring, liar = Keyring(), PEERS[0]
    first = keyring.learn(liar.key_record(), author=liar.peer)
    for _ in range(2):
        with pytest.raises(SecondKey):
            keyring.learn(second_record(liar), author=liar.peer)
    assert {peer: check(proof) for peer, proof in keyring.two_faced().items()} == {liar.peer: liar.peer}
    assert keyring.learn(liar.key_record(), author=liar.peer) == first


def test_a_certificate_under_either_key_holds_for_whoever_knows_both() -> None:
    """Whoever made it was shown that key; its chain must not be refused for what the juror did."""
    keyring, (liar, other) = Keyring(), PEERS[:2]
    for peer in (liar, other):
        keyring.learn(peer.key_record(), author=peer.peer)
    vote = bls.sign(bls.keygen(digest("test.bls", b"second")), STATEMENT.message)
    second = assemble(STATEMENT, {liar.peer: vote, other.peer: other.bls_sign(STATEMENT.message)})
    first = assemble(STATEMENT, {each.peer: each.bls_sign(STATEMENT.message) for each in (liar, other)})
    assert [keyring.check(each, quorum=2) for each in (first, second)] == ["valid", "invalid"]
    with pytest.raises(SecondKey):
        keyring.learn(second_record(liar), author=liar.peer)
    assert [keyring.check(each, quorum=2) for each in (first, second)] == ["valid", "valid"]


def test_many_liars_do_not_make_a_check_long(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring, tried = Keyring(), []
    for peer in (Identity.from_seed(bytes([n]) * 32) for n in range(8)):
        keyring.learn(peer.key_record(), author=peer.peer)
        with pytest.raises(SecondKey):
            keyring.learn(second_record(peer), author=peer.peer)
    vote = PEERS[0].bls_sign(STATEMENT.message)

    def refuse(*_: object, quorum: int) -> None:
        tried.append(quorum)
        raise Malformed("no")

    monkeypatch.setattr("node.keys.check", refuse)
    assert keyring.check(assemble(STATEMENT, dict.fromkeys(keyring.two_faced(), vote)), quorum=2) == "invalid"
    assert len(tried) == COMBINATIONS_MAX
