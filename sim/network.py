"""The simulated network: delays, lost connections, partitions and clogs between numbered nodes, in virtual time.

All that is on its way lies in one heap of (virtual time, sequence, action); one pump task sleeps until the
earliest is due and is woken only when an earlier one is added. Nothing here reads a clock but trio's (a
`MockClock` that jumps) or a random source but the seeded one, and nothing iterates over a set, so a run depends
on its seed alone. Two nodes share one connection, as they do over TCP: losing it ends all their channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from random import Random

import trio

from sim.channel import Item, Pipe, SimChannel
from sim.events import Action, EventQueue
from sim.faults import Faults
from sim.trace import Trace

STALL_S = 20.0
"""Seconds after which a connection that delivers nothing is given up by both sides."""


class SimNetwork:
    """Links between nodes 0, 1, 2, ...; `pump` must run in a task."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.faults = faults
        self.trace = Trace()
        self._random = Random(seed)
        self._events = EventQueue()
        self._earlier = trio.Event()
        self._cut: dict[tuple[int, int], None] = {}
        self._clogged: dict[tuple[int, int], float] = {}
        self._stalled: dict[Pipe, float] = {}
        self._connections: dict[tuple[int, int], dict[int, SimChannel]] = {}
        self._channels = 0

    # ---- the clockwork

    def now(self) -> float:
        """Virtual seconds."""
        return trio.current_time()

    def at(self, at_s: float, action: Action) -> None:
        """Plan an action."""
        if self._events.push(at_s, action):
            self._earlier.set()

    def after_delay(self, action: Action) -> None:
        """Plan an action one link delay from now."""
        self.at(self.now() + self.faults.delay_s(self._random), action)

    async def pump(self) -> None:
        """Let things happen when they are due, for ever."""
        while True:
            self._earlier = trio.Event()
            next_at_s = self._events.next_at_s
            with trio.move_on_at(next_at_s if next_at_s is not None else float("inf")):
                await self._earlier.wait()
            while (action := self._events.pop_due(self.now())) is not None:
                action()

    # ---- faults on demand

    def partition(self, one: Iterable[int], other: Iterable[int], *, both_ways: bool = True) -> None:
        """Stop everything from `one` to `other`, and back unless told otherwise, until `heal`."""
        sources, targets = list(one), list(other)
        for source in sources:
            for target in targets:
                self._cut[source, target] = None
                if both_ways:
                    self._cut[target, source] = None
        self.trace.note(self.now(), "partition", sources, targets, both_ways)

    def heal(self) -> None:
        """End all partitions and clogs; what was held up arrives after a new delay."""
        self._cut.clear()
        self._clogged.clear()
        self.trace.note(self.now(), "heal")
        held, self._stalled = list(self._stalled), {}
        for pipe in held:
            arrivals, pipe.stalled = pipe.stalled, 0
            for _ in range(arrivals):
                self.after_delay(partial(self._arrive, pipe))

    def clog(self, source: int, target: int, seconds: float) -> None:
        """Hold up everything from `source` to `target` for a while."""
        until_s = self.now() + seconds
        self._clogged[source, target] = max(until_s, self._clogged.get((source, target), 0.0))
        self.trace.note(self.now(), "clog", source, target)

    def lose_connection(self, one: int, other: int) -> None:
        """End every channel between two nodes, on both sides, with whatever is under way."""
        self.trace.note(self.now(), "reset", one, other)
        for channel in self._connections.pop(_pair(one, other), {}).values():
            self._kill(channel, "connection lost")

    def crash(self, node: int) -> None:
        """End every channel of a node at once; the others hear of it a delay later, or when they give up."""
        self.trace.note(self.now(), "crash", node)
        for pair in [pair for pair in self._connections if node in pair]:
            for channel in self._connections.pop(pair).values():
                own, remote = (channel, channel.other) if channel.out.source == node else (channel.other, channel)
                own.out.dead = remote.out.dead = True
                own.end("this node crashed")
                heard = partial(remote.end, "connection reset by the other side")
                if (node, remote.out.source) in self._cut:
                    self.at(self.now() + STALL_S, heard)
                else:
                    self.after_delay(heard)

    # ---- channels

    def is_connected(self, one: int, other: int) -> bool:
        """Whether the two share a connection."""
        return _pair(one, other) in self._connections

    def neighbours(self, node: int) -> list[int]:
        """The nodes to which `node` is connected."""
        return [sum(pair) - node for pair in self._connections if node in pair]

    def next_channel(self) -> int:
        """A number for a new channel."""
        self._channels += 1
        return self._channels

    def establish(self, channel: SimChannel) -> None:
        """The other side has accepted a channel: it now lives and dies with the connection."""
        pair = _pair(channel.out.source, channel.out.target)
        self._connections.setdefault(pair, {})[channel.out.channel] = channel

    def forget(self, channel: SimChannel) -> None:
        """Both sides have closed; the connection stays."""
        self._connections.get(_pair(channel.out.source, channel.out.target), {}).pop(channel.out.channel, None)

    def reset(self, channel: SimChannel, reason: str) -> None:
        """End one channel on both sides."""
        self.forget(channel)
        self._kill(channel, reason)

    def _kill(self, channel: SimChannel, reason: str) -> None:
        for end in (channel, channel.other):
            end.out.dead = True
            end.out.items.clear()
            end.end(reason)

    # ---- transmission

    def transmit(self, pipe: Pipe, item: Item, *, extra_delays: int = 0) -> None:
        """Send an item through a pipe, behind everything already in it."""
        if pipe.dead:
            return
        delay_s = sum(self.faults.delay_s(self._random) for _ in range(1 + extra_delays))
        pipe.last_at_s = max(self.now() + delay_s, pipe.last_at_s)
        pipe.items.append(item)
        self.at(pipe.last_at_s, partial(self._arrive, pipe))

    def _arrive(self, pipe: Pipe) -> None:
        if pipe.dead:
            return
        link = (pipe.source, pipe.target)
        if link in self._cut:
            self._stall(pipe)
            return
        if self._clogged.get(link, 0.0) > self.now():
            self.at(self._clogged[link], partial(self._arrive, pipe))
            return
        if self._random.random() < self.faults.reset_share:
            self.lose_connection(*link)
            if pipe.dead:
                return
        if self._random.random() < self.faults.clog_share:
            self.clog(*link, self._random.expovariate(1.0) * self.faults.clog_mean_s)
        item = pipe.items.popleft()
        fingerprint = hashlib.sha256(item.frame).hexdigest()[:16]
        self.trace.note(self.now(), item.kind, *link, pipe.channel, len(item.frame), fingerprint)
        item.deliver()

    def _stall(self, pipe: Pipe) -> None:
        pipe.stalled += 1
        if pipe not in self._stalled:
            since_s = self._stalled[pipe] = self.now()
            self.at(since_s + STALL_S, partial(self._give_up, pipe, since_s))

    def _give_up(self, pipe: Pipe, since_s: float) -> None:
        if self._stalled.get(pipe) == since_s and not pipe.dead:
            del self._stalled[pipe]
            self.lose_connection(pipe.source, pipe.target)


def _pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
