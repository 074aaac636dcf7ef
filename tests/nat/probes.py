"""Probes: node processes on hosts of the lab, asked and answered over their standard input and output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from tests.nat.lab import PATH, Space

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
PORT = 4001


class ProbeError(Exception):
    """What a probe answered instead of a result."""


@dataclass
class Peer:
    """A probe that runs on a host of the lab."""

    host: Space
    process: trio.Process
    peer: str = ""
    addresses: tuple[str, ...] = ()
    _read: bytes = b""

    async def ask(self, do: str, *, within_s: float = 10.0, **order: Any) -> Any:
        """Have it do something; its result.

        Raises:
            ProbeError: it could not; says why.
        """
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps({"do": do, **order}).encode() + b"\n")
        with trio.fail_after(within_s):
            answer = await self.line()
        if "error" in answer:
            raise ProbeError(answer["error"])
        return answer["ok"]

    async def line(self) -> Any:
        """The next thing that it says."""
        assert self.process.stdout is not None
        while b"\n" not in self._read:
            more = await self.process.stdout.receive_some()
            assert more, f"the probe on {self.host.name} has ended"
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    @property
    def outside(self) -> str:
        """The address under which others see it."""
        return self.host.outside

    def at(self, address: str) -> list[str]:
        """Its address as others would dial it through `address`."""
        return [f"/ip4/{address}/tcp/{PORT}/p2p/{self.peer}"]

    async def echo(self, other: Peer, within_s: float = 5.0) -> float:
        """One frame to another probe and back; the seconds that it took."""
        return float(await self.ask("echo", peer=other.peer, seconds_max=within_s, within_s=within_s + 5))


class Probes:
    """Starts probes; they end with the test."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    async def start(self, host: Space, **config: Any) -> Peer:
        """A probe on a host, ready; `config` goes to `tests.nat.probe`."""
        full = {"seed": f"{len(self._peers):>32}", "listen": [f"/ip4/0.0.0.0/tcp/{PORT}"], **config}
        process = await trio.lowlevel.open_process(
            host.command(sys.executable, "-m", "tests.nat.probe", json.dumps(full)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PATH": PATH},
        )
        peer = Peer(host, process)
        self._peers.append(peer)
        with trio.fail_after(START_S):
            said = await peer.line()
        peer.peer, peer.addresses = said["peer"], tuple(said["addresses"])
        return peer

    async def stop(self, peer: Peer) -> None:
        """End one probe as a crash would."""
        peer.process.kill()
        with trio.CancelScope(shield=True):
            await peer.process.wait()

    async def leave(self, peer: Peer) -> None:
        """End one probe in order."""
        assert peer.process.stdin is not None
        await peer.process.stdin.aclose()
        with trio.fail_after(START_S):
            await peer.process.wait()

    async def stop_all(self) -> None:
        """End all of them."""
        for peer in self._peers:
            await self.stop(peer)
