"""The requester keeps those who belong to a worker off the jury that judges it, on the simulated network."""

from __future__ import annotations

import pytest

from recommend.graph import evidence
from sim.world import run
from tests.sim.market_world import EMBED, check_books, finished, market
from verify import receipt as verifier
from wire.peer import to_text


@pytest.mark.parametrize("seed", range(2))
def test_peers_that_deal_with_the_worker_alone_do_not_judge_it(seed: int) -> None:
    """Node 1 is the cheapest, so it works; nodes 2 and 3 deal with it and with each other, and with nobody else."""

    async def main() -> None:
        async with market(seed, nodes=10, only={1: {"price_percent": 50}}) as w:
            requester, *circle = (w.nodes[at] for at in range(4))
            pairs = [(a.peer, b.peer) for a in circle for b in circle if a is not b]
            graph = requester.app.trust.fresh().graph
            graph.put([evidence(a, b, "work", count=9, seq=9) for a, b in pairs])
            job = await finished(requester.app, EMBED)
            assert (job.verdict, job.worker) == ("accept", to_text(w.nodes[1].peer)), job
            assert job.receipt is not None
            receipt = verifier.decode(job.receipt)
            pool = {member.peer for member in receipt.pool}
            assert pool == {node.peer for node in w.nodes} - {requester.peer, w.nodes[2].peer, w.nodes[3].peer}
            (attempt,) = job.attempts
            for friend in circle[1:]:
                assert f"{to_text(friend.peer)[-8:]} not in the jury pool: deals within" in attempt["reason"]
            await check_books(w, honest=True)

    run(main, seed)


def test_in_a_small_network_nobody_is_left_out() -> None:
    """Four jurors besides the worker are fewer than the six that a jury of three keeps."""

    async def main() -> None:
        async with market(1, only={1: {"price_percent": 50}}) as w:
            requester, *circle = (w.nodes[at] for at in range(4))
            pairs = [(a.peer, b.peer) for a in circle for b in circle if a is not b]
            requester.app.trust.fresh().graph.put([evidence(a, b, "work", count=9, seq=9) for a, b in pairs])
            job = await finished(requester.app, EMBED)
            assert (job.verdict, job.worker) == ("accept", to_text(w.nodes[1].peer)), job
            assert job.receipt is not None
            assert len(verifier.decode(job.receipt).pool) == 5
            assert "not in the jury pool" not in job.attempts[0]["reason"]

    run(main, 1)
