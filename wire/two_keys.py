"""Proof that a peer has announced two BLS keys: two key records of its own. Anyone can check one, for ever.

A peer has one BLS key, which follows from its seed. One that shows different keys to different peers makes certificates
that hold for some readers and not for others. Format: docs/spec/identity.md.
"""

from __future__ import annotations

from wire.codec import Wire
from wire.envelope import Envelope
from wire.errors import Malformed
from wire.identity import check_key_record
from wire.peer import PeerId


class TwoKeys(Wire, frozen=True):
    """Two key records of one author with different keys; `first` has the smaller body, so one pair has one encoding."""

    first: Envelope
    second: Envelope


def prove(one: Envelope, other: Envelope) -> TwoKeys | None:
    """The proof that two key records, both checked, contradict each other; None if they do not."""
    (author, key), (other_author, other_key) = check_key_record(one), check_key_record(other)
    if author != other_author or key == other_key:
        return None
    first, second = sorted((one, other), key=lambda record: record.body)
    return TwoKeys(first, second)


def check(proof: TwoKeys) -> PeerId:
    """The peer that `proof` convicts.

    Raises:
        Malformed: a record that does not hold, two authors, one key twice, or the wrong order.
    """
    author, key = check_key_record(proof.first)
    other_author, other_key = check_key_record(proof.second)
    if author != other_author:
        raise Malformed("the key records are of different authors")
    if key == other_key or proof.first.body >= proof.second.body:
        raise Malformed("one key twice, or the records in the wrong order")
    return author
