"""What the ledger needs of others; the composition root fills it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, TypeVar

from ledger.entry import Entry
from wire.job import Certificate

T = TypeVar("T")

Finding = Literal["valid", "invalid", "unknown"]


class CertificateCheck(Protocol):
    """Whether a quorum certificate's aggregate signature holds.

    `quorum` is how many signers it takes (`ledger.certificates`). Answers "unknown", never
    "invalid", when a signer's BLS key is not at hand: a gap may close later, an "invalid" stays.
    """

    def __call__(self, certificate: Certificate, *, quorum: int) -> Finding: ...


class Lookup(Protocol):
    """Finds an entry of any chain by its id; only entries that were verified are found."""

    def __call__(self, entry_id: bytes) -> Entry | None: ...


class RunSync(Protocol):
    """Runs a blocking function away from the event loop (`trio.to_thread.run_sync`); the simulator runs it inline."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]: ...


def nothing_known(entry_id: bytes) -> Entry | None:
    """A `Lookup` that knows no other chain."""
    return None
