"""What the three roles of the market share: identity, seams, clock and limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import structlog
import trio

from ledger.service import Ledger
from node.config import Settings
from node.keys import Keyring
from node.market.material import Fetcher, Shelf
from node.records import Records
from verify.calibration import Calibration
from verify.juror import JurorSigner
from wire.errors import Busy, RemoteError
from wire.job import Expected, JobSpec, Output, Trace
from wire.rpc.seam import Rpc
from wire.tensor import Tensor
from wire.transport import Transport
from workloads.executor import Event, ModelInfo

STOPPING_RETRY_S = 60.0
"""When to ask again a node that is stopping: it may have been started again by then."""


class Slots:
    """Jobs and audits in progress: so many at once, and so many more in line.

    Args:
        count: in progress at once.
        line_max: waiting at most; whoever comes then is refused politely.
    """

    def __init__(self, count: int, line_max: int = 16) -> None:
        self._limiter = trio.CapacityLimiter(count)
        self._line_max = line_max
        self.closed = False

    def close(self) -> None:
        """Take on nothing more; what was taken on gets its turn."""
        self.closed = True

    def check(self) -> None:
        """Whether anything new may be taken on.

        Raises:
            Busy: the node is about to stop.
        """
        if self.closed:
            raise Busy(STOPPING_RETRY_S, "this node is stopping")

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a slot, after waiting for it if need be.

        Raises:
            Busy: too many are waiting.
        """
        if self._limiter.statistics().tasks_waiting >= self._line_max:
            raise Busy(2.0, "too much work is waiting")
        async with self._limiter:
            yield

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold a slot for the next piece of work that was taken on before, however many are waiting."""
        async with self._limiter:
            yield

    @property
    def busy(self) -> int:
        """Pieces of work in progress and in line."""
        now = self._limiter.statistics()
        return int(now.borrowed_tokens) + now.tasks_waiting

    @property
    def load(self) -> float:
        """Work in progress and in line, per slot."""
        now = self._limiter.statistics()
        return (now.borrowed_tokens + now.tasks_waiting) / now.total_tokens


class NodeIdentity(JurorSigner, Protocol):
    """What the market needs of an identity; `wire.identity.Identity` is one."""


class Executors(Protocol):
    """What runs models for us: `workloads.service.Pool`, or one in this process under a virtual clock."""

    async def run(self, spec: JobSpec, on_event: Callable[[Event], None]) -> tuple[Output, Trace]:
        """See `workloads.executor.Executor.run`."""
        ...

    async def recheck(self, spec: JobSpec, output: Output, trace: Trace, *, steps: Sequence[int] = ()) -> Expected:
        """See `workloads.executor.Executor.recheck`."""
        ...

    async def recompute(self, spec: JobSpec, step: int, state: Tensor) -> Tensor:
        """See `workloads.executor.Executor.recompute`."""
        ...


@dataclass(frozen=True)
class Context:
    """Handed to requester, worker and juror."""

    settings: Settings
    identity: NodeIdentity
    transport: Transport
    rpc: Rpc
    fetcher: Fetcher
    ledger: Ledger
    pool: Executors
    calibrations: Mapping[bytes, Calibration]
    keyring: Keyring
    records: Records
    models: Sequence[ModelInfo]
    now_ms: Callable[[], int]
    blame: Callable[[RemoteError], None]
    log: structlog.typing.FilteringBoundLogger
    shelf: Shelf = field(default_factory=Shelf)
    slots: Slots = field(default_factory=lambda: Slots(2))
