"""The board of jobs: stored before anybody is told, resumable events, and what a restart finds."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.jobs import EVENTS_MAX, Board, Job, Request
from wire.errors import Busy, LocalError, StorageError

REQUEST = Request("embed.text", "bafy", b"\x90", "tolerant", "quorum", 3, 7, None, 60.0, 2)


def board(path: Path, open_max: int = 4, faults: list[StorageError] | None = None) -> Board:
    clock = count(1)
    told = [] if faults is None else faults
    return Board(path / "jobs.db", lambda: next(clock), open_max=open_max, on_fault=told.append)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow while the block runs."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_job_that_cannot_be_stored_is_not_accepted(tmp_path: Path) -> None:
    jobs = board(tmp_path)
    with full_disk(), pytest.raises(StorageError, match=r"jobs\.db"):
        jobs.add("a", REQUEST)
    assert jobs.all() == []
    assert jobs.add("a", REQUEST).state == "queued"


def test_a_disk_that_fills_up_later_does_not_stop_the_job(tmp_path: Path) -> None:
    faults: list[StorageError] = []
    jobs = board(tmp_path, faults=faults)
    job = jobs.add("a", REQUEST)
    with full_disk():
        jobs.update(job, "matched", worker="w")
    assert (job.state, len(faults)) == ("matched", 1)
    jobs.update(job, "settled", verdict="accept")
    jobs.close()
    assert board(tmp_path).get("a").verdict == "accept", "the next change brings the file up to date"


async def seen(jobs: Board, job: Job, after: int = -1) -> list[dict[str, Any]]:
    return [event async for event in jobs.follow(job, after)]


async def test_a_follower_sees_every_event_once_and_stops_at_the_end(tmp_path: Path) -> None:
    jobs = board(tmp_path)
    job = jobs.add("a", REQUEST)
    got: list[str] = []

    async def follow() -> None:
        got.extend([event["type"] async for event in jobs.follow(job)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        jobs.update(job, "matched", worker="w")
        jobs.event(job, "running", done=1, total=2)
        await trio.testing.wait_all_tasks_blocked()
        jobs.update(job, "settled", verdict="accept")
    assert got == ["queued", "matched", "running", "settled"]


async def test_events_resume_behind_the_last_one_seen(tmp_path: Path) -> None:
    jobs = board(tmp_path)
    job = jobs.add("a", REQUEST)
    for state in ("matched", "running", "settled"):
        jobs.update(job, state)
    assert [event["type"] for event in await seen(jobs, job, after=1)] == ["running", "settled"]


async def test_a_restart_keeps_finished_jobs_and_names_the_interrupted_ones(tmp_path: Path) -> None:
    jobs = board(tmp_path)
    done, open_job = jobs.add("a", REQUEST), jobs.add("b", REQUEST)
    jobs.update(done, "settled", verdict="accept", output=b"o", receipt=b"r", cost_micro=5)
    jobs.event(open_job, "running", done=1, total=9)
    last_seen = open_job.events[-1]["seq"]
    jobs.close()
    again = board(tmp_path)
    kept = again.get("a")
    assert (kept.verdict, kept.output, kept.receipt, kept.cost_micro, kept.request) == (
        "accept",
        b"o",
        b"r",
        5,
        REQUEST,
    )
    assert [job.id for job in again.interrupted()] == ["b"]
    again.update(again.get("b"), "failed", error={"code": "interrupted", "message": ""})
    resumed = await seen(again, again.get("b"), after=last_seen)
    assert [event["type"] for event in resumed] == ["failed"], "progress that was not stored does not swallow the end"
    again.close()


def test_too_many_open_jobs_are_refused_politely(tmp_path: Path) -> None:
    jobs = board(tmp_path, open_max=2)
    first = jobs.add("a", REQUEST)
    jobs.add("b", REQUEST)
    with pytest.raises(Busy):
        jobs.add("c", REQUEST)
    jobs.update(first, "cancelled")
    jobs.add("c", REQUEST)


def test_progress_is_bounded_but_the_end_is_always_told(tmp_path: Path) -> None:
    jobs = board(tmp_path)
    job = jobs.add("a", REQUEST)
    for done in range(EVENTS_MAX + 10):
        jobs.event(job, "running", done=done, total=0)
    assert len(job.events) == EVENTS_MAX
    jobs.update(job, "settled")
    assert job.events[-1]["type"] == "settled"


def test_an_unknown_job_is_a_local_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no job 'x'"):
        board(tmp_path).get("x")


def test_a_damaged_file_says_so_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match=r"jobs\.db"):
        board(tmp_path)
    assert (tmp_path / "jobs.db").read_bytes().startswith(b"this is no database")
