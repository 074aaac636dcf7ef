"""What audits have said about peers, one e-process for each (role, peer, model), kept in `records.db`.

Only audited work is told: verdicts of certified juries, answers that were drawn and then withheld, canaries. Work that
nobody looked at leaves no trace. A record that has reached its level is final: the peer is out for this model, in this
node's eyes, and stays out. Rules: `verify.eprocess`; docs/explanation/sampling.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlite_utils

from verify.eprocess import Evidence, decode, encode, fresh, observe
from verify.faults import Fault
from verify.receipt import JurorSummary
from wire.errors import StorageError
from wire.peer import PeerId

Role = Literal["worker", "juror"]
Key = tuple[Role, PeerId, str]

WATCH_WEALTH = 5.0
"""From this e-value on everything that a worker does is audited. One failure of a fresh record gives 8.3."""


@dataclass(frozen=True)
class Standing:
    """One record, as shown.

    Attributes:
        role, model: what it is about. audits, failures: that counted. e_value: evidence against the peer.
        watched: everything it does is audited. ejected: it gets no more work.
    """

    role: Role
    model: str
    audits: int
    failures: int
    e_value: float
    watched: bool
    ejected: bool

    def __str__(self) -> str:
        end = ", ejected" if self.ejected else ", watched" if self.watched else ""
        return f"{self.audits} audits, {self.failures} failed{end}"


class Records:
    """All records of this node, in memory and on the disk.

    A record is stored as it is changed. If the disk refuses, it counts in memory until the node stops, and `on_fault`
    is told.

    Raises:
        StorageError: the file cannot be used, or a record in it is impossible.
    """

    def __init__(self, path: Path, *, on_fault: Callable[[StorageError], None]) -> None:
        self._on_fault = on_fault
        try:
            self._db = sqlite_utils.Database(str(path))
            self._db.enable_wal()
            self._db.execute("pragma synchronous = normal")  # a lost audit is one piece of evidence less
            self._table = self._db.table("records")
            if not self._table.exists():
                columns = {"role": str, "peer": bytes, "model": str, "evidence": bytes}
                self._table.create(columns, pk=("role", "peer", "model"))
            self._known: dict[Key, Evidence] = dict(self._read())
        except (sqlite3.DatabaseError, Fault) as exc:
            raise StorageError(f"{path}: {exc}; move the file away to start without records of peers") from exc

    def _read(self) -> Iterator[tuple[Key, Evidence]]:
        for row in self._db.query("select * from records"):
            yield (row["role"], PeerId(row["peer"]), row["model"]), decode(row["evidence"])

    def close(self) -> None:
        """Close the database."""
        self._db.conn.close()

    def observe(self, role: Role, peer: PeerId, model: str, *, failed: bool) -> Standing:
        """Take one audit into account; returns the record after it."""
        key: Key = (role, peer, model)
        before = self._known.get(key) or fresh()
        after = observe(before, failed=failed)
        if after != before:
            self._known[key] = after
            self._store(key, after)
        return _standing(key, after)

    def _store(self, key: Key, evidence: Evidence) -> None:
        role, peer, model = key
        row = {"role": role, "peer": bytes(peer), "model": model, "evidence": encode(evidence)}
        try:
            self._table.upsert(row, pk=("role", "peer", "model"))
        except sqlite3.DatabaseError as exc:
            self._on_fault(StorageError(f"records.db: {exc}"))

    def standing(self, role: Role, peer: PeerId, model: str) -> Standing | None:
        """The record of a peer; None if nothing of it was ever audited."""
        known = self._known.get((role, peer, model))
        return None if known is None else _standing((role, peer, model), known)

    def ejected(self, role: Role, peer: PeerId, model: str) -> bool:
        """Whether the peer is out."""
        known = self._known.get((role, peer, model))
        return known is not None and known.rejected

    def watched(self, peer: PeerId, model: str) -> bool:
        """Whether everything that this worker does must be audited."""
        known = self._known.get(("worker", peer, model))
        return known is not None and known.wealth >= WATCH_WEALTH

    def of(self, peer: PeerId) -> list[Standing]:
        """Every record of a peer, by role and model."""
        return [_standing(key, self._known[key]) for key in sorted(self._known) if key[1] == peer]


def observe_jurors(records: Records, model: str, verdict: str, jury: Iterable[JurorSummary]) -> None:
    """What a certified verdict says about those who voted: whoever was overruled failed. Who did not vote said nothing.

    Args:
        verdict: "accept" or "reject"; anything else is no verdict, and nothing is observed.
    """
    if verdict not in ("accept", "reject"):
        return
    for juror in jury:
        if juror.verdict in ("accept", "reject"):
            records.observe("juror", juror.peer, model, failed=juror.verdict != verdict)


def _standing(key: Key, evidence: Evidence) -> Standing:
    role, _, model = key
    return Standing(
        role=role,
        model=model,
        audits=evidence.audits,
        failures=evidence.failures,
        e_value=evidence.wealth,
        watched=evidence.wealth >= WATCH_WEALTH,
        ejected=evidence.rejected,
    )
