"""Quorum certificates: one aggregate BLS signature by which a quorum of a jury states one verdict.

Invariant: a certificate that `check` accepts carries the signatures of at least `quorum` different keys of
different peers, all of the same statement. It stands only on keys whose possession was proven: take them from
`wire.identity.check_key_record`. Source: draft-irtf-cfrg-bls-signature-05, section 3.3.4 (FastAggregateVerify).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from wire import bls
from wire.errors import LocalError, Malformed
from wire.job import Certificate, Statement
from wire.limits import JURY_MAX
from wire.peer import PeerId

DECISIVE = ("accept", "reject")
"""The verdicts that can be certified; jurors sign no other."""


def assemble(statement: Statement, votes: Mapping[PeerId, bytes]) -> Certificate:
    """Aggregate the jurors' signatures of `statement`.

    The votes are not verified here one by one: check each with `wire.bls.verify` as it arrives, or one bad
    vote spoils the certificate.

    Args:
        statement: what they signed (`Statement.message`).
        votes: each signer's 96-byte BLS signature.

    Raises:
        Malformed: no votes, or one that is no BLS signature.
    """
    signers = sorted(votes)
    return Certificate(statement, signers, bls.aggregate([votes[peer] for peer in signers]))


def check(certificate: Certificate, keys: Mapping[PeerId, bytes], *, quorum: int) -> None:
    """Verify a certificate.

    Args:
        certificate: as received.
        keys: the jury's BLS keys (48 bytes each), possession proven; nobody else may sign.
        quorum: the fewest signers that count.

    Raises:
        LocalError: the quorum is below 1.
        Malformed: the certificate does not hold; the message says why.
    """
    if quorum < 1:
        raise LocalError("a quorum has at least one signer")
    statement, signers = certificate.statement, certificate.signers
    if statement.verdict not in DECISIVE:
        raise Malformed(f"a certificate cannot state {statement.verdict!r}")
    if len(signers) > JURY_MAX:
        raise Malformed(f"{len(signers)} signers, at most {JURY_MAX} allowed")
    if len(signers) < quorum:
        raise Malformed(f"{len(signers)} signers, {quorum} needed")
    if any(left >= right for left, right in pairwise(signers)):
        raise Malformed("signers are repeated or not in ascending order")
    if any(peer not in keys for peer in signers):
        raise Malformed("signed by a peer outside the jury")
    publics = [keys[peer] for peer in signers]
    if len(set(publics)) != len(publics):
        raise Malformed("two signers with one BLS key")
    if not bls.fast_aggregate_verify(publics, statement.message, certificate.signature):
        raise Malformed("the aggregate signature does not verify")
