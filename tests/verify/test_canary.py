"""Canaries look like real asks, honest jurors judge them rightly, and whoever does not look is found out."""

from __future__ import annotations

import functools
import math
from typing import Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.calibration_inputs import job_specs
from tests.verify import world
from verify import eprocess
from verify.calibrated import calibration_for, calibrations
from verify.canary import (
    ASKS_MAX,
    SHARE_ONE,
    CanaryMark,
    Cast,
    Claim,
    asks_to_expose,
    build,
    check_mark,
    nudged,
    pays_to_look,
    plan,
    score,
    share_needed,
    swapped,
)
from verify.faults import Fault
from verify.fingerprints import text_sketch
from verify.fingerprints.registry import FINGERPRINTS
from verify.juror import Juror
from verify.jury import pool_of
from verify.messages import JuryAsk
from verify.round import AskJuror, AskReveal, Outcome, Round
from verify.verdict import Finding, refused
from wire import codec
from wire.envelope import seal
from wire.errors import LocalError, Malformed
from wire.hashing import digest
from wire.job import Expected, JobSpec, Kind, Lane, Output, Trace
from wire.tensor import from_numpy
from wire.text_sketch import pack, project, rows_per_token
from workloads.catalog import built_in
from workloads.executor import NUMERICS, Executor
from workloads.variants import make_executor

KINDS: list[Kind] = ["text.generate", "image.generate", "embed.text"]
LANES: list[Lane] = ["tolerant", "exact"]
KEY = digest("test", b"canary key")
REQUESTER = world.person("requester").peer
Truth = Literal["accept", "reject"]


@functools.cache
def executor(variant: str = "default", cheat: str | None = None) -> Executor:
    return make_executor(variant, cheat=cheat)


@functools.cache
def job(kind: Kind, lane: Lane, index: int) -> JobSpec:
    """A real job as the requester of these tests would ask it."""
    (model,) = [info.cid for info in built_in().capabilities().models if info.kind == kind]
    plain = job_specs(kind, lane, model, NUMERICS[lane], index + 1)[index]
    return world.spec(
        kind=kind,
        model=model,
        inputs=plain.inputs,
        lane=lane,
        numeric=plain.numeric,
        fingerprint=FINGERPRINTS[kind, lane].id,
        calibration=calibration_for(kind, model, lane, NUMERICS[lane]).hash,
        seed=plain.seed,
        nonce=digest("test.nonce", bytes([index]))[:16],
    )


@functools.cache
def answer(kind: Kind, lane: Lane, index: int, variant: str = "default", cheat: str | None = None) -> Claim:
    return Claim(*executor(variant, cheat).run(job(kind, lane, index), emit=lambda _: None, cancelled=lambda: False))


def cast(worker: str = "worker") -> Cast:
    return Cast(world.person("requester"), world.person(worker), pool_of(world.weights(7)), world.SECRET, world.SALT)


def canary(kind: Kind, lane: Lane, claim: Claim, expected: Truth, index: int = 0) -> tuple[JuryAsk, CanaryMark]:
    return build(job(kind, lane, index), claim, expected, cast(), KEY)


def looked(ask: JuryAsk) -> Expected | Finding:
    """What an honest juror's executor gives; another numeric variant than the worker's."""
    case = codec.decode(JobSpec, ask.spec.body)
    try:
        return executor("numpy").recheck(case, ask.output, ask.trace)
    except Malformed as exc:
        return refused(exc)


def verdict(ask: JuryAsk) -> str:
    """What an honest juror finds."""
    juror = Juror(world.person("juror-0"), calibrations())
    hearing = juror.consider(REQUESTER, ask, now_ms=world.DEADLINE_MS)
    juror.rule(hearing, looked(ask) if hearing.needs_run else None)
    assert hearing.finding is not None
    return hearing.finding.verdict


def spoiled(kind: Kind, lane: Lane, way: str, index: int) -> Claim:
    right = answer(kind, lane, index)
    if way == "nudged":
        return nudged(kind, right, bytes([index]))
    other = next(i for i in range(index + 1, 60) if job(kind, lane, i).inputs != job(kind, lane, index).inputs)
    donors = [answer(kind, lane, index, cheat="int8-weights")] if way == "cheated" else []
    for at in range(other, other + 30):
        donors.append(answer(kind, lane, at))
        for donor in donors:
            try:
                return swapped(right, donor)
            except LocalError:
                continue
    raise AssertionError("no donor of this form")


@pytest.mark.parametrize("way", ["nudged", "swapped", "cheated"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lane", LANES)
def test_honest_jurors_reject_the_bad_ones(kind: Kind, lane: Lane, way: str) -> None:
    for index in (1, 2) if lane == "tolerant" else (1,):
        ask, _ = canary(kind, lane, spoiled(kind, lane, way, index), "reject", index)
        assert verdict(ask) == "reject"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lane", LANES)
def test_honest_jurors_accept_the_good_ones(kind: Kind, lane: Lane) -> None:
    ask, _ = canary(kind, lane, answer(kind, lane, 1), "accept", 1)
    assert verdict(ask) == "accept"


@pytest.mark.parametrize("kind", KINDS)
def test_every_nudge_is_rejected(kind: Kind) -> None:
    right = answer(kind, "tolerant", 0)
    for number in range(12):
        ask, _ = canary(kind, "tolerant", nudged(kind, right, bytes([number])), "reject")
        assert verdict(ask) == "reject", number


def shape_of(value: object) -> object:
    """Types, lengths and names of everything in a message; no values."""
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, *(shape_of(getattr(value, name)) for name in value.__struct_fields__)]
    if isinstance(value, dict):
        return {key: shape_of(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape_of(each) for each in value]
    return (type(value).__name__, len(value) if isinstance(value, bytes | str) else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lane", LANES)
def test_a_canary_has_the_form_and_size_of_a_real_ask(kind: Kind, lane: Lane) -> None:
    right = answer(kind, lane, 1)
    real, _ = canary(kind, lane, right, "accept", 1)
    plain = seal(world.person("requester"), "job", job(kind, lane, 1))
    for claim, expected in ((right, "accept"), (nudged(kind, right, b"1"), "reject")):
        ask, _ = build(job(kind, lane, 1), claim, expected, cast(), digest("test", expected.encode()))  # type: ignore[arg-type]  # a pair of literals
        assert shape_of(ask) == shape_of(real)
        assert len(codec.encode(ask)) == len(codec.encode(real))
        assert len(ask.spec.body) == len(plain.body)
        fingerprint = FINGERPRINTS[kind, lane]
        fingerprint.admit(job(kind, lane, 1).input(), ask.output, ask.trace)


def test_only_the_nonce_of_the_spec_is_another() -> None:
    ask, mark = canary("embed.text", "tolerant", answer("embed.text", "tolerant", 0), "accept")
    asked = codec.decode(JobSpec, ask.spec.body)
    assert asked == msgspec.structs.replace(job("embed.text", "tolerant", 0), nonce=mark.nonce)
    Round(ask)  # everything a juror or requester checks holds


def test_a_nudged_vector_keeps_its_length_and_the_rest() -> None:
    right = answer("embed.text", "tolerant", 0)
    before, after = (c.output.tensors["vectors"].numpy() for c in (right, nudged("embed.text", right, b"x")))
    assert sorted((before != after).any(axis=1).tolist()) == [False, False, True]
    assert np.linalg.norm(after, axis=1) == pytest.approx(np.linalg.norm(before, axis=1), rel=1e-6)


def test_a_nudged_picture_keeps_noise_last_state_and_pixels() -> None:
    right = answer("image.generate", "tolerant", 0)
    wrong = nudged("image.generate", right, b"x")
    before, after = (c.trace.tensors["latents"].numpy() for c in (right, wrong))
    moved = (before != after).any(axis=(1, 2))
    assert (int(moved.sum()), bool(moved[0]), bool(moved[-1]), wrong.output == right.output) == (1, False, False, True)


@given(draw=st.binary(max_size=8), tokens=st.integers(1, 70))
def test_the_sketch_of_any_token_can_be_nudged(draw: bytes, tokens: int) -> None:
    states = np.random.Generator(np.random.Philox(tokens)).standard_normal((tokens, 40)).astype(np.float32)
    values, dither = project(states, bytes(32))
    claim = Claim(
        Output({"tokens": from_numpy(np.zeros(tokens, dtype=np.int32))}),
        Trace({"sketch": from_numpy(pack(values, dither))}),
    )
    wrong = nudged("text.generate", claim, draw)
    before, after = (c.trace.tensors["sketch"].numpy().view(np.int8).astype(int) for c in (claim, wrong))
    moved = np.flatnonzero((before != after).any(axis=1))
    assert (len(moved), moved[-1] - moved[0] + 1) == (rows_per_token(tokens),) * 2
    assert (np.abs(after[:, :7]).max(axis=1) == np.abs(before[:, :7]).max(axis=1)).all()
    found = text_sketch.distance(text_sketch.admit(wrong.trace.tensors["sketch"], tokens), values, dither, tokens)
    assert 0.01 < found["token"] < 0.2


def test_what_cannot_be_spoiled_is_refused() -> None:
    nothing = Claim(Output({}), Trace({}))
    flat = Claim(Output({"vectors": from_numpy(np.zeros(3, dtype=np.float32))}), Trace({}))
    short = Claim(Output({}), Trace({"latents": from_numpy(np.zeros((2, 4, 4), dtype=np.float32))}))
    torn = Claim(
        Output({"vectors": msgspec.structs.replace(world.answer()[0].tensors["vectors"], data=b"")}), Trace({})
    )
    for kind, claim in (("embed.text", nothing), ("embed.text", flat), ("image.generate", short), ("embed.text", torn)):
        with pytest.raises(LocalError):
            nudged(kind, claim, b"")  # type: ignore[arg-type]  # a literal
    right = answer("embed.text", "tolerant", 0)
    for donor in (right, nothing, answer("text.generate", "tolerant", 0)):
        with pytest.raises(LocalError):
            swapped(right, donor)
    with pytest.raises(LocalError):
        build(job("embed.text", "tolerant", 0), right, "accept", cast(), b"short")


def test_a_mark_speaks_for_one_job_and_answer_only() -> None:
    ask, mark = canary("embed.text", "tolerant", answer("embed.text", "tolerant", 0), "accept")
    spec, root, replace = codec.decode(JobSpec, ask.spec.body), mark.root, msgspec.structs.replace
    check_mark(spec, root, mark)
    wrong = {
        "canary.key": (spec, root, replace(mark, key=b"")),
        "canary.root": (spec, bytes(32), mark),
        "canary.nonce": (spec, root, replace(mark, expected="reject")),
    }
    for code, (its_spec, its_root, its_mark) in wrong.items():
        with pytest.raises(Fault) as caught:
            check_mark(its_spec, its_root, its_mark)
        assert caught.value.code == code
    with pytest.raises(Fault, match="nonce"):
        check_mark(job("embed.text", "tolerant", 0), root, mark)


def hold(ask: JuryAsk, lazy: dict[str, Finding]) -> Outcome:
    """A whole round over an ask; jurors named in `lazy` say what is given there, the others look."""
    round_ = Round(ask)
    who = {world.person(world.juror_name(i)).peer: world.juror_name(i) for i in range(7)}
    jurors = {peer: Juror(world.person(name), calibrations()) for peer, name in who.items()}
    todo = round_.start(0.0)
    while todo:
        action = todo.pop(0)
        if isinstance(action, AskJuror):
            hearing = jurors[action.peer].consider(REQUESTER, ask, now_ms=world.DEADLINE_MS)
            said = jurors[action.peer].rule(hearing, lazy.get(who[action.peer]) or looked(ask))
            todo += round_.on_answer(0.0, action.peer, said)
        elif isinstance(action, AskReveal):
            opened = jurors[action.peer].reveal(REQUESTER, action.ask)
            todo += round_.on_reveal(0.0, action.peer, opened)
    assert round_.outcome is not None
    return round_.outcome


def test_jurors_are_scored_from_the_receipt() -> None:
    right = answer("embed.text", "tolerant", 0)
    ask, mark = canary("embed.text", "tolerant", nudged("embed.text", right, b"1"), "reject")
    jury = [world.names(7)[peer] for peer in Round(ask).case.order[:3]]
    outcome = hold(ask, {jury[0]: world.ACCEPTED})
    failed = score(outcome.receipt, mark)
    assert [failed[world.person(name).peer] for name in jury] == [True, False, False]
    with pytest.raises(Fault, match=r"canary\.nonce"):
        score(outcome.receipt, msgspec.structs.replace(mark, expected="accept"))


def test_who_has_no_vote_has_no_score() -> None:
    right = answer("embed.text", "tolerant", 0)
    ask, mark = canary("embed.text", "tolerant", right, "accept")
    jury = [world.names(7)[peer] for peer in Round(ask).case.order[:1]]
    outcome = hold(ask, {jury[0]: Finding("abstain", why="no such model")})
    assert world.person(jury[0]).peer not in score(outcome.receipt, mark)
    assert len(score(outcome.receipt, mark)) == 3


@pytest.mark.parametrize("habit", ["accept", "reject", "guess"])
def test_a_juror_that_never_looks_is_out_soon_and_one_that_looks_stays(habit: str) -> None:
    """By its own record: 2,000 asks with a tenth of each sort of canary."""
    chance = np.random.Generator(np.random.Philox(5))
    asks = plan(1_600, 0.1, b"seed")
    lazy = looking = eprocess.fresh()
    at = None
    for number, word in enumerate(asks, 1):
        if word != "real" and at is None:
            said = habit if habit != "guess" else ("accept", "reject")[int(chance.integers(2))]
            lazy = eprocess.observe(lazy, failed=said != {"good": "accept", "bad": "reject"}[word])
            at = number if lazy.rejected else None
        if word != "real":
            looking = eprocess.observe(looking, failed=False)
    assert at is not None
    assert at < 4 * asks_to_expose(0.1)
    assert not looking.rejected


@given(fee=st.integers(0, 10**9), stake=st.integers(0, 10**9), cost=st.integers(0, 10**9))
def test_the_needed_share_is_the_least(fee: int, stake: int, cost: int) -> None:
    try:
        share = share_needed(fee=fee, stake=stake, cost=cost)
    except LocalError:
        assert not pays_to_look(0.4999999, fee=fee, stake=stake, cost=cost)
        return
    assert pays_to_look(share, fee=fee, stake=stake, cost=cost)
    assert share == 0 or not pays_to_look(math.nextafter(share, 0), fee=fee, stake=stake, cost=cost)


def test_a_plan_holds_every_real_ask_and_the_share_of_canaries() -> None:
    """6,400 real asks at a tenth each: 8,000 in all, 800 of each sort, standard deviation 27; four are allowed."""
    asks = plan(6_400, 0.1, b"s")
    assert asks.count("real") == 6_400
    assert abs(asks.count("bad") - 800) < 110
    assert abs(asks.count("good") - 800) < 110
    assert plan(6_400, 0.1, b"s") == asks != plan(6_400, 0.1, b"t")
    assert plan(3, 0.0, b"s") == ("real",) * 3
    assert plan(0, 0.1, b"s") == ()


def test_impossible_plans_are_refused() -> None:
    for real, share in ((1, 0.5), (1, -0.1), (-1, 0.1), (1, math.nan), (ASKS_MAX + 1, 0.0), (1, 0.5 - 0.1 / SHARE_ONE)):
        with pytest.raises(LocalError):
            plan(real, share, b"s")
    assert math.isinf(asks_to_expose(0.0))
