"""Runs one node as a process: a lock on its home, signals, and a bounded end.

The first SIGINT or SIGTERM lets it finish what is under way (`node.draining`), for `drain_s` at most; the second ends
it within three seconds, and so does the end of draining; a third one at once.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from node import log
from node.config import Settings
from wire.errors import LocalError, StorageError

STOP_S = 2.5
"""Seconds until what still runs is given up, so that the process, which also has to unload, ends within three."""


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the home: two nodes on one key would sign two histories, which is a fork."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise StorageError(f"{home} cannot be this node's folder: {exc.strerror}; choose another with --home") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LocalError(f"{home}: another node is running on this home") from None
    try:
        yield
    finally:
        os.close(descriptor)


def run(settings: Settings) -> int:
    """Run until SIGINT or SIGTERM; returns the exit status.

    Raises:
        LocalError: the node cannot start; the message says why.
    """
    log.configure(settings.log_level, as_json=settings.log_json)
    with _locked(settings.home):
        try:
            trio.run(_main, settings)
        except* LocalError as group:
            raise _first(group) from group
    return 0


def _first(group: BaseExceptionGroup[LocalError]) -> LocalError:
    """The error inside the groups that the nurseries on its way put around it."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class _Stopping:
    """How far the end has come."""

    def __init__(self, everything: trio.CancelScope) -> None:
        self._everything = everything
        self.asked = trio.Event()
        self.ready = False
        self.scope = trio.CancelScope()

    def stop(self) -> None:
        """End now, in order."""
        self._everything.deadline = min(self._everything.deadline, trio.current_time() + STOP_S)
        self.scope.cancel()

    async def watch_signals(self) -> None:
        """See the module."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self.scope.cancel_called:
                    os._exit(128 + number)
                log.get().info("stopping", signal=signal.Signals(number).name)
                if self.asked.is_set() or not self.ready:
                    self.stop()
                self.asked.set()


async def _main(settings: Settings) -> None:
    from node.compose import open_node
    from node.draining import drain

    async with trio.open_nursery() as nursery:
        stopping = _Stopping(nursery.cancel_scope)
        nursery.start_soon(stopping.watch_signals)
        with stopping.scope:
            async with open_node(settings) as node:
                log.get().info("ready", **_greeting(node.about()))
                stopping.ready = True
                await stopping.asked.wait()
                with trio.move_on_after(settings.drain_s) as patience:
                    await drain(node)
                if patience.cancelled_caught:
                    log.get().warning("not_drained", after_s=settings.drain_s)
                stopping.stop()
        nursery.cancel_scope.cancel()


def _greeting(about: dict[str, Any]) -> dict[str, Any]:
    """What an operator needs in one line; `quorate doctor` and the API tell the rest."""
    shown = {key: about[key] for key in ("version", "peer", "addresses", "roles", "balance_micro")}
    return {**shown, "models": [model["name"] for model in about["models"]]}
