"""One seeded market in a process of its own: `python -m tests.sim.replay SEED` prints a digest of all that happened."""

from __future__ import annotations

import json
import sys
from random import Random

import trio

from node.jobs import Board, Job
from sim.faults import ROUGH
from sim.world import World, run
from tests.sim.batch_world import batch
from tests.sim.market_world import EMBED, IMAGE, kill, market
from wire.hashing import digest
from wire.peer import to_text


def events_of(board: Board, job: Job) -> list[object]:
    """What a user was told of a job."""
    return [board.get(job.id).state, board.get(job.id).worker, board.get(job.id).attempts, board.get(job.id).jury]


def digest_of(w: World, told: list[object]) -> str:
    """The frames on the network, what users were told, every chain's head, and who was blamed for what."""
    heads = [node.app.context.ledger.head_id().hex() for node in w.nodes]
    blamed = [[(to_text(exc.peer), exc.reason) for exc in node.blamed] for node in w.nodes]
    everything = [w.net.trace.hash, told, heads, blamed]
    return digest("test.replay", json.dumps(everything, default=str).encode()).hex()


async def play(seed: int) -> str:
    """Jobs and a batch with canaries on a rough network, while a node dies and comes back."""
    random = Random(seed)
    async with market(seed, nodes=6, faults=ROUGH, canary_share=0.4) as w:
        one, other = w.nodes[1], w.nodes[2]
        jobs = [await one.app.submit(EMBED), await other.app.submit(IMAGE)]
        many = await one.app.submit_batch(batch(4))
        await trio.sleep(random.uniform(0.5, 1.5))
        await kill(w.nodes[4])
        await trio.sleep(60)
        await w.nodes[4].restart()
        await trio.sleep(60)
        told = [
            events_of(one.app.board, jobs[0]),
            events_of(other.app.board, jobs[1]),
            events_of(one.app.batches, many),
        ]
        return digest_of(w, told)


def main() -> None:
    """Print the digest."""
    seed = int(sys.argv[1])
    print(f"digest {run(lambda: play(seed), seed)}")


if __name__ == "__main__":
    main()
