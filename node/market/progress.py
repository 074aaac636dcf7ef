"""What a run tells the requester while it goes on: pieces that come fast are sent together, and none is lost.

A frame per token would cost more than the token: at most one frame leaves every `PERIOD_S`, holding the newest count
and all text since the last one.
"""

from __future__ import annotations

import trio

from node.market.messages import Working
from wire import codec
from wire.transport import Channel
from workloads.executor import Event, Progress

PERIOD_S = 0.05


class Reporter:
    """Takes events as they come (`emit`) and sends them on (`forward`) until `finish`."""

    def __init__(self) -> None:
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

    async def forward(self, channel: Channel) -> None:
        """Send what comes, together where it comes fast.

        Raises:
            TransportError: the channel ended.
        """
        while not self._finished.is_set():
            await self._fresh.wait()
            await self._send(channel)
            with trio.move_on_after(PERIOD_S):
                await self._finished.wait()
        await self._send(channel)

    async def _send(self, channel: Channel) -> None:
        if not self._pending:
            return
        self._pending = False
        working = Working(self._done, self._total, "".join(self._text))
        self._text.clear()
        self._fresh = trio.Event()
        await channel.send(codec.encode(working))
