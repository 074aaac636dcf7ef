"""Puts the calibration records into docs/explanation/verification.md: `python -m benchmarks.calibration_tables`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from verify.calibrated import calibrations
from verify.calibration import Calibration

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "verification.md"
BEGIN, END = "<!-- calibration tables: begin -->\n", "<!-- calibration tables: end -->\n"


def table(record: Calibration) -> str:
    """One record for people."""
    limits = ", ".join(f"{name} {limit:.2g}" for name, limit in sorted(record.thresholds.items()))
    runs = sum(group.runs for group in record.groups)
    worst = {name: max(group.maxima[name] for group in record.groups) for name in sorted(record.thresholds)}
    honest = ", ".join(f"{name} {value:.2g}" for name, value in worst.items())
    state = "certified" if record.certified else "**not certified**: " + ", ".join(record.inseparable)
    checked = f"{record.honest_rejects} of {runs} rejected over {len(record.groups)} backend pairs"
    lines = [
        f"**{record.kind}, {record.lane}** ({record.numeric}): {state}.",
        f"Thresholds: {limits}. Honest: {checked}, largest {honest}.",
        "",
        "| cheat | rejected | mildest run, times the threshold |",
        "|---|---|---|",
    ]
    for cell in record.cheats:
        mildest = "differs" if record.lane == "exact" else f"{cell.score_min:.2g}"
        lines.append(f"| {cell.name} | {cell.detected} of {cell.runs} | {mildest} |")
    return "\n".join(lines) + "\n"


def page(text: str, records: Iterable[Calibration]) -> str:
    """The page with its tables replaced."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    ordered = sorted(records, key=lambda record: (record.lane != "tolerant", record.kind))
    return head + BEGIN + "\n" + "\n".join(map(table, ordered)) + "\n" + END + tail


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), calibrations().values()))
