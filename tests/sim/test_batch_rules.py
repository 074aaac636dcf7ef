"""Batches among liars: every rule that a worker, or a requester, can break is broken here once.

Frames are observed, and changed, where they leave a node. Every world is repeated by its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
import trio
from msgspec import structs

from ledger.entry import majority
from node.market.batch_messages import (
    BATCH,
    BatchCommitted,
    BatchJob,
    BatchReveal,
    BatchWorking,
    HireBatch,
    Opened,
    Ready,
    Unchecked,
)
from node.market.batch_worker import BatchWorker
from node.market.material import Answered, Carried, Inline
from node.market.messages import Declined, Hired
from sim.world import SimNode, run
from tests.sim.batch_world import (
    batch,
    changing,
    cheat_on,
    decoded,
    ended,
    finished,
    forget,
    number_of,
    only,
    seen,
)
from tests.sim.market_world import (
    IMAGE,
    Alter,
    Frame,
    balances,
    check_books,
    market,
    node_of,
    receipts,
)
from verify.sampling import BatchCommitment, BatchOffer, Sampling, commit_batch, picks
from wire import codec
from wire.codec import Wire
from wire.envelope import seal, unseal
from wire.errors import LocalError
from wire.job import JobSpec, Output
from wire.peer import PeerId
from wire.tensor import from_numpy

T = TypeVar("T", bound=Wire)

# ---- workers that break rules


def broken(alter: Alter, word: str, why: str, *, failures: int = 1, seed: int = 21) -> None:
    """A batch whose worker changes what it sends ends with this word, unpaid, and counts as so many failed audits."""

    async def main() -> None:
        async with market(seed, alter=alter) as w:
            requester = w.nodes[0]
            job = await finished(requester.app, batch(8, timeout_s=60.0))
            (attempt,) = job.attempts
            assert (job.state, attempt["verdict"]) == ("failed", word), seen(job)
            assert why in attempt["reason"], seen(job)
            worker = node_of(w, str(job.worker))
            standing = requester.app.context.records.standing("worker", worker.peer, job.request.model)
            assert (0 if standing is None else standing.failures) == failures
            assert requester.app.context.ledger.reserved() == 0
            await check_books(w)
            assert await receipts(w) == []

    run(main, seed)


def other(output: Output) -> Output:
    """Another output of the same form."""
    (name, tensor), *_ = output.tensors.items()
    return Output({name: from_numpy(-tensor.numpy())})


def carried(kind: type[T], material: Carried) -> T:
    """What is carried within a message."""
    assert isinstance(material, Inline)
    return codec.decode(kind, material.content)


def other_unchecked(_: SimNode, message: Unchecked) -> Unchecked:
    output = other(carried(Output, message.output))
    return structs.replace(message, output=Inline(codec.encode(output)))


def other_opened(_: SimNode, message: Opened) -> Opened:
    answered = carried(Answered, message.answer)
    changed = Answered(other(answered.output), answered.trace)
    return structs.replace(message, answer=Inline(codec.encode(changed)))


def test_another_output_for_an_unpicked_job_is_refused() -> None:
    swap = changing(Unchecked, other_unchecked)
    broken(swap, "withheld", "not the one that was committed to")


def test_another_output_for_a_picked_job_is_refused() -> None:
    swap = changing(Opened, other_opened)
    broken(swap, "withheld", "do not open the commitment")


def test_another_salt_is_refused() -> None:
    broken(changing(Unchecked, lambda _, m: structs.replace(m, salt=bytes(32))), "withheld", "not the one")


def test_an_opening_out_of_order_is_refused() -> None:
    def skip(_: SimNode, m: Opened) -> Opened:
        return structs.replace(m, opening=structs.replace(m.opening, index=m.opening.index ^ 1))

    broken(changing(Opened, skip), "withheld", "turn")


def test_an_opening_that_does_not_lead_to_the_root_is_refused() -> None:
    def bend(_: SimNode, m: Opened) -> Opened:
        return structs.replace(m, opening=structs.replace(m.opening, path=m.opening.path[::-1]))

    broken(changing(Opened, bend), "withheld", "opening.root")


def test_an_unpicked_job_in_the_place_of_a_picked_one_is_refused() -> None:
    def swap(_: SimNode, m: Opened) -> Unchecked:
        output = carried(Answered, m.answer).output
        return Unchecked(m.opening.index, Inline(codec.encode(output)), m.salt, [])

    broken(changing(Opened, swap), "withheld", "Unchecked out of turn")


def test_a_second_commitment_is_refused() -> None:
    first: list[BatchCommitted] = []

    def alter(node: SimNode, protocol: str, frame: bytes) -> bytes:
        if protocol != BATCH.name:
            return frame
        if (mine := decoded(BatchCommitted, frame)) is not None:
            first.append(mine)
        return codec.encode(first[0]) if decoded(Opened, frame) is not None else frame

    broken(alter, "withheld", "BatchCommitted out of turn")


def test_a_root_that_is_not_that_of_the_answers_never_sees_the_secret() -> None:
    log: list[Frame] = []

    def lie(node: SimNode, m: BatchCommitted) -> BatchCommitted:
        body = BatchCommitment(codec.decode(BatchCommitment, m.batch.body).batch, bytes(32))
        return structs.replace(m, batch=seal(node.identity, "batch.commitment", body))

    broken(changing(BatchCommitted, lie), "broke a rule", "not that of its answers", failures=0)
    assert not [f for f in log if decoded(BatchReveal, f.data)]


def test_commitments_to_other_jobs_or_by_others_are_refused() -> None:
    def shuffled(_: SimNode, m: BatchCommitted) -> BatchCommitted:
        return structs.replace(m, answers=m.answers[::-1])

    broken(changing(BatchCommitted, shuffled), "broke a rule", "not a commitment to each job", failures=0)

    def fewer(_: SimNode, m: BatchCommitted) -> BatchCommitted:
        return structs.replace(m, answers=m.answers[:-1])

    broken(changing(BatchCommitted, fewer), "broke a rule", "not a commitment to each job", failures=0)


def test_progress_of_no_job_is_refused() -> None:
    broken(changing(BatchWorking, lambda _, m: structs.replace(m, index=99)), "broke a rule", "job 99", failures=0)


def test_an_acceptance_of_something_else_is_refused() -> None:
    def nothing(_: SimNode, m: Hired) -> Hired:
        return Hired(m.accept[:-1])

    broken(changing(Hired, nothing), "broke a rule", "", failures=0)


@contextmanager
def opening(how: Callable[..., Any]) -> Iterator[None]:
    """Workers open their answers in another way."""
    with patch.object(BatchWorker, "_open_up", how):
        yield


def test_a_worker_that_opens_only_what_is_right_has_failed_and_gets_nothing() -> None:
    """It looks at the draw, and leaves if a wrong answer was picked."""
    honest = BatchWorker._open_up

    async def leave(self: BatchWorker, channel: Any, offer: Any, specs: Any, done: Any, reveal: Any) -> None:
        roots = [each.promise.root for each in done]
        chosen = picks(offer, commit_batch(offer, roots).root, reveal.shown.secret)
        if all(number_of(specs[index]) % 2 for index in chosen):
            await honest(self, channel, offer, specs, done, reveal)

    async def main() -> None:
        async with market(31, nodes=5, saving_percent=20, credit_limit_micro=10**9) as w:
            requester, cheat, *jurors = w.nodes
            cheat_on(cheat, lambda number: number % 2 == 0)
            words = []
            with only(cheat.peer, [juror.peer for juror in jurors]), opening(leave):
                for _ in range(12):
                    forget(requester)
                    job = await finished(requester.app, batch(8, policy="sample:1/8"))
                    (attempt,) = job.attempts
                    standing = requester.app.context.records.standing("worker", cheat.peer, job.request.model)
                    assert standing is not None
                    assert (standing.audits, standing.failures) == (1, int(attempt["verdict"] == "withheld"))
                    words.append(attempt["verdict"])
            assert set(words) == {"accept", "withheld"}
            assert requester.app.context.ledger.reserved() == 0
            await check_books(w, honest=True)  # by then the worker has taken what it was paid
            assert cheat.app.context.ledger.balance() == 8000 * words.count("accept")

    run(main, 31)


@pytest.mark.parametrize("stop_after", [0, 1, 3, 7])
def test_whatever_is_withheld_after_the_draw_is_one_failure(stop_after: int) -> None:
    sent = 0

    async def some(self: BatchWorker, talk: Any, *rest: Any) -> None:
        class Few:
            peer = talk.peer

            async def send(self, message: Any) -> None:
                nonlocal sent
                sent += 1
                if sent > stop_after:
                    await trio.sleep_forever()
                await talk.send(message)

        await honest(self, Few(), *rest)  # type: ignore[arg-type]  # all that is used of a talk

    honest = BatchWorker._open_up

    async def main() -> None:
        async with market(32) as w:
            requester = w.nodes[0]
            with opening(some):
                job = await finished(requester.app, batch(8))
            (attempt,) = job.attempts
            assert (attempt["verdict"], attempt["reason"]) == ("withheld", "after the draw: no sign of life in time")
            standing = requester.app.context.records.standing(
                "worker", node_of(w, str(job.worker)).peer, job.request.model
            )
            assert standing is not None
            assert (standing.audits, standing.failures, standing.watched, standing.ejected) == (1, 1, True, False)
            assert requester.app.context.ledger.reserved() == 0

    run(main, 32)


# ---- requesters that break rules


def not_served(alter: Alter, code: str, *, seed: int = 41) -> None:
    """A requester that changes what it sends gets no answer of the batch, and pays and reserves nothing."""
    log: list[Frame] = []

    async def main() -> None:
        async with market(seed, alter=alter, log=log) as w:
            requester = w.nodes[0]
            job = await finished(requester.app, batch(8))
            assert job.state == "failed", seen(job)
            assert code in job.attempts[0]["reason"] + job.attempts[0]["verdict"], seen(job)
            answers = [f for f in log if decoded(Opened, f.data) or decoded(Unchecked, f.data)]
            assert answers == [], "nothing was handed over"
            assert requester.app.context.ledger.reserved() == 0

    run(main, seed)


def test_a_secret_that_was_not_fixed_opens_nothing() -> None:
    def lie(_: SimNode, m: BatchReveal) -> BatchReveal:
        return structs.replace(m, shown=structs.replace(m.shown, secret=bytes(32)))

    not_served(changing(BatchReveal, lie), "withheld")


def test_a_requester_that_picks_by_itself_gets_nothing() -> None:
    """It sends the beacon secrets of the jobs that it likes to see: they are not those of the picked ones."""

    def choose(_: SimNode, m: BatchReveal) -> BatchReveal:
        return structs.replace(m, secrets=m.secrets[::-1])

    not_served(changing(BatchReveal, choose), "withheld")
    not_served(changing(BatchReveal, lambda _, m: structs.replace(m, secrets=m.secrets[:-1])), "withheld")


def test_another_job_than_the_offer_names_is_not_done() -> None:
    def swap(node: SimNode, m: BatchJob) -> BatchJob:
        spec = structs.replace(unseal(m.spec, "job", JobSpec), seed=99)
        return BatchJob(seal(node.identity, "job", spec))

    not_served(changing(BatchJob, swap), "died")


def offering(change: Callable[[BatchOffer], BatchOffer]) -> Alter:
    """A requester whose offer is another than the one that its ledger pays for."""

    def lie(node: SimNode, m: HireBatch) -> HireBatch:
        offer = change(codec.decode(BatchOffer, m.offer.body))
        return structs.replace(m, offer=seal(node.identity, "batch.offer", offer))

    return changing(HireBatch, lie)


def test_a_batch_without_an_audit_is_not_done() -> None:
    not_served(offering(lambda offer: structs.replace(offer, sampling=Sampling("rate", 1))), "a draw of 1 to")


def test_a_batch_that_the_ledger_does_not_pay_for_is_not_done() -> None:
    not_served(offering(lambda offer: structs.replace(offer, sampling=Sampling("draw", 1))), "not for this batch")


def test_a_batch_for_another_worker_is_not_done() -> None:
    not_served(offering(lambda offer: structs.replace(offer, worker=PeerId(bytes(32)))), "for another worker")


def test_too_many_batches_at_once_are_refused_politely() -> None:
    async def main() -> None:
        async with market(42, nodes=5, credit_limit_micro=10**9) as w:
            requester, worker, *jurors = w.nodes
            with only(worker.peer, [juror.peer for juror in jurors]):
                jobs = [await requester.app.submit_batch(batch(8)) for _ in range(4)]
                done = [await ended(requester.app, job) for job in jobs]
            words = sorted(job.attempts[0]["verdict"] for job in done)
            assert words == ["accept", "accept", "declined", "declined"], [seen(job) for job in done]
            assert all("busy" in job.attempts[0]["reason"] for job in done if job.state == "failed")
            await check_books(w, honest=True)

    run(main, 42)


# ---- replays


def test_a_batch_and_its_jobs_are_done_once() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(43, log=log) as w:
            requester = w.nodes[0]
            job = await finished(requester.app, batch(4))
            assert job.verdict == "accept", seen(job)
            await check_books(w, honest=True)
            before = balances(w)
            frames = [f for f in log if f.sent and f.node == 0 and f.protocol == BATCH.name]
            async with requester.app.context.rpc.stream(frames[0].peer, BATCH, timeout_s=60.0) as stream:
                await stream.send(codec.decode(BATCH.request, frames[0].data))
                said = await stream.receive()
                assert said is not None
                assert said.body == Ready()
                for frame in frames[1:-1]:
                    await stream.send(codec.decode(BATCH.request, frame.data))
                said = await stream.receive()
                assert said is not None
                assert isinstance(said.body, Declined)
                assert "taken before" in said.body.reason
            spec = unseal(codec.decode(BatchJob, frames[1].data).spec, "job", JobSpec)
            with pytest.raises(LocalError, match="names a jury for one of these jobs"):  # it would be a second draw
                await requester.app.context.ledger.offer(
                    job=spec.id,
                    payee=node_of(w, str(job.worker)).peer,
                    price_micro=spec.price_micro,
                    fee_micro=spec.fee_micro,
                    juries=majority(spec.id, spec.jury_size),
                    expires_ms=spec.deadline_ms,
                )
            assert balances(w) == before
            await check_books(w)

    run(main, 43)


def test_what_was_not_picked_keeps_its_trace_and_secrets_come_last() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(44, log=log) as w:
            body = {**IMAGE, "policy": "sample:auto", "retries": 0, "timeout_s": 120.0}
            del body["input"], body["seed"]
            body["jobs"] = [{"input": {"label": label, "steps": 4}, "seed": label} for label in range(6)]
            job = await finished(w.nodes[0].app, body)
            assert job.verdict == "accept", seen(job)
            await check_books(w, honest=True)

    run(main, 44)
    seen_at = [(f, decoded(BatchReveal, f.data)) for f in log if f.protocol == BATCH.name]
    (reveal,) = [(f, m) for f, m in seen_at if m is not None and f.sent]
    (committed,) = [f for f in log if not f.sent and f.node == 0 and decoded(BatchCommitted, f.data)]
    assert log.index(committed) < log.index(reveal[0]), "the secret leaves after the promise came in"
    secrets = [reveal[1].shown.secret, *reveal[1].secrets]
    assert not [f for f in log[: log.index(reveal[0])] if any(secret in f.data for secret in secrets)]
    opened = [m for f in log if f.sent and (m := decoded(Opened, f.data))]
    assert len(opened) == len(reveal[1].secrets)
    assert all("latents" in carried(Answered, m.answer).trace.tensors for m in opened)
