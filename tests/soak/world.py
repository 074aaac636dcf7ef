"""The soak itself: rounds of mixed calls among 50 peers in five processes, of which one dies or leaves in each round.

The first process stays. What it holds is looked at after every round, and at the end, when all others have gone and
its own connections are closed, it must hold no more than at its beginning. Rounds are counted, not seconds: a busy
machine takes longer and does the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import trio

ROOT = Path(__file__).resolve().parents[2]
PROCESSES, PEERS_EACH = 5, 10
CALLS = 16
"""Calls of one peer in a round."""

WARM_UP = 4
"""Rounds until every process has been replaced once, and buffers and caches have the size that they keep."""

HEARD_S = 300.0
"""Patience with gossip and with what is being closed: both end by themselves, soon on an idle machine."""

TOLD_AGAIN_S = 3.0
"""A peer that has just come hears nothing before it is linked."""

GROWTH_SHARE, GROWTH_KB = 0.05, 6 << 10
"""How far the memory of the last rounds may stand above that of the first after the warm-up: 5 % and 6 MiB."""


class Process:
    """A process of peers, as the soak sees it."""

    def __init__(self, first: int, process: trio.Process) -> None:
        self.first = first
        self.at: dict[str, list[str]] = {}
        self._process = process
        self._read = b""

    async def line(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self._process.stdout is not None
        while b"\n" not in self._read:
            more = await self._process.stdout.receive_some()
            if not more:
                raise trio.EndOfChannel
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    async def order(self, do: str, **what: Any) -> None:
        """Have it do something; its answer is yet to be read."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"do": do, **what}).encode() + b"\n")

    async def ask(self, do: str, **what: Any) -> Any:
        """Have it do something, to its end."""
        await self.order(do, **what)
        while "ok" not in (said := await self.line()):
            continue
        return said["ok"]

    async def kill(self) -> None:
        """As a crash would."""
        self._process.kill()
        await self._gone()

    async def leave(self) -> None:
        """In order, with whatever is under way cut off; it must end well."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        await self._gone()
        assert self._process.returncode == 0, f"a process of peers ended with {self._process.returncode}"

    async def _gone(self) -> None:
        with trio.CancelScope(shield=True):
            await self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    await stream.aclose()

    @property
    def running(self) -> bool:
        """Whether it still does."""
        return self._process.returncode is None


@asynccontextmanager
async def processes() -> AsyncIterator[list[Process]]:
    """All of them, which end with the scope."""
    living: list[Process] = []
    try:
        yield living
    finally:
        with trio.CancelScope(shield=True):
            for each in living:
                if each.running:
                    await each.kill()


async def start(first: int) -> Process:
    """A process of the peers from number `first` on."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.soak.peers", str(first), str(PEERS_EACH)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    started = Process(first, process)
    started.at = (await started.line())["at"]
    return started


@dataclass
class Soaked:
    """What a soak found.

    Args:
        outcomes: how many calls of each kind ended how.
        begun, ended: the census of the first process before its first connection, and after its last.
        rounds: its census after each round.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    begun: dict[str, int] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, int]] = field(default_factory=list)

    def growth_kb(self) -> tuple[float, float]:
        """Memory of the first process after the warm-up, and in the last rounds: the medians of a third of them."""
        after = [each["rss_kb"] for each in self.rounds[WARM_UP:]]
        third = max(1, len(after) // 3)
        return median(after[:third]), median(after[-third:])


async def _tell_everybody(living: list[Process]) -> None:
    at = {name: addresses for each in living for name, addresses in each.at.items()}
    for each in living:
        await each.ask("learn", at=at)
    async with trio.open_nursery() as nursery:
        for each in living:
            nursery.start_soon(each.ask, "meet")


async def _round(living: list[Process], number: int, soaked: Soaked) -> None:
    """Calls by everybody; when the victim has made half of its own it is killed, or leaves, and comes back."""
    at = 1 + number % (PROCESSES - 1)
    victim, others = living[at], [each for each in living if each is not living[at]]

    async def calls(each: Process) -> None:
        soaked.outcomes.update(await each.ask("calls", seed=number, count=CALLS))

    async def half() -> None:
        await victim.order("calls", seed=number, count=CALLS)
        while "half" not in await victim.line():
            continue
        await (victim.kill() if number % 2 else victim.leave())

    async with trio.open_nursery() as nursery:
        for each in others:
            nursery.start_soon(calls, each)
        nursery.start_soon(half)
    living[at] = await start(victim.first)
    await _tell_everybody(living)
    with trio.fail_after(HEARD_S):
        for each in living:
            await each.ask("quiet")
    await _gossip(living, f"round {number}")


async def _gossip(living: list[Process], data: str) -> None:
    """One message reaches all peers, those that have just come included; told again until it has."""

    async def hear(each: Process) -> None:
        await each.ask("hear", data=data)

    with trio.fail_after(HEARD_S):
        async with trio.open_nursery() as telling:
            async with trio.open_nursery() as hearing:
                for each in living[1:]:
                    hearing.start_soon(hear, each)
                telling.start_soon(_tell, living[0], data)
            telling.cancel_scope.cancel()
        await living[0].ask("hear", data=data)


async def _tell(each: Process, data: str) -> None:
    while True:
        with trio.CancelScope(shield=True):  # its answer must be read
            await each.ask("tell", data=data)
        await trio.sleep(TOLD_AGAIN_S)


async def soak(more: Callable[[int], bool], told: Callable[[str], None] = lambda _: None) -> Soaked:
    """Run rounds for as long as `more(rounds so far)`, and then take everything apart."""
    soaked = Soaked()
    async with processes() as living:
        for number in range(PROCESSES):
            living.append(await start(number * PEERS_EACH))
        stays = living[0]
        soaked.begun = await stays.ask("begin")
        await _tell_everybody(living)
        number = 0
        while more(number):
            await _round(living, number, soaked)
            soaked.rounds.append(await stays.ask("census"))
            told(f"round {number}: {soaked.rounds[-1]}, {sum(soaked.outcomes.values())} calls")
            number += 1
        async with trio.open_nursery() as nursery:
            for each in living[1:]:
                nursery.start_soon(each.leave)
        await stays.ask("part")
        soaked.ended = await stays.ask("until_as_begun", patience_s=HEARD_S)
        await stays.leave()
    return soaked


def check(soaked: Soaked) -> None:
    """Raise where it found a leak, or no work."""
    assert soaked.ended["left"] == {}
    for key in ("tasks", "fds", "connections", "streams"):
        assert soaked.ended[key] <= soaked.begun[key], (
            f"{key}: {soaked.begun} at the beginning, {soaked.ended} at the end"
        )
    for each in soaked.rounds:
        assert each["streams"] <= 4 * each["connections"]
    early, late = soaked.growth_kb()
    assert late <= early * (1 + GROWTH_SHARE) + GROWTH_KB, f"memory rose from {early:.0f} to {late:.0f} KiB"
    by_kind: dict[str, Counter[str]] = {}
    for name, count in soaked.outcomes.items():
        kind, _, how = name.partition(": ")
        by_kind.setdefault(kind, Counter())[how] += count
    typed = {"ok", "Refused", "Expired", "Unreachable", "ChannelClosed", "Busy"}
    assert {how for hows in by_kind.values() for how in hows} <= typed
    usual = {"expired": "Expired", "unknown": "Refused", "no blob": "Refused"}
    assert {kind: hows.most_common(1)[0][0] for kind, hows in by_kind.items()} == {
        kind: usual.get(kind, "ok") for kind in by_kind
    }
    assert len(by_kind) == 10
