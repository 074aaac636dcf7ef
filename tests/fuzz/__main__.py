"""`python -m tests.fuzz --cases 1000000`: structural mutations of valid messages against every decoder.

One line per target on stdout: its name, the cases, how many were accepted, and failures; each failing input in
hexadecimal. The status is 1 if there are any. `--only WORD` takes targets whose name contains the word; `--seed`
another sequence.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from tests.fuzz.running import CHUNK, Found, chunk, limit_memory, watched
from tests.fuzz.targets import TARGETS


def _job(task: tuple[str, int, int, int]) -> Found:
    with watched():
        return chunk(*task)


def _tasks(name: str, seed: int, cases: int) -> Iterator[tuple[str, int, int, int]]:
    for number, start in enumerate(range(0, cases, CHUNK)):
        yield name, seed, number, min(CHUNK, cases - start)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="per target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="a word in the names of the targets")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    given = parser.parse_args(arguments)
    failed = False
    for name in TARGETS:
        TARGETS[name].cases()  # once, before the processes are forked
    with multiprocessing.get_context("fork").Pool(given.jobs, limit_memory) as pool:
        for name in (name for name in TARGETS if given.only in name):
            total, began = Found(name), time.monotonic()
            for part in pool.imap_unordered(_job, _tasks(name, given.seed, given.cases)):
                total.cases += part.cases
                total.accepted += part.accepted
                total.failures += part.failures
            took = time.monotonic() - began
            words = f"{total.cases} cases, {total.accepted} accepted, {len(total.failures)} failures, {took:.0f} s"
            print(f"{name}: {words}", flush=True)
            for raw, what in total.failures[:10]:
                print(f"  {what}\n    {raw[:20000]}", flush=True)
            failed = failed or bool(total.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
