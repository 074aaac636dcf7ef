"""How well the shipped thresholds detect: cheating runs of the real models, judged, and put before drawn juries.

Used by `benchmarks/verify_detection.py` and by the study. A run counts once, however many jurors judge it; juries are
drawn as in a real round (`verify.jury`), and colluding jurors always say what helps the cheat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from node.calibrating import (
    CHEAT_JURORS,
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
from verify.verdict import judge, refused
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Expected, JobSpec, Kind, Lane, VerdictWord
from wire.peer import PeerId
from workloads.catalog import built_in
from workloads.cheats import ALL
from workloads.executor import NUMERICS

POOL = 50
JURY = 3
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

    In the exact lane honest jurors have equal bytes, so one stands for all.

    Raises:
        LocalError: no certified record, or a child failed.
    """
    jobs = fresh_jobs(kind, lane, runs * 4)
    chosen = {cheat: [spec for spec in jobs if applies(cheat, spec)][:runs] for cheat in cheats}
    chosen = {cheat: fitting for cheat, fitting in chosen.items() if fitting}
    needed = {spec.id: spec for fitting in chosen.values() for spec in fitting}
    (honest,) = all_of([partial(spawn, LANE_VARIANTS[lane][0], runs=list(needed.values()))], say, "honest runs")
    cheating = run_cheats(lane, chosen, honest.answers, say)
    judged = judge_cheats(lane, cheating, honest.answers, CHEAT_JURORS[lane], say)
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


@cache
def jury(run: int) -> tuple[int, ...]:
    """The first `JURY` of the draw order of a pool of `POOL` equal peers, by number, for the run of this number."""
    peers = {PeerId(digest("detection.peer", i.to_bytes(4, "big"))): i for i in range(POOL)}
    order = draw_order(
        digest("detection.beacon", run.to_bytes(8, "big")), pool_of(dict.fromkeys(peers, 1)), frozenset()
    )
    return tuple(peers[peer] for peer in order[:JURY])


def jury_verdict(run: int, judged: Judged, colluders: int, lie: VerdictWord) -> VerdictWord | None:
    """The majority's verdict with the first `colluders` of the pool lying; None if there is no majority.

    Args:
        run: number of the run; decides the draw. judged: what honest jurors say: the i-th drawn is the i-th of them.
        colluders: of `POOL`. lie: what colluders say whatever they find.
    """
    votes: list[VerdictWord] = [
        lie if peer < colluders else judged.verdicts[seat % len(judged.verdicts)] for seat, peer in enumerate(jury(run))
    ]
    return next((word for word in ("accept", "reject") if votes.count(word) * 2 > JURY), None)


def detected(judged: Sequence[Judged], colluders: int) -> int:
    """How many of these cheating runs a jury with colluders for the cheat rejects."""
    return sum(jury_verdict(run, each, colluders, "accept") == "reject" for run, each in enumerate(judged))
