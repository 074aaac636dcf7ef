"""Records of peers: what audits said survives a restart, and nothing else counts."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.records import WATCH_WEALTH, Records, observe_jurors
from verify.eprocess import STAKES, fresh, observe
from verify.receipt import JurorSummary
from wire.errors import StorageError
from wire.peer import PeerId

ONE, TWO = PeerId(b"1" * 32), PeerId(b"2" * 32)


def records(path: Path, faults: list[StorageError] | None = None) -> Records:
    return Records(path / "records.db", on_fault=(faults if faults is not None else []).append)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow while the block runs."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_record_is_per_role_peer_and_model_and_survives(tmp_path: Path) -> None:
    kept = records(tmp_path)
    kept.observe("worker", ONE, "a", failed=False)
    kept.observe("worker", ONE, "b", failed=True)
    kept.observe("juror", ONE, "a", failed=False)
    before = kept.of(ONE)
    assert [(s.role, s.model, s.audits, s.failures) for s in before] == [
        ("juror", "a", 1, 0),
        ("worker", "a", 1, 0),
        ("worker", "b", 1, 1),
    ]
    assert kept.of(TWO) == []
    assert kept.standing("worker", TWO, "a") is None
    kept.close()
    assert records(tmp_path).of(ONE) == before


def test_the_record_is_the_e_process(tmp_path: Path) -> None:
    kept, evidence = records(tmp_path), fresh()
    for failed in (False, True, False, True, True):
        evidence = observe(evidence, failed=failed)
        standing = kept.observe("worker", ONE, "a", failed=failed)
        assert (standing.e_value, standing.ejected) == (evidence.wealth, evidence.rejected)


def test_one_failure_of_a_newcomer_is_watched_and_three_are_out_for_good(tmp_path: Path) -> None:
    kept = records(tmp_path)
    assert not kept.watched(ONE, "a")
    one = kept.observe("worker", ONE, "a", failed=True)
    assert (one.watched, one.ejected) == (True, False)
    assert one.e_value == pytest.approx((1 + sum(1 + 19 * s for s in STAKES[1:])) / 7)
    assert one.e_value > WATCH_WEALTH
    kept.observe("worker", ONE, "a", failed=True)
    three = kept.observe("worker", ONE, "a", failed=True)
    assert three.ejected
    assert kept.ejected("worker", ONE, "a")
    assert not kept.ejected("worker", ONE, "b")
    assert not kept.ejected("juror", ONE, "a")
    assert kept.observe("worker", ONE, "a", failed=False) == three, "a verdict is final"
    assert str(three) == "3 audits, 3 failed, ejected"


def test_a_long_honest_past_outweighs_a_failure(tmp_path: Path) -> None:
    kept = records(tmp_path)
    for _ in range(200):
        kept.observe("worker", ONE, "a", failed=False)
    assert not kept.observe("worker", ONE, "a", failed=True).watched


def juror(peer: PeerId, verdict: str) -> JurorSummary:
    return JurorSummary(peer=peer, rank=0, verdict=verdict, distances={})  # type: ignore[arg-type]  # one of its words


def test_jurors_that_were_overruled_failed_and_those_that_said_nothing_are_left_out(tmp_path: Path) -> None:
    kept = records(tmp_path)
    peers = [PeerId(bytes([n]) * 32) for n in range(4)]
    said = ["accept", "reject", "abstain", "inconclusive"]
    jury = [juror(peer, verdict) for peer, verdict in zip(peers, said, strict=True)]
    observe_jurors(kept, "a", "reject", jury)
    observe_jurors(kept, "a", "unaudited", jury)
    counts = [[(s.audits, s.failures) for s in kept.of(peer)] for peer in peers]
    assert counts == [[(1, 1)], [(1, 0)], [], []]


def test_a_full_disk_is_told_and_the_record_counts_until_the_end(tmp_path: Path) -> None:
    faults: list[StorageError] = []
    kept = records(tmp_path, faults)
    with full_disk():
        kept.observe("worker", ONE, "a", failed=True)
    assert len(faults) == 1
    assert kept.watched(ONE, "a")


def test_a_record_that_cannot_be_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    kept = records(tmp_path)
    kept.observe("worker", ONE, "a", failed=True)
    kept._db.execute("update records set evidence = x'00'")
    kept._db.conn.commit()
    kept.close()
    with pytest.raises(StorageError, match=r"records\.db: evidence"):
        records(tmp_path)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match=r"records\.db"):
        records(tmp_path)
