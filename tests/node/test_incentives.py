"""The incentive condition with the market's figures: exact odds, safe against cheating on the dearest jobs."""

from __future__ import annotations

import itertools
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.market.incentives import (
    audits_needed,
    condemned,
    dearest_do_not_pay,
    detection_of,
    deters,
    false_reject_of,
    terms_of,
    worth_it,
)
from verify.calibrated import calibrations
from verify.calibration import Calibration
from verify.incentive import honest_batch_is_best
from verify.sampling import Sampling, detection
from verify.statistics import lower_bound

RECORDS = sorted(calibrations().values(), key=lambda record: (record.kind, record.lane))
RECORD = RECORDS[0]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.kind}-{record.lane}")
def test_the_figures_come_from_the_record(record: Calibration) -> None:
    worst = min(record.cheats, key=lambda cell: lower_bound(cell.detected, cell.runs))
    assert detection_of(record) == lower_bound(worst.detected, worst.runs)
    assert false_reject_of(record) == record.alpha / record.margin
    assert 0.8 < detection_of(record) < 1 > 0.01 > false_reject_of(record)


@given(jobs=st.integers(1, 12), data=st.data())
def test_without_errors_of_the_jury_the_odds_are_those_of_the_draw(jobs: int, data: st.DataObject) -> None:
    wrong, audits = data.draw(st.integers(0, jobs)), data.draw(st.integers(1, jobs))
    seen = data.draw(st.sampled_from([0.25, 0.5, 1.0]))
    exact = detection(jobs, wrong, Sampling("draw", audits), seen=Fraction(seen))
    assert condemned(jobs, wrong, audits, seen, 0.0) == pytest.approx(float(exact), abs=1e-12)


@given(jobs=st.integers(1, 8), data=st.data())
def test_the_odds_are_what_counting_all_draws_gives(jobs: int, data: st.DataObject) -> None:
    wrong, audits = data.draw(st.integers(0, jobs)), data.draw(st.integers(1, jobs))
    draws = list(itertools.combinations(range(jobs), audits))
    passes = [0.1 ** sum(i < wrong for i in drawn) * 0.99 ** sum(i >= wrong for i in drawn) for drawn in draws]
    assert condemned(jobs, wrong, audits, 0.9, 0.01) == pytest.approx(1 - sum(passes) / len(draws), abs=1e-12)


@pytest.mark.parametrize("jobs", [2, 10, 100, 256])
@pytest.mark.parametrize("saving", [50, 90])
def test_the_fewest_audits_deter_and_one_less_does_not(jobs: int, saving: int) -> None:
    prices = [1000] * jobs
    needed = audits_needed(prices, RECORD, saving)
    assert needed is not None
    assert deters(prices, needed, RECORD, saving)
    assert needed == 1 or not deters(prices, needed - 1, RECORD, saving)
    assert honest_batch_is_best(terms_of(prices, needed, RECORD, saving), jobs)
    assert worth_it(prices, needed, RECORD, saving)


def test_a_saving_beyond_what_is_found_cannot_be_deterred() -> None:
    blind = msgspec.structs.replace(RECORD, cheats=[msgspec.structs.replace(c, detected=0) for c in RECORD.cheats])
    assert audits_needed([1000] * 20, blind, 90) is None
    assert audits_needed([1000], RECORD, 100) is None


def test_one_dear_job_among_cheap_ones_needs_more_audits() -> None:
    """To cheat on it alone saves nearly all of the pay, and is seen only if it is drawn."""
    even, uneven = [1000] * 20, [20_000, *[10] * 19]
    plain, needed = audits_needed(even, RECORD, 90), audits_needed(uneven, RECORD, 90)
    assert plain is not None
    assert needed is None or needed > plain
    terms = terms_of(uneven, plain, RECORD, 90)
    assert not dearest_do_not_pay(uneven, terms, plain)


@given(prices=st.lists(st.integers(1, 5_000), min_size=1, max_size=7), audits=st.integers(1, 7))
def test_where_the_dearest_do_not_pay_no_choice_does(prices: list[int], audits: int) -> None:
    audits = min(audits, len(prices))
    terms = terms_of(prices, audits, RECORD, 60)
    if not terms.reward or not dearest_do_not_pay(prices, terms, audits):
        return
    share = terms.saving / terms.reward
    honest = condemned(len(prices), 0, audits, terms.detection, terms.false_reject)
    for size in range(1, len(prices) + 1):
        risk = condemned(len(prices), size, audits, terms.detection, terms.false_reject) - honest
        best = max(sum(chosen) for chosen in itertools.combinations(prices, size))
        assert share * best <= sum(prices) * risk


def test_work_that_costs_all_that_it_earns_is_not_worth_it() -> None:
    assert not worth_it([1000] * 10, 2, RECORD, 100)
    assert not worth_it([1000] * 64, 64, RECORD, 95)
