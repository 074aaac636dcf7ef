"""The e-process: its bound is exact where it can be enumerated, and its promises hold where it can only be sampled."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.verify_audits import ALPHA0, LEVEL, NEVER, audits_of, simulate
from verify import eprocess
from verify.eprocess import REDEAL, RESERVE_AUDITS, STAKES, Evidence, decode, encode, fresh, observe
from verify.faults import Fault
from wire import codec
from wire.errors import LocalError

OUTCOMES = st.lists(st.booleans(), max_size=60)


def after(outcomes: list[bool], evidence: Evidence | None = None) -> Evidence:
    evidence = evidence or fresh()
    for failed in outcomes:
        evidence = observe(evidence, failed=failed)
    return evidence


def exact_step(purse: list[Fraction], alpha0: Fraction, audit: int, failed: bool) -> list[Fraction]:
    """The rule of docs/spec/sampling.md in rational numbers."""
    stakes, redeal = [Fraction(stake) for stake in STAKES], Fraction(REDEAL)
    factor = [1 + s * (1 - alpha0) / alpha0 if failed else 1 - s for s in stakes]
    paid = [held * f for held, f in zip(purse, factor, strict=True)]
    share, given = redeal * sum(paid[1:]) / 7, paid[0] / (audit + RESERVE_AUDITS)
    return [paid[0] - given + share, *((1 - redeal) * held + share + given / 6 for held in paid[1:])]


def start() -> list[Fraction]:
    return [Fraction(1, 7)] * 7


@pytest.mark.parametrize("alpha0", [Fraction(1, 20), Fraction(1, 100), Fraction(1, 2)])
def test_wealth_is_a_martingale_at_the_tolerated_rate_exactly(alpha0: Fraction) -> None:
    """All 2**6 histories: the mean of what one more audit makes of the wealth is the wealth."""
    for outcomes in itertools.product([False, True], repeat=6):
        purse = start()
        for number, failed in enumerate(outcomes, 1):
            purse = exact_step(purse, alpha0, number, failed)
        lost, won = (sum(exact_step(purse, alpha0, 7, failed)) for failed in (False, True))
        assert (1 - alpha0) * lost + alpha0 * won == sum(purse)
        assert won > sum(purse) > lost


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(1, 50), Fraction(1, 20)])
def test_an_honest_peer_is_rejected_no_more_often_than_the_level_exactly(rate: Fraction) -> None:
    """All 2**10 histories, each with its probability; a level of 1/20, so that rejection happens at all."""
    ever = Fraction(0)
    for outcomes in itertools.product([False, True], repeat=10):
        failures = sum(outcomes)
        if after(list(outcomes), fresh(alpha0=0.05, level=0.05)).rejected:
            ever += rate**failures * (1 - rate) ** (10 - failures)
    assert ever <= Fraction(1, 20)
    assert (ever > 0) == (rate > 0)


@given(outcomes=OUTCOMES, alpha0_ppm=st.sampled_from([1_000, 50_000, 500_000]))
def test_floats_follow_the_rational_rule(outcomes: list[bool], alpha0_ppm: int) -> None:
    evidence, purse = fresh(alpha0=alpha0_ppm / 1e6), start()
    for number, failed in enumerate(outcomes, 1):
        if evidence.rejected:
            break
        evidence = observe(evidence, failed=failed)
        purse = exact_step(purse, Fraction(alpha0_ppm, 10**6), number, failed)
    assert evidence.purse == pytest.approx([float(held) for held in purse], rel=1e-12)


@given(outcomes=OUTCOMES)
def test_a_state_survives_the_wire_and_goes_on_the_same(outcomes: list[bool]) -> None:
    half = len(outcomes) // 2
    kept = decode(encode(after(outcomes[:half])))
    assert after(outcomes[half:], kept) == after(outcomes)
    assert len(encode(kept)) <= eprocess.STATE_BYTES_MAX


@pytest.mark.parametrize(("alpha0", "level"), [(0.05, 1e-3), (1e-5, 1e-9), (0.5, 0.5)])
def test_a_long_life_stays_readable_and_is_not_defenceless(alpha0: float, level: float) -> None:
    """20,000 passes; then failures alone still lead out, after at most 60 of them."""
    old = decode(encode(after([False] * 20_000, fresh(alpha0=alpha0, level=level))))
    assert 0.02 / len(STAKES) < old.wealth < 1
    out = decode(encode(after([True] * 60, old)))
    assert (out.rejected, out.failures < 60) == (True, True)


@given(outcomes=OUTCOMES)
def test_only_failures_speak_against_a_peer(outcomes: list[bool]) -> None:
    evidence = after(outcomes)
    assert (evidence.audits <= len(outcomes), evidence.failures <= evidence.audits) == (True, True)
    if not evidence.rejected:
        assert observe(evidence, failed=True).wealth > evidence.wealth > observe(evidence, failed=False).wealth


def test_rejection_is_final_and_changes_nothing_more() -> None:
    out = after([True] * 3)
    assert out.rejected
    assert after([False] * 1000, out) == out


def test_three_failures_in_a_row_are_enough_and_two_are_not() -> None:
    assert [after([True] * n).rejected for n in range(5)] == [False, False, False, True, True]


def test_models_are_pooled_by_their_mean() -> None:
    records = [after([True]), after([False] * 9)]
    assert eprocess.pooled(records) == pytest.approx((records[0].wealth + records[1].wealth) / 2)
    with pytest.raises(LocalError):
        eprocess.pooled([])


@pytest.mark.parametrize(("alpha0", "level"), [(0, 1e-3), (0.6, 1e-3), (math.nan, 1e-3), (0.05, 0), (0.05, 1)])
def test_absurd_tolerances_are_refused(alpha0: float, level: float) -> None:
    with pytest.raises(LocalError):
        fresh(alpha0=alpha0, level=level)


def altered(**changes: object) -> bytes:
    return codec.encode(msgspec.structs.replace(after([False] * 30 + [True]), **changes))


PURSE = after([False] * 30 + [True]).purse
HOSTILE = {
    "encoding": b"\x90",
    "version": altered(version=2),
    "bounds": altered(alpha0_ppm=0),
    "bounds ": altered(alpha0_ppm=500_001),
    "bounds  ": altered(level_inverse=1),
    "counts": altered(failures=32),
    "counts ": altered(failures=-1),
    "purse": altered(purse=PURSE[:-1]),
    "purse nan": altered(purse=[math.nan, *PURSE[1:]]),
    "purse infinite": altered(purse=[math.inf, *PURSE[1:]]),
    "purse negative": altered(purse=[-1.0, *PURSE[1:]]),
    "purse robbed of its reserve": altered(purse=[PURSE[0] / 2, *PURSE[1:]]),
    "purse with an empty seat": altered(purse=[*PURSE[:-1], 1e-30]),
    "purse won without failures": altered(purse=[1000.0, *PURSE[1:]]),
    "purse beyond rejection": altered(failures=31, purse=[1e6, *PURSE[1:]]),
    "purse whose sum is no number": altered(purse=[PURSE[0], 1.7e308, 1.7e308, *PURSE[3:]]),
    "purse that cannot be": altered(failures=0, purse=[1.0, *PURSE[1:]]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_state_is_refused(name: str) -> None:
    with pytest.raises(Fault) as refused:
        decode(HOSTILE[name])
    assert refused.value.code == f"evidence.{name.split(' ')[0]}"


@given(raw=st.binary(max_size=300))
def test_noise_is_refused_as_a_fault(raw: bytes) -> None:
    with pytest.raises(Fault):
        decode(raw)


def test_the_bulk_simulation_is_this_process() -> None:
    failures = np.array(list(audits_of(0.12, 60, 80, seed=5)))
    bulk, _ = simulate(0.12, 60, 80, seed=5)  # draws the same audits
    for peer in range(60):
        evidence = after(failures[:, peer].tolist(), fresh(alpha0=ALPHA0, level=LEVEL))
        assert bulk[peer] == (evidence.audits if evidence.rejected else NEVER)
    assert 0 < (bulk != NEVER).sum() < 60


def test_an_honest_peer_is_almost_never_ejected_where_the_z_test_ejects_half() -> None:
    """20,000 peers at the tolerated 5 %, 500 audits; the binomial standard error at 0.1 % is 0.022 %, so 0.167 % is
    three above the bound: a correct process fails this with probability below 0.2 % (and the seed is fixed)."""
    ours, theirs = simulate(ALPHA0, 20_000, 500, seed=11)
    assert (ours != NEVER).mean() <= LEVEL + 3 * math.sqrt(LEVEL / 20_000)
    assert (theirs != NEVER).mean() > 0.4


@pytest.mark.parametrize(("rate", "median"), [(0.5, 15), (1.0, 3), (0.2, 65)])
def test_cheaters_are_out_soon(rate: float, median: int) -> None:
    """4,000 cheaters: were the true median above the bound, at most half would be out by then; 4 standard errors."""
    ours, _ = simulate(rate, 4_000, 300, seed=12)
    assert (ours <= median).mean() > 0.5 + 4 * 0.5 / math.sqrt(4_000)


def test_a_turncoat_is_met_by_a_full_purse() -> None:
    ours, _ = simulate(0.5, 1_000, 60, seed=13, honest_first=2_000)
    turned = ours[ours > 2_000] - 2_000
    assert np.median(turned) <= 30


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_the_bound_on_audits_holds(rate: float) -> None:
    """The mean of 4,000 simulated rejections, plus four standard errors, is below the closed form."""
    ours, _ = simulate(rate, 4_000, 600, seed=14)
    assert (ours != NEVER).all()
    assert ours.mean() + 4 * ours.std() / math.sqrt(4_000) <= eprocess.audits_to_reject(rate)
    assert math.isinf(eprocess.audits_to_reject(ALPHA0))
