"""Audits: one chain from genesis as a stream, all chains against one another, and the JSON lines format.

Conservation: a receipt, or an acknowledgement of relayed bytes, debits exactly what its payees may credit, so over all
chains the balances and what is pending
(receipts whose payee has not settled yet) sum to zero.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from ledger.chain import extend, skip_to
from ledger.entry import Entry, InvalidEntry, Receipt, Relayed, Settle, decode_entry
from ledger.ports import CertificateCheck, Lookup, nothing_known
from ledger.rules import Gap
from ledger.state import Book
from wire import codec
from wire.errors import Malformed
from wire.peer import PeerId, to_text

ISSUES_MAX = 1_000
LINE_BYTES_MAX = 128 << 10


@dataclass(frozen=True, slots=True)
class Issue:
    """Something an audit found: a "gap" is not known yet, an "invalid" breaks a rule (`code`)."""

    level: Literal["gap", "invalid"]
    author: PeerId
    height: int
    code: str
    detail: str


@dataclass(slots=True)
class Audit:
    """The result of auditing one chain; `ok` means that nothing is invalid. At most `ISSUES_MAX` issues are listed."""

    ok: bool = True
    entries: int = 0
    issues: list[Issue] = field(default_factory=list)

    def add(self, issue: Issue) -> None:
        """Note an issue."""
        self.ok = self.ok and issue.level != "invalid"
        if len(self.issues) < ISSUES_MAX:
            self.issues.append(issue)


@dataclass(slots=True)
class Conservation:
    """The result of auditing chains together, in micro-credits.

    `balances` holds every party's; `pending` what receipts owe and nobody has settled yet, by payee; `sum_micro` is the
    sum of the balances, and equals minus the sum of what is pending: zero when all is settled.
    """

    ok: bool
    balances: dict[PeerId, int]
    pending: dict[PeerId, int]
    sum_micro: int
    issues: list[Issue]


def audit_chain(
    author: PeerId,
    entries: Iterable[Entry],
    certify: CertificateCheck,
    look: Lookup = nothing_known,
    now_ms: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Audit:
    """Check a chain from genesis; stops at the first invalid entry.

    Args:
        author: whose chain it is.
        entries: in ascending height; may be a stream.
        certify, look: see `ledger.ports`.
        now_ms: if given, entries from the future are invalid.
        on_progress: told the number of entries checked, after each.
    """
    audit, book = Audit(), Book(author)
    for entry in entries:
        try:
            hole = skip_to(book, entry)
            gaps = extend(book, entry, look, certify, now_ms=now_ms)
        except InvalidEntry as exc:
            audit.add(Issue("invalid", author, entry.header.height, exc.code, exc.detail))
            break
        for gap in ([hole] if hole else []) + gaps:
            audit.add(_issue(author, gap))
        audit.entries += 1
        if on_progress is not None:
            on_progress(audit.entries)
    return audit


def _issue(author: PeerId, gap: Gap) -> Issue:
    return Issue("gap", author, gap.height, gap.kind, f"not known: {gap.ref.hex()}")


def audit_all(chains: Mapping[PeerId, Iterable[Entry]], certify: CertificateCheck) -> Conservation:
    """Audit chains together: each from genesis, links between them, and conservation.

    Args:
        chains: every party's entries, in order.
        certify: checks certificates.
    """
    known = {author: list(entries) for author, entries in chains.items()}
    index = {entry.id: entry for entries in known.values() for entry in entries}
    issues: list[Issue] = []
    for author, entries in known.items():
        issues += audit_chain(author, entries, certify, lambda entry_id: index.get(entry_id)).issues
    balances = dict.fromkeys(known, 0)
    owed: dict[tuple[bytes, PeerId], int] = {}
    for author, entries in known.items():
        _debit(author, entries, balances, owed)
    for author, entries in known.items():
        issues += _credit(author, entries, balances, owed, index)
    pending: dict[PeerId, int] = {}
    for (_, payee), amount in owed.items():
        pending[payee] = pending.get(payee, 0) + amount
    total = sum(balances.values())
    assert total + sum(pending.values()) == 0, "debits equal credits and what is pending"
    return Conservation(all(issue.level != "invalid" for issue in issues), balances, pending, total, issues)


def _debit(
    author: PeerId, entries: list[Entry], balances: dict[PeerId, int], owed: dict[tuple[bytes, PeerId], int]
) -> None:
    for entry in entries:
        if isinstance(entry.body, Receipt):
            for payment in entry.body.payments:
                balances[author] -= payment.amount_micro
                owed[entry.id, payment.peer] = owed.get((entry.id, payment.peer), 0) + payment.amount_micro
        elif isinstance(entry.body, Relayed):
            balances[author] -= entry.body.amount_micro
            owed[entry.id, entry.body.relay] = entry.body.amount_micro


def _credit(
    author: PeerId,
    entries: list[Entry],
    balances: dict[PeerId, int],
    owed: dict[tuple[bytes, PeerId], int],
    index: Mapping[bytes, Entry],
) -> list[Issue]:
    """Match settles with receipts; one that matches nothing, or again, is an issue and credits nothing."""
    issues = []
    for entry in entries:
        settle = entry.body
        if not isinstance(settle, Settle):
            continue
        if owed.get((settle.receipt, author)) == settle.amount_micro:
            del owed[settle.receipt, author]
            balances[author] += settle.amount_micro
        else:
            level: Literal["gap", "invalid"] = "invalid" if settle.receipt in index else "gap"
            issues.append(Issue(level, author, entry.header.height, "unmatched", "settles what no receipt owes"))
    return issues


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    author: str
    height: int
    id: str
    kind: str
    job: str
    time_ms: int
    raw: str


def to_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """One JSON object per entry, without line ends; `raw` is authoritative, the rest is for people and `grep`."""
    for entry in entries:
        header = entry.header
        line = _Line(
            author=to_text(header.author),
            height=header.height,
            id=entry.id.hex(),
            kind=type(entry.body).__name__.lower(),
            job=entry.body.job.hex(),
            time_ms=header.time_ms,
            raw=base64.b64encode(codec.encode(entry)).decode(),
        )
        yield msgspec.json.encode(line).decode()


def from_lines(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of an export; check them with `audit_chain` or `Ledger.ingest`.

    Raises:
        Malformed: a line is not one, or its id is not that of its entry.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(line) > LINE_BYTES_MAX:
            raise Malformed(f"line {number}: too long")
        try:
            row = msgspec.json.decode(line, type=_Line)
            entry = decode_entry(base64.b64decode(row.raw, validate=True))
        except (ValueError, Malformed) as exc:
            raise Malformed(f"line {number}: {exc}") from exc
        if row.id != entry.id.hex():
            raise Malformed(f"line {number}: the id is not that of the entry")
        yield entry
