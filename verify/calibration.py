"""Thresholds that were measured: split-conformal quantiles of honest distances, and the cheats they must keep out.

One record per (model, lane, numeric class, fingerprint). Honest distances are grouped by the pair of
backends (worker's, juror's); exchangeability holds within a group and fails between groups, so the quantile is taken
per group and the largest counts, times a stated margin (Vovk et al., "Algorithmic Learning in a Random World",
section 4.2, for the quantile). A record is certified only if the mildest run of every named cheat is clear of the
thresholds by a stated gap; else nothing may be called checked by it. Format: docs/spec/verify.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire import codec
from wire.codec import Wire
from wire.errors import LocalError, Malformed
from wire.hashing import digest
from wire.job import Kind, Lane

VERSION = 1
Distances = Mapping[str, float]


class HonestGroup(Wire, frozen=True):
    """Honest runs of one backend pair: how many, and per measure the conformal quantile and the maximum."""

    backend: str
    runs: int
    quantiles: dict[str, float]
    maxima: dict[str, float]


class CheatCell(Wire, frozen=True):
    """Runs of one named cheat.

    `refused` of `runs` could not be compared at all (always a reject); `detected` is how many were rejected;
    `score_min` is the mildest run's largest ratio of distance to threshold (capped), `minima` the smallest
    distance per measure; `separates` says whether `score_min` reaches the gap.
    """

    name: str
    runs: int
    refused: int
    detected: int
    score_min: float
    minima: dict[str, float]
    separates: bool


class Calibration(Wire, frozen=True):
    """A committed calibration.

    Attributes:
        alpha: miscoverage of the conformal quantile. margin: factor on it. gap: factor by which cheats must exceed
            the thresholds. honest_rejects: honest runs beyond the thresholds (in sample).
        certified: whether the thresholds may be used at all; `inseparable` names the cheats that they cannot tell
        apart.
    """

    version: int
    kind: Kind
    model: str
    lane: Lane
    numeric: str
    fingerprint: str
    alpha: float
    margin: float
    gap: float
    groups: list[HonestGroup]
    honest_rejects: int
    thresholds: dict[str, float]
    cheats: list[CheatCell]
    certified: bool
    inseparable: list[str]

    @property
    def hash(self) -> bytes:
        """The 32 bytes that `JobSpec.calibration` names."""
        return digest("calibration", codec.encode(self))


@dataclass(frozen=True)
class Subject:
    """What is being calibrated; `resolution` is the fingerprint's."""

    kind: Kind
    model: str
    lane: Lane
    numeric: str
    fingerprint: str
    resolution: Mapping[str, float]


@dataclass(frozen=True)
class CheatRuns:
    """Distances of the runs of one cheat, and how many more were refused outright."""

    distances: Sequence[Distances]
    refused: int = 0


SCORE_MAX = 1e12
"""Largest reported ratio of a distance to its threshold: a threshold may be 0."""


def conformal_quantile(scores: Sequence[float], alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest of n scores: a fresh one is larger with probability at most alpha.

    Raises:
        LocalError: too few scores for this alpha.
    """
    rank = math.ceil((len(scores) + 1) * (1 - alpha))
    if not 1 <= rank <= len(scores):
        raise LocalError(f"{len(scores)} honest runs cannot support alpha = {alpha:g}")
    return sorted(scores)[rank - 1]


def score(distances: Distances, thresholds: Distances) -> float:
    """How far beyond its thresholds a run is: the largest ratio; above 1 is a reject."""
    return max(_ratio(distances[name], limit) for name, limit in thresholds.items())


def _ratio(distance: float, limit: float) -> float:
    if limit > 0:
        return min(distance / limit, SCORE_MAX)
    return SCORE_MAX if distance > 0 else 0.0


def calibrate(
    subject: Subject,
    honest: Mapping[str, Sequence[Distances]],
    cheats: Mapping[str, CheatRuns],
    *,
    alpha: float = 0.02,
    margin: float = 10.0,
    gap: float = 3.0,
) -> Calibration:
    """Thresholds from honest runs, and a verdict on whether they keep every cheat out.

    Args:
        subject: what is calibrated.
        honest: distances of honest runs by backend pair.
        cheats: runs by name of the cheat.
        alpha, margin, gap: see `Calibration`.

    Raises:
        LocalError: no honest runs, or too few of one group for `alpha`.
    """
    if not honest:
        raise LocalError("no honest runs")
    measures = sorted(subject.resolution)
    groups = [_group(name, runs, measures, alpha) for name, runs in sorted(honest.items())]
    thresholds = {name: _threshold(subject, name, groups, margin) for name in measures}
    cells = [_cell(name, runs, thresholds, gap) for name, runs in sorted(cheats.items())]
    rejects = sum(score(run, thresholds) > 1 for runs in honest.values() for run in runs)
    inseparable = [cell.name for cell in cells if not cell.separates]
    return Calibration(
        version=VERSION,
        kind=subject.kind,
        model=subject.model,
        lane=subject.lane,
        numeric=subject.numeric,
        fingerprint=subject.fingerprint,
        alpha=alpha,
        margin=margin,
        gap=gap,
        groups=groups,
        honest_rejects=rejects,
        thresholds=thresholds,
        cheats=cells,
        certified=bool(cells) and not inseparable and rejects == 0,
        inseparable=inseparable,
    )


def _threshold(subject: Subject, measure: str, groups: Sequence[HonestGroup], margin: float) -> float:
    """In the exact lane equality is the rule: honest runs that differ there are rejects, not a wider threshold."""
    resolution = subject.resolution[measure]
    if subject.lane == "exact":
        return resolution
    return max(margin * max(group.quantiles[measure] for group in groups), resolution)


def _group(name: str, runs: Sequence[Distances], measures: Sequence[str], alpha: float) -> HonestGroup:
    columns = {measure: [float(run[measure]) for run in runs] for measure in measures}
    quantiles = {measure: conformal_quantile(column, alpha) for measure, column in columns.items()}
    return HonestGroup(name, len(runs), quantiles, {measure: max(column) for measure, column in columns.items()})


def _cell(name: str, cheat: CheatRuns, thresholds: Distances, gap: float) -> CheatCell:
    scores = [score(run, thresholds) for run in cheat.distances]
    mildest = min(scores, default=SCORE_MAX)
    minima = {m: min((float(run[m]) for run in cheat.distances), default=0.0) for m in thresholds}
    runs = len(scores) + cheat.refused
    detected = cheat.refused + sum(each > 1 for each in scores)
    return CheatCell(name, runs, cheat.refused, detected, mildest, minima, runs > 0 and mildest >= gap)


def to_json(record: Calibration) -> str:
    """The record as committed: an object with the fields by name."""
    return json.dumps(_named(record), indent=1, sort_keys=True) + "\n"


def _named(value: object) -> object:
    if isinstance(value, Wire):
        return {name: _named(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list):
        return [_named(each) for each in value]
    return value


def from_json(text: str) -> Calibration:
    """The record that `to_json` wrote.

    Raises:
        Malformed: not JSON, a field missing, unknown or of another type, or another version.
    """
    try:
        fields = json.loads(text)
        groups = [HonestGroup(**group) for group in fields.pop("groups")]
        cheats = [CheatCell(**cell) for cell in fields.pop("cheats")]
        record = Calibration(**fields, groups=groups, cheats=cheats)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise Malformed(f"not a calibration record: {exc}") from exc
    record = codec.decode(Calibration, codec.encode(record))
    if record.version != VERSION:
        raise Malformed(f"calibration record of version {record.version}")
    return record
