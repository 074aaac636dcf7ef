"""A node finds its way back by itself: through peers that it reached before, whatever ended it."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from node.swarm import START_S, Member, Swarm


@pytest.fixture
def two() -> Iterator[Swarm]:
    """Two nodes, the second of which joins through the first."""
    root = Path(tempfile.mkdtemp(prefix="quorate-"))
    swarm = Swarm(root, [Member(name, root / name, ["--no-serve"]) for name in ("ada", "bela")])
    try:
        swarm.start_all()
        yield swarm
    finally:
        swarm.stop()


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + START_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def reached(member: Member) -> int:
    """Peers that a node has reached, as it has stored them."""
    with closing(sqlite3.connect(f"file:{member.home / 'peers.db'}?mode=ro", uri=True)) as db:
        found: int = db.execute("select count(distinct peer) from addresses where worked_ms > 0").fetchone()[0]
    return found


def connected(member: Member) -> int:
    """Peers with which a node has a connection."""
    with member.client() as client:
        count: int = client.raw("GET", "/api/v1/node")["peers_connected"]
    return count


def test_a_node_that_was_killed_rejoins_without_being_told_where(two: Swarm) -> None:
    first, second = two.members
    until(lambda: reached(second) > 0, "the address that worked is stored")
    assert second.process is not None
    second.process.kill()
    second.process.wait()
    address, first.address = first.address, ""  # nobody is named to join through
    two.start(second)
    two.ready(second)
    first.address = address
    until(lambda: connected(second) > 0, second.log())
    with second.client() as client:
        peers = {each["peer"]: each["connected"] for each in client.raw("GET", "/api/v1/peers")["peers"]}
    assert peers[first.peer]
