"""Many runs of a model at once, each in a thread of its own, their network calls joined into batches.

The executor's code stays as it is: only the network behind it waits until every run of the group has called it, and
then computes the rows of all calls that fit together. Groups are formed beforehand and rows ordered by run, so a batch
depends on nothing but its jobs. Batching is one of the numeric variants: rounding differs as between honest backends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wire.errors import LocalError

T = TypeVar("T")
Array = NDArray[Any]
Network = Callable[..., Any]
GROUP = 16


@dataclass(frozen=True)
class Axes:
    """Along which axis each argument and each result holds one row per run; None: the same for all."""

    arguments: tuple[int | None, ...]
    results: tuple[int, ...]


IMAGE = Axes((0, 0), (0,))
TEXT = Axes((0, None, None, None, 1), (0, 0, 1))
"""Of the networks in `workloads.forward`."""


class _Call:
    """One run's call of a network, and later its result."""

    def __init__(self, member: int, network: Network, axes: Axes, arguments: tuple[Array, ...]) -> None:
        self.member, self.network, self.axes, self.arguments = member, network, axes, arguments
        self.result: Any = None

    def fits(self) -> tuple[object, ...]:
        """Calls with equal values can be computed together."""
        parts: list[object] = [id(self.network)]
        for axis, value in zip(self.axes.arguments, self.arguments, strict=True):
            parts.append(value.tobytes() if axis is None else value.shape[:axis] + value.shape[axis + 1 :])
        return tuple(parts)


class Party:
    """Runs that wait for one another at every call of a network wrapped by `join`."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._here = threading.local()
        self._members = 0
        self._waiting: list[_Call] = []
        self._failed = False

    def join(self, network: Network, axes: Axes) -> Network:
        """The same network, in batches for whoever calls it within `run`."""

        def joined(*arguments: Array) -> Any:
            member = getattr(self._here, "member", None)
            return network(*arguments) if member is None else self._call(_Call(member, network, axes, arguments))

        return joined

    def run(self, tasks: Sequence[Callable[[], T]], group: int = GROUP) -> list[T]:
        """The results in order; `group` tasks at a time.

        Raises:
            LocalError: a network failed for some other run of the group. Whatever a task raises.
        """
        results: list[T] = []
        for at in range(0, len(tasks), group):
            part = tasks[at : at + group]
            self._members, self._failed = len(part), False
            with ThreadPoolExecutor(len(part)) as pool:
                results += pool.map(self._one, range(len(part)), part)
        return results

    def _one(self, member: int, task: Callable[[], T]) -> T:
        self._here.member = member
        try:
            return task()
        finally:
            self._here.member = None
            with self._turn:
                self._members -= 1
                self._compute_if_complete()

    def _call(self, call: _Call) -> Any:
        with self._turn:
            self._waiting.append(call)
            self._compute_if_complete()
            self._turn.wait_for(lambda: call.result is not None or self._failed)
        if call.result is None:
            raise LocalError("the network failed for another run of the group")
        return call.result

    def _compute_if_complete(self) -> None:
        if not self._waiting or len(self._waiting) < self._members:
            return
        calls, self._waiting = sorted(self._waiting, key=lambda call: call.member), []
        groups: dict[tuple[object, ...], list[_Call]] = {}
        for call in calls:
            groups.setdefault(call.fits(), []).append(call)
        self._failed = True
        try:
            for group in groups.values():
                _compute(group)
            self._failed = False
        finally:
            self._turn.notify_all()


def _compute(calls: Sequence[_Call]) -> None:
    """All rows in one batch; each call gets its own back."""
    axes, first = calls[0].axes, calls[0].arguments
    columns = list(zip(*(call.arguments for call in calls), strict=True))
    joined = [
        first[i] if axis is None else np.concatenate(columns[i], axis=axis) for i, axis in enumerate(axes.arguments)
    ]
    counts = [call.arguments[0].shape[0] for call in calls]
    found = calls[0].network(*joined)
    results = found if len(axes.results) > 1 else (found,)
    cuts = np.cumsum(counts)[:-1]
    parts = [np.split(value, cuts, axis=axis) for value, axis in zip(results, axes.results, strict=True)]
    for call, own in zip(calls, zip(*parts, strict=True), strict=True):
        call.result = own if len(axes.results) > 1 else own[0]
