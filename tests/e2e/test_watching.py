"""What a running node shows of the network: metrics that are all documented, connections, and events as they happen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from node.swarm import START_S, Member, Swarm

REFERENCE = Path(__file__).parents[2] / "docs/reference/metrics.md"


@pytest.fixture(scope="module")
def two() -> Iterator[Swarm]:
    """Two nodes that have found each other."""
    root = Path(tempfile.mkdtemp(prefix="quorate-"))
    swarm = Swarm(root, [Member(name, root / name, ["--no-serve"]) for name in ("ada", "bela")])
    try:
        swarm.start_all()
        with swarm.members[1].client() as client:
            client.raw("POST", f"/api/v1/peers/{swarm.members[0].peer}/ping?count=2", {})
        yield swarm
    finally:
        swarm.stop()


def test_metrics_are_prometheus_text_and_all_documented(two: Swarm) -> None:
    with two.members[1].client() as client:
        reply = client.client.http.get("/api/v1/metrics")
    assert reply.status_code == 200
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    documented = set(re.findall(r"`(quorate_[a-z_]+)`", REFERENCE.read_text()))
    for family in families.values():
        shown = family.name + ("_total" if family.type == "counter" else "")
        assert shown in documented, shown
    connections = {tuple(sorted(s.labels.items())): s.value for s in families["quorate_connections"].samples}
    assert sum(connections.values()) >= 1
    assert families["quorate_held_bytes_max"].samples[0].value == 256 << 20
    assert any(sample.value > 0 for sample in families["quorate_calls_made"].samples)
    labels = [value for family in families.values() for sample in family.samples for value in sample.labels.values()]
    assert max(map(len, labels)) <= 40  # no label is a peer


def test_peers_are_shown_with_their_connections(two: Swarm) -> None:
    first, second = two.members
    with second.client() as client:
        (shown,) = [each for each in client.raw("GET", "/api/v1/peers")["peers"] if each["peer"] == first.peer]
    (connection,) = shown["connections"]
    assert (connection["path"], connection["transport"]) == ("direct", "tcp")
    assert connection["bytes_in"] > 0
    assert shown["penalties"] == {"count": 0, "total": 0.0, "last": None}
    printed = subprocess.run(
        [sys.executable, "-m", "node", "peers", "--home", str(second.home)], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"direct, (in|out)bound, tcp /ip4/127\.0\.0\.1/tcp/\d+, since .* streams, .* in, .* out", printed)


def test_events_come_as_they_happen_and_can_be_resumed(two: Swarm) -> None:
    first, second = two.members

    def events(last: int, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with second.client() as client:
            headers = {"Last-Event-ID": str(last)}
            with client.client.http.stream("GET", "/api/v1/events", headers=headers, timeout=START_S) as stream:
                for line in stream.iter_lines():
                    if line.startswith("data: "):
                        found.append(json.loads(line.removeprefix("data: ")))
                    if len(found) == count:
                        break
        return found

    (came,) = events(-1, 1)
    assert (came["seq"], came["type"], came["peer"]) == (0, "peer_connected", first.peer)
    assert first.process is not None
    first.process.kill()
    first.process.wait()
    (went,) = events(0, 1)
    assert (went["type"], went["peer"]) == ("peer_disconnected", first.peer)
