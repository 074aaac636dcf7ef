"""How well the shipped thresholds detect: what jurors find in a run, and what juries make of it under collusion.

`node.detection_runs` makes the runs. A run counts once. What juries do is known exactly: honest jurors who look at the
same answer find the same, colluders say what helps the cheat, and a draw without replacement from a pool of which
exactly some collude is hypergeometric. So a row has two figures: juries drawn as in a real round (`verify.jury`) for
every run, counted; and the lower bound of the fingerprint's detection times the exact probability that the ladder ends
with the honest jurors' verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from node.calibrating import Answer
from node.detection_inputs import jobs, model_of
from verify.calibrated import calibration_for
from verify.calibration import Calibration
from verify.faults import Refused
from verify.fingerprints.registry import FINGERPRINTS
from verify.jury import draw_order, pool_of
from verify.ladder import Level, levels_for
from verify.odds import Finite, ladder_odds
from verify.statistics import capture, clopper_pearson
from verify.verdict import judge, refused
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import Expected, JobSpec, Kind, Lane, VerdictWord
from wire.peer import PeerId
from workloads.executor import NUMERICS

POOL = 100
JURY = 3
JURORS: dict[Lane, tuple[str, ...]] = {
    "tolerant": ("default", "ort-basic", "ort-noopt", "ort-single", "numpy-haswell", "numpy-nehalem"),
    "exact": ("ort-f64", "numpy-shifted", "numpy-haswell", "numpy-nehalem"),
}
"""Backends of the honest jurors."""


@dataclass(frozen=True)
class Judged:
    """One run before several honest jurors: their verdicts, and the distances that each found (none if refused)."""

    verdicts: tuple[VerdictWord, ...]
    distances: tuple[Mapping[str, float], ...] = field(default=())


def record_of(kind: Kind, lane: Lane) -> Calibration:
    """The shipped record of the embedded model of this kind."""
    return calibration_for(kind, model_of(kind), lane, NUMERICS[lane])


def fresh_jobs(kind: Kind, lane: Lane, count: int) -> list[JobSpec]:
    """Jobs that no shipped record was made from."""
    return jobs(kind, lane, range(count))


def finding(
    answer: Answer, expected: Expected | None, thresholds: Mapping[str, float]
) -> tuple[VerdictWord, Mapping[str, float]]:
    """What a juror says who computed `expected` (None: its executor calls the claim impossible)."""
    if (no := refusal(answer)) is not None:
        return no, {}
    if expected is None:
        return refused(Malformed("impossible")).verdict, {}
    found = judge(FINGERPRINTS[answer.spec.kind, answer.spec.lane], thresholds, answer.output, answer.trace, expected)
    return found.verdict, found.distances


def refusal(answer: Answer) -> VerdictWord | None:
    """What a juror says before it computes anything, if the claim is not even of the right form."""
    try:
        FINGERPRINTS[answer.spec.kind, answer.spec.lane].admit(answer.spec.input(), answer.output, answer.trace)
    except Refused as exc:
        return refused(exc).verdict
    return None


def thresholds_without(record: Calibration, backend: str) -> dict[str, float]:
    """The thresholds that the groups without `backend` give."""
    floor = FINGERPRINTS[record.kind, record.lane].resolution
    groups = [group for group in record.groups if backend not in group.backend.split("/")]
    return {name: max(record.margin * max(group.quantiles[name] for group in groups), floor[name]) for name in floor}


def levels_of(kind: Kind) -> tuple[Level, ...]:
    """The ladder of escalation for this kind; only pictures have steps that can be disputed in both lanes."""
    return levels_for(POOL, disputes=kind == "image.generate")


def ladder_right(kind: Kind, colluders: int) -> float:
    """The exact probability that the ladder ends with the verdict that all honest jurors find.

    A matter that no level decides is disputed, and the dispute ends right: an honest juror sat, or the level would have
    decided. Without disputes, what is undecided stays unaudited, which is not right.
    """
    odds = ladder_odds(levels_of(kind), 0.0, 0.0, Finite(POOL, colluders))
    return 1.0 - odds.wrong if kind == "image.generate" else odds.right


def three_right(colluders: int) -> float:
    """The same of a majority of three."""
    return 1.0 - capture(POOL, colluders, JURY)


def detection_at_least(caught: int, runs: int, kind: Kind, colluders: int) -> float:
    """The lower 95 % bound of the fingerprint's detection, times what the ladder makes of it."""
    return clopper_pearson(caught, runs).low * ladder_right(kind, colluders)


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

    A dispute needs somebody who rejected. It ends for the truth: it convicts if an honest juror found the cheat, and
    acquits otherwise. None: unaudited.
    """
    seated, rejected = 0, False
    for level in levels_of(kind):
        votes = votes_of(run, judged, colluders, lie, range(seated, seated + level.size))
        verdict = agreed(votes, level.needed)
        if verdict is not None:
            return verdict
        seated += level.size
        rejected = rejected or "reject" in votes
    if kind != "image.generate" or not rejected:
        return None
    seats = [seat for seat in range(seated) if draw(run)[seat] >= colluders]
    found = any(judged.verdicts[seat % len(judged.verdicts)] == "reject" for seat in seats)
    return "reject" if found else "accept"


def detected(judged: Sequence[Judged], colluders: int, kind: Kind | None = None) -> int:
    """How many of these cheating runs are rejected though colluders accept: by three, or for a `kind` by its ladder."""
    if kind is None:
        return sum(jury_verdict(run, each, colluders, "accept") == "reject" for run, each in enumerate(judged))
    return sum(escalated_verdict(run, each, colluders, "accept", kind) == "reject" for run, each in enumerate(judged))
