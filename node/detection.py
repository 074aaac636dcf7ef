"""How well the shipped thresholds detect: cheating runs of the real models, judged, and put before drawn juries.

Used by `benchmarks/verify_detection.py` and by the study. A run counts once, however many jurors judge it; juries are
drawn as in a real round (`verify.jury`), and colluding jurors always say what helps the cheat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from node.calibrating import (
    LANE_VARIANTS,
    Answer,
    Say,
    all_of,
    judge_cheats,
    run_cheats,
    spawn,
)
from node.calibration_inputs import applies, job_specs
from verify.calibrated import calibration_for
from verify.calibration import Calibration
from verify.faults import Refused
from verify.fingerprints.registry import FINGERPRINTS
from verify.jury import draw_order, pool_of
from verify.ladder import LEVELS, LEVELS_WITHOUT_DISPUTE, Level
from verify.verdict import judge, refused
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Expected, JobSpec, Kind, Lane, VerdictWord
from wire.peer import PeerId
from workloads.catalog import built_in
from workloads.cheats import ALL
from workloads.executor import NUMERICS

POOL = 100
JURY = 3
JURORS: dict[Lane, tuple[str, ...]] = {"tolerant": ("default", "ort-noopt", "numpy"), "exact": ("default",)}
"""Backends of the honest jurors; in the exact lane all have equal bytes, so one stands for all."""
FRESH_FROM = 100
"""Jobs before this index were used to calibrate."""


@dataclass(frozen=True)
class Judged:
    """One run before several honest jurors: their verdicts, and the distances that each found (none if refused)."""

    verdicts: tuple[VerdictWord, ...]
    distances: tuple[Mapping[str, float], ...] = field(default=())


def record_of(kind: Kind, lane: Lane) -> Calibration:
    """The shipped record of the embedded model of this kind."""
    return calibration_for(kind, model_of(kind), lane, NUMERICS[lane])


def model_of(kind: Kind) -> str:
    """The CID of the embedded model of this kind."""
    (cid,) = [info.cid for info in built_in().capabilities().models if info.kind == kind]
    return cid


def fresh_jobs(kind: Kind, lane: Lane, count: int) -> list[JobSpec]:
    """Jobs that no shipped record was made from."""
    return job_specs(kind, lane, model_of(kind), NUMERICS[lane], FRESH_FROM + count)[FRESH_FROM:]


def finding(
    answer: Answer, expected: Expected | None, thresholds: Mapping[str, float]
) -> tuple[VerdictWord, Mapping[str, float]]:
    """What a juror says who computed `expected` (None: its executor calls the claim impossible)."""
    fingerprint = FINGERPRINTS[answer.spec.kind, answer.spec.lane]
    try:
        fingerprint.admit(answer.spec.input(), answer.output, answer.trace)
    except Refused as exc:
        return refused(exc).verdict, {}
    if expected is None:
        return refused(Malformed("impossible")).verdict, {}
    found = judge(fingerprint, thresholds, answer.output, answer.trace, expected)
    return found.verdict, found.distances


def judge_all_cheats(
    kind: Kind, lane: Lane, runs: int, *, say: Say, cheats: Sequence[str] = tuple(ALL)
) -> dict[str, list[Judged]]:
    """Run every cheat that applies on up to `runs` fresh jobs each, and have honest jurors judge each run.

    Raises:
        LocalError: no certified record, or a child failed.
    """
    jobs = fresh_jobs(kind, lane, runs * 4)
    chosen = {cheat: [spec for spec in jobs if applies(cheat, spec)][:runs] for cheat in cheats}
    chosen = {cheat: fitting for cheat, fitting in chosen.items() if fitting}
    needed = {spec.id: spec for fitting in chosen.values() for spec in fitting}
    (honest,) = all_of([partial(spawn, LANE_VARIANTS[lane][0], runs=list(needed.values()))], say, "honest runs")
    cheating = run_cheats(lane, chosen, honest.answers, say)
    judged = judge_cheats(lane, cheating, honest.answers, JURORS[lane], say)
    thresholds = record_of(kind, lane).thresholds
    found: dict[str, list[Judged]] = {}
    for cheat, answers in cheating.items():
        columns = [by_juror[cheat] for by_juror in judged.values()]
        rows = [[finding(a, own, thresholds) for own in each] for a, *each in zip(answers, *columns, strict=True)]
        found[cheat] = [Judged(tuple(v for v, _ in row), tuple(d for _, d in row)) for row in rows]
    return {cheat: rows for cheat, rows in found.items() if rows}


def refusals_held_out(kind: Kind, runs: int, *, say: Say) -> dict[str, tuple[int, int]]:
    """Honest tolerant work of each backend, refused by thresholds that never saw it: (refused, runs) by backend.

    Every backend has jobs of its own, judged by the first variant with the thresholds that the other pairs give.
    """
    record = record_of(kind, "tolerant")
    first, *others = LANE_VARIANTS["tolerant"]
    jobs = fresh_jobs(kind, "tolerant", runs * len(others))
    parts = {name: jobs[i * runs : (i + 1) * runs] for i, name in enumerate(others)}
    done = all_of([partial(spawn, name, runs=part) for name, part in parts.items()], say, "held-out backends run")
    checks = all_of([partial(spawn, first, rechecks=each.answers) for each in done], say, "and judged")
    counts: dict[str, tuple[int, int]] = {}
    for name, each, check in zip(others, done, checks, strict=True):
        thresholds = thresholds_without(record, name)
        pairs = zip(each.answers, check.rechecked, strict=True)
        verdicts = [finding(answer, own, thresholds)[0] for answer, own in pairs]
        counts[name] = (sum(verdict != "accept" for verdict in verdicts), len(verdicts))
    return counts


def thresholds_without(record: Calibration, backend: str) -> dict[str, float]:
    """The thresholds that the groups without `backend` give."""
    floor = FINGERPRINTS[record.kind, record.lane].resolution
    groups = [group for group in record.groups if backend not in group.backend.split("/")]
    return {name: max(record.margin * max(group.quantiles[name] for group in groups), floor[name]) for name in floor}


def levels_of(kind: Kind) -> tuple[Level, ...]:
    """The ladder of escalation for this kind: embeddings have no steps that could be disputed."""
    return LEVELS_WITHOUT_DISPUTE if kind == "embed.text" else LEVELS


@cache
def draw(run: int) -> tuple[int, ...]:
    """A pool of `POOL` equal peers, by number, in draw order for the run of this number."""
    peers = {PeerId(digest("detection.peer", i.to_bytes(4, "big"))): i for i in range(POOL)}
    order = draw_order(
        digest("detection.beacon", run.to_bytes(8, "big")), pool_of(dict.fromkeys(peers, 1)), frozenset()
    )
    return tuple(peers[peer] for peer in order)


def votes_of(run: int, judged: Judged, colluders: int, lie: VerdictWord, seats: range) -> list[VerdictWord]:
    """Votes of those drawn at `seats`: the first `colluders` of the pool lie, others say what their backend does."""
    return [lie if draw(run)[seat] < colluders else judged.verdicts[seat % len(judged.verdicts)] for seat in seats]


def agreed(votes: Sequence[VerdictWord], needed: int) -> VerdictWord | None:
    """The verdict that at least `needed` voted for."""
    words: tuple[VerdictWord, ...] = ("accept", "reject")
    return next((word for word in words if votes.count(word) >= needed), None)


def jury_verdict(run: int, judged: Judged, colluders: int, lie: VerdictWord) -> VerdictWord | None:
    """The majority's verdict of a jury of three; None if there is no majority.

    Args:
        run: number of the run; decides the draw. judged: what honest jurors say.
        colluders: of `POOL`. lie: what colluders say whatever they find.
    """
    return agreed(votes_of(run, judged, colluders, lie, range(JURY)), JURY // 2 + 1)


def escalated_verdict(run: int, judged: Judged, colluders: int, lie: VerdictWord, kind: Kind) -> VerdictWord | None:
    """The verdict of the ladder of juries, each of peers that have not sat; then of a dispute over single steps.

    A dispute ends for the truth: it convicts if an honest juror found the cheat, and acquits otherwise.
    """
    seated = 0
    for level in levels_of(kind):
        votes = votes_of(run, judged, colluders, lie, range(seated, seated + level.size))
        verdict = agreed(votes, level.needed)
        if verdict is not None:
            return verdict
        seated += level.size
    if levels_of(kind) is LEVELS_WITHOUT_DISPUTE:
        return None
    seats = [seat for seat in range(seated) if draw(run)[seat] >= colluders]
    found = any(judged.verdicts[seat % len(judged.verdicts)] == "reject" for seat in seats)
    return "reject" if found else "accept"


def detected(judged: Sequence[Judged], colluders: int, kind: Kind | None = None) -> int:
    """How many of these cheating runs are rejected though colluders accept: by three, or for a `kind` by its ladder."""
    if kind is None:
        return sum(jury_verdict(run, each, colluders, "accept") == "reject" for run, each in enumerate(judged))
    return sum(escalated_verdict(run, each, colluders, "accept", kind) == "reject" for run, each in enumerate(judged))
