"""Handshakes of strangers, one step after the other, within a share of the processor.

Each costs milliseconds before anybody knows who it is, so a crowd that begins them all at once would be served instead
of everybody else. Here each message of a handshake waits for its turn: one in a turn of the scheduler, in the order
in which they came, and once the allowance is spent only as fast as `SHARE` lets it grow. How many may wait is bounded
by `node.libp2p.gate`, how long by the time limit of a handshake.
"""

from __future__ import annotations

from time import thread_time
from typing import Any, cast

import trio
from libp2p.abc import IRawConnection

SHARE = 0.3
"""Of the processor, while handshakes wait."""

BURST_S = 0.2
"""Processor time that may go into handshakes at once."""


BRING_UP_S = 0.002
"""What it costs, about, to bring up a connection behind its handshake."""


class Turns:
    """The queue of one node."""

    def __init__(self) -> None:
        self._queue = trio.Lock()
        self._left, self._at = BURST_S, 0.0
        self.steps = 0

    async def mine(self) -> None:
        """Wait for one's turn; what it takes is to be told by `spent`."""
        async with self._queue:
            now = trio.current_time()
            self._left = min(BURST_S, self._left + SHARE * (now - self._at))
            self._at = now
            await trio.sleep(max(0.0, -self._left / SHARE))
        self.steps += 1

    def spent(self, seconds: float) -> None:
        """So long the processor was at it."""
        self._left -= seconds


class TakingTurns(IRawConnection):
    """A raw connection during its handshake: whatever comes is acted upon when it is this one's turn."""

    def __init__(self, inner: IRawConnection, turns: Turns) -> None:
        self.is_initiator = inner.is_initiator
        self._inner = inner
        self._turns = turns
        self._began_s: float | None = None

    async def read(self, n: int | None = None) -> bytes:
        """As the connection does, in turn; the two bytes of a length cost nothing."""
        self.pause()
        data = await self._inner.read(n)
        if len(data) > 2:
            await self._turns.mine()
            self._began_s = thread_time()
        return data

    async def write(self, data: bytes) -> None:
        """As the connection does."""
        self.pause()
        await self._inner.write(data)

    def pause(self) -> None:
        """What was begun is done for now."""
        if self._began_s is not None:
            self._turns.spent(thread_time() - self._began_s)
            self._began_s = None

    async def close(self) -> None:
        """As the connection does."""
        await self._inner.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._inner.get_remote_address()

    def get_transport_addresses(self) -> Any:
        return self._inner.get_transport_addresses()

    def get_connection_type(self) -> Any:
        return self._inner.get_connection_type()


def returned(session: Any, inner: IRawConnection) -> None:
    """The handshake is over: its session reads from the connection itself."""
    cast(Any, session).conn.read_writer.read_write_closer = inner
