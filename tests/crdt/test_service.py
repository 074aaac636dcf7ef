"""Nodes with real files on an in-memory network, under a virtual clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from crdt.limits import PAGE_OPS_MAX
from crdt.namespace import Namespace, author_key
from crdt.op import MapSet, SetAdd
from crdt.service import Offload, Replicas, open_replicas, run_inline
from crdt.sync import PULL, PUSH, Pull, Push, Pushed
from node.rpc.node import RpcNode, open_rpc
from tests.crdt.helpers import NOW_MS, Key, Net, signed
from wire.errors import LocalError, Refused, RemoteError, StorageError
from wire.peer import PeerId
from wire.rpc.seam import Method

NAMESPACES = (Namespace("models", "map", "author-keyed"), Namespace("tags", "set"))
PERIOD_S = 2.0


def now_ms() -> int:
    return NOW_MS + round(trio.current_time() * 1000)


@dataclass
class World:
    net: Net
    folder: Path
    keys: dict[str, Key] = field(default_factory=dict)
    faults: list[RemoteError] = field(default_factory=list)

    def peers(self) -> list[PeerId]:
        return [key.peer for key in self.keys.values()]

    @asynccontextmanager
    async def node(
        self,
        name: str,
        namespaces: Sequence[Namespace] = NAMESPACES,
        *,
        period_s: float = PERIOD_S,
        offload: Offload = run_inline,
    ) -> AsyncIterator[Replicas]:
        key = self.keys.setdefault(name, Key(name))
        async with (
            self.calls(key) as rpc,
            open_replicas(
                self.folder / f"{name}.db",
                key,
                rpc,
                now_ms,
                namespaces=namespaces,
                peers=self.peers,
                period_s=period_s,
                blame=self.faults.append,
                rng=random.Random(name),
                offload=offload,
            ) as replicas,
        ):
            yield replicas

    def calls(self, key: Key) -> AbstractAsyncContextManager[RpcNode]:
        """What a node, or somebody who is none, calls with."""
        return open_rpc(self.net.transport(key.peer), blame=self.faults.append)


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> World:
    return World(Net(nursery), tmp_path)


async def until(true: Callable[[], bool], within_s: float) -> None:
    with trio.fail_after(within_s):
        while not true():  # noqa: ASYNC110 - virtual time; a digest has no event of its own
            await trio.sleep(0.05)


def equal(nodes: Sequence[Replicas]) -> bool:
    return len({node.digest() for node in nodes}) == 1


async def test_a_local_change_is_pushed_to_peers_before_any_pull(world: World, autojump_clock: MockClock) -> None:
    async with world.node("ann") as ann, world.node("bob") as bob:
        key = author_key(world.keys["ann"].peer, "cid")
        async with bob.changes() as watch:
            await ann.map_set("models", key, b"card")
            await ann.set_add("tags", b"small")
            with trio.fail_after(0.1):
                assert {await anext(watch), await anext(watch)} == {"models", "tags"}
        assert bob.map_get("models", key) == b"card"
        assert bob.set_members("tags") == [b"small"]
        assert ann.digest() == bob.digest()
        assert world.faults == []


async def test_nodes_that_were_apart_converge_within_a_few_periods(world: World, autojump_clock: MockClock) -> None:
    async with AsyncExitStack() as stack:
        nodes = {name: await stack.enter_async_context(world.node(name)) for name in "abcdef"}
        left = {world.keys[name].peer for name in "abc"}
        world.net.cut = lambda one, other: (one in left) != (other in left)
        for name, node in nodes.items():
            await node.map_set("models", author_key(world.keys[name].peer, "m"), name.encode())
            await node.set_add("tags", b"common")
            await node.set_add("tags", name.encode())
        await nodes["a"].set_remove("tags", b"common")
        await trio.sleep(3 * PERIOD_S)
        assert not equal(list(nodes.values()))
        world.net.cut = lambda one, other: False
        await until(lambda: equal(list(nodes.values())), within_s=6 * PERIOD_S)
        assert nodes["a"].set_members("tags") == [b"a", b"b", b"c", b"common", b"d", b"e", b"f"]
        assert len(nodes["f"].map_items("models")) == 6
        assert world.faults == []


async def test_a_newcomer_pulls_more_than_one_page(world: World, autojump_clock: MockClock) -> None:
    count = 2 * PAGE_OPS_MAX + 7
    async with world.node("ann") as ann:
        async with trio.open_nursery() as nursery:
            for index in range(count):
                nursery.start_soon(ann.set_add, "tags", b"%d" % index)
        async with world.node("bob") as bob:
            assert await bob.sync_with(world.keys["ann"].peer)
            assert len(bob.set_members("tags")) == count
            assert ann.digest() == bob.digest()


async def test_a_restarted_node_reads_back_what_it_held_and_goes_on(world: World, autojump_clock: MockClock) -> None:
    async with world.node("ann") as ann:
        async with world.node("bob") as bob:
            await bob.set_add("tags", b"one")
            before = bob.digest()
        await ann.set_add("tags", b"two")
        async with world.node("bob") as bob:
            assert bob.digest() == before
            await bob.set_add("tags", b"three")
            await until(lambda: equal([ann, bob]), within_s=4 * PERIOD_S)
            assert ann.set_members("tags") == [b"one", b"three", b"two"]
            assert ann.forks("tags") == []


async def test_a_change_that_the_rules_forbid_is_refused_at_once(world: World, autojump_clock: MockClock) -> None:
    async with world.node("ann") as ann:
        for change in (
            partial(ann.map_set, "models", author_key(Key("bob").peer, "cid"), b"mine now"),
            partial(ann.map_set, "nowhere", "key", b""),
            partial(ann.set_add, "models", b"not a set"),
            partial(ann.set_add, "tags", b"x" * 5000),
        ):
            with pytest.raises(LocalError):
                await change()
        assert ann.operations("models") == ann.operations("tags") == 0


async def test_other_rules_and_unknown_namespaces_are_refused(world: World, autojump_clock: MockClock) -> None:
    other = (Namespace("models", "map", "open"), Namespace("tags", "set"))
    async with world.node("ann"), world.node("bob", other) as bob:
        with pytest.raises(Refused, match="other rules"):
            await bob.sync_with(world.keys["ann"].peer)
        unknown = Pull("nowhere", bytes(32), bytes(32), None, 0, [])
        async with world.calls(Key("mallory")) as rpc:
            with pytest.raises(Refused, match="unknown namespace"):
                await rpc.call(world.keys["ann"].peer, PULL, unknown, timeout_s=5.0)


async def test_bad_operations_are_charged_to_the_sender_and_the_rest_is_kept(
    world: World, autojump_clock: MockClock
) -> None:
    mallory = Key("mallory")
    rules = NAMESPACES[0].rules
    good = signed(mallory, MapSet(author_key(mallory.peer, "m"), b"v"), namespace="models")
    forged = good.raw[:-1] + bytes([good.raw[-1] ^ 1])
    stranger = signed(mallory, MapSet(author_key(Key("ann").peer, "m"), b"v"), namespace="models")
    late = signed(mallory, MapSet(author_key(mallory.peer, "late"), b"v"), namespace="models", stamp=(NOW_MS << 17))
    wrong = signed(mallory, SetAdd(b"x"), namespace="tags")
    async with world.node("ann") as ann, world.calls(mallory) as rpc:
        push = Push("models", rules, [b"junk", forged, stranger.raw, wrong.raw, late.raw, good.raw])
        reply = await rpc.call(world.keys["ann"].peer, PUSH, push, timeout_s=5.0)
        assert reply == Pushed(1)
        assert list(ann.map_items("models").values()) == [b"v"]
        assert [fault.peer for fault in world.faults] == [mallory.peer] * 4
        assert all(fault.penalty > 0 for fault in world.faults)


async def test_what_is_no_request_is_charged_to_the_sender(world: World, autojump_clock: MockClock) -> None:
    mallory = Key("mallory")
    async with world.node("ann") as ann, world.calls(mallory) as rpc:
        with pytest.raises(Refused, match="malformed"):
            await rpc.call(world.keys["ann"].peer, Method(PULL.name, Pushed, Pushed), Pushed(1), timeout_s=5.0)
        assert [fault.peer for fault in world.faults] == [mallory.peer]
        await ann.set_add("tags", b"alive")
        assert ann.set_members("tags") == [b"alive"]


async def test_a_push_without_its_ancestors_starts_a_pull(world: World, autojump_clock: MockClock) -> None:
    never_s = 1e6
    async with world.node("ann", period_s=never_s) as ann:
        await ann.set_add("tags", b"old")
        async with world.node("bob", period_s=never_s) as bob:
            await ann.set_add("tags", b"new")
            await until(lambda: bob.set_members("tags") == [b"new", b"old"], within_s=1)


async def test_a_full_disk_is_reported_and_nothing_is_changed(world: World, autojump_clock: MockClock) -> None:
    async with world.node("ann") as ann:
        await ann.set_add("tags", b"before")
        before = ann.digest()
        ann._store._db.execute("pragma max_page_count = 1").fetchall()
        with pytest.raises(StorageError, match="full"):
            await ann.set_add("tags", b"x" * 4000)
        assert ann.digest() == before
        assert ann.set_members("tags") == [b"before"]
        ann._store._db.execute("pragma max_page_count = 1000000").fetchall()
        await ann.set_add("tags", b"after")
        assert ann.set_members("tags") == [b"after", b"before"]
    async with world.node("ann") as again:
        assert again.digest() == ann.digest()


async def test_removing_and_adding_again(world: World, autojump_clock: MockClock) -> None:
    async with world.node("ann") as ann, world.node("bob") as bob:
        await ann.set_add("tags", b"x")
        await until(lambda: equal([ann, bob]), within_s=1)
        await bob.set_remove("tags", b"x")
        await until(lambda: equal([ann, bob]), within_s=1)
        assert ann.set_members("tags") == []
        await ann.set_add("tags", b"x")
        await until(lambda: equal([ann, bob]), within_s=1)
        assert bob.set_members("tags") == [b"x"]
        operations = bob.operations("tags")
        await bob.set_remove("tags", b"absent")
        assert bob.operations("tags") == operations


async def slow_disk(function: Callable[..., Any], *args: Any) -> Any:
    await trio.sleep(1)
    return function(*args)


async def test_a_cancelled_change_is_made_on_disk_and_in_memory_or_in_neither(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.node("ann", offload=slow_disk) as ann:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ann.set_add, "tags", b"under way")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ann.set_add, "tags", b"waiting")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ann.set_members("tags") == [b"under way"]
        await ann.set_add("tags", b"next")
        digest = ann.digest()
    async with world.node("ann") as again:
        assert again.set_members("tags") == [b"next", b"under way"]
        assert again.digest() == digest


async def test_nobody_is_served_what_is_not_on_disk_yet(world: World, autojump_clock: MockClock) -> None:
    async with (
        world.node("ann", offload=slow_disk, period_s=1e6) as ann,
        world.node("bob", period_s=1e6) as bob,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ann.set_add, "tags", b"x")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.9):
            await bob.sync_with(world.keys["ann"].peer)
        assert bob.set_members("tags") == []
        await until(lambda: bob.set_members("tags") == [b"x"], within_s=1)


async def test_changes_that_wait_together_share_a_transaction(world: World, autojump_clock: MockClock) -> None:
    async with world.node("ann", offload=slow_disk, period_s=1e6) as ann:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for index in range(100):
                nursery.start_soon(ann.set_add, "tags", b"%d" % index)
        assert len(ann.set_members("tags")) == 100
        assert trio.current_time() - started <= 2
