"""Peers that die, hang or vanish, as real processes that get real signals."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from node.swarm import Member, Swarm, six
from wire.errors import LocalError

IMAGE = {"kind": "image.generate", "model": "digits-ddim", "input": {"label": 3, "steps": 100}}
EMBED = {"kind": "embed.text", "model": "ngram-embed", "input": {"texts": ["one", "two"]}}
QUICK = {"QUORATE_JUROR_S": "3", "QUORATE_STALL_S": "5", "QUORATE_ACCEPT_S": "2", "QUORATE_SYNC_PERIOD_S": "1"}


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Six honest nodes with short deadlines; a test that kills or stops one brings it back."""
    patch = pytest.MonkeyPatch()
    for name, value in QUICK.items():
        patch.setenv(name, value)
    swarm = six()
    try:
        swarm.start_all()
        swarm.await_providers(swarm.members[0], {"digits-ddim": 5, "ngram-embed": 5})
        yield swarm
    finally:
        swarm.stop()
        patch.undo()


def _finish(member: Member, body: dict[str, Any]) -> dict[str, Any]:
    with member.client() as client:
        job_id = client.raw("POST", "/api/v1/jobs", body)["id"]
        for _ in client.job(job_id).events():
            pass
        view: dict[str, Any] = client.raw("GET", f"/api/v1/jobs/{job_id}")
    return view


def _ledger(member: Member) -> dict[str, Any]:
    with member.client() as client:
        view: dict[str, Any] = client.raw("GET", "/api/v1/ledger")
    return view


def _until_conserved(swarm: Swarm, within_s: float = 20.0) -> int:
    """The sum of all balances once every payee has settled."""
    deadline = time.monotonic() + within_s
    while True:
        total = sum(_ledger(member)["balance_micro"] for member in swarm.members)
        if total == 0 or time.monotonic() > deadline:
            return int(total)
        time.sleep(0.2)


def _audits(swarm: Swarm) -> dict[str, Any]:
    reports = {}
    for member in swarm.members:
        with member.client() as client:
            reports[member.name] = client.raw("POST", "/api/v1/ledger/audit")
    return reports


def _worker_of(swarm: Swarm, client: Any, job_id: str) -> Member:
    for event in client.job(job_id).events():
        if event.type == "running":
            break
    peer = client.raw("GET", f"/api/v1/jobs/{job_id}")["worker"]
    return next(member for member in swarm.members if member.peer == peer)


def _bring_back(swarm: Swarm, member: Member) -> None:
    swarm.start(member)
    swarm.ready(member)


def test_a_worker_that_dies_is_replaced_and_its_credit_returned(swarm: Swarm) -> None:
    asker = swarm.members[0]
    before = _ledger(asker)
    with asker.client() as client:
        job_id = client.raw("POST", "/api/v1/jobs", IMAGE)["id"]
        worker = _worker_of(swarm, client, job_id)
        assert worker.process is not None
        worker.process.kill()
        worker.process.wait()
        for _ in client.job(job_id).events():
            pass
        view = client.raw("GET", f"/api/v1/jobs/{job_id}")
    assert view["verdict"] == "accept"
    assert [attempt["verdict"] for attempt in view["attempts"]] in (["died", "accept"], ["unreachable", "accept"])
    after = _ledger(asker)
    assert after["reserved_micro"] == 0
    assert before["balance_micro"] - after["balance_micro"] == view["cost_micro"], "only the accepted answer was paid"
    _bring_back(swarm, worker)
    assert _until_conserved(swarm) == 0


def test_a_silent_juror_is_replaced_within_the_deadline(swarm: Swarm) -> None:
    asker = swarm.members[0]
    frozen = swarm.members[2]
    assert frozen.process is not None
    os.kill(frozen.process.pid, signal.SIGSTOP)
    try:
        views = [_finish(asker, {**EMBED, "seed": seed}) for seed in range(3)]
    finally:
        os.kill(frozen.process.pid, signal.SIGCONT)
    assert [view["verdict"] for view in views] == ["accept"] * 3
    assert all(frozen.peer not in {juror["peer"] for juror in view["jury"]} for view in views)


def test_without_a_quorum_the_answer_is_unaudited_and_nobody_is_paid(swarm: Swarm) -> None:
    """Three of five providers hang once the work is done: two jurors at most remain."""
    asker = swarm.members[0]
    balance = _ledger(asker)["balance_micro"]
    stopped: list[Member] = []
    try:
        with asker.client() as client:
            job_id = client.raw("POST", "/api/v1/jobs", {**IMAGE, "retries": 0})["id"]
            worker = _worker_of(swarm, client, job_id)
            others = [m for m in swarm.members[1:] if m is not worker]
            for member in others[:3]:
                assert member.process is not None
                os.kill(member.process.pid, signal.SIGSTOP)
                stopped.append(member)
            for _ in client.job(job_id).events():
                pass
            view = client.raw("GET", f"/api/v1/jobs/{job_id}")
            output = client.raw("GET", f"/api/v1/jobs/{job_id}")["output"]
    finally:
        for member in stopped:
            assert member.process is not None
            os.kill(member.process.pid, signal.SIGCONT)
    assert (view["state"], view["verdict"], view["cost_micro"]) == ("settled", "unaudited", 0)
    assert output is not None, "the answer may be looked at, marked unaudited"
    after = _ledger(asker)
    assert (after["balance_micro"], after["reserved_micro"]) == (balance, 0)


def test_a_cancelled_job_gives_its_reservation_back(swarm: Swarm) -> None:
    asker = swarm.members[0]
    with asker.client() as client:
        job_id = client.raw("POST", "/api/v1/jobs", IMAGE)["id"]
        _worker_of(swarm, client, job_id)
        client.raw("POST", f"/api/v1/jobs/{job_id}/cancel")
        for _ in client.job(job_id).events():
            pass
        view = client.raw("GET", f"/api/v1/jobs/{job_id}")
    assert view["state"] == "cancelled"
    assert _ledger(asker)["reserved_micro"] == 0


def test_a_budget_below_the_price_is_refused_before_anything_is_reserved(swarm: Swarm) -> None:
    view = _finish(swarm.members[0], {**EMBED, "budget_micro": 3})
    assert (view["state"], view["error"]["code"]) == ("failed", "insufficient_credit")


def test_a_full_disk_is_said_and_nothing_is_lost(swarm: Swarm) -> None:
    """Every write of the requester fails for a while, as on a full disk; then there is room again."""
    asker = swarm.members[0]
    assert asker.process is not None
    before = _ledger(asker)
    resource.prlimit(asker.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        with pytest.raises(LocalError, match="storage"), asker.client() as client:
            client.raw("POST", "/api/v1/jobs", EMBED)
        assert asker.alive
    finally:
        resource.prlimit(asker.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert _finish(asker, EMBED)["verdict"] == "accept"
    after = _ledger(asker)
    assert after["height"] > before["height"]
    assert after["reserved_micro"] == 0
    with asker.client() as client:
        assert client.raw("POST", "/api/v1/ledger/audit")["ok"]


def test_killed_at_twenty_moments_nothing_is_lost_or_spent_twice(swarm: Swarm) -> None:
    """SIGKILL to any node at any moment of a job, then a restart: chains audit, sums hold, nobody is accused."""
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    for round_number in range(20):
        victim = rng.choice(swarm.members)
        asker = swarm.members[0]
        with asker.client() as client:
            client.raw("POST", "/api/v1/jobs", {**EMBED, "seed": round_number, "timeout_s": 20})
        time.sleep(rng.uniform(0.0, 0.4))
        assert victim.process is not None
        victim.process.kill()
        victim.process.wait()
        _bring_back(swarm, victim)
    with swarm.members[0].client() as client:
        for job in client.raw("GET", "/api/v1/jobs")["jobs"]:
            for _ in client.job(job["id"]).events():
                pass
    assert _until_conserved(swarm) == 0, f"seed {seed}"
    reports = _audits(swarm)
    assert [name for name, report in reports.items() if report["issues"]] == [], f"seed {seed}: {reports}"
    assert all(_ledger(member)["reserved_micro"] == 0 for member in swarm.members), f"seed {seed}"
    logs = "".join(member.log() for member in swarm.members)
    assert "fork" not in logs, f"seed {seed}: no honest node is accused"
    swarm.await_providers(swarm.members[0], {"ngram-embed": 5})
    assert _finish(swarm.members[0], EMBED)["verdict"] == "accept", "the network still works"
