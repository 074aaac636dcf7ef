"""Services on the simulated network: faults first, then a quiet time in which all must converge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from crdt.namespace import Namespace, author_key
from crdt.service import Replicas, open_replicas, run_inline
from node.rpc.node import open_rpc
from sim.faults import ROUGH
from sim.world import Build, SimNode, world
from tests.crdt.helpers import NOW_MS
from wire.errors import TransportError

NAMESPACES = (Namespace("ratings", "map", "author-keyed"), Namespace("tags", "set"))


def build_in(folder: Path) -> Build:
    @asynccontextmanager
    async def build(node: SimNode) -> AsyncIterator[Replicas]:
        async with (
            open_rpc(node.transport, blame=node.blamed.append) as rpc,
            open_replicas(
                folder / f"{node.number}.db",
                node.identity,
                rpc,
                lambda: NOW_MS + round(trio.current_time() * 1000),
                namespaces=NAMESPACES,
                peers=lambda: node.others,
                period_s=2.0,
                blame=node.blamed.append,
                rng=node.random,
                offload=run_inline,
            ) as replicas,
        ):
            yield replicas

    return build


@pytest.mark.parametrize("seed", [1, 2])
async def test_nodes_converge_after_partition_crash_and_loss(
    seed: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with world(nodes=9, seed=seed, faults=ROUGH, build=build_in(tmp_path)) as w:
        w.net.partition(w.third, w.rest)
        for step in range(4):
            for node in w.nodes:
                if node.alive:
                    await node.app.map_set("ratings", author_key(node.peer, f"{step % 2}"), b"%d" % step)
                    await node.app.set_add("tags", b"%d" % (step % 3))
            await w.nodes[step].app.set_remove("tags", b"0")
            await w.nodes[5].crash()
            await trio.sleep(3)
            await w.nodes[5].restart()
        assert len({node.app.digest() for node in w.nodes}) > 1
        w.net.heal()
        with trio.fail_after(120):
            await w.until(lambda: len({node.app.digest() for node in w.nodes}) == 1)
        assert len({tuple(node.app.map_items("ratings").items()) for node in w.nodes}) == 1
        assert len(w.nodes[0].app.map_items("ratings")) == 2 * 9
        assert all(node.app.forks("ratings") == [] for node in w.nodes)
        assert [fault for node in w.nodes for fault in node.blamed] == []


async def test_a_peer_that_nobody_reaches_is_no_error(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with world(nodes=2, seed=3, build=build_in(tmp_path)) as w:
        one, other = w.nodes
        await other.crash()
        with pytest.raises(TransportError):
            await one.app.sync_with(other.peer)
        await one.app.set_add("tags", b"x")
        await trio.sleep(30)
        await other.restart()
        with trio.fail_after(30):
            await w.until(lambda: other.app.set_members("tags") == [b"x"])
