"""A seeded market is one run in every process, whatever its hash seed: else a failure could not be repeated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def digests(seed: int, *hash_seeds: str) -> list[str]:
    """What `python -m tests.sim.replay` prints, in one process each."""
    command = [sys.executable, "-m", "tests.sim.replay", str(seed)]
    running = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": each}, stdout=subprocess.PIPE, text=True
        )
        for each in hash_seeds
    ]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running)
    return [found for each in printed for found in re.findall(r"^digest ([0-9a-f]{64})$", each, re.MULTILINE)]


def test_processes_with_different_hash_seeds_play_the_same_market() -> None:
    first, second = digests(1, "1", "4242")
    assert first == second
