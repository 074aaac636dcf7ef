"""Handshakes of a crowd: one step in a turn of the scheduler, in order, and no more than a share of the processor."""

from __future__ import annotations

import trio
import trio.testing
from trio.testing import MockClock

from node.libp2p.turns import BURST_S, SHARE, Turns


async def test_steps_go_one_in_a_turn_and_in_order(autojump_clock: MockClock) -> None:
    turns, order = Turns(), list[int]()

    async def step(number: int) -> None:
        await turns.mine()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(step, number)
            await trio.testing.wait_all_tasks_blocked()
    assert order == list(range(20))
    assert turns.steps == 20


async def test_beyond_the_burst_they_get_their_share(autojump_clock: MockClock) -> None:
    turns = Turns()
    began = trio.current_time()
    for _ in range(1000):
        await turns.mine()
        turns.spent(0.001)
    took_s = trio.current_time() - began
    assert (1.0 - BURST_S - 0.001) / SHARE <= took_s <= 1.0 / SHARE


async def test_one_that_gives_up_leaves_the_queue_to_the_others(autojump_clock: MockClock) -> None:
    turns = Turns()
    turns.spent(10.0)
    with trio.move_on_after(1.0) as gone:
        await turns.mine()
    assert gone.cancelled_caught
    await turns.mine()
    assert turns.steps == 1
