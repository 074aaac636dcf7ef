"""The pool of child processes: streaming, cancellation, crashes, idle exit, and no orphans."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # no stubs in the test extra
import pytest
import trio

from tests.workloads.specs import all_kinds, spec, text
from wire.errors import LocalError, Malformed
from wire.job import ImageInput, Output, Trace
from workloads.executor import Cancelled, Event, ExecutorCrashed, Progress, Token, never, text_of
from workloads.service import open_pool
from workloads.variants import make_executor

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
LONG = spec("image.generate", ImageInput(1, 100), lane="exact")


async def gone(pid: int) -> None:
    """Wait until the process has ended."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    await trio.to_thread.run_sync(process.wait, PATIENCE_S)


async def test_a_child_computes_what_this_process_would() -> None:
    async with open_pool() as pool:
        for job in all_kinds():
            events: list[Event] = []
            own: list[Event] = []
            output, trace = await pool.run(job, events.append)
            assert (output, trace) == make_executor().run(job, emit=own.append, cancelled=never)
            assert events == own
            assert await pool.recheck(job, output, trace) == make_executor().recheck(job, output, trace)


async def test_tokens_arrive_while_the_run_goes_on() -> None:
    async with open_pool() as pool:
        job = spec("text.generate", text(tokens_max=200))
        pieces: list[str] = []

        def stop(event: Event) -> None:
            assert isinstance(event, Token)
            pieces.append(event.text)
            if len(pieces) == 3:
                nursery.start_soon(pool.cancel, job.id)

        async with trio.open_nursery() as nursery:
            with pytest.raises(Cancelled):
                await pool.run(job, stop)
        assert 3 <= len(pieces) < 200


async def test_cancelling_the_task_cancels_the_job_and_keeps_the_child() -> None:
    async with open_pool() as pool:
        await pool.health()
        before = pool.processes
        with trio.CancelScope() as scope:
            await pool.run(LONG, lambda event: scope.cancel())
        assert scope.cancelled_caught
        output, _ = await pool.run(all_kinds()[0])
        assert text_of(output)
        assert pool.processes == before


async def test_a_crashed_child_is_reported_and_replaced() -> None:
    async with open_pool() as pool:

        def kill(event: Event) -> None:
            if event == Progress(1, 100):
                os.kill(pool.processes[0], signal.SIGKILL)

        with pytest.raises(ExecutorCrashed, match="status -9"):
            await pool.run(LONG, kill)
        output, _ = await pool.run(all_kinds()[0])
        assert text_of(output)


async def test_a_child_that_cannot_start_says_why() -> None:
    async with open_pool(cheat="no such cheat") as pool:
        with pytest.raises(ExecutorCrashed, match="unknown cheat"):
            await pool.run(all_kinds()[0])


async def test_nothing_runs_before_there_is_work_nor_after_idle_time() -> None:
    async with open_pool(idle_s=0.05) as pool:
        assert pool.processes == []
        await pool.health()
        (pid,) = pool.processes
        with trio.fail_after(PATIENCE_S):
            await gone(pid)
        assert pool.processes == []
        await pool.health()
        assert pool.processes not in ([], [pid])


async def test_closing_the_pool_ends_its_children() -> None:
    async with open_pool(workers=2) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.health)
            nursery.start_soon(pool.health)
        pids = pool.processes
        assert len(pids) == 2
    assert not any(map(psutil.pid_exists, pids))


async def test_children_end_when_the_parent_is_killed() -> None:
    script = """
import trio
from tests.workloads.specs import spec
from wire.job import ImageInput
from workloads.service import open_pool

async def main():
    async with open_pool() as pool:
        job = spec("image.generate", ImageInput(1, 100), lane="exact")
        await pool.run(job, lambda event: print(pool.processes[0], flush=True))

trio.run(main)
"""
    parent = await trio.lowlevel.open_process([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    async with parent.stdout:
        pid = int((await parent.stdout.receive_some()).split()[0])
        parent.kill()
        await parent.wait()
    with trio.fail_after(PATIENCE_S):
        await gone(pid)


async def test_errors_keep_their_type_across_the_pipe() -> None:
    async with open_pool() as pool:
        with pytest.raises(LocalError, match="1 to 100"):
            await pool.run(spec("image.generate", ImageInput(1, 0)))
        assert pool.processes == []
        with pytest.raises(Malformed, match="expected tokens"):
            await pool.recheck(all_kinds()[0], Output({}), Trace({}))


async def test_calls_wait_their_turn() -> None:
    async with open_pool() as pool:
        done: list[int] = []

        async def one(seed: int) -> None:
            await pool.run(spec("image.generate", ImageInput(seed, 5), seed=seed))
            done.append(seed)

        async with trio.open_nursery() as nursery:
            for seed in range(6):
                nursery.start_soon(one, seed)
        assert sorted(done) == list(range(6))
        assert len(pool.processes) == 1


async def test_a_cheating_pool_cheats_and_says_so_to_nobody() -> None:
    job = all_kinds()[3]
    async with open_pool(cheat="fewer-steps") as pool:
        output, trace = await pool.run(job)
        expected = await pool.recheck(job, output, trace)
    assert trace.tensors["latents"].shape == [11, 16, 16]
    assert expected.tensors["steps"].data != trace.tensors["latents"].data[1024:]


async def test_the_steps_to_check_reach_the_child() -> None:
    job = all_kinds()[3]
    async with open_pool() as pool:
        output, trace = await pool.run(job)
        assert (await pool.recheck(job, output, trace, steps=(2, 5))).tensors["steps"].shape == [2, 16, 16]
        with pytest.raises(LocalError, match="ascend"):
            await pool.recheck(job, output, trace, steps=(5, 2))


@pytest.mark.parametrize("variant", ["ort-threads2", "numpy-nehalem"])
async def test_variants_with_an_environment_of_their_own_keep_the_exact_lane(variant: str) -> None:
    job = all_kinds(lane="exact", steps=4)[3]
    async with open_pool(variant=variant) as pool:
        assert await pool.run(job) == make_executor().run(job, emit=lambda event: None, cancelled=never)


def test_the_parent_loads_neither_numpy_nor_onnxruntime() -> None:
    script = (
        "import sys, workloads.service, workloads.variants\n"
        "from workloads.catalog import built_in\n"
        "assert len(built_in().capabilities().models) == 3\n"
        "assert not {'numpy', 'onnxruntime', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
@pytest.mark.parametrize("variant", ["torch", "torch-cuda"])
async def test_a_backend_that_is_not_installed_is_refused_at_once(variant: str) -> None:
    with pytest.raises(LocalError, match=rf"{variant} does not work here.*No module named 'torch'"):
        async with open_pool(variant=variant):
            pass
