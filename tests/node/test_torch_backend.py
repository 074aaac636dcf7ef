"""The networks in torch before thresholds that never saw them. Run where torch is installed (extras `gpu`, `train`)."""

from __future__ import annotations

import pytest

from node.calibrating import Answer
from node.detection import finding, record_of
from node.detection_inputs import jobs
from wire.errors import LocalError
from wire.job import JobSpec, Kind, Lane, VerdictWord
from workloads.executor import Executor, never
from workloads.service import open_pool
from workloads.variants import UNSEEN, find, make_executor, variants

torch = pytest.importorskip("torch", reason="torch is no part of the test environment")
CELLS: list[tuple[Kind, Lane]] = [
    (kind, lane) for kind in ("image.generate", "text.generate", "embed.text") for lane in ("tolerant", "exact")
]


def done(executor: Executor, spec: JobSpec) -> Answer:
    return Answer(spec, *executor.run(spec, emit=lambda _: None, cancelled=never))


def verdict(juror: Executor, answer: Answer) -> VerdictWord:
    spec = answer.spec
    return finding(
        answer, juror.recheck(spec, answer.output, answer.trace), record_of(spec.kind, spec.lane).thresholds
    )[0]


@pytest.mark.parametrize(("kind", "lane"), CELLS)
def test_honest_work_passes_both_ways(kind: Kind, lane: Lane) -> None:
    ours, theirs = make_executor(), make_executor("torch")
    for spec in jobs(kind, lane, range(5)):
        mine, other = done(ours, spec), done(theirs, spec)
        assert verdict(ours, other) == verdict(theirs, mine) == "accept"
        assert lane == "tolerant" or mine == other


@pytest.mark.parametrize("kind", ["image.generate", "text.generate", "embed.text"])
@pytest.mark.parametrize("cheat", ["bf16-weights", "older-checkpoint"])
def test_a_juror_with_torch_catches_cheats(kind: Kind, cheat: str) -> None:
    thief, juror = make_executor(cheat=cheat), make_executor("torch")
    assert {verdict(juror, done(thief, spec)) for spec in jobs(kind, "tolerant", range(5))} == {"reject"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_its_backends_say_so() -> None:
    (spec,) = jobs("embed.text", "tolerant", range(1))
    with pytest.raises(LocalError, match="no CUDA device"):
        done(make_executor("torch-cuda"), spec)


def test_no_calibration_runs_torch() -> None:
    assert not UNSEEN.keys() & set(variants)
    assert find("torch").tolerant == "torch"


async def test_a_pool_computes_with_torch() -> None:
    (spec,) = jobs("embed.text", "exact", range(1))
    async with open_pool(variant="torch") as pool:
        output, _ = await pool.run(spec, lambda _: None)
    assert output == done(make_executor(), spec).output
