"""Which entry may follow: the rules of each kind, against the author's own chain and the entries it links to.

A rule that is broken raises `InvalidEntry`, and stays broken whatever else becomes known; a link whose other end is not
known is a `Gap`, which may close later. "No credit before verification": a receipt that owes anything carries
certificates, and owes exactly what the verdict and their signers allow. Relayed bytes are the exception: whoever had
them relayed is the only one who can tell, and pays by acknowledging them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ledger.certificates import certified, judged
from ledger.entry import (
    LADDER_MAX,
    MICRO_MAX,
    SEATS_MAX,
    ZERO,
    Accept,
    Entry,
    Header,
    InvalidEntry,
    Offer,
    Payment,
    Receipt,
    Relayed,
    Release,
    Settle,
)
from ledger.ports import CertificateCheck, Lookup
from ledger.state import Book, OfferRecord
from wire.job import Certificate


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


def owed(offer: Offer, verdict: str, certificates: Sequence[Certificate]) -> list[Payment]:
    """What a verdict costs the payer: the price on "accept", and a fee for each signature under a certificate.

    Worker first, then the signers in ascending order, each once; nothing is listed for a price or fee of zero.
    """
    payments = [Payment(offer.payee, offer.price_micro)] if verdict == "accept" and offer.price_micro else []
    signed = Counter(signer for certificate in certificates for signer in certificate.signers)
    if verdict != "unaudited" and offer.fee_micro:
        payments += [Payment(signer, offer.fee_micro * signed[signer]) for signer in sorted(signed)]
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
    if isinstance(body, Relayed):
        return _check_relayed(book, entry.header, body)
    if isinstance(body, Settle):
        return _check_settle(book, entry.header, body, look, certify)
    return _check_release(book, entry.header, body)


def _check_offer(book: Book, header: Header, offer: Offer) -> list[Gap]:
    if offer.payee == header.author:
        raise InvalidEntry("self_dealing", "an offer to oneself")
    _check_terms(offer)
    if offer.reserve_micro > MICRO_MAX:
        raise InvalidEntry("amount", f"reserves {offer.reserve_micro}, at most {MICRO_MAX}")
    if offer.expires_ms <= header.time_ms:
        raise InvalidEntry("expired", "the offer ends before it begins")
    if (offer.job, offer.payee) in book.offer_ids:
        raise InvalidEntry("twice", "this job was offered to this payee before")
    if any((jury.job, offer.payee) in book.judged for jury in offer.juries):
        raise InvalidEntry("twice", "an earlier offer to this payee names a jury for one of these jobs")
    if offer.job in book.receipts:
        raise InvalidEntry("twice", "this job has its receipt")
    return []


def _check_terms(offer: Offer) -> None:
    """The juries make sense, and fit the rule."""
    juries = offer.juries
    if any(jury.size % 2 == 0 or not jury.size < 2 * jury.needed <= 2 * jury.size for jury in juries):
        raise InvalidEntry("juries", "a jury is odd, and decides with more than half, at most all")
    if len({jury.job for jury in juries}) != len(juries):
        raise InvalidEntry("juries", "two juries for one job")
    if offer.seats > SEATS_MAX:
        raise InvalidEntry("juries", f"{offer.seats} jurors, at most {SEATS_MAX}")
    if offer.rule == "batch":
        alike = len({(jury.size, jury.needed) for jury in juries}) == 1
        if not alike or not 1 <= offer.audits <= len(juries):
            raise InvalidEntry("juries", f"{offer.audits} audits among {len(juries)} juries of one kind")
        return
    if offer.audits or len(juries) > (1 if offer.rule == "one" else LADDER_MAX):
        raise InvalidEntry("juries", f"{len(juries)} juries and {offer.audits} audits by the rule {offer.rule!r}")
    if (juries or offer.rule == "ladder") and (not juries or juries[0].job != offer.job):
        raise InvalidEntry("juries", "the first jury judges another job")


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
    certificates = judged(header.author, receipt, found.offer)
    if certified(receipt, found.offer, certify) == "unknown":
        gaps.append(Gap(header.height, "certificate", entry.id))
    if receipt.payments != owed(found.offer, receipt.verdict, certificates):
        raise InvalidEntry("payments", f"not what {receipt.verdict} owes")
    return gaps


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


def _check_relayed(book: Book, header: Header, relayed: Relayed) -> list[Gap]:
    if relayed.relay == header.author:
        raise InvalidEntry("self_dealing", "relays for oneself")
    if (relayed.job, relayed.number) in book.relayed:
        raise InvalidEntry("twice", "this acknowledgement was made before")
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
    if isinstance(receipt, Relayed):
        _check_settles_relayed(header, settle, linked.header, receipt)
        return []
    if not isinstance(receipt, Receipt) or linked.header.author != settle.payer or receipt.job != settle.job:
        raise InvalidEntry("linked", "names no receipt of that payer for that job")
    share = sum(payment.amount_micro for payment in receipt.payments if payment.peer == header.author)
    if share != settle.amount_micro:
        raise InvalidEntry("payments", f"takes {settle.amount_micro}, its share is {share}")
    offered = look(receipt.offer)
    if offered is None or not isinstance(offered.body, Offer):
        return [Gap(header.height, "entry", receipt.offer)]
    if certified(receipt, offered.body, certify) == "unknown":
        return [Gap(header.height, "certificate", settle.receipt)]
    return []


def _check_settles_relayed(header: Header, settle: Settle, acknowledged: Header, relayed: Relayed) -> None:
    if acknowledged.author != settle.payer or relayed.job != settle.job:
        raise InvalidEntry("linked", "names no acknowledgement of that payer for that session")
    share = relayed.amount_micro if relayed.relay == header.author else 0
    if share != settle.amount_micro:
        raise InvalidEntry("payments", f"takes {settle.amount_micro}, its share is {share}")
