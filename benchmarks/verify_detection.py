"""Detection per cheat with exact bounds, under collusion; false refusals held out; collisions.

`python -m benchmarks.verify_detection [--quick] [--write-docs]`. Real runs of the embedded models in child processes,
compared by the shipped fingerprints and thresholds, judged by three honest numeric variants, put before juries of three
that are drawn from a pool in which a share lies for the cheat. Intervals are two-sided 95 % Clopper-Pearson. The page
is docs/reference/detection.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.line import show
from benchmarks.verify_collisions import collisions
from node.detection import (
    JURY,
    POOL,
    Judged,
    escalated_verdict,
    judge_all_cheats,
    jury_verdict,
    refusals_held_out,
)
from verify.statistics import clopper_pearson, majority, runs_needed
from wire.job import Kind, Lane
from workloads.cheats import ALL

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "detection.md"
BEGIN, END = "<!-- detection tables: begin -->\n", "<!-- detection tables: end -->\n"
SHARES = (0, 10, 20)
GOAL = 0.9989
COLLISION_GOAL = 0.000267
HIDES = {"tiny-noise"}
"""Within the tolerant thresholds by construction: shown, and left out of what is pooled."""

KINDS: tuple[Kind, ...] = ("image.generate", "text.generate", "embed.text")
LANES: tuple[Lane, ...] = ("tolerant", "exact")


@dataclass(frozen=True)
class Effort:
    """Runs per cheat by (lane, kind), held-out runs per backend by kind, and jobs for collisions by kind."""

    cheats: Mapping[tuple[Lane, Kind], int]
    held_out: Mapping[Kind, int]
    collisions: Mapping[Kind, int]


FULL = Effort(
    {
        ("tolerant", "image.generate"): 220,
        ("tolerant", "text.generate"): 220,
        ("tolerant", "embed.text"): 3400,
        ("exact", "image.generate"): 60,
        ("exact", "text.generate"): 40,
        ("exact", "embed.text"): 1000,
    },
    {"image.generate": 120, "text.generate": 120, "embed.text": 500},
    {"image.generate": 30_000, "text.generate": 400, "embed.text": 30_000},
)
QUICK = Effort(
    {(lane, kind): 30 if kind == "embed.text" else 4 for lane in LANES for kind in KINDS},
    {"image.generate": 3, "text.generate": 3, "embed.text": 20},
    {"image.generate": 2000, "text.generate": 30, "embed.text": 2000},
)


def scaled(effort: Effort, scale: float) -> Effort:
    """The same with another number of runs; collisions cost little and stay."""
    return Effort(
        {cell: max(2, round(runs * scale)) for cell, runs in effort.cheats.items()},
        {kind: max(2, round(runs * scale)) for kind, runs in effort.held_out.items()},
        effort.collisions,
    )


Cells = dict[tuple[Lane, Kind], dict[str, list[Judged]]]


def say(line: str) -> None:
    """Progress, beside the figures."""
    print(line, file=sys.stderr, flush=True)


def colluders(percent: int) -> int:
    """How many of the pool lie."""
    return POOL * percent // 100


Ladder = Sequence[tuple[Kind, Judged]]


def pooled(cells: Cells) -> dict[tuple[Lane, str], Ladder]:
    """All runs of a lane and kind, and of a lane, without the cheat that hides in it."""
    groups: dict[tuple[Lane, str], list[tuple[Kind, Judged]]] = {}
    for (lane, kind), by_cheat in cells.items():
        for cheat, judged in by_cheat.items():
            if lane == "tolerant" and cheat in HIDES:
                continue
            for group in (kind, "all"):
                groups.setdefault((lane, group), []).extend((kind, each) for each in judged)
    return dict(groups)


def row(lane: str, kind: str, cheat: str, judged: Ladder) -> str:
    """One row of the page, and its figures on stdout."""
    texts = []
    for share in SHARES:
        three = sum(jury_verdict(i, each, colluders(share), "accept") == "reject" for i, (_, each) in enumerate(judged))
        ladder = sum(
            escalated_verdict(i, each, colluders(share), "accept", of) == "reject"
            for i, (of, each) in enumerate(judged)
        )
        for policy, count in (("three", three), ("escalate", ladder)):
            low = clopper_pearson(count, len(judged)).low
            show(f"verify.detection.{lane}.{kind}.{cheat}.f{share}.{policy}", 100 * low, "% at least", better="higher",
                 peer="published, no collusion", peer_value=99.89, source="published")  # fmt: skip
            if share or policy == "three":
                texts.append(f"{count} (≥ {100 * low:.2f})")
    return f"| {lane} | {kind} | {cheat} | {len(judged)} | {' | '.join(texts)} |"


def detection_tables(cells: Cells) -> list[str]:
    """By lane and kind with everything pooled, then cheat by cheat."""
    head = [
        "| lane | kind | cheat | runs | no colluders | 10 %, three | 10 %, escalate | 20 %, three | 20 %, escalate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    merged = [row(lane, kind, "all pooled", judged) for (lane, kind), judged in pooled(cells).items()]
    single = [
        row(lane, kind, cheat, [(kind, each) for each in by_cheat[cheat]])
        for (lane, kind), by_cheat in cells.items()
        for cheat in ALL
        if cheat in by_cheat
    ]
    return ["### All cheats of a lane", "", *head, *merged, "", "### Cheat by cheat", "", *head, *single, ""]


def refusal_table(effort: Effort) -> list[str]:
    """Honest work of backends that the thresholds never saw."""
    lines = [
        "### Honest work on a held-out backend",
        "",
        "| kind | backends | refused | at most |",
        "|---|---|---|---|",
    ]
    every: list[tuple[int, int]] = []
    for kind, runs in effort.held_out.items():
        counts = refusals_held_out(kind, runs, say=lambda line: say(f"held out: {line}"))
        every += counts.values()
        lines.append(_refusals(kind, list(counts.values())))
    return [*lines, _refusals("all", every), ""]


def _refusals(kind: str, counts: Sequence[tuple[int, int]]) -> str:
    wrong, total = sum(bad for bad, _ in counts), sum(runs for _, runs in counts)
    high = clopper_pearson(wrong, total).high
    show(f"verify.false_refusal.{kind}", 100 * high, "% at most", better="lower",
         peer="a 1 % quantile without margin", peer_value=18.8, source="published")  # fmt: skip
    return f"| {kind} | {len(counts)} | {wrong} of {total} | {100 * high:.3f} % |"


def collision_table(effort: Effort) -> list[str]:
    """Answers to one job put forward for another; each job is used once, so that the pairs are independent."""
    lines = ["### Two different jobs taken for one", "", "| kind | collisions | at most |", "|---|---|---|"]
    for kind, jobs in effort.collisions.items():
        say(f"collisions: {kind}")
        taken, pairs = collisions(kind, jobs)
        high = clopper_pearson(taken, pairs).high
        show(f"verify.collision.tolerant.{kind}", 100 * high, "% at most", better="lower",
             peer="published", peer_value=0.0267, source="published")  # fmt: skip
        lines.append(f"| {kind} | {taken} of {pairs} | {100 * high:.4f} % |")
    return [*lines, ""]


def jury_table(cells: Cells) -> list[str]:
    """What bad jurors do to juries of three."""
    honest = [Judged(("accept",) * JURY)] * 3000
    caught = [each for each in cells["tolerant", "embed.text"]["int8-weights"] if set(each.verdicts) == {"reject"}]
    lines = [
        f"### Bad jurors, {POOL} peers, juries of {JURY}",
        "",
        "| jurors who | hurt | 10 % of the pool | 20 % | expected at 20 % |",
        "|---|---|---|---|---|",
    ]
    cases = (
        ("always accept, or take pay without looking", "cheat accepted", caught, "accept", "accept"),
        ("always reject", "honest work refused", honest, "reject", "reject"),
        ("lack the model, and vote instead of passing", "honest work refused", honest, "reject", "reject"),
        ("seal a vote and never open it", "nothing certified", honest, "abstain", None),
    )
    for who, harm, judged, lie, bad in cases:
        texts = []
        for share in SHARES[1:]:
            hits = sum(jury_verdict(run, each, colluders(share), lie) == bad for run, each in enumerate(judged))
            low, high = clopper_pearson(hits, len(judged))
            texts.append(f"{100 * hits / len(judged):.2f} % ({100 * low:.2f} to {100 * high:.2f})")
        lines.append(f"| {who} | {harm} | {' | '.join(texts)} | {100 * majority(JURY, 0.2):.1f} % |")
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few runs of everything, under a minute")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of runs")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/reference/detection.md")
    options = parser.parse_args()
    effort = QUICK if options.quick else scaled(FULL, options.scale)
    cells: Cells = {}
    for (lane, kind), runs in effort.cheats.items():
        cells[lane, kind] = judge_all_cheats(
            kind, lane, runs, say=lambda line, at=f"{lane} {kind}": say(f"{at}: {line}")
        )
    tables = [
        f"A cell can show more than {100 * GOAL:.2f} % only from {runs_needed(GOAL):,} runs on without a miss.",
        "",
        *detection_tables(cells),
        *jury_table(cells),
        *refusal_table(effort),
        *collision_table(effort),
    ]
    if options.write_docs:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(head + BEGIN + "\n" + "\n".join(tables) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
