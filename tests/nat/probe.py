"""A node's network half as a process: our real transport, told over standard input what to do.

One JSON object a line in each direction. It says `{"peer": ..., "addresses": [...]}` when it is ready, answers each
`{"do": ..., ...}` with `{"ok": ...}` or `{"error": ...}`, in order, and ends when its input does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from node.transport_libp2p import Libp2pTransport, open_transport
from wire.errors import RemoteError, TransportError
from wire.peer import from_text, to_text
from wire.transport import Channel

ECHO = "/quorate/lab/echo/1"


async def _echo(channel: Channel) -> None:
    while True:
        await channel.send(await channel.receive())


class Probe:
    """The commands, one method each."""

    def __init__(self, transport: Libp2pTransport) -> None:
        self._transport = transport
        self._kept: Channel | None = None

    async def learn(self, peer: str, addresses: list[str]) -> None:
        """Where a peer may be dialled."""
        self._transport.learn(from_text(peer), addresses)

    async def addresses(self) -> list[str]:
        """What we advertise."""
        return self._transport.addresses()

    async def echo(self, peer: str, seconds_max: float) -> float:
        """Open a channel, send one frame, get it back; the seconds that it took."""
        began = trio.current_time()
        with trio.fail_after(seconds_max):
            channel = await self._transport.open(from_text(peer), ECHO)
            try:
                await _there_and_back(channel)
            finally:
                await channel.aclose()
        return trio.current_time() - began

    async def keep(self, peer: str, seconds_max: float) -> None:
        """Open a channel and keep it open for `again`."""
        with trio.fail_after(seconds_max):
            self._kept = await self._transport.open(from_text(peer), ECHO)
            await _there_and_back(self._kept)

    async def again(self, seconds_max: float) -> None:
        """One more frame over the channel that was kept."""
        assert self._kept is not None
        with trio.fail_after(seconds_max):
            await _there_and_back(self._kept)


async def _there_and_back(channel: Channel) -> None:
    await channel.send(b"there and back")
    if await channel.receive() != b"there and back":
        raise AssertionError("the echo is another frame")


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


async def _obey(probe: Probe, line: str) -> None:
    order = json.loads(line)
    method: Callable[..., Awaitable[Any]] = getattr(probe, order.pop("do"))
    try:
        _say(ok=await method(**order))
    except trio.TooSlowError:
        _say(error="too slow")
    except (TransportError, RemoteError) as exc:
        _say(error=str(exc))


async def main(config: dict[str, Any]) -> None:
    """Run until the input ends."""
    async with open_transport(config["seed"].encode(), listen=config["listen"], blame=_blame) as transport:
        transport.serve(ECHO, _echo)
        _say(peer=to_text(transport.peer), addresses=transport.addresses())
        probe = Probe(transport)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await _obey(probe, line)


def _blame(exc: RemoteError) -> None:
    print(f"blamed: {exc}", file=sys.stderr)


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
