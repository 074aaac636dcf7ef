"""Processes killed at any moment, full disks, damaged files: nothing acknowledged is lost, and the refusal is typed."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.audit import audit_chain
from ledger.entry import Entry, majority, sign_entry
from ledger.replica import load_book
from ledger.state import Book
from ledger.store import Store, open_store
from tests.ledger.parties import LATER_MS, NOW_MS, Key, check, job_id, ledger_of, plain_offer
from wire.errors import StorageError

OWNER = Key(1)
KILLS = 24


def offers(count: int, book: Book | None = None) -> list[Entry]:
    """The next `count` entries of the owner's chain."""
    height, head = (0, bytes(32)) if book is None else (book.height, book.head)
    entries: list[Entry] = []
    for number in range(height, height + count):
        body = plain_offer(job_id(number), Key(2).peer, 1, 0, 1, LATER_MS)
        entries.append(sign_entry(OWNER, number, entries[-1].id if entries else head, body, NOW_MS))
    return entries


def kept(store: Store) -> list[Entry]:
    return list(store.replay(OWNER.peer))


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    """SIGKILL after a random number of acknowledgements, again and again on one file, one and many writers."""
    rng = random.Random(7)
    acknowledged: list[str] = []
    for kill in range(KILLS):
        tasks = rng.choice([1, 8])
        command = [sys.executable, "-m", "tests.ledger.appender", str(tmp_path), str(tasks)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(rng.randint(1, 60)):
                acknowledged.append(child.stdout.readline().strip())
            child.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
        store, clean = open_store(tmp_path / "1.db", OWNER.peer)
        entries = kept(store)
        store.close(clean=False)
        assert not clean
        assert set(acknowledged) <= {entry.id.hex() for entry in entries}, f"lost after kill {kill}"
    audit = audit_chain(OWNER.peer, entries, check)
    assert (audit.ok, audit.entries) == (True, len(entries))
    assert len(entries) >= len(set(acknowledged)) == len(acknowledged) > KILLS


def test_a_full_file_says_so_and_loses_nothing(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path / "1.db", OWNER.peer, pages_max=40)
    safe: list[Entry] = []

    def fill() -> None:
        while True:
            more = offers(20, load_book(store, OWNER.peer))
            store.append(more)
            safe.extend(more)

    with pytest.raises(StorageError, match="full"):
        fill()
    assert kept(store) == safe
    store.close(clean=False)
    store, _ = open_store(tmp_path / "1.db", OWNER.peer)
    assert kept(store) == safe
    store.append(offers(20, load_book(store, OWNER.peer)))
    assert len(kept(store)) == len(safe) + 20
    store.close()


async def test_a_full_disk_refuses_the_append_and_the_ledger_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The file size limit of the process stands in for the disk: the operating system refuses the write itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        async with ledger_of(tmp_path, 1) as ledger:
            first = await ledger.offer(job_id(0), Key(2).peer, 1, 0, majority(job_id(0), 1), LATER_MS)
            size = (tmp_path / "1.db-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            with pytest.raises(StorageError, match="ledger file"):
                await ledger.append([plain_offer(job_id(n), Key(2).peer, 1, 0, 1, LATER_MS) for n in range(1, 50)])
            assert (ledger.head(), ledger.head_id(), ledger.reserved()) == (1, first.id, 1)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            second = await ledger.offer(job_id(1), Key(2).peer, 1, 0, majority(job_id(1), 1), LATER_MS)
            assert (second.header.height, second.header.previous) == (1, first.id)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    async with ledger_of(tmp_path, 1) as ledger:
        assert await ledger.entries(ledger.peer) == [first, second]
        assert (await ledger.audit()).ok


def _made(path: Path) -> bytes:
    store, _ = open_store(path, OWNER.peer)
    store.append(offers(200))
    store.close()
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "1.db"
    raw = _made(path)
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(StorageError, match="restore a backup"):
        open_store(path, OWNER.peer)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.db"
    path.write_bytes(b"these are not the entries you are looking for" * 100)
    with pytest.raises(StorageError, match="not a database"):
        open_store(path, OWNER.peer)


def test_a_folder_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "1.db"):
        with pytest.raises(StorageError, match="unable to open"):
            open_store(path, OWNER.peer)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path / "1.db", OWNER.peer)
    store._db.conn.execute("pragma user_version = 99")
    store.close()
    with pytest.raises(StorageError, match="schema 99"):
        open_store(tmp_path / "1.db", OWNER.peer)


def test_a_second_user_of_the_file_is_refused(tmp_path: Path) -> None:
    """Two writers of one chain would fork it."""
    store, _ = open_store(tmp_path / "1.db", OWNER.peer)
    with pytest.raises(StorageError, match="another process has it open"):
        open_store(tmp_path / "1.db", OWNER.peer)
    store.close()
    open_store(tmp_path / "1.db", OWNER.peer)[0].close()


async def test_rows_changed_behind_the_ledgers_back_are_noticed_at_the_start(tmp_path: Path) -> None:
    for number, sql in enumerate(
        (
            "delete from entries where height = 100",
            "update entries set raw = (select raw from entries where height = 7) where height = 8",
            "update entries set raw = zeroblob(200) where height = 3",
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        _made(folder / "1.db")
        store, _ = open_store(folder / "1.db", OWNER.peer)
        store._db.conn.execute(sql)
        store.close()
        with pytest.raises(StorageError):
            async with ledger_of(folder, 1):
                pass


async def test_a_forged_tail_is_noticed_at_the_start(tmp_path: Path) -> None:
    from msgspec.structs import replace

    entries = offers(5)
    store, _ = open_store(tmp_path / "1.db", OWNER.peer)
    store.append([*entries[:4], replace(entries[4], signature=bytes(64))])
    store.close()
    with pytest.raises(StorageError, match="signature"):
        async with ledger_of(tmp_path, 1):
            pass


def test_the_file_is_synchronised_at_every_commit(tmp_path: Path) -> None:
    """A killed process cannot show it, only a power cut: the settings themselves are checked."""
    store, _ = open_store(tmp_path / "1.db", OWNER.peer)
    settings = {
        name: store._db.conn.execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    store.close()


def test_one_height_is_kept_once(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path / "1.db", OWNER.peer)
    entries = offers(3)
    store.append(entries[:2])
    with pytest.raises(StorageError, match="UNIQUE"):
        store.append([entries[2], entries[1]])
    assert kept(store) == entries[:2]
    store.close()
