"""Which steps a jury recomputes: drawn after the commitment, the same for every juror, refused where there are none."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verify.evidence_vectors import BAD_STEP, STEPS, Toy, Trial, claim, drawn, record
from tests.verify.receipt_vectors import image_spec
from tests.verify.world import DEADLINE_MS, names, person, weights
from verify.case import open_draw, open_spec
from verify.faults import Fault
from verify.fingerprints.opening import drawn_steps
from verify.fingerprints.text_prefill import drawn_windows
from verify.juror import AskRefused, Juror
from verify.jury import beacon, beacon_hash, pool_of
from verify.ladder import Level, build_ladder, check_ladder
from wire import codec
from wire.envelope import seal
from wire.errors import Malformed
from wire.job import Commitment, JobSpec, TextInput, check_spots
from wire.tensor import from_numpy

NOW_MS = DEADLINE_MS - 1


def case_of(spec: JobSpec, root: bytes, secret: bytes) -> Any:
    promise = seal(person("worker"), "commitment", Commitment(spec.id, root, 2))
    return open_draw(spec, promise, secret, pool_of(weights(7)))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(1, 30))
def test_the_draw_follows_from_job_root_and_secret_alone(root: bytes, secret: bytes, spots: int) -> None:
    spec = image_spec(spots=spots, beacon_hash=beacon_hash(secret))
    found = case_of(spec, root, secret).drawn
    assert found == drawn_steps(beacon(spec.id, root, secret), 30, spots)
    assert list(found) == sorted(set(found))
    assert len(found) == spots


def test_the_worker_cannot_know_which_step_before_the_secret_is_out() -> None:
    """Over secrets every step of one committed answer is drawn about equally often."""
    counts = np.zeros(30)
    for index in range(3000):
        secret = index.to_bytes(32, "big")
        counts[list(case_of(image_spec(spots=1, beacon_hash=beacon_hash(secret)), bytes(32), secret).drawn)] += 1
    assert abs(counts / 3000 - 1 / 30).max() < 0.015


@given(st.binary(min_size=32, max_size=32), st.integers(1, 4))
def test_of_a_text_windows_are_drawn(root: bytes, spots: int) -> None:
    inputs = codec.encode(TextInput("a", 128))
    spec = image_spec(kind="text.generate", inputs=inputs, spots=spots, beacon_hash=beacon_hash(bytes(32)))
    found = case_of(spec, root, bytes(32)).drawn
    assert found == drawn_windows(beacon(spec.id, root, bytes(32)), 4, spots)
    assert len(found) == spots
    assert set(found) <= set(range(4))


def test_without_spots_nothing_is_drawn() -> None:
    assert case_of(image_spec(beacon_hash=beacon_hash(bytes(32))), bytes(32), bytes(32)).drawn == ()


@given(st.integers(), st.integers(0, 5000))
def test_spots_are_within_the_run_and_runs_are_not_endless(spots: int, steps: int) -> None:
    spec = image_spec(steps=steps, spots=spots)
    if spots == 0 or 0 < spots <= steps <= 4096:
        check_spots(spec)
    else:
        with pytest.raises(Malformed, match="spots"):
            check_spots(spec)


@pytest.mark.parametrize(
    "changes", [{"spots": 31}, {"spots": -1}, {"spots": 1, "lane": "exact"}, {"steps": 5000, "spots": 1}]
)
def test_a_reader_and_a_juror_refuse_spots_out_of_range_by_name(changes: dict[str, Any]) -> None:
    spec = image_spec(**changes)
    with pytest.raises(Fault) as caught:
        open_spec(seal(person("requester"), "job", spec))
    assert caught.value.code == "spec.spots"
    ask = msgspec.structs.replace(Trial(claim(bad=False)).ask, spec=seal(person("requester"), "job", spec))
    with pytest.raises(AskRefused) as refused:
        Juror(person("juror-0"), {}).consider(spec.requester, ask, now_ms=NOW_MS)
    assert refused.value.code == "spec.spots"


def verdicts(trial: Trial) -> set[tuple[tuple[int, ...], str]]:
    """What each peer of the pool, as a juror with its own recomputation, draws and finds."""
    found = set()
    for peer, name in names(7).items():
        juror = Juror(person(name), {record().hash: record()})
        hearing = juror.consider(trial.spec.requester, trial.ask, now_ms=NOW_MS)
        case = hearing.case
        own = Toy().recheck(case.spec, trial.output, trial.trace, steps=case.drawn)
        juror.rule(hearing, own)
        assert hearing.finding is not None
        assert peer in case.order
        found.add((case.drawn, hearing.finding.verdict))
    return found


def test_every_juror_looks_at_the_same_step_and_finds_the_same() -> None:
    """Else a lone finder would be outvoted by those who looked elsewhere."""
    assert verdicts(drawn(hit=True)) == {((BAD_STEP,), "reject")}
    missed = drawn(hit=False)
    assert verdicts(missed) == {(missed.drawn, "accept")}


def test_the_first_and_the_last_state_are_compared_whatever_was_drawn() -> None:
    honest = Trial(claim(bad=False), spots=1)
    assert verdicts(honest) == {(honest.drawn, "accept")}
    output, trace = claim(bad=False)
    states = trace.tensors["latents"].numpy().copy()
    for index in (0, STEPS):
        forged = states.copy()
        forged[index] *= np.float32(30)
        forged_trace = msgspec.structs.replace(trace, tensors={"latents": from_numpy(forged)})
        tried = (Trial((output, forged_trace), nonce=nonce, spots=1) for nonce in range(200, 300))
        trial = next(each for each in tried if not set(each.drawn) & {0, STEPS - 1})
        assert verdicts(trial) == {(trial.drawn, "reject")}


def test_levels_of_a_ladder_may_look_at_more_steps() -> None:
    levels = (Level(3, 3, spots=1), Level(7, 6, spots=9), Level(21, 14, spots=0))
    nonce = b"n" * 16
    specs = build_ladder(image_spec(nonce=nonce), levels, [bytes([level]) * 32 for level in range(3)])
    assert [spec.spots for spec in specs] == [1, 9, 0]
    check_ladder(specs, levels, nonce)
    bent = [specs[0], msgspec.structs.replace(specs[1], spots=1), specs[2]]
    with pytest.raises(Fault) as caught:
        check_ladder(bent, levels, nonce)
    assert caught.value.code == "ladder.spec"
    with pytest.raises(Fault):
        check_ladder(specs, (Level(3, 3), Level(7, 6), Level(21, 14)), nonce)


def test_another_answer_is_judged_at_other_steps() -> None:
    """The root is part of the beacon, as the job is."""
    draws = {Trial(claim(bad=bad), nonce=nonce, spots=2).drawn for bad in (False, True) for nonce in range(4)}
    assert len(draws) > 4
