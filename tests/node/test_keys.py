"""The keyring: only proven keys, bounded, and honest about what it does not know."""

from __future__ import annotations

import pytest

from node.keys import Keyring
from wire.certificate import assemble
from wire.errors import Malformed
from wire.identity import Identity
from wire.job import Statement

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
