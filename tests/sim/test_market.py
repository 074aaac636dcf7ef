"""The whole job market on the simulated network: calm, with cheats, with crashes at any moment, and cut in two.

Every world is repeated by its seed, which a failure names.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from random import Random
from typing import Any, cast

import pytest
import trio

from node.jobs import Job
from node.node import Node
from quorate.receipt import verify_receipt
from sim.faults import ROUGH
from sim.world import SimNode, World, run
from tests.sim.market_world import EMBED, IMAGE, check_books, ended, even, finished, kill, market, node_of, receipts
from verify import receipt as verifier
from wire.peer import to_text

SEEDS = range(20)
TYPED = {"worker_failed", "no_provider", "timeout", "insufficient_credit"}
"""How a job may fail for what others do."""


def seen(job: Job) -> str:
    """A job for a failure message."""
    tried = [(attempt["verdict"], attempt["reason"]) for attempt in job.attempts]
    return f"{job.state}, {job.verdict}, {job.error}, {tried}"


def check_ended(job: Job) -> None:
    """Accepted, not judged, or failed in a way that has a name."""
    assert job.final
    if job.state == "failed":
        assert (job.error or {}).get("code") in TYPED, seen(job)
    else:
        assert job.state == "settled", seen(job)
        assert job.verdict in ("accept", "unaudited"), seen(job)


async def reached(app: Node, job: Job, state: str) -> None:
    """Wait for an event of this type, or for the end."""
    following = cast(AsyncGenerator[dict[str, Any], None], app.board.follow(job))
    async with aclosing(following) as events:
        async for event in events:
            if event["type"] == state:
                return


def requester_of(w: World, seed: int) -> SimNode:
    """One node or another; the first is the one that all others join through."""
    return w.nodes[seed % len(w.nodes)]


# ---- calm


@pytest.mark.parametrize("seed", range(3))
def test_a_job_on_a_calm_network_is_checked_paid_and_provable(seed: int) -> None:
    async def main() -> None:
        async with market(seed) as w:
            requester = requester_of(w, seed)
            job = await finished(requester.app, EMBED)
            assert (job.state, job.verdict) == ("settled", "accept"), seen(job)
            assert job.receipt is not None
            summary = verifier.check(verifier.decode(job.receipt))
            assert summary.verdict == "accept"
            assert verify_receipt(job.receipt, output=job.output).verdict == "accept"
            await check_books(w, honest=True)
            worker = node_of(w, str(job.worker))
            jurors = [node_of(w, str(member["peer"])) for member in job.jury]
            ledger = {node.number: node.app.context.ledger for node in w.nodes}
            assert ledger[worker.number].balance() == 1000
            assert [ledger[juror.number].balance() for juror in jurors] == [200, 200, 200]
            assert ledger[requester.number].balance() == -1600 == -job.cost_micro
            assert ledger[requester.number].reserved() == 0

    run(main, seed)


@pytest.mark.parametrize("seed", range(2))
def test_a_cheat_is_rejected_unpaid_and_loses_trust_and_another_worker_is_found(seed: int) -> None:
    async def main() -> None:
        cheats = dict.fromkeys(range(1, 6), "fewer-steps")
        del cheats[1 + seed]
        async with market(seed, cheats=cheats) as w:
            requester = w.nodes[0]
            job = await finished(requester.app, {**IMAGE, "retries": 5})
            assert job.attempts[0]["verdict"] == "reject", seen(job)
            assert (job.state, job.verdict) == ("settled", "accept"), seen(job)
            assert job.worker == to_text(w.nodes[1 + seed].peer)
            await check_books(w)
            accepted = {p.peer for r in await receipts(w) if r.verdict == "accept" for p in r.payments[:1]}
            assert accepted == {w.nodes[1 + seed].peer}, "no cheat earned a worker's price"
            ranks = {rank["peer"]: rank["score"] for rank in requester.app.ranking()}
            for attempt in job.attempts[:-1]:
                assert attempt["verdict"] == "reject"
                assert ranks[attempt["worker"]] < 0

    run(main, seed)


@pytest.mark.parametrize(
    ("lane", "wished", "spots"), [("tolerant", 1, 1), ("tolerant", 0, 0), ("tolerant", 9, 4), ("exact", 1, 0)]
)
def test_jurors_of_an_image_recompute_the_drawn_steps(lane: str, wished: int, spots: int) -> None:
    """As many as the requester's setting says, all of them in the exact lane; the receipt says how many."""

    async def main() -> None:
        async with market(1, image_spots=wished) as w:
            job = await finished(w.nodes[0].app, {**IMAGE, "lane": lane})
            assert (job.state, job.verdict) == ("settled", "accept"), seen(job)
            assert job.receipt is not None
            summary = verifier.check(verifier.decode(job.receipt))
            assert summary.spec.spots == verify_receipt(job.receipt).spots == spots
            await check_books(w, honest=True)

    run(main, 1)


@pytest.mark.parametrize(
    ("method", "wished", "spots"), [("sample", 0, 0), ("sample", 1, 1), ("greedy", 9, 2), ("beam", 1, 0)]
)
def test_jurors_of_a_text_read_up_to_the_drawn_windows(method: str, wished: int, spots: int) -> None:
    """Of 64 tokens there are two windows; a beam search is read whole."""

    async def main() -> None:
        async with market(1, text_spots=wished) as w:
            text = {**EMBED, "kind": "text.generate", "model": "bytes-gpt"}
            job = await finished(
                w.nodes[0].app, {**text, "input": {"prompt": "Return the ", "tokens_max": 64, "method": method}}
            )
            assert (job.state, job.verdict) == ("settled", "accept"), seen(job)
            assert job.receipt is not None
            assert verifier.check(verifier.decode(job.receipt)).spec.spots == spots
            assert verify_receipt(job.receipt).spots == spots
            await check_books(w, honest=True)

    run(main, 1)


# ---- crashes


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_that_crashes_at_any_moment(seed: int) -> None:
    async def main() -> None:
        random = Random(seed)
        async with market(seed) as w:
            requester = requester_of(w, seed)
            job = await requester.app.submit(EMBED)
            await reached(requester.app, job, "matched")
            worker = node_of(w, str(job.worker))
            await trio.sleep(random.uniform(0, 1.2))
            await kill(worker)
            with trio.fail_after(EMBED["timeout_s"] + 5):
                await ended(requester.app, job)
            check_ended(job)
            assert requester.app.context.ledger.reserved() == 0
            await worker.restart()
            await check_books(w, honest=True)

    run(main, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_juror_that_crashes_or_is_cut_off_at_any_moment(seed: int) -> None:
    async def main() -> None:
        random = Random(seed)
        async with market(seed) as w:
            requester = requester_of(w, seed)
            job = await requester.app.submit(EMBED)
            await reached(requester.app, job, "auditing")
            others = [n for n in w.nodes if n is not requester and to_text(n.peer) != job.worker]
            victims = random.sample(others, 1 + seed % 2)
            await trio.sleep(random.uniform(0, 0.6))
            for victim in victims:
                if random.random() < 0.5:
                    await kill(victim)
                else:
                    w.net.partition([victim.number], [n.number for n in w.nodes if n is not victim])
            with trio.fail_after(EMBED["timeout_s"] + 5):
                await ended(requester.app, job)
            check_ended(job)
            w.net.heal()
            for victim in victims:
                if not victim.alive:
                    await victim.restart()
            await check_books(w, honest=True)

    run(main, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_requester_that_crashes_at_any_moment_and_comes_back_with_its_disk(seed: int) -> None:
    async def main() -> None:
        random = Random(seed)
        async with market(seed) as w:
            requester = requester_of(w, seed)
            job = await requester.app.submit(EMBED)
            await trio.sleep(random.uniform(0, 1.6))
            before = job.final
            await kill(requester)
            await trio.sleep(random.uniform(0, 10))
            await requester.restart()
            board, ledger = requester.app.board, requester.app.context.ledger
            again = board.get(job.id)
            assert again.final
            if not before:
                assert (again.error or {}).get("code") == "interrupted", seen(again)
            assert ledger.reserved() == 0
            await check_books(w, honest=True)
            assert len(await receipts(w)) <= 1
            with trio.fail_after(EMBED["timeout_s"] + 5):
                later = await finished(requester.app, EMBED)
            assert later.verdict == "accept", seen(later)
            await check_books(w, honest=True)

    run(main, seed)


# ---- rough


@pytest.mark.parametrize("seed", range(6))
def test_a_rough_network_cut_in_two_is_safe_and_works_again_after_healing(seed: int) -> None:
    async def main() -> None:
        async with market(seed, faults=ROUGH) as w:
            jobs = [await node.app.submit({**EMBED, "timeout_s": 30.0}) for node in w.nodes[:3]]
            await trio.sleep(Random(seed).uniform(0, 1.0))
            w.net.partition([0, 1], [2, 3, 4, 5])
            await trio.sleep(10)
            w.net.heal()
            with trio.fail_after(40):
                for node, job in zip(w.nodes, jobs, strict=False):
                    check_ended(await ended(node.app, job))
            with trio.fail_after(90):
                while (job := await finished(w.nodes[0].app, EMBED)).verdict != "accept":
                    check_ended(job)
            await check_books(w, honest=True)

    run(main, seed)


# ---- everything at once


@pytest.mark.parametrize("seed", range(5))
def test_many_jobs_while_nodes_come_and_go(seed: int) -> None:
    async def main() -> None:
        random = Random(seed)
        async with market(seed, nodes=8, faults=ROUGH) as w:
            jobs: list[tuple[SimNode, Job]] = []
            for _ in range(6):
                node = random.choice([node for node in w.nodes if node.alive])
                jobs.append((node, await node.app.submit({**EMBED, "timeout_s": 30.0})))
                await trio.sleep(random.uniform(0, 1.5))
                victim = random.choice(w.nodes)
                if victim.alive:
                    await kill(victim)
                else:
                    await victim.restart()
            for node in w.nodes:
                if not node.alive:
                    await node.restart()
            with trio.fail_after(40):
                for node, job in jobs:
                    last = await ended(node.app, node.app.board.get(job.id))
                    if (last.error or {}).get("code") != "interrupted":
                        check_ended(last)
            await check_books(w, honest=True)

    run(main, seed)


# ---- determinism


def test_one_seed_is_one_run() -> None:
    async def main() -> str:
        async with market(7, faults=ROUGH) as w:
            job = await w.nodes[1].app.submit(EMBED)
            await trio.sleep(0.8)
            await kill(w.nodes[2])
            await ended(w.nodes[1].app, job)
            await w.nodes[2].restart()
            await w.until(lambda: even(w))
            return w.net.trace.hash

    assert run(main, 7) == run(main, 7)
