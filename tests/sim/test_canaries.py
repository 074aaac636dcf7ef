"""Canaries in the simulated market: jurors who do not look are found out, those who look and who lend lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import trio

from ledger.entry import Offer, Receipt
from node.market.canaries import DELAY_S
from node.market.juror import JurorService
from node.market.lending import LEND, LendAsk, LendJob
from node.market.messages import AuditAsk
from sim.world import SimNode, World, run
from tests.sim.batch_world import batch, finished, only, seen
from tests.sim.market_world import Frame, check_books, market, receipts
from verify.canary import check_mark, marks_hash
from verify.juror import Hearing
from verify.verdict import Finding
from wire import codec
from wire.envelope import seal, unseal
from wire.errors import Malformed, Refused
from wire.job import Commitment, Expected, JobSpec

ALWAYS = {"canary_share": 0.25, "saving_percent": 20, "credit_limit_micro": 10**9}
"""A share at which a canary follows every batch."""


@contextmanager
def lazy(word: str, who: Callable[[JurorService], bool]) -> Iterator[None]:
    """Jurors that say the same of everything and run nothing."""
    honest = JurorService._recompute

    async def say(self: JurorService, hearing: Hearing) -> Expected | Finding:
        if not who(self):
            return await honest(self, hearing)
        return Finding(word, {"cosine": 0.0, "relative": 0.0}, bytes(32), "")  # type: ignore[arg-type]  # a verdict

    with patch.object(JurorService, "_recompute", say):
        yield


def jurors_of(w: World, requester: SimNode) -> dict[int, tuple[int, int]]:
    """Audits and failures of every juror, by node, in the requester's records."""
    records = requester.app.context.records
    return {
        node.number: (standing.audits, standing.failures)
        for node in w.nodes
        for standing in records.of(node.peer)
        if standing.role == "juror"
    }


async def batches(w: World, count: int, **changes: Any) -> SimNode:
    """Have node 1 do batches for node 0, each followed by a canary; returns the requester."""
    requester, worker, *jurors = w.nodes
    with only(worker.peer, [juror.peer for juror in jurors]):
        for _ in range(count):
            job = await finished(requester.app, batch(8, policy="sample:1/4", **changes))
            assert job.verdict == "accept", seen(job)
            await trio.sleep(DELAY_S)
            with trio.fail_after(120):
                while requester.app.context.ledger.reserved():  # noqa: ASYNC110  # no event: the canary is over
                    await trio.sleep(0.5)
                await trio.sleep(5)
    return requester


def test_honest_jurors_pass_every_canary_and_the_lender_is_not_stained() -> None:
    async def main() -> None:
        async with market(61, nodes=5, **ALWAYS) as w:
            requester = await batches(w, 3)
            await check_books(w, honest=True)
            found = [receipt for receipt in await receipts(w) if receipt.canary]
            assert len(found) == 3
            assert {receipt.verdict for receipt in found} == {"reject"}
            scores = jurors_of(w, requester)
            assert {failures for _, failures in scores.values()} == {0}
            assert sum(audits for audits, _ in scores.values()) == 3 * (2 + 2) * 3, "real asks and canaries"
            lender = w.nodes[1]
            assert lender.app.context.ledger.balance() == 3 * 8000, "its own work, and nothing for its name"
            for node in w.nodes:
                edges = node.app.context.ledger.trust_edges()
                assert not [edge for edge in edges if edge.kind == "reject"], "the verdict on a canary is no stain"
            record = requester.app.context.records.standing("worker", lender.peer, requester.app.known_models()[0].cid)
            assert record is None or record.failures == 0

    run(main, 61)


@pytest.mark.parametrize("word", ["accept", "reject"])
def test_a_juror_that_never_looks_is_out(word: str) -> None:
    """It fails canaries, or is overruled in what is real; its neighbours, who look, fail nothing."""

    async def main() -> None:
        async with market(62, nodes=5, **ALWAYS) as w:
            lazy_one = w.nodes[2]
            with lazy(word, lambda service: service._context.identity.peer == lazy_one.peer):
                requester = await batches(w, 6)
            scores = jurors_of(w, requester)
            assert scores.pop(lazy_one.number)[1] >= 3
            assert {failures for _, failures in scores.values()} == {0}
            (standing,) = requester.app.context.records.of(lazy_one.peer)
            assert standing.ejected, standing
            await check_books(w, honest=True)

    run(main, 62)


def test_a_jury_that_never_looks_fails_the_canaries_and_is_not_paid_for_them() -> None:
    async def main() -> None:
        async with market(63, nodes=5, **ALWAYS) as w:
            with lazy("accept", lambda _: True):
                requester = await batches(w, 1)
            scores = jurors_of(w, requester)
            assert all(failures >= 1 for _, failures in scores.values()), scores
            assert [receipt for receipt in await receipts(w) if receipt.canary] == []
            assert requester.app.context.ledger.reserved() == 0
            fees = sum(node.app.context.ledger.balance() for node in w.nodes[2:])
            assert fees == 2 * 3 * 200, "for the real audits alone"
            await check_books(w, honest=True)

    run(main, 63)


def decoded(kind: type[Any], frame: bytes) -> Any:
    """The frame, if it is one of this kind."""
    try:
        return codec.decode(kind, frame)
    except Malformed:
        return None


def test_a_canary_looks_like_a_batch_and_its_marks_were_fixed_before() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(64, nodes=5, log=log, **ALWAYS) as w:
            requester = await batches(w, 1)
            chain = await requester.app.context.ledger.entries(requester.peer, 0, 100)
            real, canary = [entry.body for entry in chain if isinstance(entry.body, Offer)]
            assert (real.payee, real.price_micro, real.fee_micro, real.audits, real.rule) == (
                canary.payee, canary.price_micro, canary.fee_micro, canary.audits, canary.rule,
            )  # fmt: skip
            assert [(j.size, j.needed) for j in real.juries] == [(j.size, j.needed) for j in canary.juries]
            (lent,) = [ask for f in log if f.sent and f.protocol == LEND.name and (ask := decoded(LendAsk, f.data))]
            (receipt,) = [e.body for e in chain if isinstance(e.body, Receipt) and e.body.canary]
            assert receipt.canary == marks_hash([job.mark for job in lent.jobs])
            asks = [(f, ask) for f in log if f.sent and f.node == 0 and (ask := decoded(AuditAsk, f.data))]
            of_canaries = {job.spec.id for job in lent.jobs}
            marked = [ask for _, ask in asks if ask.spec.id in of_canaries]
            plain = [ask for _, ask in asks if ask.spec.id not in of_canaries]
            assert len(marked) == len(plain) == 6
            specs = [[unseal(ask.spec, "job", JobSpec) for ask in side] for side in (plain, marked)]
            same = [
                {
                    (s.model, s.lane, s.price_micro, s.fee_micro, s.pool, s.jury_size, s.deadline_ms - s.created_ms)
                    for s in side
                }
                for side in specs
            ]
            assert same[0] == same[1], "nothing that a juror is shown differs in kind"
            seen_inputs = {spec.inputs for spec in specs[0]}
            assert not seen_inputs & {spec.inputs for spec in specs[1]}, "no juror has seen these answers"
            for job in lent.jobs:
                check_mark(unseal(job.spec, "job", JobSpec), job.commitment.root, job.mark)

    run(main, 64)


def test_no_share_no_canary() -> None:
    async def main() -> None:
        async with market(65, nodes=5, **{**ALWAYS, "canary_share": 0.0}) as w:
            await batches(w, 3)
            assert [receipt for receipt in await receipts(w) if receipt.canary] == []
            assert len(await receipts(w)) == 3

    run(main, 65)


# ---- lenders


def test_a_name_is_lent_to_payers_alone_and_for_canaries_alone() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(66, nodes=6, log=log, only={5: {"lend": False}}, **ALWAYS) as w:
            requester, lender, stranger = w.nodes[0], w.nodes[1], w.nodes[4]
            await batches(w, 1)
            (ask,) = [ask for f in log if f.sent and f.protocol == LEND.name and (ask := decoded(LendAsk, f.data))]
            replace = msgspec.structs.replace
            job = ask.jobs[0]
            other = Commitment(job.commitment.job, bytes(32), job.commitment.leaves)
            spec = replace(unseal(job.spec, "job", JobSpec), nonce=bytes(16))
            real = LendJob(seal(requester.identity, "job", spec), replace(job.commitment, job=spec.id), job.mark)
            good = [replace(each, mark=replace(each.mark, expected="accept")) for each in ask.jobs]
            for bad, why in (
                (ask, "taken before"),
                (replace(ask, jobs=[replace(job, commitment=other), *ask.jobs[1:]]), "canary.root"),
                (replace(ask, jobs=[real, *ask.jobs[1:]]), "canary.nonce"),
                (replace(ask, jobs=ask.jobs[:1]), "not for these canaries"),
                (replace(ask, jobs=[]), "0 canaries"),
                (replace(ask, jobs=good), "canary.nonce"),
                (replace(ask, entry=b"nothing"), "lend"),
            ):
                with pytest.raises(Refused, match=why):
                    await requester.app.context.rpc.call(lender.peer, LEND, bad, timeout_s=60.0)
            with pytest.raises(Refused, match="paid it for work"):
                await stranger.app.context.rpc.call(lender.peer, LEND, ask, timeout_s=60.0)
            with pytest.raises(Refused, match="paid it for work"):
                await requester.app.context.rpc.call(w.nodes[5].peer, LEND, ask, timeout_s=60.0)

    run(main, 66)


def test_a_lender_that_signs_something_else_costs_nothing() -> None:
    def alter(node: SimNode, protocol: str, frame: bytes) -> bytes:
        if protocol != LEND.name or node.number != 1:
            return frame
        return frame[:-1] + bytes([frame[-1] ^ 1])

    async def main() -> None:
        async with market(67, nodes=5, alter=alter, **ALWAYS) as w:
            requester = await batches(w, 1)
            assert requester.app.context.ledger.reserved() == 0
            assert len(await receipts(w)) == 1
            await check_books(w)

    run(main, 67)
