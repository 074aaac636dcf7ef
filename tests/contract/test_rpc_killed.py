"""Calls to a process that is killed: each ends with a typed error, and its next life answers."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from node.rpc.node import open_rpc
from node.transport_libp2p import open_transport
from tests.contract.rpc_child import ECHO, HANG, Text
from wire.errors import TransportError
from wire.peer import from_text

COMMAND = [sys.executable, "-m", "tests.contract.rpc_child"]


class Child:
    """The process, and what it has printed since it was last asked."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._text = ""

    async def line(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        while "\n" not in self._text:
            more = await self.process.stdout.receive_some()
            assert more, "the child has ended"
            self._text += more.decode()
        first, _, self._text = self._text.partition("\n")
        return first


@asynccontextmanager
async def child() -> AsyncIterator[Child]:
    """One life of it."""
    root = Path(__file__).parents[2]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(COMMAND, stdout=subprocess.PIPE, cwd=root)
        try:
            yield Child(process)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                if process.stdout is not None:
                    await process.stdout.aclose()
            nursery.cancel_scope.cancel()


async def test_every_call_to_a_killed_process_ends_and_its_next_life_answers() -> None:
    ended: Counter[str] = Counter()
    async with (
        open_transport(b"a" * 32, listen=[], blame=print) as transport,
        open_rpc(transport, blame=print) as rpc,
    ):
        with trio.fail_after(60):
            async with child() as first:
                address = await first.line()
                peer = from_text(address.rpartition("/")[2])
                transport.learn(peer, [address])
                assert await rpc.call(peer, ECHO, Text("well?"), timeout_s=30) == Text("well?")

                async def call(n: int) -> None:
                    try:
                        await rpc.call(peer, HANG, Text(f"call {n}"), timeout_s=45)
                    except TransportError as exc:
                        ended[type(exc).__name__] += 1

                async with trio.open_nursery() as nursery:
                    for n in range(20):
                        nursery.start_soon(call, n)
                    assert {await first.line() for _ in range(20)} == {f"call {n}" for n in range(20)}
                    first.process.kill()
            assert ended == {"ChannelClosed": 20}
            assert rpc.under_way() == (0, 0)
            async with child() as second:
                transport.learn(peer, [await second.line()])
                assert await rpc.call(peer, ECHO, Text("again"), timeout_s=30) == Text("again")
