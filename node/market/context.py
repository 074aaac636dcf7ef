"""What the three roles of the market share: identity, seams, clock and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from ledger.service import Ledger
from node.config import Settings
from node.keys import Keyring
from verify.calibration import Calibration
from verify.juror import JurorSigner
from wire.errors import Busy, RemoteError
from wire.job import Expected, JobSpec, Output, Trace
from wire.transport import Transport
from workloads.executor import Event, ModelInfo


@dataclass
class Slots:
    """Jobs and audits that may be in progress at once."""

    free: int

    def take(self) -> None:
        """Raises: Busy if none is free."""
        if self.free <= 0:
            raise Busy(2.0, "all slots are taken")
        self.free -= 1

    def give_back(self) -> None:
        """Free a slot that was taken."""
        self.free += 1


class NodeIdentity(JurorSigner, Protocol):
    """What the market needs of an identity; `wire.identity.Identity` is one."""


class Executors(Protocol):
    """What runs models for us: `workloads.service.Pool`, or one in this process under a virtual clock."""

    async def run(self, spec: JobSpec, on_event: Callable[[Event], None]) -> tuple[Output, Trace]:
        """See `workloads.executor.Executor.run`."""
        ...

    async def recheck(self, spec: JobSpec, output: Output, trace: Trace) -> Expected:
        """See `workloads.executor.Executor.recheck`."""
        ...


@dataclass(frozen=True)
class Context:
    """Handed to requester, worker and juror."""

    settings: Settings
    identity: NodeIdentity
    transport: Transport
    ledger: Ledger
    pool: Executors
    calibrations: Mapping[bytes, Calibration]
    keyring: Keyring
    models: Sequence[ModelInfo]
    now_ms: Callable[[], int]
    blame: Callable[[RemoteError], None]
    log: structlog.typing.FilteringBoundLogger
    slots: Slots = field(default_factory=lambda: Slots(2))
