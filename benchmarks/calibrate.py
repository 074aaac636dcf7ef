"""Writes verify/calibrations/*.json from real runs: `python -m benchmarks.calibrate [KIND/LANE ...]`.

Every numeric variant (`workloads.variants`) is a process of its own, because instruction sets are chosen when a process
starts. Honest runs of each variant are re-checked by the first one, and runs of the first by each other: these pairs
are the groups. Every cheat (`workloads.cheats`) runs in the first variant and is re-checked by several. In the exact
lane a re-check is a run, so runs are compared directly. The mathematics is `verify.calibration`; this file runs
things.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.calibration_inputs import applies, job_specs
from verify.calibration import Calibration, CheatRuns, Distances, Subject, calibrate, to_json
from verify.faults import Refused
from verify.fingerprints.base import Fingerprint
from verify.fingerprints.registry import FINGERPRINTS
from wire import codec
from wire.codec import Wire
from wire.errors import Malformed
from wire.job import Expected, JobSpec, Kind, Lane, Output, Trace
from workloads.catalog import built_in
from workloads.cheats import CHEATS
from workloads.executor import NUMERICS
from workloads.variants import environment, find, make_executor, variants

FOLDER = Path(__file__).resolve().parents[1] / "verify" / "calibrations"
BYTES_MAX = 1 << 30
CHILD_TIMEOUT_S = 1800.0
CHILDREN = 2
"""Child processes at a time."""

LANE_VARIANTS: dict[Lane, list[str]] = {
    "tolerant": list(variants),
    "exact": ["default", "ort-threads2", "ort-f64", "numpy-shifted", "numpy-haswell", "numpy-nehalem"],
}
"""In the exact lane those that really compute in another way; the first is the reference."""

CHEAT_JURORS: dict[Lane, list[str]] = {"tolerant": ["default", "ort-noopt", "numpy-nehalem"], "exact": ["default"]}


class Answer(Wire, frozen=True):
    """One run."""

    spec: JobSpec
    output: Output
    trace: Trace


class Task(Wire, frozen=True):
    """What a child process does: run these specs (as a cheat if named), then re-check these answers."""

    variant: str
    cheat: str
    runs: list[JobSpec]
    rechecks: list[Answer]


class Done(Wire, frozen=True):
    """What it returns; None where the executor called the claim impossible."""

    answers: list[Answer]
    rechecked: list[Expected | None]


def child(task_path: Path, done_path: Path) -> None:
    """The child's side: numbers come from this process's instruction sets."""
    task = codec.decode(Task, task_path.read_bytes(), bytes_max=BYTES_MAX)
    executor = make_executor(task.variant, threads=1, cheat=task.cheat or None)
    answers = [Answer(spec, *executor.run(spec, emit=lambda _: None, cancelled=lambda: False)) for spec in task.runs]
    rechecked: list[Expected | None] = []
    for answer in task.rechecks:
        try:
            rechecked.append(executor.recheck(answer.spec, answer.output, answer.trace))
        except Malformed:
            rechecked.append(None)
    done_path.write_bytes(codec.encode(Done(answers, rechecked)))


def spawn(variant: str, *, cheat: str = "", runs: Sequence[JobSpec] = (), rechecks: Sequence[Answer] = ()) -> Done:
    """Run one task in a fresh process with the variant's environment."""
    with tempfile.TemporaryDirectory() as folder:
        task, done = Path(folder) / "task", Path(folder) / "done"
        task.write_bytes(codec.encode(Task(variant, cheat, list(runs), list(rechecks))))
        command = [sys.executable, "-m", "benchmarks.calibrate", "--child", str(task), str(done)]
        environ = environment(find(variant), threads=1)
        subprocess.run(command, check=True, env=environ, timeout=CHILD_TIMEOUT_S)
        return codec.decode(Done, done.read_bytes(), bytes_max=BYTES_MAX)


def all_of(tasks: Sequence[Callable[[], Done]]) -> list[Done]:
    """Spawn several, a few at a time; results in order."""
    with ThreadPoolExecutor(CHILDREN) as pool:
        return list(pool.map(lambda task: task(), tasks))


def recheck(lane: Lane, reference: Mapping[bytes, Answer], juror: str, answers: Sequence[Answer]) -> Done:
    """What `juror` computes for these answers; in the exact lane `reference` holds its own run of each job."""
    if lane == "tolerant":
        return spawn(juror, rechecks=answers)
    own = [reference[answer.spec.id] for answer in answers]
    return Done([], [Expected({**each.output.tensors, **each.trace.tensors}) for each in own])


@dataclass(frozen=True)
class Effort:
    """How many honest runs per group and runs per cheat."""

    honest: int
    cheats: int


def measure(fingerprint: Fingerprint, answers: Sequence[Answer], expected: Sequence[Expected | None]) -> CheatRuns:
    """Distances of each answer; those that are refused, by the fingerprint or the executor, are counted."""
    distances: list[Distances] = []
    refused = 0
    for answer, own in zip(answers, expected, strict=True):
        try:
            fingerprint.admit(answer.spec.input(), answer.output, answer.trace)
            if own is None:
                refused += 1
                continue
            distances.append(fingerprint.compare(answer.output, answer.trace, own))
        except Refused:
            refused += 1
    return CheatRuns(distances, refused)


def calibrate_cell(kind: Kind, lane: Lane, effort: Effort, alpha: float) -> Calibration:
    """One record, from scratch."""
    fingerprint = FINGERPRINTS[kind, lane]
    (model,) = [info for info in built_in().capabilities().models if info.kind == kind]
    subject = Subject(kind, model.cid, lane, NUMERICS[lane], fingerprint.id, fingerprint.resolution)
    specs = job_specs(kind, lane, model.cid, NUMERICS[lane], effort.honest)
    names = LANE_VARIANTS[lane]
    done = all_of([partial(spawn, name, runs=specs) for name in names])
    runs = {name: each.answers for name, each in zip(names, done, strict=True)}
    honest = measure_honest(fingerprint, runs)
    cheats = measure_cheats(fingerprint, specs, runs[names[0]], effort.cheats)
    return calibrate(subject, honest, cheats, alpha=alpha)


def measure_honest(fingerprint: Fingerprint, runs: Mapping[str, Sequence[Answer]]) -> dict[str, Sequence[Distances]]:
    """Every variant's runs judged by the first, and (tolerant) the first's by every other."""
    first, *others = runs
    reference = {answer.spec.id: answer for answer in runs[first]}
    pairs = [(worker, first) for worker in runs if fingerprint.lane == "tolerant" or worker != first]
    pairs += [(first, juror) for juror in others if fingerprint.lane == "tolerant"]
    done = all_of([partial(recheck, fingerprint.lane, reference, juror, runs[worker]) for worker, juror in pairs])
    groups: dict[str, Sequence[Distances]] = {}
    for (worker, juror), each in zip(pairs, done, strict=True):
        found = measure(fingerprint, runs[worker], each.rechecked)
        if found.refused:
            raise SystemExit(f"{worker}/{juror}: {found.refused} honest runs could not be compared")
        groups[f"{worker}/{juror}"] = found.distances
    return groups


def measure_cheats(
    fingerprint: Fingerprint, specs: Sequence[JobSpec], honest: Sequence[Answer], count: int
) -> dict[str, CheatRuns]:
    """Every cheat that applies to the kind, in the first variant, judged by several.

    A run whose output and trace equal the honest ones byte for byte is left out: there the cheat had no effect (another
    seed may sample the same short text).
    """
    lane, jobs = fingerprint.lane, {}
    for cheat in CHEATS:
        fitting = [spec for spec in specs if applies(cheat, spec)][:count]
        if fitting:
            jobs[cheat] = fitting
    first = LANE_VARIANTS[lane][0]
    done = all_of([partial(spawn, first, cheat=cheat, runs=fitting) for cheat, fitting in jobs.items()])
    reference = {answer.spec.id: answer for answer in honest}
    cheating = [[answer for answer in each.answers if answer != reference[answer.spec.id]] for each in done]
    everything = [answer for answers in cheating for answer in answers]
    judged = all_of([partial(recheck, lane, reference, juror, everything) for juror in CHEAT_JURORS[lane]])
    cells: dict[str, CheatRuns] = {}
    at = 0
    for cheat, answers in zip(jobs, cheating, strict=True):
        end = at + len(answers)
        found = [measure(fingerprint, answers, juror.rechecked[at:end]) for juror in judged]
        cells[cheat] = CheatRuns([d for part in found for d in part.distances], sum(part.refused for part in found))
        at = end
    return cells


def report(record: Calibration, seconds: float) -> str:
    """A few lines for people."""
    lines = [f"{record.kind} {record.lane}: certified={record.certified} in {seconds:.0f} s; {record.thresholds}"]
    lines += [
        f"  {cell.name:24} {cell.detected}/{cell.runs} detected, mildest {cell.score_min:.3g} x threshold"
        f"{'' if cell.separates else '   DOES NOT SEPARATE'}"
        for cell in record.cheats
    ]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", help="e.g. image.generate/tolerant; all if none is named")
    parser.add_argument("--honest", type=int, default=100)
    parser.add_argument("--cheats", type=int, default=20)
    parser.add_argument("--alpha", type=float, default=0.01)
    parser.add_argument("--child", nargs=2, type=Path, metavar=("TASK", "DONE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    for kind, lane in FINGERPRINTS:
        if options.cells and f"{kind}/{lane}" not in options.cells:
            continue
        began = time.perf_counter()
        record = calibrate_cell(kind, lane, Effort(options.honest, options.cheats), options.alpha)
        (FOLDER / f"{kind}-{lane}.json").write_text(to_json(record))
        print(report(record, time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
