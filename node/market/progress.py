"""What a run tells the requester while it goes on: pieces that come fast are sent together, and none is lost.

A message per token would cost more than the token: at most one leaves every `PERIOD_S`, holding the newest count and
all text since the last one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import trio

from wire.codec import Wire
from wire.errors import LocalError, QuorateError
from wire.job import JobSpec, Output, Trace
from workloads.executor import Event, ExecutorCrashed, Progress

PERIOD_S = 0.05


W = TypeVar("W", bound=Wire)


class Reporter(Generic[W]):
    """Takes events as they come (`emit`) and sends them on (`forward`) until `finish`.

    Args:
        message: makes the message, from steps done, steps in all, and text.
    """

    def __init__(self, message: Callable[[int, int, str], W]) -> None:
        self._message = message
        self._done = 0
        self._total = 0
        self._pending = False
        self._text: list[str] = []
        self._fresh = trio.Event()
        self._finished = trio.Event()

    def emit(self, event: Event) -> None:
        """Remember an event of the run."""
        if isinstance(event, Progress):
            self._done, self._total = event.done, event.total
        else:
            self._done += 1
            self._text.append(event.text)
        self._pending = True
        self._fresh.set()

    def finish(self) -> None:
        """Nothing more will come; `forward` sends what is left and returns."""
        self._finished.set()
        self._fresh.set()

    async def forward(self, send: Callable[[W], Awaitable[None]]) -> None:
        """Send what comes, together where it comes fast.

        Raises:
            QuorateError: the conversation ended.
        """
        while not self._finished.is_set():
            await self._fresh.wait()
            await self._flush(send)
            with trio.move_on_after(PERIOD_S):
                await self._finished.wait()
        await self._flush(send)

    async def _flush(self, send: Callable[[W], Awaitable[None]]) -> None:
        if not self._pending:
            return
        self._pending = False
        working = self._message(self._done, self._total, "".join(self._text))
        self._text.clear()
        self._fresh = trio.Event()
        await send(working)


class Runs(Protocol):
    """What runs models."""

    async def run(self, spec: JobSpec, on_event: Callable[[Event], None]) -> tuple[Output, Trace]:
        """See `workloads.executor.Executor.run`."""
        ...


async def run_reported(
    pool: Runs, spec: JobSpec, send: Callable[[W], Awaitable[None]], reporter: Reporter[W]
) -> tuple[Output, Trace]:
    """Run a model, telling the requester how far it is; a requester that went away cancels the run.

    Raises:
        QuorateError: the requester went away.
        LocalError, ExecutorCrashed: the run failed.
    """
    outcome: tuple[Output, Trace] | None = None
    failure: Exception | None = None

    async def report() -> None:
        nonlocal failure
        try:
            await reporter.forward(send)
        except QuorateError as exc:
            failure = exc
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        try:
            outcome = await pool.run(spec, reporter.emit)
        except (LocalError, ExecutorCrashed) as exc:
            failure = exc
        reporter.finish()
    if failure is not None:
        raise failure
    assert outcome is not None, "a run gives an answer or a reason"
    return outcome
