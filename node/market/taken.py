"""Which jobs this node has taken on: each is done once, by itself or in one batch.

A second commitment to a job would give its requester a second draw of the jury to choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ledger.service import Ledger
from node.market.refuse import Refuse


class Taken:
    """Jobs by id, remembered until their deadline; past it they are refused anyway.

    Args:
        ledger: knows what was accepted before this node last started.
        now_ms: Unix time.
    """

    def __init__(self, ledger: Ledger, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self._until_ms: dict[bytes, int] = {}

    @contextmanager
    def hold(self, jobs: Sequence[bytes], until_ms: int) -> Iterator[None]:
        """Take jobs, all or none; those of which nothing was accepted in the end can be offered again.

        Args:
            jobs: ids of 32 bytes; of a batch, the batch itself and its jobs.
            until_ms: their deadline, Unix time.

        Raises:
            Refuse: one was taken before, or is being done.
        """
        self._forget()
        if any(job in self._until_ms or self._ledger.job(job) is not None for job in jobs):
            raise Refuse("refused", "this job was taken before")
        self._until_ms |= dict.fromkeys(jobs, until_ms)
        try:
            yield
        finally:
            if self._ledger.job(jobs[0]) is None:  # nothing was accepted
                for job in jobs:
                    self._until_ms.pop(job, None)

    def _forget(self) -> None:
        now_ms = self._now_ms()
        for job in [job for job, until_ms in self._until_ms.items() if until_ms < now_ms]:
            del self._until_ms[job]
