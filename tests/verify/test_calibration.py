"""Thresholds are measured, never guessed, and a calibration that does not separate says so."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verify.calibration import (
    Calibration,
    CheatRuns,
    Subject,
    calibrate,
    conformal_quantile,
    from_json,
    score,
    to_json,
)
from wire.errors import LocalError, Malformed

SUBJECT = Subject("embed.text", "bafkrei-test", "tolerant", "f32", "embed.cosine/f64/1", {"cosine": 1e-12, "rel": 1e-7})


def runs(seed: int, n: int = 60, scale: float = 1.0) -> list[dict[str, float]]:
    source = random.Random(seed)
    return [{"cosine": scale * source.random() * 1e-11, "rel": scale * source.random() * 1e-6} for _ in range(n)]


def record(cheat: float = 1e4) -> Calibration:
    honest = {"a/b": runs(1), "a/c": runs(2, scale=2.0)}
    return calibrate(SUBJECT, honest, {"int8": CheatRuns(runs(3, 20, scale=cheat)), "short": CheatRuns([], 20)})


def test_the_quantile_is_the_conformal_rank() -> None:
    scores = [float(each) for each in range(1, 100)]
    assert conformal_quantile(scores, 0.01) == 99.0
    assert conformal_quantile(scores, 0.1) == 90.0


@pytest.mark.parametrize(("n", "alpha"), [(98, 0.01), (10, 0.02), (0, 0.5)])
def test_too_few_runs_for_the_promised_rate_are_refused(n: int, alpha: float) -> None:
    with pytest.raises(LocalError, match="cannot support"):
        conformal_quantile([0.0] * n, alpha)


def test_a_fresh_score_exceeds_the_quantile_as_rarely_as_promised() -> None:
    source = random.Random(5)
    over = sum(source.random() > conformal_quantile([source.random() for _ in range(60)], 0.1) for _ in range(2000))
    assert 0.06 < over / 2000 < 0.13


def test_the_threshold_is_the_largest_group_times_the_margin() -> None:
    made = record()
    worst = max(group.quantiles["rel"] for group in made.groups)
    assert made.thresholds["rel"] == 10 * worst
    assert [group.backend for group in made.groups] == ["a/b", "a/c"]
    assert [group.runs for group in made.groups] == [60, 60]


def test_a_threshold_is_never_finer_than_the_data_types() -> None:
    """Identical bits on our machines do not promise identical bits everywhere."""
    made = calibrate(SUBJECT, {"a/b": [{"cosine": 0.0, "rel": 0.0}] * 60}, {})
    assert made.thresholds == dict(SUBJECT.resolution)


def test_a_clear_gap_certifies() -> None:
    made = record()
    assert (made.certified, made.inseparable, made.honest_rejects) == (True, [], 0)
    cell = {each.name: each for each in made.cheats}
    assert (cell["int8"].detected, cell["short"].detected, cell["short"].refused) == (20, 20, 20)


def test_a_cheat_within_the_gap_refuses_certification_and_is_named() -> None:
    made = record(cheat=20.0)
    assert (made.certified, made.inseparable) == (False, ["int8"])


def test_one_mild_run_is_enough_to_refuse() -> None:
    cheat = [*runs(3, 19, scale=1e5), {"cosine": 0.0, "rel": 0.0}]
    made = calibrate(SUBJECT, {"a/b": runs(1)}, {"lucky": CheatRuns(cheat)})
    assert (made.certified, made.cheats[0].detected, made.cheats[0].runs) == (False, 19, 20)


def test_the_exact_lane_never_gets_a_tolerance() -> None:
    """Honest machines that disagree there refuse certification instead of widening the threshold."""
    subject = Subject("embed.text", "bafkrei-test", "exact", "f64r32", "exact.digest/sha256/1", {"mismatch": 0.0})
    cheats = {"int8": CheatRuns([{"mismatch": 1.0}] * 20)}
    agree = calibrate(subject, {"a/b": [{"mismatch": 0.0}] * 60}, cheats)
    assert (agree.thresholds, agree.certified) == ({"mismatch": 0.0}, True)
    differ = calibrate(subject, {"a/b": [{"mismatch": 0.0}] * 50 + [{"mismatch": 0.5}] * 10}, cheats)
    assert (differ.thresholds, differ.certified, differ.honest_rejects) == ({"mismatch": 0.0}, False, 10)


def test_without_cheats_nothing_is_certified() -> None:
    assert not calibrate(SUBJECT, {"a/b": runs(1)}, {}).certified
    assert not calibrate(SUBJECT, {"a/b": runs(1)}, {"never ran": CheatRuns([])}).certified


def test_an_outlier_among_honest_runs_refuses_certification() -> None:
    honest = [*runs(1, 199), {"cosine": 1.0, "rel": 1.0}]
    made = calibrate(SUBJECT, {"a/b": honest}, {"other": CheatRuns(runs(3, 20, scale=1e12))}, alpha=0.02)
    assert (made.certified, made.honest_rejects) == (False, 1)


def test_no_honest_runs_is_an_error() -> None:
    with pytest.raises(LocalError):
        calibrate(SUBJECT, {}, {})


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_run_scores_above_one_exactly_when_it_exceeds_a_threshold(cosine: float, rel: float) -> None:
    limits = {"cosine": 0.5, "rel": 0.0}
    assert (score({"cosine": cosine, "rel": rel}, limits) > 1) == (cosine > 0.5 or rel > 0)


def test_records_survive_json_to_the_bit() -> None:
    made = record()
    assert from_json(to_json(made)) == made
    assert from_json(to_json(made)).hash == made.hash


def test_the_hash_covers_every_threshold() -> None:
    made = record()
    assert msgspec.structs.replace(made, thresholds={**made.thresholds, "rel": 1.0}).hash != made.hash


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"groups": [], "cheats": [], "x": 1}'])
def test_a_damaged_record_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        from_json(text)


def test_a_record_with_a_field_of_another_type_is_malformed() -> None:
    with pytest.raises(Malformed):
        from_json(to_json(record()).replace('"certified": true', '"certified": "yes"'))


def test_a_record_of_another_version_is_malformed() -> None:
    with pytest.raises(Malformed, match="version"):
        from_json(to_json(msgspec.structs.replace(record(), version=2)))
