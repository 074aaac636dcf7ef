"""A swarm of node processes on this machine: six `quorate up`, a temporary home each, on loopback.

Used by `quorate demo`, the end-to-end tests and the benchmarks. `stop` ends every process it started and
removes the homes.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire.errors import LocalError

if TYPE_CHECKING:
    from node.local import Local

START_S = 60.0
STOP_S = 5.0
POLL_S = 0.05


@dataclass
class Member:
    """One node process and its home; `role` is the command that runs it."""

    name: str
    home: Path
    options: list[str]
    role: str = "up"
    process: subprocess.Popen[bytes] | None = None
    peer: str = ""
    address: str = ""

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def client(self) -> AbstractContextManager[Local]:
        """A client of this node."""
        from node.local import open_local

        return open_local(self.home)

    def log(self) -> str:
        """What the node logged."""
        path = self.home / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""


@dataclass
class Swarm:
    """`members[0]` is the one the others join through."""

    root: Path
    members: list[Member] = field(default_factory=list)

    def start(self, member: Member) -> None:
        """Start one process; `ready` waits for it."""
        member.home.mkdir(mode=0o700, exist_ok=True)
        join = [m.address for m in self.members if m is not member and m.address][:2]
        command = [sys.executable, "-m", "node", member.role, "--home", str(member.home), "--log-json"]
        command += ["--listen", "/ip4/127.0.0.1/tcp/0"]
        command += [part for address in join for part in ("--bootstrap", address)] + member.options
        with (member.home / "node.log").open("ab") as file:
            member.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def ready(self, member: Member, within_s: float = START_S) -> None:
        """Wait until a member answers on its API.

        Raises:
            LocalError: it ended, or took too long; the end of its log is in the message.
        """
        deadline = time.monotonic() + within_s
        while not (member.home / "api.json").exists() or not self._mine(member):
            if not member.alive or time.monotonic() > deadline:
                raise LocalError(f"node {member.name} did not start:\n{member.log()[-2000:]}")
            time.sleep(POLL_S)
        with member.client() as client:
            about = client.raw("GET", "/api/v1/node")
        member.peer, member.address = about["peer"], about["addresses"][0]

    @staticmethod
    def _mine(member: Member) -> bool:
        try:
            pid = json.loads((member.home / "api.json").read_text())["pid"]
        except (ValueError, OSError):
            return False
        return member.process is not None and pid == member.process.pid

    def start_all(self) -> None:
        """Start the first member, then the others together."""
        self.start(self.members[0])
        self.ready(self.members[0])
        for member in self.members[1:]:
            self.start(member)
        for member in self.members[1:]:
            self.ready(member)

    def await_providers(self, member: Member, counts: dict[str, int], within_s: float = START_S) -> None:
        """Wait until `member` finds that many providers of each model, by name."""
        deadline = time.monotonic() + within_s
        with member.client() as client:
            while True:
                found = {m["name"]: m["providers"] for m in client.raw("GET", "/api/v1/models")["models"]}
                if all(found.get(name, 0) >= count for name, count in counts.items()):
                    return
                if time.monotonic() > deadline:
                    raise LocalError(f"providers found: {found}, wanted: {counts}")
                time.sleep(0.2)

    def stop(self, *, keep_homes: bool = False) -> list[str]:
        """End every process; returns the names of those that had to be killed."""
        killed = []
        for member in self.members:
            if member.alive and member.process is not None:
                member.process.send_signal(signal.SIGTERM)
        for member in self.members:
            if member.process is None:
                continue
            try:
                member.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                killed.append(member.name)
                member.process.kill()
                member.process.wait()
        if not keep_homes:
            shutil.rmtree(self.root, ignore_errors=True)
        return killed


def six(cheat: str = "", options: list[str] | None = None) -> Swarm:
    """Six members, not started; with `cheat` the last one is cheap and cheats at images."""
    root = Path(tempfile.mkdtemp(prefix="quorate-"))
    swarm = Swarm(root)
    for name in ("ada", "bela", "chen", "dara", "emil", "finn"):
        swarm.members.append(Member(name, root / name, list(options or [])))
    if cheat:
        swarm.members[-1].options += ["--cheat", cheat, "--price-percent", "50", "--model", "digits-ddim"]
    return swarm


def ledgers(swarm: Swarm) -> dict[str, dict[str, Any]]:
    """Each member's ledger view, by name."""
    views = {}
    for member in swarm.members:
        with member.client() as client:
            views[member.name] = client.raw("GET", "/api/v1/ledger")
    return views
