"""What the three roles of the market share: identity, seams, clock and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from workloads.executor import ModelInfo
from workloads.service import Pool

from ledger.service import Ledger
from node.calibrations import Calibrations
from node.config import Settings
from node.keys import Keyring
from wire.errors import Busy, RemoteError
from wire.identity import Identity
from wire.transport import Transport


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


@dataclass(frozen=True)
class Context:
    """Handed to requester, worker and juror."""

    settings: Settings
    identity: Identity
    transport: Transport
    ledger: Ledger
    pool: Pool
    calibrations: Calibrations
    keyring: Keyring
    models: Sequence[ModelInfo]
    now_ms: Callable[[], int]
    blame: Callable[[RemoteError], None]
    log: structlog.typing.FilteringBoundLogger
    slots: Slots = field(default_factory=lambda: Slots(2))
