"""A node that is told to stop finishes what is under way, within bounds; told twice, it stops at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.run import STOP_S
from node.swarm import START_S, Member, Swarm

TEXT = {
    "kind": "text.generate",
    "model": "bytes-gpt",
    "policy": "none",
    "input": {"prompt": "This function returns ", "tokens_max": 200, "method": "beam"},
}
DRAIN_S = 60.0


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    """A requester, and a worker that works unpaid."""
    monkeypatch.setenv("QUORATE_SERVE_UNPAID", "true")
    monkeypatch.setenv("QUORATE_DRAIN_S", str(DRAIN_S))
    root = Path(tempfile.mkdtemp(prefix="quorate-"))
    swarm = Swarm(root, [Member("ada", root / "ada", ["--no-serve"]), Member("bela", root / "bela", [])])
    try:
        swarm.start_all()
        swarm.await_providers(swarm.members[0], {"bytes-gpt": 1})
        yield swarm
    finally:
        swarm.stop()


def running(member: Member) -> str:
    """Submit a job and return its id once a worker is at it."""
    with member.client() as client:
        job_id: str = client.raw("POST", "/api/v1/jobs", TEXT)["id"]
        for event in client.job(job_id).events():
            if event.type == "running":
                return job_id
    raise AssertionError("the job never ran")


def ended(member: Member, within_s: float) -> int:
    """The exit status of a node that is stopping."""
    assert member.process is not None
    return member.process.wait(within_s)


def view_of(member: Member, job_id: str) -> dict[str, Any]:
    """A job, once it has ended."""
    with member.client() as client:
        for _ in client.job(job_id).events():
            pass
        view: dict[str, Any] = client.raw("GET", f"/api/v1/jobs/{job_id}")
    return view


def test_a_worker_finishes_the_job_that_it_runs(two: Swarm) -> None:
    requester, worker = two.members
    job_id = running(requester)
    assert worker.process is not None
    worker.process.send_signal(signal.SIGTERM)
    view = view_of(requester, job_id)
    assert (view["state"], view["error"]) == ("settled", None)
    assert len(view["output"]["text"]) > 0
    assert view["attempts"] == [] or all(attempt["verdict"] == "unaudited" for attempt in view["attempts"])
    assert ended(worker, DRAIN_S + START_S) == 0


def test_a_requester_waits_for_its_own_job_takes_no_other_and_remembers_it(two: Swarm) -> None:
    requester, _ = two.members
    job_id = running(requester)
    assert requester.process is not None
    requester.process.send_signal(signal.SIGTERM)
    while '"draining"' not in requester.log() and '"stopping"' not in requester.log():
        time.sleep(0.01)
    assert ended(requester, DRAIN_S + START_S) == 0
    two.start(requester)
    two.ready(requester)
    assert view_of(requester, job_id)["state"] == "settled"


def test_told_twice_it_stops_at_once(two: Swarm) -> None:
    requester, _ = two.members
    job_id = running(requester)
    assert requester.process is not None
    requester.process.send_signal(signal.SIGTERM)
    while '"stopping"' not in requester.log():
        time.sleep(0.01)
    requester.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert ended(requester, DRAIN_S) == 0
    assert time.monotonic() - began < DRAIN_S / 2
    two.start(requester)
    two.ready(requester)
    assert view_of(requester, job_id)["state"] in ("failed", "settled")
    assert STOP_S < DRAIN_S / 2


def test_quorate_stop_waits_for_the_end(two: Swarm) -> None:
    _, worker = two.members
    command = [sys.executable, "-m", "node", "stop", "--home", str(worker.home), "--wait", str(DRAIN_S)]
    subprocess.run(command, check=True, capture_output=True)
    assert ended(worker, START_S) == 0
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "is one running?" in again.stderr
