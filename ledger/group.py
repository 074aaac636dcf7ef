"""Group commit: appends that wait together share one durable transaction.

A group is whatever queued up while the last commit ran, at most `GROUP_MAX` requests; nobody waits for a timer. Each
request is answered after the commit that holds it, and every request is answered, also when the ledger stops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from ledger.entry import Entry
from ledger.writer import Request, Result
from wire.errors import Busy, LocalError, StorageError

QUEUE_MAX = 1024
GROUP_MAX = 256
RETRY_S = 0.5

Commit = Callable[[list[Request]], Awaitable[Sequence[Result]]]


@dataclass(slots=True)
class _Waiting:
    """An append on its way; `result` is set when `done` is."""

    request: Request
    done: trio.Event = field(default_factory=trio.Event)
    result: Result | None = None

    def answer(self, result: Result) -> None:
        self.result = result
        self.done.set()


class GroupCommit:
    """A bounded queue in front of `commit`; one task must run `run`."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._send, self._receive = trio.open_memory_channel[_Waiting](QUEUE_MAX)

    async def submit(self, request: Request) -> list[Entry]:
        """Append what `request` asks for; on return it is durable.

        Raises:
            LocalError, StorageError: as the commit says; the ledger is closed.
            Busy: too many appends are waiting.
        """
        waiting = _Waiting(request)
        try:
            self._send.send_nowait(waiting)
        except trio.WouldBlock:
            raise Busy(RETRY_S, "the ledger's queue is full") from None
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            raise LocalError("the ledger is closed") from None
        await waiting.done.wait()
        assert waiting.result is not None, "an answered request has a result"
        if isinstance(waiting.result, LocalError):
            raise waiting.result
        return list(waiting.result)

    def close(self) -> None:
        """Take no more requests; `run` ends when those waiting are committed."""
        self._send.close()

    async def run(self) -> None:
        """Commit what is waiting, a group at a time, until `close`."""
        try:
            async for first in self._receive:
                group = [first]
                with suppress(trio.WouldBlock, trio.EndOfChannel):
                    while len(group) < GROUP_MAX:
                        group.append(self._receive.receive_nowait())
                await self._commit_group(group)
        finally:
            self._refuse_waiting()

    async def _commit_group(self, group: list[_Waiting]) -> None:
        results: Sequence[Result] = [LocalError("the ledger was stopped")] * len(group)
        try:
            results = await self._commit([waiting.request for waiting in group])
        except StorageError as exc:
            results = [StorageError(str(exc)) for _ in group]
        finally:
            for waiting, result in zip(group, results, strict=True):
                waiting.answer(result)

    def _refuse_waiting(self) -> None:
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._receive.receive_nowait().answer(LocalError("the ledger is closed"))
        self._receive.close()
