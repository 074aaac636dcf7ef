"""Under the policy `escalate` whoever breaks a rule is refused by name: ladders, commitments and disputes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from node.jobs import Job
from node.market.messages import (
    DISPUTE_ENTRY,
    DISPUTE_OPENING,
    DISPUTE_SHOWN,
    HIRE,
    Committed,
    DisputeAsk,
    FromWorker,
    Hire,
)
from sim.world import SimNode, World
from tests.sim.market_world import Frame, node_of, receipts
from tests.sim.test_market_escalation import CHEAT, CLIMB, LARGE, First, ended, events, play
from tests.sim.test_market_invariants import FirstWorker, decoded, sent
from verify.bisection import DOMAIN, Entry, Opening, StateBook, StateList
from wire import codec
from wire.envelope import seal, unseal
from wire.errors import Refused
from wire.job import Commitment, JobSpec
from wire.rpc.seam import Method


def replied(change: Callable[[SimNode, Any], Any], kind: type[Any]) -> Callable[[SimNode, str, bytes], bytes]:
    """The cheating worker changes what it answers in disputes."""

    def alter(node: SimNode, protocol: str, frame: bytes) -> bytes:
        if node.number != 1 or protocol not in (DISPUTE_ENTRY.name, DISPUTE_OPENING.name):
            return frame
        said = decoded(kind, frame)
        return frame if said is None else codec.encode(change(node, said))

    return alter


def another_leaf(node: SimNode, opening: Opening) -> Opening:
    return Opening(opening.index + 1, opening.leaf, opening.proof)


def of_another_job(node: SimNode, entry: Entry) -> Entry:
    listed = unseal(entry.states, DOMAIN, StateList)
    other = StateList(bytes(32), listed.root, listed.states, listed.count)
    return Entry(seal(node.identity, DOMAIN, other), entry.first, entry.last)


def of_other_states(node: SimNode, entry: Entry) -> Entry:
    listed = unseal(entry.states, DOMAIN, StateList)
    other = StateBook(listed.job, listed.root, [entry.first.leaf, *[entry.last.leaf] * (listed.count - 1)])
    return other.enter(node.identity)


@pytest.mark.parametrize(
    ("change", "kind", "fault"),
    [
        (another_leaf, Opening, "dispute.opening"),
        (of_another_job, Entry, "dispute.job"),
        (of_other_states, Entry, "dispute.trace"),
    ],
)
def test_a_worker_that_opens_what_was_not_asked_loses_by_name(
    change: Callable[[SimNode, Any], Any], kind: type[Any], fault: str
) -> None:
    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("reject", "dispute")
        assert events(job, "dispute")[-1]["fault"] == fault
        assert any(fault in str(exc) for exc in w.nodes[0].blamed)

    play(test, cheats=CHEAT, lies=First(5, 1, None, "accept"), alter=replied(change, kind))


def two_roots(node: SimNode, message: Committed) -> FromWorker:
    """Another root for the second level, so that a draw could be chosen."""
    first, second = message.commitments
    promise = unseal(second, "commitment", Commitment)
    other = Commitment(promise.job, bytes(32), promise.leaves)
    return Committed([first, seal(node.identity, "commitment", other)])


def no_second(node: SimNode, message: Committed) -> FromWorker:
    """A commitment for the first level alone."""
    return Committed(message.commitments[:1])


@pytest.mark.parametrize("change", [two_roots, no_second])
def test_a_worker_that_commits_to_two_roots_is_replaced(change: Callable[[SimNode, Any], FromWorker]) -> None:
    liar = FirstWorker(Committed, change)

    async def test(w: World, job: Job) -> None:
        assert ended(job) == ("accept", 0)
        assert job.attempts[0]["verdict"] == "broke a rule"
        assert any("ladder.root" in str(exc) for exc in w.nodes[0].blamed)

    play(test, nodes=LARGE, body={**CLIMB, "retries": 1}, alter=liar)


def hire_with(change: Callable[[SimNode, Hire], Hire]) -> Callable[[SimNode, str, bytes], bytes]:
    """The requester changes its hire."""

    def alter(node: SimNode, protocol: str, frame: bytes) -> bytes:
        hire = decoded(Hire, frame) if node.number == 0 and protocol == HIRE.name else None
        return frame if hire is None else codec.encode(change(node, hire))

    return alter


def other_nonce(node: SimNode, hire: Hire) -> Hire:
    return replace(hire, nonce=bytes(16))


def short_nonce(node: SimNode, hire: Hire) -> Hire:
    return replace(hire, nonce=hire.nonce[:8])


def levels_missing(node: SimNode, hire: Hire) -> Hire:
    return replace(hire, above=[])


def levels_swapped(node: SimNode, hire: Hire) -> Hire:
    return replace(hire, spec=hire.above[0], above=[hire.spec])


def other_deadline(node: SimNode, hire: Hire) -> Hire:
    spec = unseal(hire.above[0], "job", JobSpec)
    return replace(hire, above=[seal(node.identity, "job", replace(spec, deadline_ms=spec.deadline_ms + 1))])


@pytest.mark.parametrize("change", [other_nonce, short_nonce, levels_missing, levels_swapped, other_deadline])
def test_no_worker_takes_a_ladder_that_is_not_in_order(change: Callable[[SimNode, Hire], Hire]) -> None:
    async def test(w: World, job: Job) -> None:
        assert (job.state, (job.error or {}).get("code")) == ("failed", "worker_failed")
        (worker,) = [node for node in w.nodes[1:] if node.blamed]
        assert "ladder." in str(worker.blamed[0])
        assert await receipts(w) == []

    play(test, nodes=LARGE, alter=hire_with(change))


def as_a_plain_job(node: SimNode, hire: Hire) -> Hire:
    return replace(hire, above=[], nonce=b"")


def test_a_ladder_cannot_be_taken_for_one_jury() -> None:
    async def test(w: World, job: Job) -> None:
        assert (job.error or {}).get("code") == "worker_failed"
        assert "the offer is not for this job" in job.attempts[0]["reason"]

    play(test, nodes=LARGE, alter=hire_with(as_a_plain_job))


def test_the_sides_of_a_dispute_answer_its_requester_and_nobody_else() -> None:
    log: list[Frame] = []

    async def test(w: World, job: Job) -> None:
        (_, ask), *_ = sent(log, DISPUTE_ENTRY.name, DisputeAsk)
        worker = w.nodes[1].peer

        async def refused(node: SimNode, method: Method[Any, Any] = DISPUTE_ENTRY, **changes: Any) -> str:
            with pytest.raises(Refused) as caught:
                await node.app.context.rpc.call(worker, method, replace(ask, **changes), timeout_s=60.0)
            return caught.value.text.split(":")[0]

        assert await refused(w.nodes[2]) == "sender"
        assert await refused(w.nodes[0], job=bytes(32)) == "dispute.unknown"
        assert await refused(w.nodes[0], root=bytes(32)) == "dispute.unknown"
        for method, index in ((DISPUTE_OPENING, 5), (DISPUTE_OPENING, -1), (DISPUTE_SHOWN, 4), (DISPUTE_SHOWN, -1)):
            assert await refused(w.nodes[0], method, index=index) == "dispute.index"
        juror = node_of(w, events(job, "dispute")[0]["challenger"])
        show = replace(ask, index=0)
        with pytest.raises(Refused, match=r"dispute\.index"):
            await w.nodes[0].app.context.rpc.call(juror.peer, DISPUTE_SHOWN, show, timeout_s=60.0)

    play(test, cheats=CHEAT, lies=First(5, 1, None, "accept"), log=log)
