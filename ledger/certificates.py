"""What a receipt's certificates must be, by the rule of its offer: who may have signed, how many, in which order.

"one": exactly one, of the jury, with as many signers as it needs. "ladder": one per level at most, in order, all with
the receipt's verdict; the last one decided and has as many signers as its level needs, unless the receipt says that a
dispute decided; on the other levels whoever voted as it ended is paid, however few. "batch": on accept exactly as many
accepting ones as audits were agreed; on reject as many at most, one of them rejecting; all with enough signers.
"""

from __future__ import annotations

from itertools import pairwise

from ledger.entry import CERTIFICATE_BYTES_MAX, InvalidEntry, Jury, Offer, Receipt
from ledger.ports import CertificateCheck, Finding
from wire import codec
from wire.errors import Malformed
from wire.job import Certificate
from wire.peer import PeerId


def decode_certificates(receipt: Receipt) -> list[Certificate]:
    """The certificates inside a receipt.

    Raises:
        InvalidEntry: "certificate".
    """
    try:
        return [codec.decode(Certificate, raw, bytes_max=CERTIFICATE_BYTES_MAX) for raw in receipt.certificates]
    except Malformed as exc:
        raise InvalidEntry("certificate", str(exc)) from exc


def judged(payer: PeerId, receipt: Receipt, offer: Offer) -> list[Certificate]:
    """The certificates of a receipt, everything about them checked but their signatures.

    Raises:
        InvalidEntry: "certificate", "dispute" or "canary".
    """
    certificates = decode_certificates(receipt)
    _check_dispute(receipt, offer)
    _check_canary(receipt, offer)
    if receipt.verdict == "unaudited":
        if certificates:
            raise InvalidEntry("certificate", "an unaudited answer has no certificate")
        return []
    if not certificates:
        raise InvalidEntry("certificate", "no credit before verification: the receipt carries no certificate")
    places = [_place(certificate, offer) for certificate in certificates]
    if any(a >= b for a, b in pairwise(places)):
        raise InvalidEntry("certificate", "not in the order of the juries, or two of one jury")
    for certificate, place, quorum in zip(certificates, places, _quorums(receipt, offer, places), strict=True):
        _check_signers(certificate, offer.juries[place], quorum, {payer, offer.payee})
    if offer.rule == "batch":
        _check_batch(certificates, receipt, offer)
    else:
        _check_matter(certificates, receipt)
    return certificates


def certified(receipt: Receipt, offer: Offer, certify: CertificateCheck) -> Finding:
    """Whether the signatures hold: "valid", or "unknown" while a signer's key is.

    Args:
        receipt: one that `judged` has checked. offer: the one that it names.
        certify: checks one signature.

    Raises:
        InvalidEntry: "certificate".
    """
    certificates = decode_certificates(receipt)
    places = [_place(certificate, offer) for certificate in certificates]
    quorums = _quorums(receipt, offer, places)
    found = [certify(each, quorum=quorum) for each, quorum in zip(certificates, quorums, strict=True)]
    if "invalid" in found:
        raise InvalidEntry("certificate", "a signature does not verify")
    return "unknown" if "unknown" in found else "valid"


def _place(certificate: Certificate, offer: Offer) -> int:
    """Which of the offer's juries this is."""
    jobs = [jury.job for jury in offer.juries]
    if certificate.statement.job not in jobs:
        raise InvalidEntry("certificate", "certifies a job that the offer names no jury for")
    return jobs.index(certificate.statement.job)


def _quorums(receipt: Receipt, offer: Offer, places: list[int]) -> list[int]:
    """The fewest signers of each certificate."""
    needed = [offer.juries[place].needed for place in places]
    if offer.rule != "ladder" or not needed:
        return needed
    return [*([1] * (len(needed) - 1)), 1 if receipt.dispute else needed[-1]]


def _check_dispute(receipt: Receipt, offer: Offer) -> None:
    if not receipt.dispute:
        return
    if offer.rule != "ladder" or receipt.verdict == "unaudited":
        raise InvalidEntry("dispute", "only the answer of a ladder can be disputed, and then there is a verdict")
    if len(receipt.dispute) != 32 or (receipt.verdict == "accept" and any(receipt.dispute)):
        raise InvalidEntry("dispute", "a hash of 32 bytes; zeros where the answer stands")


def _check_canary(receipt: Receipt, offer: Offer) -> None:
    if not receipt.canary:
        return
    if len(receipt.canary) != 32 or receipt.verdict == "unaudited" or offer.rule == "ladder":
        raise InvalidEntry("canary", "a hash of 32 bytes, with a verdict, by the rule one or batch")


def _check_signers(certificate: Certificate, jury: Jury, quorum: int, parties: set[PeerId]) -> None:
    signers = certificate.signers
    if any(a >= b for a, b in pairwise(signers)):
        raise InvalidEntry("certificate", "signers are not in ascending order")
    if not quorum <= len(signers) <= jury.size:
        raise InvalidEntry("certificate", f"{len(signers)} signers of a jury of {jury.size}, {quorum} needed")
    if parties & set(signers):
        raise InvalidEntry("certificate", "the payer or the worker sits in the jury")


def _check_matter(certificates: list[Certificate], receipt: Receipt) -> None:
    """One answer, judged by one jury or by one after another: one verdict, and nobody sits twice."""
    if any(certificate.statement.verdict != receipt.verdict for certificate in certificates):
        raise InvalidEntry("certificate", "certifies another verdict")
    if len({(each.statement.root, each.statement.lane) for each in certificates}) != 1:
        raise InvalidEntry("certificate", "certifies two different answers")
    signers = [signer for certificate in certificates for signer in certificate.signers]
    if len(set(signers)) != len(signers):
        raise InvalidEntry("certificate", "a juror sits at two levels")


def _check_batch(certificates: list[Certificate], receipt: Receipt, offer: Offer) -> None:
    said = [certificate.statement.verdict for certificate in certificates]
    if any(verdict not in ("accept", "reject") for verdict in said):
        raise InvalidEntry("certificate", "certifies no verdict")
    if receipt.verdict == "accept" and said != ["accept"] * offer.audits:
        raise InvalidEntry("certificate", f"{len(said)} certificates, {offer.audits} accepting ones agreed")
    if receipt.verdict == "reject" and not ("reject" in said and len(said) <= offer.audits):
        raise InvalidEntry("certificate", "a rejection needs a rejecting certificate, and at most one per audit")
