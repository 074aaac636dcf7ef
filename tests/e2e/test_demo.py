"""The demo, as a newcomer runs it: six processes, three jobs, one cheat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil


def test_demo_settles_three_jobs_and_catches_the_cheat(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "node", "demo", "--json", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert sorted(job["kind"] for job in report["jobs"]) == ["embed.text", "image.generate", "text.generate"]
    assert [job["verdict"] for job in report["jobs"]] == ["accept"] * 3
    assert all(job["receipt_ok"] for job in report["jobs"])
    assert report["cheater_caught"] is True
    assert report["ledger_sum"] == 0
    assert (out / "image.generate.png").read_bytes().startswith(b"\x89PNG")
    assert list(temporary.iterdir()) == [], "no home is left behind"
    left = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if str(temporary) in " ".join(p.info["cmdline"] or [])
    ]
    assert left == [], "no process is left behind"
    assert tempfile.gettempdir() != str(temporary), "the demo had a temporary folder of its own"


def test_demo_receipts_verify_without_a_network(tmp_path: Path) -> None:
    """The offline process refuses sockets: the hook that enforces it must bite."""
    probe = (
        "import sys, runpy; sys.argv=['x', '/nonexistent'];"
        "import node.offline as o; sys.addaudithook(o._no_network); import socket; socket.socket()"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
