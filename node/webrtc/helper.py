"""The process that speaks WebRTC, as the node sees it: started when it is first needed, and again after a crash.

A crash ends the connections that it carried, each by the end of its socket; the node goes on. It is started again by
whoever needs it next, after a pause that doubles while it keeps crashing.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from node.reach.addresses import Scope
from node.webrtc.local import Reader, Said, Say
from wire.errors import Malformed, Unreachable

PAUSE_S, PAUSE_S_MAX = 1.0, 60.0
"""Seconds before it is started again after a crash; twice as many each time."""

HEALTHY_S = 60.0
"""It did not crash at once if it lived for so long."""

SAID_BYTES_MAX = 2048
"""What is kept of its last words."""


class Local:
    """One connection of the process, before its streams flow."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reader = Reader()

    async def say(self, kind: Say, text: str = "") -> None:
        """Tell the process.

        Raises:
            Unreachable: it has ended.
        """
        try:
            await self.stream.send_all(Said(kind, text).encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise Unreachable("the WebRTC process has ended") from exc

    async def heard(self) -> Said:
        """What it says next.

        Raises:
            Unreachable: it, or this connection, has ended.
        """
        while True:
            try:
                said = self._reader.next()
                if said is not None:
                    return said
                chunk = await self.stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError, Malformed) as exc:
                raise Unreachable(f"the WebRTC process failed: {exc}") from exc
            if not chunk:
                raise Unreachable("the WebRTC process has ended")
            self._reader.feed(chunk)

    def rest(self) -> bytes:
        """What came behind what was heard."""
        return self._reader.rest()


class Helper:
    """See `open_helper`."""

    def __init__(self, nursery: trio.Nursery, deny_subnets: Sequence[str]) -> None:
        self._nursery = nursery
        self._deny_subnets = list(deny_subnets)
        self._control: socket.socket | None = None
        self._starting = trio.Lock()
        self._not_before = -float("inf")
        self._pause_s = PAUSE_S
        self.process: trio.Process | None = None
        self.starts = 0
        self.last_words = b""

    async def connect(self, *, offer: bool, path: Scope, stun: tuple[str, int] | None) -> Local:
        """Order a connection; arguments as of `node.webrtc.connection.Order`.

        Raises:
            Unreachable: the process cannot be had now.
        """
        async with self._starting:
            if self._control is None:
                await self._start()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            order = json.dumps({"offer": offer, "path": path, "stun": stun}).encode()
            assert self._control is not None
            socket.send_fds(self._control, [order], [theirs.fileno()])
        except OSError as exc:
            ours.close()
            raise Unreachable(f"the WebRTC process takes no orders: {exc}") from exc
        finally:
            theirs.close()
        return Local(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    async def _start(self) -> None:
        if trio.current_time() < self._not_before:
            raise Unreachable("the WebRTC process has crashed, and is started again later")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self.process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "node.webrtc", str(theirs.fileno()), *self._deny_subnets],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        except OSError as exc:
            ours.close()
            raise Unreachable(f"the WebRTC process cannot be started: {exc}") from exc
        finally:
            theirs.close()
        self._control = ours
        self.starts += 1
        self._nursery.start_soon(self._watch, self.process, ours)

    async def _watch(self, process: trio.Process, control: socket.socket) -> None:
        began = trio.current_time()
        try:
            assert process.stderr is not None
            async with process.stderr:
                while more := await process.stderr.receive_some():
                    self.last_words = (self.last_words + more)[-SAID_BYTES_MAX:]
            await process.wait()
        finally:
            healthy = trio.current_time() - began >= HEALTHY_S
            self._pause_s = PAUSE_S if healthy else min(2 * self._pause_s, PAUSE_S_MAX)
            self._not_before = trio.current_time() + self._pause_s  # before anybody can see that it is to be started
            control.close()
            if self._control is control:
                self._control = None
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


def installed() -> bool:
    """Whether the extra `webrtc` is there."""
    return importlib.util.find_spec("aiortc") is not None


@asynccontextmanager
async def open_helper(deny_subnets: Sequence[str] = ()) -> AsyncIterator[Helper]:
    """The process, for as long as the scope lasts; nothing runs before it is needed."""
    async with trio.open_nursery() as nursery:
        yield Helper(nursery, deny_subnets)
        nursery.cancel_scope.cancel()
