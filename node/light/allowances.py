"""Which light peers may have jobs run here, and at what cost: kept in `light.db`, so that a restart forgives nothing.

A peer is let in by the settings or by an invitation, a secret of 32 bytes of which only the hash is kept; the first
peer that shows it is the only one it lets in. What a job may cost is charged to its peer's day when it is taken, and
corrected to what it cost when it ends. A day is one of UTC.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlite_utils

from wire.errors import Busy, LocalError, StorageError
from wire.hashing import digest
from wire.peer import PeerId

DAY_MS = 86_400_000
KEPT_DAYS = 7
"""Days for which a light peer can ask again for a job of its own."""

INVITATIONS_MAX = 256
JOBS_PER_DAY_MAX = 500


@dataclass(frozen=True)
class Limits:
    """What each light peer may do: jobs at once, micro-credits a day; and the jobs of all of them at once."""

    jobs_max: int
    credit_micro: int
    open_max: int


@dataclass(frozen=True)
class LightJob:
    """A job of a light peer: the node's name for it, and what it may cost, or did."""

    id: str
    charged_micro: int


class Allowances:
    """See above; every method may raise StorageError."""

    def __init__(self, path: Path, limits: Limits, peers: Collection[PeerId], now_ms: Callable[[], int]) -> None:
        self.limits = limits
        self._listed = frozenset(peers)
        self._now_ms = now_ms
        self._path = path
        try:
            self._db = sqlite_utils.Database(str(path))
            self._db.enable_wal()
            self._db.table("invitations").create(
                {"hash": bytes, "ends_ms": int, "peer": bytes}, pk="hash", if_not_exists=True
            )
            columns = {"peer": bytes, "ask": bytes, "job": str, "day": int, "charged_micro": int, "open": int}
            self._db.table("jobs").create(columns, pk=("peer", "ask"), if_not_exists=True)
        except sqlite3.DatabaseError as exc:
            raise StorageError(f"{path}: {exc}; move the file away to start without light peers") from exc

    def close(self) -> None:
        """Close the database."""
        self._db.conn.close()

    # ---- who

    def invite(self, secret: bytes, ends_ms: int) -> None:
        """Let in the first peer that shows this secret, until a time.

        Raises:
            LocalError: too many invitations stand.
        """
        with self._writing() as write:
            write("delete from invitations where ends_ms <= ?", [self._now_ms()])
            if self._number("select count(*) from invitations", []) >= INVITATIONS_MAX:
                raise LocalError(f"{INVITATIONS_MAX} invitations stand already")
            write("insert into invitations values (?, ?, null)", [digest("light.invitation", secret), ends_ms])

    def redeem(self, peer: PeerId, secret: bytes) -> bool:
        """Whether this invitation lets this peer in."""
        hashed = digest("light.invitation", secret)
        with self._writing() as write:
            write("update invitations set peer = ? where hash = ? and peer is null", [peer, hashed])
        return (
            self._number(
                "select count(*) from invitations where hash = ? and peer = ? and ends_ms > ?",
                [hashed, peer, self._now_ms()],
            )
            > 0
        )

    def admits(self, peer: PeerId) -> bool:
        """Whether a peer may have jobs run here."""
        if peer in self._listed:
            return True
        return (
            self._number("select count(*) from invitations where peer = ? and ends_ms > ?", [peer, self._now_ms()]) > 0
        )

    # ---- what

    def left_micro(self, peer: PeerId) -> int:
        """What a peer may still spend today, at least 0."""
        spent = self._number(
            "select coalesce(sum(charged_micro), 0) from jobs where peer = ? and day = ?", [peer, self._today()]
        )
        return max(0, self.limits.credit_micro - spent)

    def check_room(self, peer: PeerId) -> None:
        """Raises: Busy if this peer, or all of them together, have as many jobs under way as they may."""
        if self._number("select count(*) from jobs where peer = ? and open = 1", [peer]) >= self.limits.jobs_max:
            raise Busy(2.0, f"{self.limits.jobs_max} jobs of yours are under way")
        if self._number("select count(*) from jobs where open = 1", []) >= self.limits.open_max:
            raise Busy(5.0, "too many jobs of light peers are under way")
        if (
            self._number("select count(*) from jobs where peer = ? and day = ?", [peer, self._today()])
            >= JOBS_PER_DAY_MAX
        ):
            raise Busy(3600.0, f"{JOBS_PER_DAY_MAX} jobs of yours were run today")

    def taken(self, peer: PeerId, ask: bytes, job: str, charged_micro: int) -> None:
        """A job is under way; forget those of long ago."""
        with self._writing() as write:
            write("delete from jobs where open = 0 and day < ?", [self._today() - KEPT_DAYS])
            write("insert into jobs values (?, ?, ?, ?, ?, 1)", [peer, ask, job, self._today(), charged_micro])

    def ended(self, job: str, cost_micro: int) -> None:
        """A job is over, and cost this much."""
        with self._writing() as write:
            write("update jobs set open = 0, charged_micro = ? where job = ?", [cost_micro, job])

    def find(self, peer: PeerId, ask: bytes) -> LightJob | None:
        """The job that a peer gave this name."""
        rows = self._rows("select job, charged_micro from jobs where peer = ? and ask = ?", [peer, ask])
        return LightJob(str(rows[0][0]), int(rows[0][1])) if rows else None

    def under_way(self) -> list[str]:
        """Jobs that have not ended, as far as this file knows."""
        return [str(row[0]) for row in self._rows("select job from jobs where open = 1", [])]

    def peers(self) -> list[PeerId]:
        """Everybody who is let in, by settings or invitation."""
        rows = self._rows(
            "select distinct peer from invitations where peer is not null and ends_ms > ?", [self._now_ms()]
        )
        return sorted(self._listed | {PeerId(bytes(row[0])) for row in rows})

    # ---- the file

    def _today(self) -> int:
        return self._now_ms() // DAY_MS

    def _rows(self, sql: str, values: list[object]) -> list[tuple[Any, ...]]:
        try:
            return list(self._db.execute(sql, values).fetchall())
        except sqlite3.DatabaseError as exc:
            raise StorageError(f"{self._path}: {exc}") from exc

    def _number(self, sql: str, values: list[object]) -> int:
        (row,) = self._rows(sql, values)
        assert isinstance(row[0], int), "it counts or sums"
        return row[0]

    @contextmanager
    def _writing(self) -> Iterator[Callable[[str, list[object]], object]]:
        """One transaction: all of it is stored, or nothing."""
        try:
            with self._db.conn:
                yield self._db.conn.execute
        except sqlite3.DatabaseError as exc:
            raise StorageError(f"{self._path}: {exc}") from exc
