"""Batches in the simulated market: one payment for many jobs, of which a few are audited.

Every world is repeated by its seed.
"""

from __future__ import annotations

from random import Random

import pytest
import trio

from node.batches import batch_view, output_of, receipt_of
from node.intake import Refused
from quorate.receipt import verify_receipt
from sim.faults import ROUGH
from sim.world import run
from tests.sim.batch_world import (
    batch,
    cheat_on,
    ended,
    finished,
    forget,
    only,
    reached,
    seen,
)
from tests.sim.market_world import (
    check_books,
    kill,
    market,
    node_of,
    receipts,
    referee,
)
from verify.calibrated import calibrations
from verify.evidence import check, decode
from verify.sampling import Sampling, detection
from wire.peer import to_text

# ---- honest


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_batch_is_paid_once_and_says_what_was_looked_at(seed: int) -> None:
    async def main() -> None:
        async with market(seed) as w:
            requester = w.nodes[seed]
            job = await finished(requester.app, batch(8))
            assert (job.state, job.verdict) == ("settled", "accept"), seen(job)
            await check_books(w, honest=True)
            view = batch_view(job)
            assert view["audits"] == job.request.audits == sum(item["audited"] for item in view["items"]) < 8
            for index, item in enumerate(view["items"]):
                assert item["output"] is not None
                if item["audited"]:
                    raw = receipt_of(job, index)
                    assert raw is not None
                    assert verify_receipt(raw, output=output_of(job, index)).verdict == "accept"
                else:
                    assert receipt_of(job, index) is None
                    assert item["checked"] == f"unchecked, batch audited at rate {job.request.audits}/8"
            worker = node_of(w, str(job.worker))
            assert worker.app.context.ledger.balance() == 8 * 1000
            (receipt,) = await receipts(w)
            assert len(receipt.certificates) == job.request.audits
            assert job.cost_micro == 8 * 1000 + job.request.audits * 3 * 200
            record = requester.app.context.records.standing("worker", worker.peer, job.request.model)
            assert record is not None
            assert (record.audits, record.failures, record.ejected) == (job.request.audits, 0, False)

    run(main, seed)


@pytest.mark.parametrize("jobs", [1, 256])
def test_the_smallest_and_the_largest_batch(jobs: int) -> None:
    async def main() -> None:
        async with market(5, credit_limit_micro=10_000_000) as w:
            policy = "sample:auto" if jobs > 1 else "sample:1"
            job = await finished(w.nodes[0].app, batch(jobs, policy=policy, timeout_s=600.0))
            assert (job.state, job.verdict) == ("settled", "accept"), seen(job)
            assert len(batch_view(job)["items"]) == jobs
            await check_books(w, honest=True)

    run(main, 5)


# ---- what is found


@pytest.mark.parametrize(("jobs", "wrong", "audits"), [(6, 3, 1), (8, 2, 2)])
def test_a_cheat_is_found_at_the_exact_rate(jobs: int, wrong: int, audits: int) -> None:
    """Rejected if and only if a wrong answer was picked, and that as often as the hypergeometric law says."""
    rounds, odds = 24, float(detection(jobs, wrong, Sampling("draw", audits)))

    async def main() -> None:
        async with market(11, nodes=5, saving_percent=20, credit_limit_micro=10**9) as w:
            requester, cheat, *jurors = w.nodes
            cheat_on(cheat, lambda number: number < wrong)
            found = 0
            with only(cheat.peer, [juror.peer for juror in jurors]):
                for _ in range(rounds):
                    forget(requester)
                    job = await finished(requester.app, batch(jobs, policy=f"sample:{audits}/{jobs}"))
                    picked = {audit["index"]: audit["verdict"] for audit in job.jury}
                    assert len(picked) == audits, seen(job)
                    assert picked == {index: "reject" if index < wrong else "accept" for index in picked}
                    assert job.verdict == ("reject" if "reject" in picked.values() else "accept")
                    found += job.verdict == "reject"
                    assert (job.evidence is not None) == (job.verdict == "reject")
                    if job.evidence is not None:
                        convicted = check(decode(job.evidence), referee(), calibrations())
                        assert (convicted.peer, convicted.fault) == (cheat.peer, "measure")
            assert abs(found - rounds * odds) < 4 * (rounds * odds * (1 - odds)) ** 0.5
            await check_books(w, honest=True)
            prices = jobs * 1000 * (rounds - found)
            assert cheat.app.context.ledger.balance() == prices, "nothing for a batch with a rejected answer"
            fees = sum(juror.app.context.ledger.balance() for juror in jurors)
            assert fees == rounds * audits * 3 * 200, "every juror that voted is paid, whatever it found"

    run(main, 11)


def test_half_of_the_answers_wrong_is_out_within_a_few_batches_and_not_asked_again() -> None:
    async def main() -> None:
        async with market(12, nodes=6, saving_percent=20, credit_limit_micro=10**9) as w:
            requester, cheat, *jurors = w.nodes
            model = requester.app.known_models()[0].cid
            cheat_on(cheat, lambda number: number % 2 == 0)
            records = requester.app.context.records
            with only(cheat.peer, [juror.peer for juror in jurors]):
                while not any(standing.ejected for standing in records.of(cheat.peer)):
                    job = await finished(requester.app, batch(8, policy="sample:1/8"))
                    assert job.final
            (standing,) = [each for each in records.of(cheat.peer) if each.role == "worker"]
            assert standing.audits <= 40, standing
            later = await finished(requester.app, batch(8, retries=5))
            assert later.verdict == "accept", seen(later)
            assert all(attempt["worker"] != to_text(cheat.peer) for attempt in later.attempts)
            assert f"not asked: {to_text(cheat.peer)[-8:]}, {standing}" in later.attempts[0]["reason"]
            shown = next(p for p in requester.app.peer_list() if p["peer"] == to_text(cheat.peer))
            assert [(r["role"], r["ejected"]) for r in shown["records"]] == [("worker", True)], model
            await requester.crash()
            await requester.restart()
            assert requester.app.context.records.of(cheat.peer) == [standing], "it stands on the disk"

    run(main, 12)


def test_after_one_failure_everything_of_that_worker_is_audited() -> None:
    async def main() -> None:
        async with market(13, nodes=5, saving_percent=20) as w:
            requester, worker, *jurors = w.nodes
            cheat_on(worker, lambda _: True)
            with only(worker.peer, [juror.peer for juror in jurors]):
                first = await finished(requester.app, batch(4, policy="sample:1/4"))
                cheat_on(worker, lambda _: False)
                second = await finished(requester.app, batch(4, policy="sample:1/4"))
            assert (first.verdict, len(first.jury)) == ("reject", 1), seen(first)
            assert (second.verdict, len(second.jury)) == ("accept", 4), seen(second)
            assert batch_view(second)["rate"] == "4/4"

    run(main, 13)


# ---- crashes


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_that_dies_at_any_moment(seed: int) -> None:
    async def main() -> None:
        async with market(seed) as w:
            requester = w.nodes[0]
            job = await requester.app.submit_batch(batch(6, retries=3))
            await reached(requester.app, job, "matched")
            worker = node_of(w, str(job.worker))
            await trio.sleep(Random(seed).uniform(0, 5))
            await kill(worker)
            await ended(requester.app, job)
            assert (job.state, job.verdict) == ("settled", "accept"), seen(job)
            assert requester.app.context.ledger.reserved() == 0
            assert not any(s.ejected for node in w.nodes for s in requester.app.context.records.of(node.peer))
            await worker.restart()
            await check_books(w, honest=True)

    run(main, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_requester_that_dies_at_any_moment_reserves_nothing_afterwards(seed: int) -> None:
    async def main() -> None:
        async with market(seed) as w:
            requester = w.nodes[seed]
            job = await requester.app.submit_batch(batch(6))
            await trio.sleep(Random(seed).uniform(0, 6))
            before = job.final
            await kill(requester)
            await trio.sleep(3)
            await requester.restart()
            again = requester.app.batches.get(job.id)
            assert again.final
            assert before or (again.error or {}).get("code") == "interrupted", seen(again)
            assert requester.app.context.ledger.reserved() == 0
            await check_books(w, honest=True)
            later = await finished(requester.app, batch(6, retries=2))
            assert later.verdict == "accept", seen(later)
            await check_books(w, honest=True)

    run(main, seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_cancelled_batch_reserves_nothing_and_blames_nobody(seed: int) -> None:
    async def main() -> None:
        async with market(seed) as w:
            requester = w.nodes[0]
            job = await requester.app.submit_batch(batch(6))
            await trio.sleep(Random(seed).uniform(0, 5))
            requester.app.batches.cancel(job)
            await ended(requester.app, job)
            assert job.state == "cancelled" or job.verdict == "accept", seen(job)
            assert requester.app.context.ledger.reserved() == 0
            assert not [s for node in w.nodes for s in requester.app.context.records.of(node.peer) if s.failures]
            await check_books(w, honest=True)

    run(main, seed)


@pytest.mark.parametrize("seed", range(2))
def test_batches_on_a_rough_network_cut_in_two_are_safe(seed: int) -> None:
    """Whatever is lost or cut off, amounts add up, nothing stays reserved, and nobody is blamed or out for it."""

    async def main() -> None:
        async with market(seed, faults=ROUGH, canary_share=0.2) as w:
            jobs = [await node.app.submit_batch(batch(6, timeout_s=60.0)) for node in w.nodes[:3]]
            await trio.sleep(Random(seed).uniform(0, 4.0))
            w.net.partition([0, 1], [2, 3, 4, 5])
            await trio.sleep(10)
            w.net.heal()
            with trio.fail_after(80):
                for node, job in zip(w.nodes, jobs, strict=False):
                    assert (await ended(node.app, job)).verdict in ("accept", "unaudited", None), seen(job)
            await trio.sleep(60)
            await check_books(w, honest=True)
            for node in w.nodes:
                assert not [s for other in w.nodes for s in node.app.context.records.of(other.peer) if s.ejected]

    run(main, seed)


def test_a_worker_that_is_busy_is_heard_from_and_not_taken_for_dead() -> None:
    async def main() -> None:
        async with market(9, nodes=5, worker_slots=1) as w:
            requester, worker, *jurors = w.nodes
            with only(worker.peer, [juror.peer for juror in jurors]):
                async with worker.app.context.slots.turn():
                    job = await requester.app.submit_batch(batch(4))
                    await trio.sleep(4 * requester.app.context.settings.stall_s)
                    assert not job.final, seen(job)
                await ended(requester.app, job)
            assert job.verdict == "accept", seen(job)
            await check_books(w, honest=True)

    run(main, 9)


# ---- the incentive condition


def test_too_few_audits_are_refused_with_the_rate_that_is_needed() -> None:
    async def main() -> None:
        async with market(51) as w:
            app = w.nodes[0].app
            with pytest.raises(Refused) as refused:
                await app.submit_batch(batch(20, policy="sample:0.05"))
            assert refused.value.code == "too_few_audits"
            rate = refused.value.known[0]
            job = await finished(app, batch(20, policy=rate))
            assert job.verdict == "accept", seen(job)
            auto = await finished(app, batch(20, policy="sample:auto"))
            assert f"sample:{batch_view(auto)['rate']}" == rate == f"sample:{batch_view(job)['rate']}"

    run(main, 51)


def test_a_worker_does_not_take_a_batch_that_is_not_worth_it() -> None:
    """Its work costs all that is paid, so that every wrongly rejected batch is a loss."""

    async def main() -> None:
        async with market(52, nodes=5, only={1: {"saving_percent": 100}}) as w:
            requester, worker, *jurors = w.nodes
            with only(worker.peer, [juror.peer for juror in jurors]):
                job = await finished(requester.app, batch(8))
            assert "wrongly rejected" in job.attempts[0]["reason"], seen(job)

    run(main, 52)
