"""One look at the clock for all connections of a transport: a task for each would cost more memory than all else."""

from __future__ import annotations

from typing import Protocol

import trio

TICK_S = 5.0
"""How often a connection looks at the clock."""


class Ticked(Protocol):
    """A connection."""

    def tick(self, now: float) -> bool:
        """What time brings; false if that is the connection's end."""
        ...

    async def shut(self) -> None:
        """Close what is below."""
        ...


class Ticker:
    """Whoever has joined is ticked every `TICK_S`, in the order of joining."""

    def __init__(self) -> None:
        self._all: dict[Ticked, None] = {}

    def join(self, one: Ticked) -> None:
        """From now on."""
        self._all[one] = None

    def leave(self, one: Ticked) -> None:
        """No more; leaving twice is no fault."""
        self._all.pop(one, None)

    async def run(self) -> None:
        """Tick for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(TICK_S)
                for one in list(self._all):
                    if not one.tick(trio.current_time()):
                        self.leave(one)
                        nursery.start_soon(one.shut)
