"""Tasks that are asked for after the end are not started, and nothing breaks."""

from __future__ import annotations

import trio

from node.tasks import start_if_open


async def test_a_task_starts_while_the_nursery_stands_and_not_after() -> None:
    ran: list[str] = []

    async def note(what: str) -> None:
        ran.append(what)

    async with trio.open_nursery() as nursery:
        assert start_if_open(nursery, note, "in time")
    assert not start_if_open(nursery, note, "too late")
    assert ran == ["in time"]
