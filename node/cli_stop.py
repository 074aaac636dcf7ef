"""`quorate stop`: tell the node on a home to stop, and wait until it has."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from node.cli_base import Home, client, fail

POLL_S = 0.05


def stop(
    home: Home = None,
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds to wait for its end.")] = 30.0,
) -> None:
    """Tell the node to stop: it takes on nothing new and finishes what is under way. Again, and it stops at once."""
    from node.config import load

    folder = load({"home": home}).home
    with client(folder) as local:
        local.raw("GET", "/api/v1/node")  # it is this home's node that runs, and answers to our token
    pid = int(json.loads((folder / "api.json").read_text())["pid"])
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + wait_s
    while _runs(folder):
        if time.monotonic() > deadline:
            raise fail(f"still running after {wait_s:g} s; stop again to stop at once")
        time.sleep(POLL_S)


def _runs(folder: Path) -> bool:
    """Whether a node holds the home."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
