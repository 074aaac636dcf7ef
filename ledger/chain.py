"""One chain, checked: links, signatures, heights and times, then the rules of each entry.

Validation has three levels, after TrustChain (which calls them valid, partial and invalid): "complete", "partial" with
every gap listed, and "invalid" with the rule that is broken. A chain never leaves "invalid", and only knowledge moves
it from "partial".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ledger.entry import ZERO, Entry, InvalidEntry, check_entry
from ledger.ports import CertificateCheck, Lookup, nothing_known
from ledger.rules import Gap, check_body
from ledger.state import Book
from wire.peer import PeerId

FUTURE_MS_MAX = 5 * 60_000
"""How far ahead of this node's clock an entry's time may lie before it is refused for now."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What is known about a chain after `entries` entries.

    `gaps` is filled for "partial"; `code`, `reason` and `height` for "invalid".
    """

    level: Literal["complete", "partial", "invalid"]
    entries: int
    gaps: tuple[Gap, ...] = ()
    code: str = ""
    reason: str = ""
    height: int | None = None


def check_link(book: Book, entry: Entry) -> None:
    """Check that `entry` is the next of the chain that `book` has read.

    Raises:
        InvalidEntry: "author", "height", "link" or "time".
    """
    header = entry.header
    if header.author != book.author:
        raise InvalidEntry("author", "an entry of another chain", height=header.height)
    if header.height != book.height:
        raise InvalidEntry("height", f"{header.height}, expected {book.height}", height=header.height)
    if header.previous != book.head:
        raise InvalidEntry("link", "does not name the entry below it", height=header.height)
    if header.time_ms < book.time_ms:
        raise InvalidEntry("time", "earlier than the entry below it", height=header.height)


def extend(
    book: Book,
    entry: Entry,
    look: Lookup,
    certify: CertificateCheck,
    *,
    now_ms: int | None = None,
    signed: bool = True,
    whole: bool = False,
) -> list[Gap]:
    """Check the next entry and take it into `book`, which is unchanged if it is refused.

    Args:
        book: the read model of the chain below.
        entry: the next entry.
        look, certify: see `ledger.ports`.
        now_ms: if given, entries further in the future than `FUTURE_MS_MAX` are refused.
        signed: False skips hash and signature of an entry that this node has just signed or once checked.
        whole: refuse an entry with gaps.

    Returns:
        What is not known yet.

    Raises:
        InvalidEntry: the rule that is broken; "future" and "unknown" may pass later.
    """
    check_link(book, entry)
    if now_ms is not None and entry.header.time_ms > now_ms + FUTURE_MS_MAX:
        raise InvalidEntry("future", "its time has not come", height=entry.header.height)
    if signed:
        check_entry(entry)
    try:
        gaps = check_body(book, entry, look, certify)
        if whole and gaps:
            what = "jurors' keys" if gaps[0].kind == "certificate" else f"linked entry {gaps[0].ref.hex()[:12]}"
            raise InvalidEntry("unknown", f"the {what} must be known first")
    except InvalidEntry as exc:
        raise InvalidEntry(exc.code, exc.detail, height=entry.header.height) from exc
    book.apply(entry)
    return gaps


def skip_to(book: Book, entry: Entry) -> Gap | None:
    """Let `book` jump over a hole up to `entry`; the gap, or None if nothing is missing.

    Raises:
        InvalidEntry: "link" if the first entry of a chain names a previous one.
    """
    header = entry.header
    if header.height == 0 and header.previous != ZERO:
        raise InvalidEntry("link", "the first entry names a previous one", height=0)
    if header.author != book.author or header.height <= book.height:
        return None
    gap = Gap(book.height, "heights", header.previous, until=header.height)
    book.height, book.head, book.whole = header.height, header.previous, False
    return gap


def validate(
    author: PeerId,
    entries: Iterable[Entry],
    certify: CertificateCheck,
    look: Lookup = nothing_known,
    *,
    now_ms: int | None = None,
) -> Validation:
    """Check a chain or parts of it, in ascending height; never raises on what the entries say.

    Args:
        author: whose chain it is.
        entries: decoded entries; holes between them become gaps.
        certify, look, now_ms: as for `extend`.
    """
    book, gaps, count = Book(author), list[Gap](), 0
    for entry in entries:
        try:
            hole = skip_to(book, entry)
            found = extend(book, entry, look, certify, now_ms=now_ms)
        except InvalidEntry as exc:
            return Validation("invalid", count, tuple(gaps), exc.code, exc.detail, exc.height)
        gaps += ([hole] if hole else []) + found
        count += 1
    return Validation("partial" if gaps else "complete", count, tuple(gaps))
