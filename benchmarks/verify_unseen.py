"""Backends that no threshold was made from: torch on a processor, torch on a GPU, the same with TensorFloat-32.

`python -m benchmarks.verify_unseen [--quick] [--store DIR] [--backends torch torch-cuda ...] [--jobs N] [--minutes M]
[--write-docs]`. Needs torch (extra `gpu`), a GPU for the last two; runs are kept in the store, made in N children at a
time, and those of several machines can lie in one store. The shipped thresholds judge as they are: nothing is held out
of them, for they saw none of this. The page is docs/reference/detection.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.line import show
from benchmarks.verify_detection import KINDS, PAGE, STORE, certified, say
from node.detection_runs import HONEST, Cell, load, make_chunk, path_of
from verify.statistics import clopper_pearson
from wire.errors import LocalError
from wire.job import Kind, Lane
from workloads.variants import UNSEEN

OTHER_CLASS = ("torch-tf32",)
"""Backends whose numbers are another numeric class: shown to be told apart, not accepted."""
BEGIN, END = "<!-- unseen tables: begin -->\n", "<!-- unseen tables: end -->\n"


@dataclass(frozen=True)
class Effort:
    """Runs of honest work per cell, of each certified cheat, and jobs per child."""

    honest: int
    cheats: int
    chunk: int


FULL, QUICK = Effort(3740, 1000, 374), Effort(4, 2, 4)


def both_ways(kind: Kind, lane: Lane, backend: str) -> tuple[Cell, Cell]:
    """The backend as worker, judged by the first one; and as juror of the first one's work."""
    return Cell(kind, lane, backend), Cell(kind, lane, judge=backend)


def rows_of(effort: Effort, cell: Cell) -> dict[str, int]:
    """Runs by row: honest ones, and where the backend is the tolerant lane's juror also certified cheats.

    None with TensorFloat-32: a juror that refuses honest work shows nothing by refusing cheats.
    """
    named = sorted(certified(cell)) if cell.judge and cell.lane == "tolerant" and cell.judge not in OTHER_CLASS else []
    return {HONEST: effort.honest, **dict.fromkeys(named, effort.cheats)}


def measure(store: Path, effort: Effort, backends: Sequence[str], parallel: int, minutes: float) -> None:
    """Make what is missing, in several children at a time, until the time is up; a child that fails is told of."""
    until_s = time.monotonic() + 60 * minutes
    tasks = []
    for backend in backends:
        for lane in ("tolerant", "exact") if backend not in OTHER_CLASS else ("tolerant",):
            for cell in (cell for kind in KINDS for cell in both_ways(kind, lane, backend)):
                for chunk in range(-(-effort.honest // effort.chunk)):
                    wanted = [row for row, runs in rows_of(effort, cell).items() if chunk * effort.chunk < runs]
                    tasks.append((cell, chunk, wanted))

    def one(task: tuple[Cell, int, list[str]]) -> None:
        cell, chunk, wanted = task
        absent = [row for row in wanted if not path_of(store, cell, row, chunk).exists()]
        if not absent or time.monotonic() > until_s:
            return
        began = time.monotonic()
        try:
            make_chunk(store, cell, chunk, absent, effort.chunk)
            say(f"{cell} chunk {chunk}: {', '.join(absent)}, {time.monotonic() - began:.0f} s")
        except LocalError as exc:
            say(f"{cell} chunk {chunk}: {exc}")

    with ThreadPoolExecutor(parallel) as pool:
        for _ in pool.map(one, tasks):
            pass


def tables(store: Path, effort: Effort) -> list[str]:
    """Honest work of every backend there are runs of, then the cheats that it judged."""
    return [*_honest(store, effort), *_cheats(store, effort)]


def _honest(store: Path, effort: Effort) -> list[str]:
    lines = ["| backend | kind | lane | runs as worker | refused | runs as juror | refused | refused at most % |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for backend in UNSEEN:
        for lane in ("tolerant", "exact"):
            for kind in KINDS:
                found = [load(store, cell, HONEST, effort.honest) for cell in both_ways(kind, lane, backend)]
                if not any(found):
                    continue
                counts = [(len(runs), sum(each.verdicts[0] != "accept" for each in runs)) for runs in found]
                total, refused = (sum(column) for column in zip(*counts, strict=True))
                high = 100 * clopper_pearson(refused, total).high
                show(f"verify.unseen.{backend}.{lane}.{kind}.refused", high, "% at most", better="lower")
                each = " | ".join(f"{runs:,} | {bad:,}" for runs, bad in counts)
                lines.append(f"| {backend} | {kind} | {lane} | {each} | {high:.3f} |")
    return [*lines, ""]


def _cheats(store: Path, effort: Effort) -> list[str]:
    lines = ["| juror | kind | certified cheat | runs | caught | ≥ % |", "|---|---|---|---|---|---|"]
    for backend in UNSEEN:
        for kind in KINDS:
            cell = Cell(kind, "tolerant", judge=backend)
            for cheat in rows_of(effort, cell):
                runs = load(store, cell, cheat)
                if cheat == HONEST or not runs:
                    continue
                caught = sum(each.verdicts[0] == "reject" for each in runs)
                low = 100 * clopper_pearson(caught, len(runs)).low
                show(f"verify.unseen.{backend}.{kind}.{cheat}", low, "% at least", better="higher")
                lines.append(f"| {backend} | {kind} | {cheat} | {len(runs):,} | {caught:,} | {low:.3f} |")
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few runs of everything, in a store of their own")
    parser.add_argument("--store", type=Path, default=STORE, help=f"where runs are kept; default {STORE}")
    parser.add_argument("--backends", nargs="+", choices=list(UNSEEN), default=["torch"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="children at a time")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing after this; 0: tables only")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/reference/detection.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, effort = (Path(folder), QUICK) if options.quick else (options.store, FULL)
        measure(store, effort, options.backends, options.jobs, options.minutes)
        found = tables(store, effort)
    if options.write_docs:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(head + BEGIN + "\n" + "\n".join(found) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
