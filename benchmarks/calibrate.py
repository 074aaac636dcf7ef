"""Writes verify/calibrations/*.json from real runs: `python -m benchmarks.calibrate [KIND/LANE ...]`.

The driver is `node.calibrating`, the same as of `quorate calibrate`. Records of weaker ways to compare, which do not
separate, go to verify/calibrations/refused/.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from node.calibrating import Effort, measure_cell, records
from node.calibration_cli import cell_name, render
from verify.calibration import Calibration, to_json
from verify.fingerprints.registry import FINGERPRINTS
from workloads.cheats import CHEATS

FOLDER = Path(__file__).resolve().parents[1] / "verify" / "calibrations"


def save(record: Calibration, folder: Path) -> None:
    """As JSON, named after its subject."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{cell_name(record)}.json").write_text(to_json(record))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", help="e.g. image.generate/tolerant; all if none is named")
    parser.add_argument("--honest", type=int, default=100)
    parser.add_argument("--cheats", type=int, default=20)
    parser.add_argument("--alpha", type=float, default=0.01)
    options = parser.parse_args()
    effort = Effort(options.honest, options.cheats, options.alpha, names=tuple(CHEATS))
    for kind, lane in FINGERPRINTS:
        if options.cells and f"{kind}/{lane}" not in options.cells:
            continue
        began = time.perf_counter()
        measured = measure_cell(kind, lane, effort, say=lambda line: print(line, file=sys.stderr))
        record, weaker = records(measured, effort.alpha)
        save(record, FOLDER)
        for each in weaker:
            save(each, FOLDER / "refused")
        print(render(record), f"{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
