"""A pool of child processes that run models, so that a node's own loop never computes and stays small when idle.

Children start when there is work, are restarted after a crash, end after `idle_s` without work, and end by themselves
when the pool's process dies, because their input closes. This process never loads NumPy's or ONNX Runtime's kernels:
capabilities come from manifests.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from wire.errors import Busy, LocalError, Malformed
from wire.job import Expected, JobSpec, Output, Trace
from wire.tensor import Tensor
from workloads import catalog, inputs, pipe, variants
from workloads.executor import Capabilities, ExecutorCrashed, Health, Progress, Token

GRACE_S = 2.0
"""How long a child may take to notice a cancellation before it is killed."""

WAITING_MAX = 64
"""Calls that may wait for a child."""

STDERR_BYTES = 4096

ROOT = str(Path(__file__).resolve().parent.parent)
"""Where the child finds these packages."""

OnEvent = Callable[[Progress | Token], None]


class _Child:
    """One process and the stream of its replies; one call at a time."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = bytearray()
        self._said = b""
        self._calls = 0
        self._sending = trio.Lock()
        self._in_step = True

    async def call(self, make: Callable[[int], pipe.Request], on_event: OnEvent) -> pipe.Answer:
        """Send one request and return its answer.

        Raises:
            ExecutorCrashed: the process ended, or said something senseless.
            The error that the executor raised.
        """
        self._calls += 1
        number = self._calls
        try:
            await self._send(make(number))
            return await self._answer(number, on_event)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._abandon(number)
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise await self._crashed(str(exc)) from exc

    async def cancel(self) -> None:
        """Ask the child to stop the current call, which is still answered."""
        await self._send(pipe.Cancel(self._calls))

    async def _send(self, request: pipe.Request) -> None:
        assert self.process.stdin is not None, "opened with pipes"
        async with self._sending:
            self._in_step = False
            await self.process.stdin.send_all(pipe.frame(request))
            self._in_step = True

    async def _answer(self, number: int, on_event: OnEvent) -> pipe.Answer:
        while True:
            reply = await self._receive()
            if reply.call != number:
                continue  # the rest of a call whose caller has gone
            if isinstance(reply, pipe.Happened):
                on_event(reply.event)
            elif isinstance(reply, pipe.Failed):
                raise pipe.ERRORS.get(reply.code, ExecutorCrashed)(reply.reason)
            else:
                return reply

    async def _receive(self) -> pipe.Reply:
        try:
            size = pipe.body_length(await self._take(pipe.LENGTH_BYTES))
            return pipe.decode_reply(await self._take(size))
        except Malformed as exc:
            raise trio.BrokenResourceError(f"a senseless answer: {exc}") from exc

    async def _take(self, size: int) -> bytes:
        assert self.process.stdout is not None, "opened with pipes"
        while len(self._buffer) < size:
            chunk = await self.process.stdout.receive_some()
            if not chunk:
                raise trio.BrokenResourceError("its output ended")
            self._buffer += chunk
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _abandon(self, number: int) -> None:
        """Bring the stream to the end of a cancelled call, or kill the child."""
        with trio.move_on_after(GRACE_S if self._in_step else 0):
            try:
                await self.cancel()
                await self._answer(number, lambda event: None)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            except tuple(pipe.ERRORS.values()):
                return
            else:
                return
        await self.end(kill=True)

    async def _crashed(self, why: str) -> ExecutorCrashed:
        await self.end(kill=True)
        said = self._said.decode(errors="replace").strip()
        last = f": {said.splitlines()[-1]}" if said else ""
        return ExecutorCrashed(f"the model process ended with status {self.process.returncode} ({why}){last}")

    async def end(self, *, kill: bool = False) -> None:
        """Close its input, which ends it; kill it if it stays."""
        with trio.CancelScope(shield=True):
            if self.process.stdin is not None:
                await self.process.stdin.aclose()
            with trio.move_on_after(0 if kill else GRACE_S):
                await self.process.wait()
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()
            if self.process.stdout is not None:
                await self.process.stdout.aclose()

    async def listen(self) -> None:
        """Keep the end of what the child prints, for the report of a crash."""
        assert self.process.stderr is not None, "opened with pipes"
        async with self.process.stderr as stream:
            while chunk := await stream.receive_some():
                self._said = (self._said + chunk)[-STDERR_BYTES:]


class _Slot:
    """Room for one child."""

    def __init__(self) -> None:
        self.child: _Child | None = None
        self.job = b""
        self.idle = trio.CancelScope()


class Pool:
    """Runs and re-checks jobs in child processes; use `open_pool`."""

    def __init__(
        self, nursery: trio.Nursery, command: list[str], environment: dict[str, str], *, workers: int, idle_s: float
    ) -> None:
        self._nursery, self._command, self._environment = nursery, command, environment
        self._idle_s = idle_s
        self._slots = [_Slot() for _ in range(workers)]
        self._free = list(self._slots)
        self._turn = trio.Semaphore(workers)
        self._waiting = 0

    def capabilities(self) -> Capabilities:
        """The models that can be run, from their manifests.

        Raises:
            StorageError: a manifest is damaged.
        """
        return catalog.built_in().capabilities()

    def validate(self, spec: JobSpec) -> None:
        """Refuse at once what no child could run.

        Raises:
            LocalError: names the field and what is allowed, or the models that are known.
        """
        inputs.check(spec)
        catalog.built_in().find(spec.model, spec.kind)

    @property
    def processes(self) -> list[int]:
        """Process ids of the children that are up."""
        return [slot.child.process.pid for slot in self._slots if slot.child is not None]

    async def run(self, spec: JobSpec, on_event: OnEvent = lambda event: None) -> tuple[Output, Trace]:
        """Run a job; cancelling the task cancels the job.

        Args:
            spec: the job.
            on_event: told of progress and text, in this task; must not block.

        Raises:
            Cancelled: `cancel` was called.
            LocalError, StorageError: as `Executor.run`.
            ExecutorCrashed: the process died; another call starts a new one.
            Busy: too many calls wait.
        """
        self.validate(spec)
        answer = await self._call(spec.id, lambda call: pipe.Run(call, spec), on_event)
        assert isinstance(answer, pipe.Ran), "a run is answered by Ran"
        return answer.output, answer.trace

    async def recheck(self, spec: JobSpec, output: Output, trace: Trace, *, steps: Sequence[int] = ()) -> Expected:
        """Compute what the jury compares.

        Args:
            steps: which steps of an image's run, ascending; all if empty.

        Raises:
            Malformed: the claim has a shape that no honest run gives: the verdict is `reject`.
            As `run` otherwise.
        """
        self.validate(spec)
        answer = await self._call(
            spec.id, lambda call: pipe.Recheck(call, spec, output, trace, list(steps)), lambda event: None
        )
        assert isinstance(answer, pipe.Rechecked), "a re-check is answered by Rechecked"
        return answer.expected

    async def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        """The state after one step, from the one before it.

        Raises:
            Malformed, LocalError, StorageError: as `Executor.recompute`. ExecutorCrashed, Busy: as `run`.
        """
        self.validate(spec)
        answer = await self._call(spec.id, lambda call: pipe.Recompute(call, spec, step, state), lambda event: None)
        assert isinstance(answer, pipe.Recomputed), "answered by Recomputed"
        return answer.state

    async def cancel(self, job: bytes) -> None:
        """Cancel the job with this id if it is running; its caller gets `Cancelled`."""
        for slot in self._slots:
            if slot.job == job and slot.child is not None:
                await slot.child.cancel()

    async def health(self) -> Health:
        """Ask a child how it is; starts one if none is up."""
        answer = await self._call(b"", lambda call: pipe.AskHealth(call), lambda event: None)
        assert isinstance(answer, pipe.Healthy), "a health question is answered by Healthy"
        return answer.health

    async def _call(self, job: bytes, make: Callable[[int], pipe.Request], on_event: OnEvent) -> pipe.Answer:
        if self._waiting >= WAITING_MAX:
            raise Busy(retry_s=1.0, what=f"{WAITING_MAX} calls wait for a model process")
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        slot = self._pick()
        try:
            child = await self._child(slot)
            slot.job = job
            return await child.call(make, on_event)
        finally:
            slot.job = b""
            if slot.child is not None and slot.child.process.poll() is not None:
                slot.child = None
            self._free.append(slot)
            self._turn.release()
            if slot.child is not None:
                slot.idle = trio.CancelScope()
                self._nursery.start_soon(self._end_when_idle, slot, slot.idle)

    def _pick(self) -> _Slot:
        """The free slot that was used last, so that warm children stay warm and the others go."""
        warm = [slot for slot in self._free if slot.child is not None]
        slot = (warm or self._free)[-1]
        self._free.remove(slot)
        slot.idle.cancel()
        return slot

    async def _child(self, slot: _Slot) -> _Child:
        if slot.child is not None and slot.child.process.poll() is not None:
            await slot.child.end(kill=True)
            slot.child = None
        if slot.child is None:
            with trio.CancelScope(shield=True):  # a child that was started must be recorded
                process = await trio.lowlevel.open_process(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=self._environment,
                    start_new_session=True,
                )
            slot.child = _Child(process)
            self._nursery.start_soon(slot.child.listen)
        return slot.child

    async def _end_when_idle(self, slot: _Slot, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(self._idle_s)
            child, slot.child = slot.child, None
            if child is not None:
                await child.end()

    async def aclose(self) -> None:
        """End every child."""
        for slot in self._slots:
            if slot.child is not None:
                child, slot.child = slot.child, None
                await child.end()


@asynccontextmanager
async def open_pool(
    *, workers: int = 1, threads: int = 1, idle_s: float = 60.0, variant: str = "default", cheat: str | None = None
) -> AsyncIterator[Pool]:
    """A pool that lives as long as the block.

    Args:
        workers: children at most; each runs one call at a time.
        threads: within one operator of one child.
        idle_s: seconds without work after which a child ends.
        variant: one that `workloads.variants.find` knows.
        cheat: makes the workers cheat (`workloads.cheats.CHEATS`): only to test the network's defences.

    Raises:
        LocalError: unknown variant, or one that this machine cannot compute.
    """
    chosen = variants.find(variant)
    await _check_usable(chosen)
    command = [sys.executable, "-m", "workloads", "--variant", variant, "--threads", str(threads)]
    if cheat is not None:
        command += ["--cheat", cheat]
    environment = variants.environment(chosen, threads)
    environment["PYTHONPATH"] = ROOT + (":" + environment["PYTHONPATH"] if environment.get("PYTHONPATH") else "")
    async with trio.open_nursery() as nursery:
        pool = Pool(nursery, command, environment, workers=workers, idle_s=idle_s)
        try:
            yield pool
        finally:
            await pool.aclose()
            nursery.cancel_scope.cancel()


async def _check_usable(variant: variants.Variant) -> None:
    code = variants.probe(variant)
    if not code:
        return
    tried = await trio.run_process([sys.executable, "-c", code], check=False, capture_stderr=True)
    if tried.returncode:
        why = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise LocalError(f"{variant.name} does not work here (extra `gpu`): {why}")
