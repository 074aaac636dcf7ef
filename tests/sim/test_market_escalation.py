"""The policy `escalate` among whole nodes: juries that climb, disputes over single steps, and everybody who cheats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from ledger.entry import Release
from node.jobs import Job
from node.market.messages import (
    DISPUTE_ENTRY,
    DISPUTE_OPENING,
    DISPUTE_SHOWN,
    REVEAL,
)
from node.market.proof import bundle_hash
from sim.world import SimNode, World, run
from tests.sim.market_world import (
    EMBED,
    IMAGE,
    check_books,
    finished,
    kill,
    market,
    receipts,
    referee,
)
from tests.sim.tap import Alter
from tests.sim.test_market_invariants import decoded
from verify.calibrated import calibrations
from verify.evidence import check, decode
from verify.faults import Fault
from verify.receipt import check as check_receipt
from verify.receipt import decode as decode_receipt
from wire.job import JobSpec, VerdictWord
from wire.peer import to_text
from wire.rpc.frames import Refusal
from wire.rpc.seam import Method

CLIMB: dict[str, Any] = {**IMAGE, "policy": "escalate", "retries": 0}
CHEAT = {1: "fewer-steps"}
SMALL = 8
"""Nodes: a requester, a worker, and six jurors, who can fill one jury of five."""
LARGE = 14
"""Nodes: twelve jurors, who can fill a jury of five and one of seven."""


class First:
    """The first `count` jurors of a jury of this size say one thing, the others of that jury another."""

    def __init__(self, size: int, count: int, first: VerdictWord | None, others: VerdictWord | None) -> None:
        self._size, self._count, self._first, self._others = size, count, first, others
        self.nodes: list[int] = []

    def __call__(self, node: int, spec: JobSpec) -> VerdictWord | None:
        if spec.jury_size != self._size:
            return None
        if len(self.nodes) < self._count and node not in self.nodes:
            self.nodes.append(node)
        return self._first if node in self.nodes else self._others


def events(job: Job, kind: str) -> list[dict[str, Any]]:
    return [event for event in job.events if event["type"] == kind]


def ended(job: Job) -> tuple[str | None, object]:
    assert job.escalation is not None, (job.error, job.attempts)
    return job.verdict, job.escalation["decided_by"]


async def paid_to(w: World, job: Job) -> set[int]:
    """Numbers of the nodes that the one receipt pays."""
    (body,) = await receipts(w)
    return {node.number for node in w.nodes if node.peer in {payment.peer for payment in body.payments}}


def play(
    test: Callable[[World, Job], Any],
    *,
    nodes: int = SMALL,
    body: dict[str, Any] = CLIMB,
    seed: int = 1,
    **settings: Any,
) -> None:
    """One job under `escalate`, then what the test says, then the books."""

    async def main() -> None:
        async with market(seed, nodes=nodes, **settings) as w:
            job = await finished(w.nodes[0].app, body)
            await test(w, job)
            await check_books(w)

    run(main, seed)


def test_a_jury_of_one_mind_decides_at_once() -> None:
    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", 0)
        (matched,) = events(job, "matched")
        assert matched["levels"] == [{"size": 5, "needed": 5}, {"size": 7, "needed": 6}]
        assert [event["level"] for event in events(job, "auditing")[1:]] == [0]
        (body,) = await receipts(w)
        assert (len(body.certificates), len(body.payments), body.dispute) == (1, 6, b"")
        assert job.receipt is not None
        summary = check_receipt(decode_receipt(job.receipt))
        assert (summary.verdict, summary.spec.jury_size) == ("accept", 5)
        assert job.cost_micro == 800 + 5 * 160, "the fees of those who never sat stay with the requester"
        assert w.nodes[0].app.context.ledger.reserved() == 0

    play(test, nodes=LARGE)


def test_a_lying_juror_makes_the_matter_climb_and_earns_nothing() -> None:
    liar = First(5, 1, "reject", None)

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", 1)
        (climbed,) = events(job, "escalated")
        assert (climbed["level"], climbed["why"]) == (0, "dissent")
        assert [event["level"] for event in events(job, "auditing")[1:]] == [0, 1]
        assert job.escalation is not None
        juries = [{juror["peer"] for juror in level["jury"]} for level in job.escalation["levels"]]
        assert not juries[0] & juries[1], "nobody sits twice"
        (body,) = await receipts(w)
        assert len(body.certificates) == 2, "those of the first level who voted as it ended are paid too"
        assert liar.nodes[0] not in await paid_to(w, job)
        assert len(body.payments) == 1 + 4 + 7

    play(test, nodes=LARGE, lies=liar)


def test_one_honest_juror_convicts_a_cheat_that_four_others_cover() -> None:
    lone = First(5, 1, None, "accept")

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("reject", "dispute")
        assert job.worker == to_text(w.nodes[1].peer)
        begun, ruled = events(job, "dispute")
        assert begun["challenger"] == to_text(w.nodes[lone.nodes[0]].peer)
        assert (ruled["loser"], ruled["fault"]) == (job.worker, "dispute.step")
        assert job.evidence is not None
        convicted = check(decode(job.evidence), referee(), calibrations())
        assert (convicted.peer, convicted.fault, convicted.step) == (w.nodes[1].peer, "step", ruled["step"])
        assert len(job.evidence) < 10_000, "one step, not the whole run"
        (body,) = await receipts(w)
        assert body.dispute == bundle_hash(job.evidence)
        assert await paid_to(w, job) == set(lone.nodes)
        assert w.nodes[1].peer in {exc.peer for exc in w.nodes[0].blamed}

    play(test, cheats=CHEAT, lies=lone)


def test_a_juror_that_accuses_an_honest_worker_loses_its_dispute() -> None:
    liar = First(5, 1, "reject", None)

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", "dispute")
        assert job.escalation is not None
        (dispute,) = job.escalation["disputes"]
        assert (dispute["loser"], dispute["fault"]) == (to_text(w.nodes[liar.nodes[0]].peer), "dispute.unfounded")
        (body,) = await receipts(w)
        assert (body.dispute, len(body.payments), job.evidence) == (bytes(32), 5, None)
        assert liar.nodes[0] not in await paid_to(w, job)
        assert [exc.peer for exc in w.nodes[0].blamed] == [w.nodes[liar.nodes[0]].peer]

    play(test, lies=liar)


DISPUTES: list[Method[Any, Any]] = [DISPUTE_ENTRY, DISPUTE_OPENING, DISPUTE_SHOWN]


def refusing(methods: Sequence[Method[Any, Any]], who: Callable[[SimNode], bool]) -> Alter:
    """Some nodes refuse what is asked of them by these methods."""

    def alter(node: SimNode, name: str, said: bytes) -> bytes | Refusal:
        answers = [m for m in methods if m.name == name and decoded(m.request, said) is None]
        return Refusal("busy", "not now", 1000) if answers and who(node) else said

    return alter


def test_a_worker_that_does_not_defend_itself_loses() -> None:
    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("reject", "dispute")
        assert events(job, "dispute")[-1]["fault"] == "dispute.silent"
        assert job.evidence is not None, "the whole answer was handed over, and still convicts"
        assert check(decode(job.evidence), referee(), calibrations()).fault == "measure"

    silent = refusing(DISPUTES, lambda node: node.number == 1)
    play(test, cheats=CHEAT, lies=First(5, 1, None, "accept"), alter=silent)


def test_an_honest_worker_that_falls_silent_is_rejected_but_no_evidence_convicts_it() -> None:
    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("reject", "dispute")
        assert job.evidence is not None
        with pytest.raises(Fault) as caught:
            check(decode(job.evidence), referee(), calibrations())
        assert caught.value.code == "evidence.innocent"

    silent = refusing(DISPUTES, lambda node: node.number == 1)
    play(test, only={1: {"price_percent": 50}}, lies=First(5, 1, "reject", None), alter=silent)


def test_a_juror_that_accuses_and_deserts_loses() -> None:
    liar = First(5, 1, "reject", None)

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", "dispute")
        assert events(job, "dispute")[-1]["fault"] == "dispute.silent"

    play(test, lies=liar, alter=refusing(DISPUTES, lambda node: node.number in liar.nodes))


def test_noise_of_another_seed_is_seen_without_asking_anybody() -> None:
    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("reject", "dispute")
        (ruled,) = events(job, "dispute")
        assert (ruled["fault"], ruled["step"]) == ("dispute.first", None)
        assert job.evidence is not None
        convicted = check(decode(job.evidence), referee(), calibrations())
        assert (convicted.peer, convicted.fault) == (w.nodes[1].peer, "measure")

    play(test, cheats={1: "wrong-seed"}, lies=First(5, 1, None, "accept"))


def test_an_answer_that_stands_although_nobody_accepted_it_cannot_be_paid_for() -> None:
    """Four lie that it is wrong, the fifth withholds its vote; the worker wins all four disputes."""
    withholding = First(5, 1, None, "reject")

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("unaudited", "dispute")
        assert job.escalation is not None
        assert [dispute["fault"] for dispute in job.escalation["disputes"]] == ["dispute.unfounded"] * 4
        (body,) = await receipts(w)
        assert (body.verdict, body.payments) == ("unaudited", [])

    play(test, lies=withholding, alter=refusing([REVEAL], lambda node: node.number in withholding.nodes))


def test_a_withheld_vote_makes_the_matter_climb() -> None:
    liar = First(5, 1, "reject", None)

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", 1)
        assert events(job, "escalated")[0]["why"] == "withheld"
        assert liar.nodes[0] not in await paid_to(w, job)

    play(test, nodes=LARGE, lies=liar, alter=refusing([REVEAL], lambda node: node.number in liar.nodes))


def test_where_nobody_rejected_and_no_jury_decided_the_answer_is_unaudited() -> None:
    withholding = First(5, 1, None, None)

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("unaudited", "nobody")
        assert (job.cost_micro, job.evidence) == (0, None)

    play(test, lies=withholding, alter=refusing([REVEAL], lambda node: node.number in withholding.nodes))


@pytest.mark.parametrize(("nodes", "levels"), [(5, [(3, 3)]), (7, [(5, 5)]), (12, [(3, 3), (7, 6)])])
def test_a_small_network_fills_the_levels_that_it_can(nodes: int, levels: list[tuple[int, int]]) -> None:
    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", 0)
        (matched,) = events(job, "matched")
        assert [(level["size"], level["needed"]) for level in matched["levels"]] == levels

    play(test, nodes=nodes)


def test_three_peers_are_too_few() -> None:
    async def test(w: World, job: Job) -> None:
        assert (job.state, (job.error or {}).get("code")) == ("failed", "no_provider")
        assert await receipts(w) == []

    play(test, nodes=4)


def test_embeddings_have_no_steps_and_end_with_a_majority() -> None:
    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", 0)
        assert events(job, "matched")[0]["levels"] == [{"size": 5, "needed": 3}]
        assert not events(job, "dispute")

    body = {**EMBED, "policy": "escalate", "retries": 0}
    play(test, body=body, lies=First(5, 2, "reject", None))


TEXT: dict[str, Any] = {
    "seed": 1,
    "kind": "text.generate",
    "model": "bytes-gpt",
    "lane": "exact",
    "input": {"prompt": "Once there was a little dog who", "tokens_max": 6},
    "policy": "escalate",
    "retries": 0,
}


def test_a_text_is_disputed_token_by_token() -> None:
    """The exact lane; four jurors are themselves cheats of the same kind, and find the answer right."""

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("reject", "dispute")
        assert job.evidence is not None
        convicted = check(decode(job.evidence), referee(), calibrations())
        assert (convicted.peer, convicted.fault) == (w.nodes[1].peer, "step")

    play(test, body=TEXT, cheats={1: "short-prompt"}, lies=First(5, 1, None, "accept"))


def test_a_requester_that_dies_on_its_way_up_leaves_nothing_reserved() -> None:
    async def main() -> None:
        async with market(1, nodes=LARGE, lies=First(5, 1, "reject", None)) as w:
            first = w.nodes[0]
            job = await first.app.submit(CLIMB)
            async with aclosing(first.app.board.follow(job)) as news:
                async for event in news:
                    if event["type"] == "escalated":
                        break
            assert first.app.context.ledger.reserved() == 800 + 12 * 160
            await kill(first)
            await first.restart()
            (known,) = first.app.board.all()
            assert (known.state, (known.error or {})["code"]) == ("failed", "interrupted")
            assert first.app.context.ledger.reserved() == 0
            entries = await first.app.context.ledger.entries(first.peer, 0, 10)
            assert isinstance(entries[-1].body, Release)
            await check_books(w)

    run(main, 1)
