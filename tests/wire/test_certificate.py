"""A certificate holds for exactly the peers, keys and statement that it names."""

from __future__ import annotations

import msgspec
import pytest

from wire import bls, certificate
from wire.errors import LocalError, Malformed
from wire.identity import Identity
from wire.job import Certificate, Statement

JURY = sorted((Identity.from_seed(bytes([i]) * 32) for i in range(1, 4)), key=lambda juror: juror.peer)
KEYS = {juror.peer: juror.bls_public for juror in JURY}
STATEMENT = Statement(b"j" * 32, b"r" * 32, "accept", "tolerant", b"y" * 32)
VOTES = {juror.peer: juror.bls_sign(STATEMENT.message) for juror in JURY}
FULL = certificate.assemble(STATEMENT, VOTES)
STRANGER = Identity.from_seed(b"\x09" * 32)


def _but(**changes: object) -> Certificate:
    return msgspec.structs.replace(FULL, **changes)


def test_all_or_a_quorum_may_sign() -> None:
    certificate.check(FULL, KEYS, quorum=3)
    for missing in JURY:
        votes = {peer: vote for peer, vote in VOTES.items() if peer != missing.peer}
        certificate.check(certificate.assemble(STATEMENT, votes), KEYS, quorum=2)


def test_the_order_of_the_votes_does_not_matter() -> None:
    assert certificate.assemble(STATEMENT, dict(reversed(VOTES.items()))) == FULL


BAD = {
    "below quorum": (_but(signers=FULL.signers[:1]), "1 signers, 2 needed"),
    "nobody": (_but(signers=[]), "0 signers"),
    "repeated": (_but(signers=[FULL.signers[0]] * 2), "repeated"),
    "unsorted": (_but(signers=FULL.signers[::-1]), "ascending"),
    "outside the jury": (_but(signers=sorted([*FULL.signers[:2], STRANGER.peer])), "outside the jury"),
    "too many": (_but(signers=[bytes([i]) * 32 for i in range(22)]), "at most 21"),
    "signer left out": (_but(signers=FULL.signers[:2]), "does not verify"),
    "another verdict": (_but(statement=msgspec.structs.replace(STATEMENT, verdict="reject")), "does not verify"),
    "another job": (_but(statement=msgspec.structs.replace(STATEMENT, job=b"k" * 32)), "does not verify"),
    "no verdict": (_but(statement=msgspec.structs.replace(STATEMENT, verdict="abstain")), "cannot state"),
    "empty signature": (_but(signature=b""), "does not verify"),
    "infinite signature": (_but(signature=b"\xc0" + bytes(95)), "does not verify"),
    "one vote's signature": (_but(signature=VOTES[JURY[0].peer]), "does not verify"),
}


@pytest.mark.parametrize(("bad", "why"), BAD.values(), ids=BAD)
def test_a_bad_certificate_is_refused(bad: Certificate, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        certificate.check(bad, KEYS, quorum=2)


def test_one_key_under_two_names_counts_once_or_not_at_all() -> None:
    """A juror that repeats another's key record and vote must not make a quorum of two."""
    copied = {**KEYS, JURY[1].peer: JURY[0].bls_public}
    vote = VOTES[JURY[0].peer]
    forged = certificate.assemble(STATEMENT, {JURY[0].peer: vote, JURY[1].peer: vote})
    assert bls.fast_aggregate_verify([JURY[0].bls_public] * 2, STATEMENT.message, forged.signature)
    with pytest.raises(Malformed, match="one BLS key"):
        certificate.check(forged, copied, quorum=2)


def test_a_rogue_key_cannot_stand_without_possession() -> None:
    """The attack that proofs of possession stop: a key chosen to cancel another's in the sum."""
    from py_ecc.bls.ciphersuites import G2ProofOfPossession as Oracle
    from py_ecc.bls.g2_primitives import G1_to_pubkey, pubkey_to_G1
    from py_ecc.optimized_bls12_381.optimized_curve import add, neg

    victim = JURY[0].bls_public
    rogue = bytes(
        G1_to_pubkey(add(pubkey_to_G1(Oracle.SkToPk(5)), neg(pubkey_to_G1(victim))))  # type: ignore[arg-type]  # a NewType
    )
    assert bls.fast_aggregate_verify([victim, rogue], b"forged", bls.sign(5, b"forged"))
    assert not bls.verify_possession(rogue, bls.prove_possession(5))


def test_nothing_to_assemble_and_no_quorum_are_refused() -> None:
    with pytest.raises(Malformed, match="no signature"):
        certificate.assemble(STATEMENT, {})
    with pytest.raises(LocalError, match="quorum"):
        certificate.check(FULL, KEYS, quorum=0)
