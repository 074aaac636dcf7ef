"""Spot checks: what was drawn opens and is recomputed, everything else is refused; and how much a draw finds."""

from __future__ import annotations

import functools
import itertools
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.calibration_inputs import job_specs
from verify.calibrated import calibration_for
from verify.faults import ExpectedUnusable, Refused
from verify.fingerprints import opening
from verify.fingerprints.opening import Opening, Rows, Spot, detection, needed
from wire import seeded
from wire.job import Expected, ImageInput, JobSpec, Output, Trace
from wire.tensor import Tensor, from_numpy
from workloads.catalog import built_in
from workloads.image import ImageModel
from workloads.local import LocalExecutor
from workloads.variants import find, make_executor

SECRET, BEACON = bytes(range(32)), bytes(reversed(range(32)))
ROWS = [from_numpy(np.full((2, 3), index, dtype=np.float32)) for index in range(11)]


def checked(openings: list[Opening], indices: list[int], commitment: Rows | None = None) -> dict[int, Any]:
    made = commitment or opening.sketch("x", ROWS, SECRET)
    return opening.check_rows(made, "x", openings, indices, "f4", [2, 3])


@given(st.sets(st.integers(0, 10)))
def test_what_was_committed_opens(indices: set[int]) -> None:
    drawn = sorted(indices)
    opened = checked(opening.open_rows("x", ROWS, SECRET, drawn), drawn)
    assert {index: value.tolist() for index, value in opened.items()} == {
        index: ROWS[index].numpy().tolist() for index in drawn
    }


def one(at: int = 4, **changes: Any) -> Opening:
    return cast(Opening, msgspec.structs.replace(opening.open_rows("x", ROWS, SECRET, [at])[0], **changes))


@pytest.mark.parametrize(
    ("openings", "code"),
    [
        ([], "index"),
        ([one(5)], "index"),
        ([one(), one()], "index"),
        ([one(5, index=4)], "proof"),
        ([one(row=ROWS[5])], "proof"),
        ([one(salt=bytes(32))], "proof"),
        ([one(salt=b"")], "salt"),
        ([one(proof=[])], "proof"),
        ([one(proof=[bytes(31)] * 4)], "proof"),
        ([one(proof=[bytes(32)] * 1000)], "proof"),
        ([one(row=Tensor("f4", [2, 3], bytes(23)))], "shape"),
        ([one(row=Tensor("f4", [6], bytes(24)))], "shape"),
        ([one(row=Tensor("i4", [2, 3], bytes(24)))], "dtype"),
        ([one(row=from_numpy(np.full((2, 3), np.nan, dtype=np.float32)))], "nonfinite"),
    ],
)
def test_another_opening_is_refused(openings: list[Opening], code: str) -> None:
    with pytest.raises(Refused) as caught:
        checked(openings, [4])
    assert caught.value.code == code


@pytest.mark.parametrize("bad", [Rows(bytes(32), 0), Rows(bytes(32), -1), Rows(bytes(32), 1 << 60), Rows(b"", 11)])
def test_an_absurd_commitment_is_refused(bad: Rows) -> None:
    with pytest.raises(Refused) as caught:
        checked([one()], [4], bad)
    assert caught.value.code == "count"


def test_roots_differ_by_name_secret_and_order() -> None:
    roots = {
        opening.sketch(name, values, secret).root
        for name, values, secret in (
            ("x", ROWS, SECRET),
            ("y", ROWS, SECRET),
            ("x", ROWS[::-1], SECRET),
            ("x", ROWS, BEACON),
        )
    }
    assert len(roots) == 4


def test_equal_rows_do_not_show_as_equal() -> None:
    """Salts are per row: opening one row must not let anybody recognise another."""
    same = [ROWS[0]] * 4
    openings = opening.open_rows("x", same, SECRET, range(4))
    assert len({each.salt for each in openings}) == 4
    assert len({node for each in openings for node in each.proof}) == 6


@given(st.binary(min_size=32, max_size=32), st.integers(1, 60), st.integers(0, 60))
def test_a_draw_is_of_different_steps(beacon: bytes, steps: int, count: int) -> None:
    drawn = opening.drawn_steps(beacon, steps, count)
    assert len(set(drawn)) == len(drawn) == min(steps, count)
    assert set(drawn) <= set(range(steps))
    assert list(drawn) == sorted(drawn)


def test_every_step_is_drawn_equally_often() -> None:
    counts = np.zeros(10)
    for index in range(2000):
        counts[list(opening.drawn_steps(index.to_bytes(32, "big"), 10, 3))] += 1
    assert abs(counts / 2000 - 0.3).max() < 0.045


def test_drawing_more_than_there_is_fails() -> None:
    with pytest.raises(ValueError, match="4 of 3"):
        seeded.drawn(BEACON, "x", 3, 4)


@pytest.mark.parametrize(
    ("total", "wrong", "count"), [(6, 2, 3), (7, 1, 2), (5, 5, 1), (5, 0, 5), (6, 3, 4), (5, 2, 0)]
)
def test_detection_is_the_share_of_draws_that_hit(total: int, wrong: int, count: int) -> None:
    draws = list(itertools.combinations(range(total), count))
    hits = sum(any(index < wrong for index in draw) for draw in draws)
    assert detection(total, wrong, count) == hits / len(draws)


def test_needed_is_the_smallest_draw() -> None:
    assert [needed(30, 30, 0.999), needed(30, 1, 0.5), needed(30, 1, 1.0), needed(30, 15, 0.9)] == [1, 15, 30, 4]
    assert detection(30, 15, 3) < 0.9
    assert [needed(30, wrong, 0.999) for wrong in (30, 15, 3, 1)] == [1, 9, 26, 30]


# The embedded diffusion model


@functools.cache
def jobs() -> list[JobSpec]:
    cid = built_in().find("digits-ddim").cid
    return job_specs("image.generate", "tolerant", cid, "f32", 63)[60:]


@functools.cache
def juror() -> LocalExecutor:
    return LocalExecutor(find("default"))


def limits() -> dict[str, float]:
    return dict(calibration_for("image.generate", jobs()[0].model, "tolerant", "f32").thresholds)


def spot(spec: JobSpec, output: Output, trace: Trace, drawn: tuple[int, ...]) -> dict[str, float]:
    """What a juror finds who sees only the drawn states."""
    latents = trace.tensors["latents"].numpy()
    values = [from_numpy(state) for state in latents]
    commitment = opening.sketch("latents", values, SECRET)
    given, runner = juror().prepare(spec)
    assert isinstance(given, ImageInput)
    openings = opening.open_rows("latents", values, SECRET, opening.states_of(given.steps, drawn))
    view = Spot(commitment, openings, given.steps, drawn, (16, 16))
    model = cast(ImageModel, runner)
    own = model.spot(given, spec.seed, view.claims, drawn, view.last.astype(np.float32))
    return view.distance(output.tensors["pixels"], own)


def answer(spec: JobSpec, variant: str = "default", cheat: str | None = None) -> tuple[Output, Trace]:
    return make_executor(variant, cheat=cheat).run(spec, emit=lambda _: None, cancelled=lambda: False)


@pytest.mark.parametrize("variant", ["default", "ort-noopt", "numpy", "numpy-shifted"])
def test_honest_runs_pass_whatever_is_drawn(variant: str) -> None:
    for spec in jobs():
        output, trace = answer(spec, variant)
        steps = trace.tensors["latents"].shape[0] - 1
        for drawn in ((), (0,), (steps - 1,), tuple(range(steps))):
            found = spot(spec, output, trace, drawn)
            assert all(found[measure] <= limit for measure, limit in limits().items())


@pytest.mark.parametrize("cheat", ["fewer-steps", "int8-weights", "bf16-weights", "one-step-less"])
def test_any_drawn_step_shows_a_run_that_cheats_throughout(cheat: str) -> None:
    spec = jobs()[0]
    output, trace = answer(spec, cheat=cheat)
    found = [spot(spec, output, trace, (step,))["step"] for step in range(0, 30, 4)]
    assert min(found) > 10 * limits()["step"]


@pytest.mark.parametrize(("cheat", "first"), [("spliced-trajectory", 15), ("swapped-noise", 0)])
def test_every_step_taken_from_a_run_of_another_seed_shows(cheat: str, first: int) -> None:
    spec = jobs()[0]
    output, trace = answer(spec, cheat=cheat)
    found = [spot(spec, output, trace, (step,))["step"] for step in range(30)]
    assert min(found[first:]) > 100 * limits()["step"]
    assert max([*found[:first], 0.0]) <= limits()["step"]
    assert spot(spec, output, trace, ())["noise"] <= limits()["noise"]


def test_other_noise_shows_without_any_step() -> None:
    found = spot(jobs()[0], *answer(jobs()[0], cheat="wrong-seed"), ())
    assert found["noise"] > 1000 * limits()["noise"]
    assert found["step"] == 0.0


def test_a_single_wrong_step_shows_only_if_drawn() -> None:
    spec = jobs()[0]
    output, trace = answer(spec)
    latents = trace.tensors["latents"].numpy().copy()
    latents[8] = latents[7]
    forged = Trace({"latents": from_numpy(latents)})
    found = [spot(spec, output, forged, (step,))["step"] for step in range(30)]
    assert [step for step, value in enumerate(found) if value > limits()["step"]] == [7, 8]


def view() -> tuple[Spot, Output, Expected]:
    latents = np.random.Generator(np.random.Philox(3)).standard_normal((4, 2, 3)).astype(np.float32)
    values = [from_numpy(state) for state in latents]
    openings = opening.open_rows("latents", values, SECRET, [0, 1, 2, 3])
    made = Spot(opening.sketch("latents", values, SECRET), openings, 3, (1,), (2, 3))
    pixels = from_numpy(np.zeros((2, 3), dtype=np.uint8))
    own = Expected({"noise": values[0], "steps": from_numpy(latents[2:3]), "pixels": pixels})
    return made, Output({"pixels": pixels}), own


def test_a_picture_of_another_size_is_refused() -> None:
    made, output, own = view()
    assert made.distance(output.tensors["pixels"], own) == {"noise": 0.0, "step": 0.0, "pixels": 0.0}
    with pytest.raises(Refused):
        made.distance(from_numpy(np.zeros((3, 2), dtype=np.uint8)), own)


@pytest.mark.parametrize("missing", ["noise", "steps", "pixels"])
def test_our_own_failure_is_not_the_workers(missing: str) -> None:
    made, output, own = view()
    with pytest.raises(ExpectedUnusable):
        made.distance(output.tensors["pixels"], Expected({k: v for k, v in own.tensors.items() if k != missing}))


def test_a_run_of_another_length_is_refused() -> None:
    values: list[Tensor] = [from_numpy(np.zeros((2, 3), dtype=np.float32))] * 3
    with pytest.raises(Refused) as caught:
        Spot(opening.sketch("latents", values, SECRET), [], 3, (1,), (2, 3))
    assert caught.value.code == "length"
