"""Worlds: nodes with seeded identities on a simulated network, under a virtual clock.

    async with world(nodes=5, seed=seed, faults=ROUGH, build=build) as w:
        w.net.partition([0, 1], [2, 3, 4])
        await trio.sleep(60)                 # virtual
        w.net.heal()
        with trio.fail_after(120):
            await w.until(lambda: len({n.app.digest() for n in w.nodes}) == 1)

Run it under `trio.testing.MockClock(autojump_threshold=0)` (`run`, or pytest-trio's `autojump_clock`): time then
jumps whenever nothing is left to do now. A failure carries the seed that repeats it. Threads do not belong in a
world: the clock jumps while they work (trio issue 456).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, TypeVar

import trio
import trio.testing

from sim.determinism import deterministic_scheduling
from sim.faults import CALM, Faults
from sim.network import SimNetwork
from sim.transport import Directory, SimTransport, address_of
from wire.errors import RemoteError
from wire.hashing import digest
from wire.identity import Identity
from wire.peer import PeerId
from wire.serving import Bug

POLL_S = 0.05
"""Virtual seconds between two looks at the predicate of `until`."""

T = TypeVar("T")
Build = Callable[["SimNode"], AbstractAsyncContextManager[Any]]


class SimNode:
    """One node: an identity for ever, a `disk` that outlives crashes, and a transport and an app per life.

    `build(node)` is entered when a life begins; what it yields is `app`. A crash cancels it with the network
    already gone, so nothing that its `finally` blocks send reaches anybody.
    """

    def __init__(self, world: World, number: int, seed: bytes) -> None:
        self._world = world
        self.number = number
        self.identity = Identity.from_seed(seed)
        self.peer = self.identity.peer
        self.random = Random(seed)
        self.disk: dict[str, Any] = {}
        self.blamed: list[RemoteError] = []
        self.app: Any = None
        self._transport: SimTransport | None = None
        self._life: trio.CancelScope | None = None
        self._over = trio.Event()

    @property
    def others(self) -> list[PeerId]:
        """All other nodes of the world."""
        return [node.peer for node in self._world.nodes if node is not self]

    @property
    def transport(self) -> SimTransport:
        """Of the present life."""
        assert self._transport is not None, "the node has not started"
        return self._transport

    @property
    def alive(self) -> bool:
        """Whether a life is under way."""
        return self._life is not None

    async def live(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """One life, until `crash` or the end of the world."""
        self._over = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                self._life = nursery.cancel_scope
                self._transport = self._world.connect(self, nursery)
                async with self._world.build(self) as app:
                    self.app = app
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            if self._transport is not None:
                self._transport.crash()
            self._life = None
            self._over.set()

    async def crash(self, *, keep_disk: bool = True) -> None:
        """Die at once; without its disk the next life starts with an empty one."""
        if self._life is None:
            return
        self.transport.crash()
        self._life.cancel()
        if not keep_disk:
            self.disk = {}
        await self._over.wait()

    async def restart(self) -> None:
        """Begin the next life, with the same identity."""
        assert not self.alive, "crash it first"
        await self._world.start(self)


class World:
    """All nodes and their network; made by `world`."""

    def __init__(
        self, nodes: int, seed: int, faults: Faults, *, build: Build | None, introduce: bool, on_bug: Bug | None
    ) -> None:
        assert nodes > 0, "a world has nodes"
        self.seed = seed
        self._introduce = introduce
        self.net = SimNetwork(seed, faults)
        self.build: Build = build if build is not None else _no_app
        self._on_bug = on_bug
        self._directory = Directory()
        self._nursery: trio.Nursery | None = None
        material = seed.to_bytes(16, "big", signed=True)
        self.nodes = [SimNode(self, n, digest("sim.node", material, n.to_bytes(4, "big"))) for n in range(nodes)]
        self._directory.number.update((node.peer, node.number) for node in self.nodes)
        self.random = Random(digest("sim.world", material))

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.net.now()

    @property
    def third(self) -> list[int]:
        """The numbers of the first third of the nodes (at least one)."""
        return list(range(max(1, len(self.nodes) // 3)))

    @property
    def rest(self) -> list[int]:
        """The numbers of the others."""
        return list(range(len(self.third), len(self.nodes)))

    def connect(self, node: SimNode, nursery: trio.Nursery) -> SimTransport:
        """A transport for a new life of `node`; it knows where everybody is, if the world introduces them."""
        transport = SimTransport(
            self.net, self._directory, node.peer, nursery, blame=node.blamed.append, on_bug=self._on_bug
        )
        for other in self.nodes if self._introduce else ():
            transport.learn(other.peer, [address_of(other.number, other.peer)])
        return transport

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The network and the first lives of all nodes, in the order of their numbers."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.net.pump)
            for node in self.nodes:
                await self.start(node)
            yield
            nursery.cancel_scope.cancel()

    async def start(self, node: SimNode) -> None:
        """Begin a life of `node`; returns when its app is up."""
        assert self._nursery is not None, "the world is not running"
        await self._nursery.start(node.live)

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return once `predicate` holds; the caller bounds the virtual time."""
        while not predicate():  # noqa: ASYNC110 - a predicate over several nodes has no event to wait for
            await trio.sleep(POLL_S)


@asynccontextmanager
async def _no_app(node: SimNode) -> AsyncIterator[None]:
    yield None


@asynccontextmanager
async def world(
    *,
    nodes: int,
    seed: int,
    faults: Faults = CALM,
    build: Build | None = None,
    introduce: bool = True,
    on_bug: Bug | None = None,
) -> AsyncIterator[World]:
    """A running world; leaving the scope ends it.

    Args:
        nodes: how many.
        seed: decides every delay, fault, identity and scheduling choice.
        faults: how rough the network is.
        build: makes the app of a node, once per life.
        introduce: whether each node knows all addresses from the start; else `learn` some.
        on_bug: told of errors of handlers that are nobody else's fault; without it they end the world.
    """
    made = World(nodes, seed, faults, build=build, introduce=introduce, on_bug=on_bug)
    try:
        with deterministic_scheduling(seed):
            async with made.running():
                yield made
    except Exception as exc:
        exc.add_note(f"in a simulated world: seed={seed} nodes={nodes} trace={made.net.trace.hash}")
        raise


def run(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """Run `main` under a virtual clock, scheduled by `seed` from its first step."""
    with deterministic_scheduling(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
