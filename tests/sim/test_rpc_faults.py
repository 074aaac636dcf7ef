"""Calls in a rough network with crashes: each ends with its answer or a typed error, and nothing is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from node.rpc.node import RpcNode, open_rpc
from sim.faults import ROUGH
from sim.world import SimNode, world
from wire.codec import Wire
from wire.errors import Busy, QuorateError, Refused, TransportError
from wire.peer import PeerId
from wire.rpc.seam import Method, Stream

NODES, CALLS = 6, 120


class Ask(Wire, frozen=True):
    number: int
    padding: bytes


class Tell(Wire, frozen=True):
    number: int
    padding: bytes


ONE = Method("sim.one", Ask, Tell)
MANY = Method("sim.many", Ask, Tell)


@asynccontextmanager
async def calls(node: SimNode) -> AsyncIterator[RpcNode]:
    """Answers slowly, with more than it was sent, sometimes not at all."""

    async def answer(_peer: PeerId, ask: Ask) -> Tell:
        await trio.sleep(node.random.expovariate(5.0))
        if ask.number % 10 == 3:
            raise Busy(1.0)
        return Tell(ask.number, bytes(3 * len(ask.padding)))

    async def answers(stream: Stream[Tell, Ask]) -> None:
        async for packet in stream:
            await stream.send(Tell(packet.body.number, packet.body.padding))

    async with open_rpc(node.transport, blame=node.blamed.append) as rpc:
        rpc.serve(ONE, answer)
        rpc.serve_stream(MANY, answers)
        yield rpc


async def one_call(node: SimNode, peer: PeerId, number: int, outcomes: Counter[str]) -> None:
    """A call or a stream; notes how it ended."""
    padding = bytes(node.random.choice((0, 100, 5000, 100_000, 700_000)))
    timeout_s = node.random.choice((0.3, 5.0, 60.0))
    try:
        if number % 3:
            told = await node.app.call(peer, ONE, Ask(number, padding), timeout_s=timeout_s)
            assert told == Tell(number, bytes(3 * len(padding)))
        else:
            async with node.app.stream(peer, MANY, timeout_s=timeout_s) as stream:
                for n in range(5):
                    await stream.send(Ask(number + n, padding), last=n == 4)
                assert [packet.body.number async for packet in stream] == [number + n for n in range(5)]
        outcomes["answered"] += 1
    except (TransportError, Busy, Refused) as exc:
        outcomes[type(exc).__name__] += 1


@pytest.mark.parametrize("seed", range(8))
async def test_every_call_ends_and_leaves_nothing(seed: int, autojump_clock: object) -> None:
    outcomes: Counter[str] = Counter()
    async with world(nodes=NODES, seed=seed, faults=ROUGH, build=calls) as w:
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                for number in range(CALLS):
                    caller = w.nodes[w.random.randrange(NODES - 1)]
                    peer = w.random.choice(caller.others)
                    nursery.start_soon(one_call, caller, peer, number, outcomes)
                    await trio.sleep(w.random.expovariate(10.0))
                    if number % 40 == 20:
                        w.net.lose_connection(0, 1)
                        await w.nodes[-1].crash()
                    if number % 40 == 39:
                        await w.nodes[-1].restart()
            await w.until(lambda: all(n.app.under_way() == (0, 0) for n in w.nodes if n.alive))
        assert sum(outcomes.values()) == CALLS
        assert outcomes["answered"] > CALLS / 3
        assert all(error.penalty == 0 for n in w.nodes for error in n.blamed), "no honest node is blamed"


async def test_a_partition_ends_calls_by_their_deadline(autojump_clock: object) -> None:
    async with world(nodes=2, seed=1, build=calls) as w:
        one, other = w.nodes
        assert (await one.app.call(other.peer, ONE, Ask(1, b""), timeout_s=5.0)).number == 1
        w.net.partition([0], [1])
        start_s = w.now
        with pytest.raises(QuorateError, match="deadline"):
            await one.app.call(other.peer, ONE, Ask(2, b""), timeout_s=5.0)
        assert w.now - start_s == pytest.approx(5.0)
        w.net.heal()
        assert (await one.app.call(other.peer, ONE, Ask(4, b""), timeout_s=60.0)).number == 4
