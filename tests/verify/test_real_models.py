"""The committed thresholds on the models that ship: honest work of other numeric variants passes, every cheat fails.

The jobs are not those of the calibration. Variants whose instruction sets are chosen at process start run in
processes of their own in `benchmarks/calibrate.py`; here are those that one process can hold.
"""

from __future__ import annotations

import functools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.calibration_inputs import applies, job_specs
from tests.workloads.specs import text_model
from verify.calibrated import calibration_for, calibrations
from verify.calibration import Calibration
from verify.fingerprints.registry import FINGERPRINTS
from verify.verdict import Finding, judge, refused
from wire import codec
from wire.errors import LocalError, Malformed
from wire.job import JobSpec, Kind, Lane, Output, TextInput, Trace
from wire.tensor import from_numpy
from workloads.catalog import built_in
from workloads.cheats import CHEATS
from workloads.executor import NUMERICS, Executor, never
from workloads.text import answer as text_answer
from workloads.variants import make_executor

KINDS: list[Kind] = ["text.generate", "image.generate", "embed.text"]
LANES: list[Lane] = ["tolerant", "exact"]
WORKERS = ["ort-noopt", "numpy", "numpy-shifted"]
FRESH_FROM = 100
"""Jobs before this index were used to calibrate."""


@functools.cache
def executor(variant: str, cheat: str | None = None) -> Executor:
    return make_executor(variant, cheat=cheat)


def model_of(kind: Kind) -> str:
    (cid,) = [info.cid for info in built_in().capabilities().models if info.kind == kind]
    return cid


def record(kind: Kind, lane: Lane) -> Calibration:
    return calibration_for(kind, model_of(kind), lane, NUMERICS[lane])


@functools.cache
def jobs(kind: Kind, lane: Lane) -> list[JobSpec]:
    return job_specs(kind, lane, model_of(kind), NUMERICS[lane], FRESH_FROM + 24)[FRESH_FROM:]


def run(variant: str, spec: JobSpec, cheat: str | None = None) -> tuple[Output, Trace]:
    return executor(variant, cheat).run(spec, emit=lambda _: None, cancelled=lambda: False)


def finding(spec: JobSpec, output: Output, trace: Trace) -> Finding:
    """What a juror on the default variant finds."""
    fingerprint = FINGERPRINTS[spec.kind, spec.lane]
    try:
        fingerprint.admit(spec.input(), output, trace)
        expected = executor("default").recheck(spec, output, trace)
    except Malformed as exc:
        return refused(exc)
    return judge(fingerprint, record(spec.kind, spec.lane).thresholds, output, trace, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lane", LANES)
def test_the_committed_calibration_is_of_the_model_that_ships(kind: Kind, lane: Lane) -> None:
    made = record(kind, lane)
    assert (made.fingerprint, made.certified) == (FINGERPRINTS[kind, lane].id, True)
    assert min(group.runs for group in made.groups) >= 100
    assert {cell.name for cell in made.cheats} == {c for c in CHEATS if any(applies(c, s) for s in jobs(kind, lane))}


@pytest.mark.parametrize("kind", KINDS)
def test_each_backend_would_pass_thresholds_that_never_saw_it(kind: Kind) -> None:
    """Leave one backend out: its largest honest distance against the threshold that the other pairs give."""
    made = record(kind, "tolerant")
    resolution = FINGERPRINTS[kind, "tolerant"].resolution
    for backend in {name for group in made.groups for name in group.backend.split("/")} - {"default"}:
        seen = [group for group in made.groups if backend not in group.backend.split("/")]
        unseen = [group for group in made.groups if backend in group.backend.split("/")]
        for measure, floor in resolution.items():
            limit = max(made.margin * max(group.quantiles[measure] for group in seen), floor)
            assert max(group.maxima[measure] for group in unseen) <= limit, (backend, measure)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("variant", WORKERS)
def test_honest_work_of_other_variants_is_accepted(kind: Kind, lane: Lane, variant: str) -> None:
    for spec in jobs(kind, lane)[:2] if lane == "exact" else jobs(kind, lane)[:4]:
        found = finding(spec, *run(variant, spec))
        assert (found.verdict, found.why) == ("accept", "")


@pytest.mark.parametrize("cheat", list(CHEATS))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lane", LANES)
def test_every_cheat_that_changes_the_answer_is_rejected(kind: Kind, lane: Lane, cheat: str) -> None:
    fitting = [spec for spec in jobs(kind, lane) if applies(cheat, spec)][: 2 if lane == "exact" else 3]
    for spec in fitting:
        output, trace = run("default", spec, cheat)
        if (output, trace) != run("default", spec):
            assert finding(spec, output, trace).verdict == "reject"


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**64 - 1),
    worker=st.sampled_from(["default", "ort-single", *WORKERS]),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 40]),
    tokens_max=st.sampled_from([1, 7, 40]),
)
def test_no_seed_gets_an_honest_text_rejected(
    seed: int, worker: str, temperature: float, top_k: int, tokens_max: int
) -> None:
    given_ = TextInput("Return the ", tokens_max, "sample", temperature, top_k)
    spec = msgspec.structs.replace(jobs("text.generate", "tolerant")[0], inputs=codec.encode(given_), seed=seed)
    found = finding(spec, *run(worker, spec))
    assert (found.verdict, found.why) == ("accept", "")


def test_a_withheld_trace_is_rejected() -> None:
    spec = jobs("text.generate", "tolerant")[0]
    output, _ = run("default", spec)
    found = finding(spec, output, Trace({}))
    assert (found.verdict, dict(found.distances)) == ("reject", {"refused.missing": 1.0})


def test_a_forged_trace_of_right_tokens_is_rejected() -> None:
    """A worker that got the text elsewhere, without the model's hidden states."""
    spec = jobs("text.generate", "tolerant")[0]
    output, trace = run("default", spec)
    forged = from_numpy(np.roll(trace.tensors["sketch"].numpy(), 1, axis=0))
    assert finding(spec, output, Trace({"sketch": forged})).verdict == "reject"


def test_a_text_cut_short_is_rejected() -> None:
    spec = next(s for s in jobs("text.generate", "tolerant") if len(run("default", s)[0].tensors["tokens"].data) > 8)
    output, trace = run("default", spec)
    tokens, sketch = output.tensors["tokens"], trace.tensors["sketch"]
    rows = sketch.shape[0] * 4 // len(tokens.data)
    for kept in (rows, 32):
        short = from_numpy(tokens.numpy()[:1]), from_numpy(np.resize(sketch.numpy(), (kept, 8)))
        assert finding(spec, Output({"tokens": short[0]}), Trace({"sketch": short[1]})).verdict == "reject"


def test_an_unknown_model_has_no_calibration() -> None:
    with pytest.raises(LocalError, match="no calibration"):
        calibration_for("embed.text", "bafkrei-unknown", "tolerant", "f32")


def test_records_are_found_by_their_hash() -> None:
    for digest, made in calibrations().items():
        assert made.hash == digest


def test_the_documentation_shows_the_committed_records() -> None:
    from benchmarks.calibration_tables import PAGE, page

    assert PAGE.read_text() == page(PAGE.read_text(), calibrations().values())


def test_text_of_other_weights_or_another_prompt_with_a_trace_of_the_right_ones_is_rejected() -> None:
    """Generate cheaply, then read the result once with the real model to get an honest sketch: the margin tells."""
    caught = {"int8-weights": 0, "short-prompt": 0}
    for cheat in caught:
        for spec in [spec for spec in jobs("text.generate", "tolerant") if applies(cheat, spec)]:
            output, _ = run("default", spec, cheat)
            if output == run("default", spec)[0]:
                continue
            given_, model = text_model(spec)
            tokens = output.tensors["tokens"].numpy().tolist()
            real = text_answer(given_, spec.seed, tokens, model.prefill(given_, tokens, never)[1])[1]
            found = finding(spec, output, real)
            assert (found.verdict, found.distances["token"], found.distances["block"]) == ("reject", 0.0, 0.0)
            caught[cheat] += 1
    assert min(caught.values()) > 0, caught


def test_a_picture_that_the_trajectory_does_not_end_in_is_rejected() -> None:
    first, second = jobs("image.generate", "tolerant")[:2]
    output, _ = run("default", second)
    assert finding(first, output, run("default", first)[1]).verdict == "reject"


def test_an_answer_to_another_job_is_rejected() -> None:
    for kind in KINDS:
        first, *others = jobs(kind, "tolerant")
        other = next(spec for spec in others if spec.inputs != first.inputs)
        assert finding(first, *run("default", other)).verdict == "reject"
