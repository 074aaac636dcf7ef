"""One seed, one run: within a process, across processes, and whatever the hash seed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from sim.determinism import deterministic_scheduling
from sim.faults import ROUGH
from sim.scenarios import SCENARIOS, echo_app, play_echo
from sim.world import run, world

ROOT = Path(__file__).parents[2]


def replay(seed: int, hash_seed: str) -> list[str]:
    """The trace hashes that `python -m sim` prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "sim", str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return re.findall(r"^trace ([0-9a-f]{64})$", done.stdout, re.MULTILINE)


def trace_of(seed: int) -> str:
    """The trace hash of the echo scenario, in this process."""

    async def main() -> str:
        async with world(nodes=4, seed=seed, faults=ROUGH, build=echo_app) as w:
            await play_echo(w)
            return w.net.trace.hash

    return run(main, seed)


def test_processes_with_different_hash_seeds_agree() -> None:
    first, second = replay(11, "1"), replay(11, "4242")
    assert len(first) == len(SCENARIOS)
    assert first == second


def test_a_run_repeats_in_one_process() -> None:
    assert trace_of(5) == trace_of(5)


def test_another_seed_is_another_run() -> None:
    assert trace_of(5) != trace_of(6)


def test_scheduling_is_put_back_as_it_was() -> None:
    from typing import Any, cast

    scheduler = cast(Any, trio)._core._run
    allowed, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    with pytest.raises(KeyError), deterministic_scheduling(1):
        raise KeyError
    assert allowed == scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    assert state == scheduler._r.getstate()


def test_an_unseeded_scheduler_is_why_this_exists() -> None:
    """Without the seed, tasks of one turn run in random order; with it, always in the same."""

    async def order() -> list[int]:
        ran: list[int] = []

        async def note(n: int) -> None:
            for _ in range(5):
                ran.append(n)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for n in range(8):
                nursery.start_soon(note, n)
        return ran

    assert len({tuple(run(order, 3)) for _ in range(4)}) == 1
    assert len({tuple(trio.run(order)) for _ in range(8)}) > 1
