"""A node calibrates a model, restarts, and has a job judged by its own record among nodes that trust its author."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from node.calibrations import FOLDER
from node.swarm import Member, Swarm, six

EMBED = {"kind": "embed.text", "model": "ngram-embed", "input": {"texts": ["one", "two"]}}


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Six nodes that run once, so that each has a key."""
    swarm = six()
    try:
        swarm.start_all()
        yield swarm
    finally:
        swarm.stop()


def _restart(swarm: Swarm, member: Member) -> None:
    assert member.process is not None
    member.process.terminate()
    member.process.wait()
    swarm.start(member)
    swarm.ready(member)


def test_a_job_is_judged_by_the_requesters_own_calibration(swarm: Swarm) -> None:
    asker, *trusting, distrusting = swarm.members
    command = [sys.executable, "-m", "node", "calibrate", "ngram-embed", "--quick", "--home", str(asker.home)]
    subprocess.run(command, check=True, capture_output=True)
    show = [sys.executable, "-m", "node", "calibration", "show", "--json", "--home", str(asker.home)]
    shown = json.loads(subprocess.run(show, check=True, capture_output=True).stdout)
    (own,) = [
        row for row in shown if row["author"] and row["record"]["certified"] and row["record"]["lane"] == "tolerant"
    ]
    assert own["author"] == asker.peer
    for member in trusting:
        shutil.copytree(asker.home / FOLDER, member.home / FOLDER)
        (member.home / "config.toml").write_text(f'calibration_authors = ["{asker.peer}"]\n')
    for member in (asker, *trusting):
        _restart(swarm, member)
    swarm.await_providers(asker, {"ngram-embed": 5})
    with asker.client() as client:
        job_id = client.raw("POST", "/api/v1/jobs", {**EMBED, "calibration": own["hash"][:16], "retries": 5})["id"]
        for _ in client.job(job_id).events():
            pass
        view = client.raw("GET", f"/api/v1/jobs/{job_id}")
        receipt = client.job(job_id).receipt()
    assert (view["state"], view["verdict"]) == ("settled", "accept"), view
    assert view["thresholds"] == own["record"]["thresholds"]
    assert receipt is not None
    assert receipt.verify().calibration == own["hash"]
    assert distrusting.peer not in {view["worker"], *(juror["peer"] for juror in view["jury"])}
