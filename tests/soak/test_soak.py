"""Ten rounds: about a minute on two idle cores. `python -m tests.soak --minutes 10` goes on for longer."""

from __future__ import annotations

from tests.soak.world import check, soak

ROUNDS = 10


async def test_nothing_leaks_and_every_call_ends_while_peers_come_and_go() -> None:
    soaked = await soak(lambda rounds: rounds < ROUNDS)
    check(soaked)
