"""`quorate relay` as a process: it relays, says what it carries, runs no models, and ends when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from node.swarm import Member, Swarm


def _quorate(*arguments: str) -> str:
    command = [sys.executable, "-m", "node", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=dict(os.environ))
    return done.stdout


def test_a_relay_runs_and_shows_what_it_carries(tmp_path: Path) -> None:
    relay = Member("relay", tmp_path / "relay", [], role="relay")
    swarm = Swarm(tmp_path, [relay])
    try:
        swarm.start_all()
        home = str(relay.home)
        assert _quorate("relay", "--show", "--home", home).startswith("0 of 128 reservations, 0 of 128 circuits")
        told = json.loads(_quorate("relay", "--show", "--json", "--home", home))
        assert told["serving"] is True
        with relay.client() as client:
            about = client.raw("GET", "/api/v1/node")
        assert sorted(about["roles"]) == ["relay", "requester"]
    finally:
        killed = swarm.stop(keep_homes=True)
    assert killed == []
