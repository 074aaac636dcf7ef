"""Whether a worker accepted what was offered to it: one job, a ladder or a batch."""

from __future__ import annotations

from ledger.entry import Accept, Entry, Offer, check_entry, decode_entry
from node.market.messages import Hired
from wire.errors import Malformed


def check_accept(hired: Hired, offer: Entry) -> Entry:
    """The worker's acceptance of exactly this offer of ours.

    Raises:
        Malformed: it is something else.
        InvalidEntry: it is no valid entry.
    """
    offered = offer.body
    assert isinstance(offered, Offer), "an offer of ours"
    entry = decode_entry(hired.accept)
    body = entry.body
    if entry.header.author != offered.payee or not isinstance(body, Accept):
        raise Malformed("not an acceptance of the worker's own")
    if (body.job, body.offer, body.payer) != (offered.job, offer.id, offer.header.author):
        raise Malformed("an acceptance of another offer")
    check_entry(entry)  # the receipt will name it: if it did not hold, the work could not be paid
    return entry
