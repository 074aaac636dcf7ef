"""Calibration from real runs: the driver behind `quorate calibrate` and `python -m benchmarks.calibrate`.

Every numeric variant (`workloads.variants`) is a process of its own, because instruction sets are chosen when a process
starts. Honest runs of each variant are re-checked by the first one, and runs of the first by each other: these pairs
are the groups. Every cheat (`workloads.cheats`) runs in the first variant and is re-checked by several. In the exact
lane a re-check is a run, but for texts, so runs are compared directly. The mathematics is `verify.calibration`; this
file runs things.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from node.calibration_inputs import applies, job_specs
from verify.calibration import Calibration, CheatRuns, Distances, Subject, calibrate
from verify.faults import Refused
from verify.fingerprints.base import Fingerprint
from verify.fingerprints.registry import FINGERPRINTS
from wire import codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed
from wire.job import Expected, JobSpec, Kind, Lane, Output, Trace
from workloads.catalog import built_in
from workloads.cheats import CHEATS, FURTHER
from workloads.executor import NUMERICS
from workloads.variants import environment, find, make_executor, variants

BYTES_MAX = 1 << 30
CHILD_TIMEOUT_S = 1800.0
CHILDREN = 2
"""Child processes at a time."""

Say = Callable[[str], None]
"""Told of progress, for people."""

LANE_VARIANTS: dict[Lane, list[str]] = {
    "tolerant": list(variants),
    "exact": ["default", "ort-threads2", "ort-f64", "numpy-shifted", "numpy-haswell", "numpy-nehalem"],
}
"""In the exact lane those that really compute in another way; the first is the reference."""

QUICK_VARIANTS: dict[Lane, list[str]] = {
    "tolerant": ["default", "ort-noopt", "numpy-nehalem", "numpy-shifted"],
    "exact": ["default", "ort-f64", "numpy-shifted", "numpy-nehalem"],
}

CHEAT_JURORS: dict[Lane, list[str]] = {"tolerant": ["default", "ort-noopt", "numpy-nehalem"], "exact": ["default"]}


PHASH_ALONE = "image.phash64/imagehash/1"
"""A fingerprint that no job may name: it only shows what a perceptual hash cannot see."""

SEPARABLE = tuple(cheat for cheat in FURTHER if cheat != "tiny-noise")
"""The further cheats but the one that hides below any threshold."""


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
        command = [sys.executable, "-m", "node.calibrating", str(task), str(done)]
        environ = environment(find(variant), threads=1)
        _run(command, environ)
        return codec.decode(Done, done.read_bytes(), bytes_max=BYTES_MAX)


def _run(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run a child with its complaints kept for the error.

    Raises:
        LocalError: it failed or took too long.
    """
    try:
        subprocess.run(command, check=True, env=environ, timeout=CHILD_TIMEOUT_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired as exc:
        raise LocalError(f"a child took longer than {CHILD_TIMEOUT_S:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        raise LocalError(f"a child failed: {exc.stderr.strip()[-400:]}") from exc


def all_of(tasks: Sequence[Callable[[], Done]], say: Say, what: str) -> list[Done]:
    """Spawn several, a few at a time; results in order. `say` is told how many of `what` are done."""
    finished = count(1)

    def one(task: Callable[[], Done]) -> Done:
        done = task()
        say(f"{what}: {next(finished)} of {len(tasks)}")
        return done

    with ThreadPoolExecutor(CHILDREN) as pool:
        return list(pool.map(one, tasks))


def recheck(lane: Lane, reference: Mapping[bytes, Answer], juror: str, answers: Sequence[Answer]) -> Done:
    """What `juror` computes for these answers.

    In the exact lane a re-check is a run, but for texts, and `reference` holds the run of each job.
    """
    if lane == "tolerant" or any(answer.spec.kind == "text.generate" for answer in answers):
        return spawn(juror, rechecks=answers)
    own = [reference[answer.spec.id] for answer in answers]
    return Done([], [Expected({**each.output.tensors, **each.trace.tensors}) for each in own])


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        honest: runs per group. cheats: runs per cheat. alpha: miscoverage of the quantile, which needs
            `honest` >= 1 / alpha - 1. names: the cheats. backends: how many numeric variants; None takes all.
    """

    honest: int = 100
    cheats: int = 20
    alpha: float = 0.01
    names: tuple[str, ...] = (*CHEATS, *SEPARABLE)
    backends: int | None = None


QUICK = Effort(honest=24, cheats=4, alpha=0.04, backends=4)
"""Minutes become seconds; the thresholds are rougher and the record says so in its counts."""


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


@dataclass(frozen=True)
class Measured:
    """What was run for one (kind, lane): distances by backend pair, and by cheat."""

    subject: Subject
    honest: Mapping[str, Sequence[Distances]]
    cheats: Mapping[str, CheatRuns]
    pictures: tuple[Mapping[str, Sequence[Distances]], Mapping[str, CheatRuns]] | None = None
    """For images: distances between the perceptual hashes of an answer and of the juror's own full run."""


def backends(lane: Lane, effort: Effort) -> list[str]:
    """The variants that are run; the first is the reference."""
    names = LANE_VARIANTS[lane]
    return names if effort.backends is None else QUICK_VARIANTS[lane][: effort.backends]


def measure_cell(kind: Kind, lane: Lane, effort: Effort, *, say: Say) -> Measured:
    """Run everything that a record needs, from scratch.

    Raises:
        LocalError: no model of this kind here, a child failed, or honest work could not be compared.
    """
    fingerprint = FINGERPRINTS[kind, lane]
    (model,) = [info for info in built_in().capabilities().models if info.kind == kind]
    subject = Subject(kind, model.cid, lane, NUMERICS[lane], fingerprint.id, fingerprint.resolution)
    specs = job_specs(kind, lane, model.cid, NUMERICS[lane], effort.honest)
    names = backends(lane, effort)
    done = all_of([partial(spawn, name, runs=specs) for name in names], say, "backends run")
    runs = {name: each.answers for name, each in zip(names, done, strict=True)}
    honest = measure_honest(fingerprint, runs, say)
    cheating = cheat_answers(lane, specs, runs[names[0]], effort, say)
    cheats = measure_cheats(fingerprint, cheating, runs[names[0]], say)
    pictures = compare_pictures(runs, cheating) if kind == "image.generate" else None
    return Measured(subject, honest, cheats, pictures)


def records(measured: Measured, alpha: float) -> tuple[Calibration, list[Calibration]]:
    """The record, and those of weaker ways to compare, which show what they cannot tell apart."""
    record = calibrate(measured.subject, measured.honest, measured.cheats, alpha=alpha)
    weaker = (
        [] if measured.subject.lane == "exact" else [*_bf16_class(measured, alpha), *_picture_alone(measured, alpha)]
    )
    return record, weaker


def _bf16_class(measured: Measured, alpha: float) -> list[Calibration]:
    """What if machines that compute with bfloat16 weights counted as honest too."""
    cheats = dict(measured.cheats)
    coarse = cheats.pop("bf16-weights", CheatRuns([])).distances
    if not coarse or not cheats:
        return []
    subject = replace(measured.subject, numeric="f32 or bf16")
    honest = {**measured.honest, "bf16/several": coarse}
    return [calibrate(subject, honest, cheats, alpha=_wide(alpha, honest))]


def _picture_alone(measured: Measured, alpha: float) -> list[Calibration]:
    """What if only the picture's perceptual hash were compared, with a juror's own run."""
    if measured.pictures is None:
        return []
    honest, cheats = measured.pictures
    subject = replace(measured.subject, fingerprint=PHASH_ALONE, resolution={"phash64": 0.0})
    return [calibrate(subject, honest, cheats, alpha=_wide(alpha, honest))]


def compare_pictures(
    runs: Mapping[str, Sequence[Answer]], cheating: Mapping[str, Sequence[Answer]]
) -> tuple[dict[str, list[Distances]], dict[str, CheatRuns]]:
    """pHash distances to the first variant's pictures: of the other variants' by backend pair, and of the cheats'."""
    first, *others = runs
    own = {answer.spec.id: picture_hash(answer) for answer in runs[first]}

    def distances(answers: Sequence[Answer]) -> CheatRuns:
        hashes = [(picture_hash(answer), own[answer.spec.id]) for answer in answers]
        known = [{"phash64": float(a - b)} for a, b in hashes if a is not None and b is not None]
        return CheatRuns(known, len(hashes) - len(known))

    honest = {f"{name}/{first}": [*distances(runs[name]).distances] for name in others}
    found = {cheat: distances(answers) for cheat, answers in cheating.items() if answers}
    return honest, found


def picture_hash(answer: Answer) -> Any:
    """imagehash's pHash of the picture; None if there is none."""
    import imagehash  # lazily: it brings SciPy and PyWavelets
    from PIL import Image

    pixels = answer.output.tensors.get("pixels")
    return None if pixels is None else imagehash.phash(Image.fromarray(pixels.numpy()))


def _wide(alpha: float, honest: Mapping[str, Sequence[Distances]]) -> float:
    """The smallest alpha from `alpha` on that the smallest group supports."""
    return max(alpha, 1 / (min(map(len, honest.values())) + 1))


def measure_honest(
    fingerprint: Fingerprint, runs: Mapping[str, Sequence[Answer]], say: Say
) -> dict[str, Sequence[Distances]]:
    """Every variant's runs judged by the first, and (tolerant) the first's by every other."""
    first, *others = runs
    reference = {answer.spec.id: answer for answer in runs[first]}
    rerun = fingerprint.lane == "exact" and fingerprint.kind != "text.generate"
    pairs = [(worker, first) for worker in runs if not rerun or worker != first]
    pairs += [(first, juror) for juror in others if not rerun]
    tasks = [partial(recheck, fingerprint.lane, reference, juror, runs[worker]) for worker, juror in pairs]
    done = all_of(tasks, say, "backend pairs checked")
    groups: dict[str, Sequence[Distances]] = {}
    for (worker, juror), each in zip(pairs, done, strict=True):
        found = measure(fingerprint, runs[worker], each.rechecked)
        if found.refused:
            raise LocalError(f"{worker}/{juror}: {found.refused} honest runs could not be compared")
        groups[f"{worker}/{juror}"] = found.distances
    return groups


def cheat_answers(
    lane: Lane, specs: Sequence[JobSpec], honest: Sequence[Answer], effort: Effort, say: Say
) -> dict[str, list[Answer]]:
    """Answers of every cheat that applies to the kind."""
    jobs = {cheat: [spec for spec in specs if applies(cheat, spec)][: effort.cheats] for cheat in effort.names}
    return run_cheats(lane, {cheat: fitting for cheat, fitting in jobs.items() if fitting}, honest, say)


def measure_cheats(
    fingerprint: Fingerprint, cheating: Mapping[str, Sequence[Answer]], honest: Sequence[Answer], say: Say
) -> dict[str, CheatRuns]:
    """Every cheat's answers judged by several variants."""
    judged = judge_cheats(fingerprint.lane, cheating, honest, CHEAT_JURORS[fingerprint.lane], say)
    cells: dict[str, CheatRuns] = {}
    for cheat, answers in cheating.items():
        found = [measure(fingerprint, answers, by_juror[cheat]) for by_juror in judged.values()]
        cells[cheat] = CheatRuns([d for part in found for d in part.distances], sum(part.refused for part in found))
    return {cheat: cell for cheat, cell in cells.items() if cell.distances or cell.refused}


def judge_cheats(
    lane: Lane,
    cheating: Mapping[str, Sequence[Answer]],
    honest: Sequence[Answer],
    jurors: Sequence[str],
    say: Say,
) -> dict[str, dict[str, list[Expected | None]]]:
    """What each juror computes for each cheat's answers: by juror, then by cheat."""
    everything = [answer for answers in cheating.values() for answer in answers]
    reference = {answer.spec.id: answer for answer in honest}
    tasks = [partial(recheck, lane, reference, juror, everything) for juror in jurors]
    done = all_of(tasks, say, "jurors done with the cheats")
    judged: dict[str, dict[str, list[Expected | None]]] = {}
    for juror, each in zip(jurors, done, strict=True):
        left = iter(each.rechecked)
        judged[juror] = {cheat: list(islice(left, len(answers))) for cheat, answers in cheating.items()}
    return judged


def run_cheats(
    lane: Lane, jobs: Mapping[str, Sequence[JobSpec]], honest: Sequence[Answer], say: Say
) -> dict[str, list[Answer]]:
    """Answers by cheat, in the first variant; those in which the cheat had no effect are left out."""
    first = LANE_VARIANTS[lane][0]
    tasks = [partial(spawn, first, cheat=cheat, runs=fitting) for cheat, fitting in jobs.items()]
    done = all_of(tasks, say, "cheats run")
    reference = {answer.spec.id: answer for answer in honest}
    return {
        cheat: [answer for answer in each.answers if effective(cheat, answer, reference[answer.spec.id])]
        for cheat, each in zip(jobs, done, strict=True)
    }


def effective(cheat: str, answer: Answer, honest: Answer) -> bool:
    """Whether there is anything to catch.

    Not if the bytes equal the honest ones (another seed may sample the same short text), nor if cheap generation gave
    the right tokens and their hidden states are from the real model.
    """
    if cheat == "cheap-then-prefill":
        return answer.output != honest.output
    return answer != honest


def main() -> None:
    """The child's command line: TASK DONE."""
    child(*map(Path, sys.argv[1:3]))


if __name__ == "__main__":
    main()
