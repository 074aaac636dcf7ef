"""The policy `escalate` among real processes: a cheat is convicted, and whoever has the bundle can see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.swarm import Swarm, six
from quorate import VerificationFailed
from quorate.kinds import Image

OFFLINE = (
    "import sys, node.offline as o; sys.addaudithook(o._no_network);"
    "from node.cli import app; app(['evidence', 'verify', *sys.argv[1:]])"
)


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Six nodes, of which the cheapest, `finn`, takes half of the steps."""
    swarm = six(cheat="fewer-steps")
    try:
        swarm.start_all()
        swarm.await_providers(swarm.members[0], {"digits-ddim": 5})
        yield swarm
    finally:
        killed = swarm.stop()
    assert killed == []


def verify(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`quorate evidence verify`, in a process that cannot open a socket."""
    command = [sys.executable, "-c", OFFLINE, str(file), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_cheat_is_convicted_and_the_evidence_verifies_offline(swarm: Swarm, tmp_path: Path) -> None:
    ada, finn = swarm.members[0], swarm.members[-1]
    with ada.client() as client:
        job = client.client.submit(Image(model="digits-ddim", label=3, steps=20), policy="escalate", retries=0)
        with pytest.raises(VerificationFailed) as caught:
            job.result()
        view = caught.value.job
        assert view is not None
        assert view.escalation is not None
        assert (view.verdict, view.worker, view.escalation.decided_by) == ("reject", finn.peer, 0)
        evidence = job.evidence()
    assert evidence is not None
    bundle = tmp_path / "finn.evidence"
    done = subprocess.run(
        [sys.executable, "-m", "node", "job", "evidence", job.id, "--home", str(ada.home), "--out", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert bundle.read_bytes() == evidence
    done = verify(bundle, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["peer"], shown["measure"]) == (finn.peer, "step")
    assert shown["distance"] > 10 * shown["threshold"]
    done = verify(bundle)
    assert done.stdout.splitlines()[0] == f"convicted   {finn.peer}"


def test_what_convicts_nobody_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(os.urandom(100))
    for file, reason in ((damaged, "evidence.encoding"), (tmp_path / "missing", "No such file")):
        done = verify(file)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert reason in done.stderr


def test_an_honest_answer_under_escalation_has_a_receipt_and_no_evidence(swarm: Swarm) -> None:
    with swarm.members[-1].client() as client:
        job = client.client.submit(Image(model="digits-ddim", label=7, steps=10), policy="escalate")
        result = job.result(verify=True)
        assert (result.verdict, result.decided_by, result.evidence) == ("accept", 0, None)
        assert job.evidence() is None
