"""Detection per cheat with exact bounds, under collusion; false refusals held out; collisions; protocol cheats.

`python -m benchmarks.verify_detection [--quick] [--store DIR] [--minutes M] [--write-docs]`. Real runs of the embedded
models in child processes, judged by the shipped fingerprints and thresholds (`node.detection_runs`), put before ladders
of juries in which a share lies for the cheat. Runs are kept in the store, and a later call goes on from there.
Intervals are two-sided 95 % Clopper-Pearson. The page is docs/reference/detection.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

from benchmarks.line import show
from benchmarks.verify_collisions import collisions
from benchmarks.verify_protocol import protocol_tables
from node.calibrating import LANE_VARIANTS
from node.detection import (
    Judged,
    detected,
    detection_at_least,
    ladder_right,
    record_of,
)
from node.detection_inputs import concerns
from node.detection_runs import HONEST, OFF, Cell, gather, load, refused_held_out
from verify.statistics import clopper_pearson, runs_needed
from wire.job import Kind, Lane
from workloads.cheats import ALL

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "detection.md"
STORE = Path.home() / ".cache" / "quorate-detection"
BEGIN, END = "<!-- detection tables: begin -->\n", "<!-- detection tables: end -->\n"
SHARES = (10, 20)
STEPS, SPOTS = 30, (1, 2, 3, 5, 8, 9, 12, 30)
GOAL = 0.9989
KINDS: tuple[Kind, ...] = ("image.generate", "text.generate", "embed.text")
LANES: tuple[Lane, ...] = ("tolerant", "exact")


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        named: runs per cheat that the shipped record names. others: per other cheat. exact: honest runs in the exact
        lane. held_out: honest runs of all held-out backends together. collisions: jobs.
        chunk: jobs per child; 0: the usual.
    """

    named: Mapping[tuple[Lane, Kind], int]
    others: Mapping[tuple[Lane, Kind], int]
    exact: Mapping[Kind, int]
    held_out: Mapping[Kind, int]
    collisions: Mapping[Kind, int]
    chunk: int = 0


CELLS = [(lane, kind) for lane in LANES for kind in KINDS]
EXACT: dict[tuple[Lane, Kind], int] = {("exact", "image.generate"): 60, ("exact", "text.generate"): 90}
FULL = Effort(
    {cell: EXACT.get(cell, 4800) for cell in CELLS},
    {cell: EXACT.get(cell, 4800 if cell[1] == "embed.text" else 600) for cell in CELLS},
    dict.fromkeys(KINDS, 4800),
    dict.fromkeys(KINDS, 3740),
    dict.fromkeys(KINDS, 28_000),
)
QUICK = Effort(
    dict.fromkeys(CELLS, 4),
    dict.fromkeys(CELLS, 2),
    dict.fromkeys(KINDS, 4),
    dict.fromkeys(KINDS, 2),
    {"image.generate": 2000, "text.generate": 30, "embed.text": 2000},
    chunk=5,
)


def say(line: str) -> None:
    """Progress, beside the figures."""
    print(line, file=sys.stderr, flush=True)


def wanted(effort: Effort, cell: Cell) -> dict[str, int]:
    """Runs by row of this cell."""
    at, named = (cell.lane, cell.kind), certified(cell)
    cheats = [cheat for cheat in ALL if concerns(cheat, cell.kind)]
    rows = {cheat: (effort.named if cheat in named else effort.others)[at] for cheat in cheats}
    return {HONEST: effort.exact[cell.kind], **rows} if cell.lane == "exact" else rows


def certified(cell: Cell) -> frozenset[str]:
    """The cheats that the shipped record names and certifies."""
    record = record_of(cell.kind, cell.lane)
    return frozenset(each.name for each in record.cheats if each.separates and record.certified)


def held_out(effort: Effort, kind: Kind) -> dict[str, int]:
    """Honest runs by backend that the thresholds did not see."""
    others = LANE_VARIANTS["tolerant"][1:][: effort.held_out[kind]]
    return dict.fromkeys(others, -(-effort.held_out[kind] // len(others)))


def measure(store: Path, effort: Effort, minutes: float) -> None:
    """Everything that is missing, the cheapest first, until the time is up."""
    until_s = time.monotonic() + 60 * minutes
    for kind in reversed(KINDS):
        for worker, runs in held_out(effort, kind).items():
            cell = Cell(kind, "tolerant", worker)
            gather(store, cell, {HONEST: runs}, say, size=effort.chunk or runs, until_s=until_s)
        for lane in LANES:
            cell = Cell(kind, lane)
            gather(store, cell, wanted(effort, cell), say, size=effort.chunk, until_s=until_s)
    for kind, jobs in effort.collisions.items():
        path = collided(store, kind, jobs)
        if time.monotonic() < until_s and not path.exists():
            say(f"collisions: {kind}")
            found = json.dumps(collisions(kind, jobs))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found)


@dataclass(frozen=True)
class Row:
    """One cheat before a fingerprint and before juries: runs caught, and of the jury's verdicts which are right."""

    kind: Kind
    lane: Lane
    cheat: str
    judged: Sequence[Judged]
    certified: bool

    @property
    def caught(self) -> int:
        """Runs that the juror rejected."""
        return sum(each.verdicts[0] == "reject" for each in self.judged)

    def at_least(self, colluders: int) -> float:
        """The rigorous lower bound of detection under the escalation policy."""
        return detection_at_least(self.caught, len(self.judged), self.kind, colluders)

    def line(self) -> str:
        """Its row of the page, and its figures on stdout."""
        texts = [f"{len(self.judged):,}", f"{self.caught:,}", f"{100 * self.at_least(0):.3f}"]
        for share in (0, *SHARES):
            figure = f"verify.detection.{self.lane}.{self.kind}.{self.cheat}.f{share}"
            show(figure, 100 * self.at_least(share), "% at least", better="higher",
                 peer="published, no collusion", peer_value=99.89, source="published")  # fmt: skip
        for share in SHARES:
            texts += [f"{detected(self.judged, share, self.kind):,}", f"{100 * self.at_least(share):.3f}"]
        texts += [f"{detected(self.judged, share):,}" for share in SHARES]
        return f"| {f'**{self.cheat}**' if self.certified else self.cheat} | {' | '.join(texts)} |"


HEAD = [
    "| cheat | runs | caught | ≥ % | 10 % lie: ladder | ≥ % | 20 % lie: ladder | ≥ % | 10 %: three | 20 %: three |",
    "|---|---|---|---|---|---|---|---|---|---|",
]


def detection_tables(store: Path, effort: Effort) -> list[str]:
    """One table per kind and lane; and how many of the certified cells reach the goal."""
    lines, rows = [], []
    for lane in LANES:
        for kind in KINDS:
            cell = Cell(kind, lane)
            named = certified(cell)
            judged = {cheat: load(store, cell, cheat, runs) for cheat, runs in wanted(effort, cell).items()}
            found = [Row(kind, lane, c, runs, c in named) for c, runs in judged.items() if runs and c != HONEST]
            if found:
                lines += [f"### {kind}, {lane}", "", *HEAD, *(row.line() for row in found), ""]
            if found and (lane, kind) == ("tolerant", "image.generate"):
                lines += spot_table(found)
            rows += [row for row in found if row.lane == "tolerant" and row.certified]
    return [*summary(rows), *lines, *agreement_table(store, effort)]


def spot_table(rows: Sequence[Row]) -> list[str]:
    """Pictures of which jurors recompute one drawn step: what it finds, exactly, from the steps that are wrong."""
    lines = [
        "### image.generate, tolerant, one drawn step",
        "",
        "| cheat | runs | found, mean % | in the worst run, % |",
        "|---|---|---|---|",
    ]
    for row in rows:
        limits = record_of(row.kind, row.lane).thresholds
        shares = [_found_by_one_step(each, limits) for each in row.judged]
        mean = sum(shares) / len(shares)
        show(f"verify.detection.one_step.{row.cheat}", 100 * mean, "%", better="higher")
        lines.append(f"| {row.cheat} | {len(shares):,} | {100 * mean:.2f} | {100 * min(shares):.2f} |")
    return [*lines, "", *_more_spots()]


def _more_spots() -> list[str]:
    """What more drawn steps find of a run of which half, or one step, is wrong; and the least that they cost."""
    lines = [
        "### A picture of 30 steps, k of them drawn",
        "",
        "| k | half of the steps wrong: found, % | one step wrong: found, % | costs at least, % of the run |",
        "|---|---|---|---|",
    ]
    for drawn in SPOTS:
        half, one = (100 * (1 - comb(STEPS - wrong, drawn) / comb(STEPS, drawn)) for wrong in (STEPS // 2, 1))
        lines.append(f"| {drawn} | {half:.3f} | {one:.2f} | {100 * drawn / STEPS:.2f} |")
    return [*lines, ""]


def _found_by_one_step(judged: Judged, limits: Mapping[str, float]) -> float:
    """Refused, another noise or another picture: always; else the share of wrong steps."""
    (found,) = judged.distances
    always = not found or any(found[name] > limits[name] for name in ("noise", "pixels"))
    return 1.0 if always else found[OFF]


def summary(rows: Sequence[Row]) -> list[str]:
    """Certified cells of the tolerant lane against the goal."""
    lines = []
    for share in (0, *SHARES):
        reached = sum(row.at_least(share) > GOAL for row in rows)
        missed = [f"{row.kind} {row.cheat}" for row in rows if row.at_least(share) <= GOAL]
        lines.append(
            f"- {share} % colluding: {reached} of {len(rows)} certified tolerant cells are above {100 * GOAL:.2f} %"
            + (f"; not {', '.join(missed)}." if missed else ".")
        )
    most = runs_needed(GOAL / ladder_right("embed.text", SHARES[-1]))
    needed = f"{runs_needed(GOAL):,} runs without a miss, {most:,} at 20 %"
    return [f"A cell can reach the goal only from {needed}.", "", *lines, ""]


def agreement_table(store: Path, effort: Effort) -> list[str]:
    """Exact lane: honest jurors on other numerics have the worker's bytes, so nothing else passes."""
    lines = [
        "### The exact lane as a whole",
        "",
        "| kind | honest runs | juror had other bytes | at most % | every cheat ≥ % | 10 % lie ≥ % | 20 % lie ≥ % |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        found = load(store, Cell(kind, "exact"), HONEST, effort.exact[kind])
        wrong = sum(each.verdicts[0] != "accept" for each in found)
        if not found:
            continue
        high = clopper_pearson(wrong, len(found)).high
        bounds = [f"{100 * detection_at_least(len(found) - wrong, len(found), kind, s):.3f}" for s in (0, *SHARES)]
        show(f"verify.exact_disagreement.{kind}", 100 * high, "% at most", better="lower")
        lines.append(f"| {kind} | {len(found):,} | {wrong} | {100 * high:.3f} | {' | '.join(bounds)} |")
    return [*lines, ""]


def refusal_table(store: Path, effort: Effort) -> list[str]:
    """Honest work of backends that the thresholds never saw."""
    lines = ["### Honest work on a held-out backend", "", "| kind | backends | runs | refused | at most % |",
             "|---|---|---|---|---|"]  # fmt: skip
    every: list[tuple[int, int]] = []
    for kind in KINDS:
        counts = [refused_held_out(store, kind, worker, runs) for worker, runs in held_out(effort, kind).items()]
        every += counts
        lines.append(_refusals(kind, counts))
    return [*lines, _refusals("all", every), ""]


def _refusals(kind: str, counts: Sequence[tuple[int, int]]) -> str:
    wrong, total = sum(bad for bad, _ in counts), sum(runs for _, runs in counts)
    high = clopper_pearson(wrong, total).high if total else 1.0
    show(f"verify.false_refusal.{kind}", 100 * high, "% at most", better="lower",
         peer="a 1 % quantile without margin", peer_value=18.8, source="published")  # fmt: skip
    return f"| {kind} | {sum(runs > 0 for _, runs in counts)} | {total:,} | {wrong} | {100 * high:.3f} |"


def collided(store: Path, kind: Kind, jobs: int) -> Path:
    """The file with (taken for one, pairs) of this many jobs."""
    return store / Cell(kind, "tolerant").subject / f"collisions-{jobs}.json"


def collision_table(store: Path, effort: Effort) -> list[str]:
    """Answers to one job put forward for another; each job is used once, so that the pairs are independent."""
    lines = [
        "### Two different jobs taken for one",
        "",
        "| kind | pairs | collisions | at most % |",
        "|---|---|---|---|",
    ]
    for kind, jobs in effort.collisions.items():
        if not collided(store, kind, jobs).exists():
            continue
        taken, pairs = json.loads(collided(store, kind, jobs).read_text())
        high = clopper_pearson(taken, pairs).high
        show(f"verify.collision.tolerant.{kind}", 100 * high, "% at most", better="lower",
             peer="published", peer_value=0.0267, source="published")  # fmt: skip
        lines.append(f"| {kind} | {pairs:,} | {taken} | {100 * high:.4f} |")
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few runs of everything, in a store of their own")
    parser.add_argument("--store", type=Path, default=STORE, help=f"where runs are kept; default {STORE}")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop running after this; 0: tables only")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/reference/detection.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, effort = (Path(folder), QUICK) if options.quick else (options.store, FULL)
        measure(store, effort, options.minutes)
        tables = [*detection_tables(store, effort), *refusal_table(store, effort), *collision_table(store, effort),
                  *protocol_tables(quick=options.quick)]  # fmt: skip
    if options.write_docs:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(head + BEGIN + "\n" + "\n".join(tables) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
