"""Cheating and honest runs, judged and kept on disk in chunks, so that a measurement that was stopped goes on.

A chunk is a range of jobs (`node.detection_inputs`), done honestly and by each cheat that is wanted, in one child. The
juror's backend is drawn per chunk; one juror judges a run, and the run counts once. Worker and juror share the process:
in the tolerant lane the worker computes with ONNX Runtime, which the juror's environment (OpenBLAS's) does not touch.
In the exact lane jurors do pictures and embeddings in a process of their own, once for all cheats. Only verdicts and
distances are kept. `<store>/<subject>/<row>/00000.json` is whole or absent; the subject's name holds the hash of model,
fingerprint and calibration record, so figures of other models or thresholds are never mixed in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from node.calibrating import BYTES_MAX, Answer, Done, effective, spawn
from node.calibration_inputs import applies
from node.detection import JURORS, Judged, finding, record_of, refusal, thresholds_without
from node.detection_inputs import THIRTY, jobs
from node.lockstep import IMAGE, TEXT, Party
from verify.calibration import Distances, score
from verify.fingerprints.base import rows
from verify.fingerprints.registry import FINGERPRINTS
from wire import codec
from wire.errors import LocalError, Malformed, StorageError
from wire.hashing import digest
from wire.job import Expected, JobSpec, Kind, Lane, Output, TextInput, Trace, VerdictWord
from workloads.cheats import Alter, CheatingExecutor
from workloads.executor import CancelCheck, Emit, Executor, never
from workloads.image import ImageModel
from workloads.local import LocalExecutor
from workloads.text import TextModel
from workloads.variants import Variant, environment, find

HONEST = "honest"
"""The row of honest work; `honest-<variant>` for another worker's backend than the first."""

CHUNK: dict[Kind, int] = {"image.generate": 64, "text.generate": 96, "embed.text": 400}
OFF = "steps off"
"""Beside a picture's distances: see `steps_off`."""

NUMPY_CHUNKS = 24
"""NumPy takes five times as long for pictures: after so many chunks it judges only every tenth."""

CHILD_TIMEOUT_S = 3600.0
EXACT_READERS = ("ort-f64", "numpy-shifted")
"""Jurors of texts in the exact lane: those that compute otherwise than the worker in one and the same process."""

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """What is measured: jobs of a kind in a lane, done by an honest or cheating worker's backend.

    Attributes:
        judge: the juror's backend; empty: `juror` draws it.
    """

    kind: Kind
    lane: Lane
    worker: str = "default"
    judge: str = ""

    @property
    def runs_itself(self) -> bool:
        """Whether a juror does the whole job: in the exact lane, but for texts, which it reads."""
        return self.lane == "exact" and self.kind != "text.generate"

    @property
    def subject(self) -> str:
        """The folder's name."""
        record = record_of(self.kind, self.lane)
        seal = digest("detection.subject", record.hash + FINGERPRINTS[self.kind, self.lane].id.encode())
        return f"{self.kind}-{self.lane}-{seal.hex()[:12]}"

    def row(self, cheat: str) -> str:
        """The folder's name of one row."""
        worker = "" if self.worker == "default" else f"-{self.worker}"
        return cheat + worker + (self.judge and f"-by-{self.judge}")

    def juror(self, chunk: int) -> str:
        """Which backend judges this chunk: drawn for the first worker's work, the first backend for others'."""
        if self.judge or self.worker != "default":
            return self.judge or "default"
        names = EXACT_READERS if self.kind == "text.generate" and self.lane == "exact" else JURORS[self.lane]
        drawn = names[digest("detection.juror", chunk.to_bytes(8, "big"))[0] % len(names)]
        slow = (self.kind, self.lane) == ("image.generate", "tolerant") and drawn.startswith("numpy")
        return "default" if slow and chunk >= NUMPY_CHUNKS and chunk % 10 else drawn


class Shared(LocalExecutor):
    """An executor that remembers what it computed for a job, and joins the runs of a `Party`."""

    def __init__(self, variant: Variant, party: Party, alter: Alter | None = None) -> None:
        super().__init__(variant, threads=1, alter=alter)
        self._party, self._done = party, dict[bytes, tuple[Output, Trace]]()
        self._loading, self._shared = threading.Lock(), set[int]()

    def prepare(self, spec: JobSpec) -> Any:
        """As `LocalExecutor`, from any thread."""
        with self._loading:
            given, runner = super().prepare(spec)
            if id(runner) not in self._shared:
                self._shared.add(id(runner))
                self._share(runner)
        return given, runner

    def _share(self, runner: object) -> None:
        """Networks are computed in lockstep; a text is generated once for all who sketch or search it."""
        if isinstance(runner, ImageModel):
            runner.network = self._party.join(runner.network, IMAGE)
        elif isinstance(runner, TextModel):
            runner.network = self._party.join(runner.network, TEXT)
            runner.generate = _remembered(runner.generate)  # type: ignore[method-assign]  # the same, remembered
            runner._beam = _remembered(runner._beam)  # type: ignore[method-assign]  # the same, remembered

    def run(self, spec: JobSpec, *, emit: Emit, cancelled: CancelCheck) -> tuple[Output, Trace]:
        """As `LocalExecutor`, once per job."""
        if spec.id not in self._done:
            self._done[spec.id] = super().run(spec, emit=emit, cancelled=cancelled)
        return self._done[spec.id]


def steps_off(claim: Answer, expected: Expected, threshold: float) -> float:
    """The share of a run's steps that are wrong by more than the threshold: what one drawn step finds of it."""
    latents = claim.trace.tensors["latents"].numpy().astype(np.float64)
    own = expected.tensors["steps"].numpy().astype(np.float64)
    wrong = np.linalg.norm(rows(latents[1:] - own), axis=1)
    return float((wrong > threshold * np.linalg.norm(rows(own - latents[:-1]), axis=1)).mean())


def _remembered(generate: Any) -> Any:
    """A method of `TextModel` that computes each (input, seed) once."""
    known: dict[tuple[bytes, int], Any] = {}

    def once(given: TextInput, seed: int, emit: Emit, cancelled: CancelCheck) -> Any:
        key = codec.encode(given), seed
        if key not in known:
            known[key] = generate(given, seed, emit, cancelled)
        return known[key]

    return once


class Bench:
    """Everything that one child needs: executors that are shared by all cheats, and the juror.

    Args:
        own: in the exact lane what the juror answered to the same jobs, by job.
    """

    def __init__(self, cell: Cell, juror: str, own: Mapping[bytes, Answer]) -> None:
        self.cell, self.party, self._own = cell, Party(), own
        self.build = cache(lambda alter: Shared(find(cell.worker), self.party, alter))
        self.juror = Shared(find(juror), self.party)
        self._read: dict[bytes, Expected] = {}
        self._thresholds = record_of(cell.kind, cell.lane).thresholds

    def runs(self, executor: Executor, specs: Sequence[JobSpec], *, in_order: bool = False) -> list[Answer]:
        """What the executor answers to each; in lockstep where that is faster."""
        tasks = [partial(executor.run, spec, emit=_unheard, cancelled=never) for spec in specs]
        done = [task() for task in tasks] if in_order else self._together(tasks)
        return [Answer(spec, *each) for spec, each in zip(specs, done, strict=True)]

    def _together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """In lockstep, but for embeddings, which are not run step by step."""
        return [task() for task in tasks] if self.cell.kind == "embed.text" else self.party.run(tasks)

    def expected(self, answer: Answer) -> Expected | None:
        """What the juror computes; None if it calls the claim impossible."""
        if self.cell.runs_itself:
            own = self._own[answer.spec.id]
            return Expected({**own.output.tensors, **own.trace.tensors})
        key = self._text_key(answer)
        if key in self._read:
            return self._read[key]
        try:
            expected = self.juror.recheck(answer.spec, answer.output, answer.trace)
        except Malformed:
            return None
        if key:
            self._read[key] = expected
        return expected

    def _text_key(self, answer: Answer) -> bytes:
        """What a juror's computation depends on where it only reads the tokens; empty for other kinds."""
        if self.cell.kind != "text.generate":
            return b""
        form = [f"{name} {tensor.dtype} {tensor.shape}" for name, tensor in answer.trace.tensors.items()]
        return answer.spec.id + codec.encode(answer.output) + codec.encode(form)

    def rows(self, numbers: range, cheat: str) -> list[list[object]]:
        """[number, verdict, distances] of each run of this row that is not the honest answer.

        Fewer steps are never that, so those need no honest run beside them.
        """
        specs = dict(zip(numbers, jobs(self.cell.kind, self.cell.lane, numbers, thirty=cheat in THIRTY), strict=True))
        if cheat == HONEST:
            chosen = list(specs)
            claims = self.runs(self.build(None), list(specs.values()))
        else:
            chosen = [number for number, spec in specs.items() if applies(cheat, spec)]
            thief = CheatingExecutor(find(self.cell.worker), cheat, build=self.build)
            asked = [specs[number] for number in chosen]
            claims = self.runs(thief, asked, in_order=cheat == "copied-answer")
            own = claims if cheat in THIRTY else self.runs(self.build(None), asked)
            different = [cheat in THIRTY or effective(cheat, *each) for each in zip(claims, own, strict=True)]
            chosen, claims = list(compress(chosen, different)), list(compress(claims, different))
        tasks = [partial(self._judged, claim) for claim in claims]
        found = self._together(tasks) if self.cell.kind == "text.generate" else [task() for task in tasks]
        return [[number, *each] for number, each in zip(chosen, found, strict=True)]

    def _judged(self, claim: Answer) -> tuple[str, dict[str, float]]:
        if (no := refusal(claim)) is not None:
            return no, {}
        expected = self.expected(claim)
        verdict, distances = finding(claim, expected, self._thresholds)
        found = {name: float(f"{value:.6g}") for name, value in distances.items()}
        if "step" in found and expected is not None:
            found[OFF] = float(f"{steps_off(claim, expected, self._thresholds['step']):.6g}")
        return verdict, found


def _unheard(event: object) -> None:
    """Nobody follows these runs."""


def child(task: Path, done: Path) -> None:
    """The child's side: rows of one chunk, for all cheats that are wanted."""
    wanted = json.loads(task.read_text())
    cell = Cell(wanted["kind"], wanted["lane"], wanted["worker"])
    answers = codec.decode(Done, Path(wanted["own"]).read_bytes(), bytes_max=BYTES_MAX).answers if wanted["own"] else []
    bench = Bench(cell, wanted["juror"], {answer.spec.id: answer for answer in answers})
    numbers = range(wanted["first"], wanted["first"] + wanted["count"])
    done.write_text(json.dumps({cheat: bench.rows(numbers, cheat) for cheat in wanted["cheats"]}))


def path_of(store: Path, cell: Cell, cheat: str, chunk: int) -> Path:
    """Where a chunk of a row lies."""
    return store / cell.subject / cell.row(cheat) / f"{chunk:05}.json"


def make_chunk(store: Path, cell: Cell, chunk: int, cheats: Sequence[str], size: int) -> None:
    """Run one chunk for these cheats, and keep it.

    Raises:
        LocalError: the child failed. StorageError: it cannot be kept.
    """
    juror, folder = cell.juror(chunk), store / cell.subject
    fields = {"kind": cell.kind, "lane": cell.lane, "worker": cell.worker, "juror": juror, "cheats": list(cheats)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as work:
            task, done, own = Path(work) / "task", Path(work) / "done", Path(work) / "own"
            if cell.runs_itself:
                numbers = range(chunk * size, (chunk + 1) * size)
                needed = [
                    jobs(cell.kind, cell.lane, numbers, thirty=each) for each in {cheat in THIRTY for cheat in cheats}
                ]
                own.write_bytes(codec.encode(spawn(juror, runs=[spec for specs in needed for spec in specs])))
                fields["own"] = str(own)
            task.write_text(json.dumps({"own": "", **fields, "first": chunk * size, "count": size}))
            _run([sys.executable, "-m", "node.detection_runs", str(task), str(done)], cell, juror)
            found = json.loads(done.read_text())
        for cheat, rows in found.items():
            path = path_of(store, cell, cheat, chunk)
            path.parent.mkdir(exist_ok=True)
            partial_path = path.with_suffix(".part")
            partial_path.write_text(json.dumps({"juror": juror, "rows": rows}))
            partial_path.rename(path)
    except OSError as exc:
        raise StorageError(f"cannot write {folder}: {exc.strerror}") from exc


def _run(command: Sequence[str], cell: Cell, juror: str) -> None:
    settings = environment(find(cell.worker), threads=1)
    if not cell.runs_itself:
        settings |= find(juror).environment
    try:
        subprocess.run(command, check=True, env=settings, timeout=CHILD_TIMEOUT_S, capture_output=True, text=True)
    except subprocess.TimeoutExpired as exc:
        raise LocalError(f"a child took longer than {CHILD_TIMEOUT_S:.0f} s") from exc
    except subprocess.CalledProcessError as exc:
        raise LocalError(f"a child failed: {exc.stderr.strip()[-400:]}") from exc


def gather(
    store: Path, cell: Cell, wanted: Mapping[str, int], say: Say, *, size: int = 0, until_s: float = float("inf")
) -> bool:
    """Make chunks until every row has as many runs as wanted; False if `until_s` (monotonic) came first.

    Chunks are made in order and rows that are full drop out. When a row is full depends on how many of its runs
    were effective, never on how they were judged.
    """
    size = size or CHUNK[cell.kind]
    counts = dict.fromkeys(wanted, 0)
    chunk = 0
    while missing := [cheat for cheat, runs in wanted.items() if counts[cheat] < runs]:
        absent = [cheat for cheat in missing if not path_of(store, cell, cheat, chunk).exists()]
        if absent:
            if time.monotonic() > until_s:
                return False
            make_chunk(store, cell, chunk, absent, size)
            say(f"{cell.subject} {cell.worker} chunk {chunk}: " + ", ".join(f"{c} {counts[c]}" for c in absent))
        for cheat in missing:
            counts[cheat] += len(_read(path_of(store, cell, cheat, chunk))["rows"])
        chunk += 1
    return True


def _read(path: Path) -> Mapping[str, list[list[object]]]:
    try:
        found: Mapping[str, list[list[object]]] = json.loads(path.read_text())
        return {"rows": found["rows"]}
    except (OSError, ValueError, KeyError) as exc:
        raise StorageError(f"{path} is damaged, delete it to make it again: {exc}") from exc


def load(store: Path, cell: Cell, cheat: str, runs: int | None = None) -> list[Judged]:
    """The first `runs` runs of a row that are on disk; all by default."""
    rows = [row for path in _paths(store, cell, cheat) for row in _read(path)["rows"]]
    return [Judged((cast("VerdictWord", row[1]),), (cast("Distances", row[2]),)) for row in rows[:runs]]


def _paths(store: Path, cell: Cell, cheat: str) -> list[Path]:
    return sorted((store / cell.subject / cell.row(cheat)).glob("*.json"))


def refused_held_out(store: Path, kind: Kind, worker: str, runs: int) -> tuple[int, int]:
    """Honest tolerant work of this backend, refused by thresholds that never saw it: (refused, runs)."""
    record = record_of(kind, "tolerant")
    limits = thresholds_without(record, worker)
    found = load(store, Cell(kind, "tolerant", worker), HONEST, runs)
    passed = [bool(run.distances[0]) and score(run.distances[0], limits) <= 1 for run in found]
    return passed.count(False), len(passed)


def main() -> None:
    """The child's command line: TASK DONE."""
    child(*map(Path, sys.argv[1:3]))


if __name__ == "__main__":
    main()
