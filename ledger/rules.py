"""Which entry may follow: the rules of each kind, against the author's own chain and the entries it links to.

A rule that is broken raises `InvalidEntry`, and stays broken whatever else becomes known; a link whose other end is not
known is a `Gap`, which may close later. "No credit before verification": a receipt that owes anything carries a
certificate, and owes exactly what that certificate's verdict and signers allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ledger.entry import MICRO_MAX, ZERO, Accept, Entry, Header, InvalidEntry, Offer, Payment, Receipt, Release, Settle
from ledger.ports import CertificateCheck, Lookup
from ledger.state import Book, OfferRecord
from wire import codec
from wire.errors import Malformed
from wire.job import Certificate
from wire.peer import PeerId


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that must be known before the entry at `height` is complete.

    kind: "entry" (`ref` is the id of a linked entry of another chain), "own" (`ref` is the id of an own entry below a
    hole), "certificate" (`ref` is the receipt whose jurors' keys are not known) or "heights" (entries from `height` up
    to, not including, `until` are missing; `ref` is the id that the next one names as its previous).
    """

    height: int
    kind: Literal["entry", "own", "certificate", "heights"]
    ref: bytes
    until: int = 0


def decode_certificate(raw: bytes) -> Certificate:
    """The certificate inside a receipt.

    Raises:
        InvalidEntry: "certificate".
    """
    try:
        return codec.decode(Certificate, raw, bytes_max=8192)
    except Malformed as exc:
        raise InvalidEntry("certificate", str(exc)) from exc


def owed(offer: Offer, verdict: str, signers: list[PeerId]) -> list[Payment]:
    """What a verdict costs the payer: the price on "accept", a fee for each signer on "accept" and "reject".

    Worker first, then the signers in ascending order; nothing is listed for a price or fee of zero.
    """
    payments = [Payment(offer.payee, offer.price_micro)] if verdict == "accept" and offer.price_micro else []
    if verdict != "unaudited" and offer.fee_micro:
        payments += [Payment(signer, offer.fee_micro) for signer in signers]
    return payments


def check_body(book: Book, entry: Entry, look: Lookup, certify: CertificateCheck) -> list[Gap]:
    """Check an entry against the chain below it and the entries that it links to.

    Args:
        book: the read model of the author's chain up to the entry.
        entry: the next entry; its header and signature are checked elsewhere.
        look: finds linked entries of other chains.
        certify: checks certificates.

    Returns:
        What is not known yet; empty if nothing is missing.

    Raises:
        InvalidEntry: the rule that is broken.
    """
    body = entry.body
    if isinstance(body, Offer):
        return _check_offer(book, entry.header, body)
    if isinstance(body, Accept):
        return _check_accept(book, entry.header, body, look)
    if isinstance(body, Receipt):
        return _check_receipt(book, entry, body, look, certify)
    if isinstance(body, Settle):
        return _check_settle(book, entry.header, body, look, certify)
    return _check_release(book, entry.header, body)


def _check_offer(book: Book, header: Header, offer: Offer) -> list[Gap]:
    if offer.payee == header.author:
        raise InvalidEntry("self_dealing", "an offer to oneself")
    if offer.reserve_micro > MICRO_MAX:
        raise InvalidEntry("amount", f"reserves {offer.reserve_micro}, at most {MICRO_MAX}")
    if offer.expires_ms <= header.time_ms:
        raise InvalidEntry("expired", "the offer ends before it begins")
    if (offer.job, offer.payee) in book.offer_ids:
        raise InvalidEntry("twice", "this job was offered to this payee before")
    if offer.job in book.receipts:
        raise InvalidEntry("twice", "this job has its receipt")
    return []


def _own_offer(book: Book, header: Header, offer_id: bytes, job: bytes) -> OfferRecord | Gap:
    record = book.offers.get(offer_id)
    if record is None:
        if not book.whole:
            return Gap(header.height, "own", offer_id)
        raise InvalidEntry("offer", "names no offer of this chain")
    if record.offer.job != job:
        raise InvalidEntry("offer", "names an offer of another job")
    if record.state != "open":
        raise InvalidEntry("offer", f"the offer is already {record.state}")
    return record


def _check_release(book: Book, header: Header, release: Release) -> list[Gap]:
    found = _own_offer(book, header, release.offer, release.job)
    return [found] if isinstance(found, Gap) else []


def _check_accept(book: Book, header: Header, accept: Accept, look: Lookup) -> list[Gap]:
    if accept.offer in book.accepts:
        raise InvalidEntry("twice", "this offer was accepted before")
    linked = look(accept.offer)
    if linked is None:
        return [Gap(header.height, "entry", accept.offer)]
    offer = linked.body
    if not isinstance(offer, Offer) or linked.header.author != accept.payer:
        raise InvalidEntry("linked", "names no offer of that payer")
    if offer.payee != header.author or offer.job != accept.job:
        raise InvalidEntry("linked", "names an offer to another payee or for another job")
    if header.time_ms > offer.expires_ms:
        raise InvalidEntry("expired", "accepted after the offer ended")
    return []


def _check_receipt(book: Book, entry: Entry, receipt: Receipt, look: Lookup, certify: CertificateCheck) -> list[Gap]:
    header = entry.header
    if receipt.job in book.receipts:
        raise InvalidEntry("twice", "this job has its receipt")
    found = _own_offer(book, header, receipt.offer, receipt.job)
    if isinstance(found, Gap):
        return [found]
    gaps = _check_accepted(header, receipt, found.offer, look)
    signers: list[PeerId] = []
    if receipt.verdict == "unaudited":
        if receipt.certificate:
            raise InvalidEntry("certificate", "an unaudited answer has no certificate")
    else:
        certificate = _check_certificate(header, receipt, found.offer)
        signers = certificate.signers
        if certified(certificate, found.offer, certify) == "unknown":
            gaps.append(Gap(header.height, "certificate", entry.id))
    if receipt.payments != owed(found.offer, receipt.verdict, signers):
        raise InvalidEntry("payments", f"not what {receipt.verdict} owes")
    return gaps


def certified(certificate: Certificate, offer: Offer, certify: CertificateCheck) -> str:
    """ "valid" or "unknown".

    Raises:
        InvalidEntry: "certificate".
    """
    finding = certify(certificate, quorum=offer.jurors // 2 + 1)
    if finding == "invalid":
        raise InvalidEntry("certificate", "its signature does not verify")
    return finding


def _check_certificate(header: Header, receipt: Receipt, offer: Offer) -> Certificate:
    """Everything about a certificate but its signature."""
    if not receipt.certificate:
        raise InvalidEntry("certificate", "no credit before verification: the receipt carries no certificate")
    certificate = decode_certificate(receipt.certificate)
    signers = certificate.signers
    if certificate.statement.job != receipt.job or certificate.statement.verdict != receipt.verdict:
        raise InvalidEntry("certificate", "certifies another job or verdict")
    if any(a >= b for a, b in pairwise(signers)):
        raise InvalidEntry("certificate", "signers are not in ascending order")
    if not offer.jurors // 2 + 1 <= len(signers) <= offer.jurors:
        raise InvalidEntry("certificate", f"{len(signers)} signers of a jury of {offer.jurors}")
    if header.author in signers or offer.payee in signers:
        raise InvalidEntry("certificate", "the payer or the worker sits in the jury")
    return certificate


def _check_accepted(header: Header, receipt: Receipt, offer: Offer, look: Lookup) -> list[Gap]:
    if receipt.accept == ZERO:
        if receipt.verdict == "unaudited":
            return []
        raise InvalidEntry("linked", "a verdict on work that nobody accepted")
    linked = look(receipt.accept)
    if linked is None:
        return [Gap(header.height, "entry", receipt.accept)]
    accept = linked.body
    if not isinstance(accept, Accept) or linked.header.author != offer.payee or accept.offer != receipt.offer:
        raise InvalidEntry("linked", "names no acceptance of this offer by its payee")
    if accept.job != receipt.job or accept.payer != header.author:
        raise InvalidEntry("linked", "names an acceptance of another job or payer")
    return []


def _check_settle(book: Book, header: Header, settle: Settle, look: Lookup, certify: CertificateCheck) -> list[Gap]:
    if settle.receipt in book.settles:
        raise InvalidEntry("twice", "this receipt was settled before")
    if settle.payer == header.author:
        raise InvalidEntry("self_dealing", "settles with oneself")
    linked = look(settle.receipt)
    if linked is None:
        return [Gap(header.height, "entry", settle.receipt)]
    receipt = linked.body
    if not isinstance(receipt, Receipt) or linked.header.author != settle.payer or receipt.job != settle.job:
        raise InvalidEntry("linked", "names no receipt of that payer for that job")
    share = sum(payment.amount_micro for payment in receipt.payments if payment.peer == header.author)
    if share != settle.amount_micro:
        raise InvalidEntry("payments", f"takes {settle.amount_micro}, its share is {share}")
    offered = look(receipt.offer)
    if offered is None or not isinstance(offered.body, Offer):
        return [Gap(header.height, "entry", receipt.offer)]
    if certified(decode_certificate(receipt.certificate), offered.body, certify) == "unknown":
        return [Gap(header.height, "certificate", settle.receipt)]
    return []
