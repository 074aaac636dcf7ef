"""Real processes: a batch of pictures through the SDK, where the cheapest worker cheats, and one from a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.swarm import Swarm, ledgers, six
from quorate import BadRequest, Image, SyncClient, Text

JOBS = 8


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Six nodes, of which the last is cheap and draws its pictures in too few steps."""
    swarm = six("fewer-steps")
    try:
        swarm.start_all()
        swarm.await_providers(swarm.members[0], {"digits-ddim": 5, "ngram-embed": 4, "bytes-gpt": 4})
        yield swarm
    finally:
        killed = swarm.stop()
    assert killed == [], "each node stops within five seconds of SIGTERM"


def test_a_cheat_is_found_out_and_another_worker_does_the_batch(swarm: Swarm) -> None:
    asker, cheat = swarm.members[0], swarm.members[-1]
    with SyncClient(home=asker.home) as client:
        wanted = [Image(model="digits-ddim", label=index % 10, steps=6) for index in range(JOBS)]
        batch = client.submit_batch(wanted, seeds=list(range(JOBS)), retries=5)
        result = batch.result(timeout_s=180, verify=True)
        first, *_, last = result.attempts
        assert (first.worker, first.verdict) == (cheat.peer, "reject")
        assert (last.worker, last.verdict) == (result.worker, "accept")
        audits = [item for item in result.items if item.audited]
        rest = [item for item in result.items if not item.audited]
        assert result.rate == f"{len(audits)}/{JOBS}"
        assert 0 < len(audits) < JOBS
        assert {item.checked for item in rest} == {f"unchecked, batch audited at rate {result.rate}"}
        assert all(item.receipt is None for item in rest)
        assert all(item.output.png.startswith(b"\x89PNG") for item in result.items)
        records = {peer.peer: peer.records for peer in client.peers()}
        worker = next(r for r in records[str(result.worker)] if r.role == "worker")
        assert (worker.model, worker.audits, worker.failures) == ("digits-ddim", len(audits), 0)
        assert next(r for r in records[cheat.peer] if r.role == "worker").failures >= 1
        assert [view.id for view in client.batches()] == [batch.id]
        with pytest.raises(BadRequest, match=r"sample:\d+/20 is needed") as refused:
            client.submit_batch([Text(model="bytes-gpt", prompt=f"{n}") for n in range(20)], policy="sample:0.05")
        assert refused.value.code == "too_few_audits"
    assert ledgers(swarm)[cheat.name]["balance_micro"] <= 0 or cheat.peer not in {result.worker}


def test_a_file_of_jobs_on_the_command_line(swarm: Swarm, tmp_path: Path) -> None:
    asker = swarm.members[1]
    jobs = [{"kind": "embed.text", "model": "ngram-embed", "input": {"texts": [f"text {n}"]}} for n in range(6)]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)) + "\n")
    command = [sys.executable, "-m", "node", "job", "batch", str(tmp_path / "jobs.jsonl"), "--home", str(asker.home)]
    done = subprocess.run(
        [*command, "--policy", "sample:0.5", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("unchecked, batch audited at rate 3/6: vectors") == 3
    assert done.stdout.count("audited by a jury of 3: accept: vectors") == 3
    assert len(list(tmp_path.glob("*.output"))) == 6
    for receipt in (receipts := sorted(tmp_path.glob("*.receipt"))):
        verify = [
            sys.executable,
            "-m",
            "node",
            "receipt",
            "verify",
            str(receipt),
            "--output",
            str(receipt.with_suffix(".output")),
        ]
        assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    assert len(receipts) == 3
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text(json.dumps(jobs[0]) + "\n" + json.dumps({**jobs[0], "model": "bytes-gpt"}) + "\n")
    refused = subprocess.run([*command[:-3], str(mixed), *command[-2:]], capture_output=True, text=True, check=False)
    assert (refused.returncode, "a batch has one" in refused.stderr) == (2, True), refused.stderr


def test_a_ping_on_the_command_line(swarm: Swarm) -> None:
    asker, other = swarm.members[:2]
    command = [sys.executable, "-m", "node", "ping", str(other.peer)[-8:], "--home", str(asker.home), "--count", "3"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert other.peer in told.stdout
    assert "then 2 round trips" in told.stdout
