"""What the market promises, under peers that lie: order of messages, replays, false frames, budgets.

Frames are observed, and changed, where they leave a node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import trio

from ledger.entry import Accept, Release, Settle, decode_entry, majority, sign_entry
from ledger.fork import prove
from ledger.sync import FETCH, Fetch, Page
from node.jobs import Job
from node.market.messages import (
    AUDIT,
    HIRE,
    PAID,
    REVEAL,
    AuditAsk,
    Committed,
    Delivered,
    FromWorker,
    Hire,
    Hired,
    Paid,
    Reveal,
)
from sim.world import SimNode, World, run
from tests.sim.market_world import EMBED, Frame, check_books, finished, market, node_of, receipts
from verify.messages import JuryAnswer, RevealAsk
from wire import bls, codec
from wire.codec import Wire
from wire.envelope import Envelope, seal, unseal
from wire.errors import Malformed, Refused
from wire.hashing import digest
from wire.identity import Identity
from wire.job import Commitment, JobSpec, KeyRecord
from wire.peer import PeerId, to_text
from wire.two_keys import check as check_two_keys

T = TypeVar("T", bound=Wire)


def decoded(kind: type[T], frame: bytes) -> T | None:
    """The frame, if it is one of this kind."""
    try:
        return codec.decode(kind, frame)
    except Malformed:
        return None


def from_worker(frame: bytes) -> FromWorker | None:
    """The message, if a worker may send it."""
    return decoded(HIRE.answer, frame)


def sent(log: list[Frame], protocol: str, kind: type[T]) -> list[tuple[Frame, T]]:
    """Frames of this kind that were sent on `protocol`."""
    found = [(f, decoded(kind, f.data)) for f in log if f.sent and f.protocol == protocol]
    return [(frame, message) for frame, message in found if message is not None]


class FirstWorker:
    """Lets the first worker that sends a frame of `kind` misbehave, from then on and alone."""

    def __init__(self, kind: type[Any], change: Callable[[SimNode, Any], FromWorker]) -> None:
        self._kind, self._change = kind, change
        self.culprit: SimNode | None = None

    def __call__(self, node: SimNode, protocol: str, frame: bytes) -> bytes:
        message = from_worker(frame) if protocol == HIRE.name else None
        if not isinstance(message, self._kind) or self.culprit not in (None, node):
            return frame
        self.culprit = node
        return codec.encode(self._change(node, message))


async def accepted(app: Any) -> Job:
    """A job that another did, and that a jury accepted."""
    job = await finished(app, EMBED)
    assert (job.state, job.verdict) == ("settled", "accept"), (job.error, job.attempts)
    return job


async def tallied(app: Any) -> tuple[int, int]:
    """Balance and number of settlements of a node."""
    ledger = app.context.ledger
    entries = await ledger.entries(app.context.identity.peer, 0, 1000)
    return ledger.balance(), sum(isinstance(entry.body, Settle) for entry in entries)


# ---- order


@pytest.mark.parametrize("seed", range(3))
def test_commitments_come_before_secrets_and_seals_before_votes(seed: int) -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(seed, log=log) as w:
            requester = w.nodes[0]
            job = await accepted(requester.app)
            worker = node_of(w, str(job.worker))
            await check_books(w)
            check_beacon(log, requester, worker)
            check_reveals(log, requester)
            check_payment(log, requester)

    run(main, seed)


def check_beacon(log: list[Frame], requester: SimNode, worker: SimNode) -> None:
    """The beacon secret never leaves the requester before it holds the worker's commitment."""
    (first,) = {reveal.secret for _, reveal in sent(log, HIRE.name, Reveal)}
    carries = [f.at_s for f in log if f.sent and f.node == requester.number and first in f.data]
    holds = [
        f.at_s
        for f in log
        if not f.sent and f.node == requester.number and f.peer == worker.peer and f.protocol == HIRE.name
        if isinstance(from_worker(f.data), Committed)
    ]
    assert min(carries) >= min(holds)
    order = [f for f in log if f.node == requester.number and (first in f.data or f.at_s == holds[0])]
    assert not order[0].sent, "the commitment came in first"


def check_reveals(log: list[Frame], requester: SimNode) -> None:
    """No juror opens its vote before all votes are sealed, and before it is shown them."""
    sealed = [frame.at_s for frame, _ in sent(log, AUDIT.name, JuryAnswer)]
    opened = [frame for frame, _ in sent(log, REVEAL.name, Envelope)]
    shown = {f.peer: (f.at_s, ask) for f, ask in sent(log, REVEAL.name, RevealAsk)}
    assert len(opened) == 3
    for frame in opened:
        assert frame.at_s > max(sealed[:3])
    assert all(len(ask.commits) == 3 for _, ask in shown.values())


def check_payment(log: list[Frame], requester: SimNode) -> None:
    """No credit before verification: nobody is told of a payment before the jury has opened its votes."""
    opened = [frame.at_s for frame, _ in sent(log, REVEAL.name, Envelope)]
    paid = [frame.at_s for frame, _ in sent(log, PAID.name, Paid)]
    assert min(paid) > sorted(opened)[1], "two of three votes make a certificate"


# ---- replays


def test_nothing_that_is_replayed_pays_twice() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(3, log=log) as w:
            requester = w.nodes[0]
            await accepted(requester.app)
            await check_books(w)
            before = [await tallied(node.app) for node in w.nodes]
            rpc = requester.app.context.rpc
            old = [f for f in log if f.sent and f.node == 0]
            for frame in [f for f in old if f.protocol == PAID.name and decoded(Paid, f.data)]:
                again = await rpc.call(frame.peer, PAID, codec.decode(Paid, frame.data), timeout_s=60.0)
                assert again.entry == b"", "already taken"
            for frame, ask in sent(old, AUDIT.name, AuditAsk):
                same = await rpc.call(frame.peer, AUDIT, ask, timeout_s=60.0)
                assert same in [answer for _, answer in sent(log, AUDIT.name, JuryAnswer)]
            for frame, show in sent(old, REVEAL.name, RevealAsk):
                await rpc.call(frame.peer, REVEAL, show, timeout_s=60.0)
            for frame, hire in sent(old, HIRE.name, Hire):
                async with rpc.stream(frame.peer, HIRE, timeout_s=60.0) as stream:
                    await stream.send(hire)
                    said = await stream.receive()
                    assert said is not None
                    assert not isinstance(said.body, Hired), "one offer is taken once"
            await trio.sleep(10)
            assert [await tallied(node.app) for node in w.nodes] == before
            await check_books(w)

    run(main, 3)


# ---- workers that break rules


def wrong_job(node: SimNode, message: Committed) -> FromWorker:
    """A commitment to another job, properly signed."""
    promise = unseal(message.commitments[0], "commitment", Commitment)
    other = Commitment(digest("test.job", promise.job), promise.root, promise.leaves)
    return Committed([seal(node.identity, "commitment", other)])


def wrong_salt(node: SimNode, message: Delivered) -> FromWorker:
    """An answer that does not open the commitment."""
    return Delivered(message.answer, bytes(32))


def forged_accept(node: SimNode, message: Hired) -> FromWorker:
    """An acceptance whose signature does not hold."""
    entry = decode_entry(message.accept)
    return Hired(codec.encode(type(entry)(entry.header, bytes(64), entry.body)))


def other_accept(node: SimNode, message: Hired) -> FromWorker:
    """An acceptance of an offer that was never made, signed."""
    entry = decode_entry(message.accept)
    assert isinstance(entry.body, Accept)
    body = Accept(entry.body.job, digest("test.offer", entry.body.job), entry.body.payer)
    header = entry.header
    return Hired(codec.encode(sign_entry(node.identity, header.height, header.previous, body, header.time_ms)))


@pytest.mark.parametrize(
    ("kind", "change"),
    [(Committed, wrong_job), (Delivered, wrong_salt), (Hired, forged_accept), (Hired, other_accept)],
)
def test_a_worker_that_breaks_a_rule_is_blamed_and_replaced(
    kind: type[Any], change: Callable[[SimNode, Any], FromWorker]
) -> None:
    liar = FirstWorker(kind, change)

    async def main() -> None:
        async with market(4, alter=liar) as w:
            requester = w.nodes[0]
            job = await accepted(requester.app)
            assert liar.culprit is not None
            assert job.attempts[0]["worker"] == to_text(liar.culprit.peer)
            assert job.attempts[0]["verdict"] == "broke a rule", job.attempts
            assert job.worker != to_text(liar.culprit.peer)
            assert [exc.peer for exc in requester.blamed] == [liar.culprit.peer]
            await check_books(w)

    run(main, 4)


# ---- requesters that break rules


def test_a_wrong_secret_gets_no_answer() -> None:
    log: list[Frame] = []

    def alter(node: SimNode, protocol: str, frame: bytes) -> bytes:
        said = decoded(Reveal, frame) if protocol == HIRE.name else None
        return frame if said is None else codec.encode(Reveal(bytes(32)))

    async def main() -> None:
        async with market(5, log=log, alter=alter) as w:
            job = await finished(w.nodes[0].app, EMBED)
            assert job.state == "failed"
            assert not [f for f in log if isinstance(from_worker(f.data), Delivered)], (
                "the answer stays with the worker"
            )
            for attempt in job.attempts:
                assert w.nodes[0].peer in [exc.peer for exc in node_of(w, attempt["worker"]).blamed]
            await check_books(w)

    run(main, 5)


def test_a_requester_that_never_reveals_does_not_hold_its_worker_for_ever() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(5, log=log) as w:
            await accepted(w.nodes[0].app)
            (_, hire), *_ = sent(log, HIRE.name, Hire)
            spec = unseal(hire.spec, "job", JobSpec)
            context = w.nodes[0].app.context
            fresh, offer = await offered(w, spec, w.nodes[1])
            with trio.fail_after(60):
                async with context.rpc.stream(w.nodes[1].peer, HIRE, timeout_s=3600.0) as stream:
                    await stream.send(Hire(fresh, offer, [], b""))
                    said = [type(packet.body) async for packet in stream]
            assert said[-1] is Committed, "and then it has ended"

    run(main, 5)


async def offered(w: World, like: JobSpec, worker: SimNode) -> tuple[Envelope, bytes]:
    """A job like another, with its offer to `worker`, ready to be hired for; due in 30 s."""
    context = w.nodes[0].app.context
    now = context.now_ms()
    changed = {"nonce": bytes(16), "created_ms": now, "deadline_ms": now + 30_000}
    spec = JobSpec(**{name: getattr(like, name) for name in like.__struct_fields__} | changed)
    offer = await context.ledger.offer(
        spec.id, worker.peer, spec.price_micro, spec.fee_micro, majority(spec.id, spec.jury_size), spec.deadline_ms
    )
    return seal(context.identity, "job", spec), codec.encode(offer)


def test_without_credit_nothing_is_sent() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(6, log=log, only={0: {"credit_limit_micro": 1599}}) as w:
            job = await finished(w.nodes[0].app, EMBED)
            assert (job.error or {}).get("code") == "insufficient_credit"
            assert not [f for f in log if f.protocol in (HIRE.name, AUDIT.name, PAID.name)]
            assert w.nodes[0].app.context.ledger.head() == 0, "not even an offer"

    run(main, 6)


def test_credit_runs_out_at_the_limit_and_not_before() -> None:
    async def main() -> None:
        async with market(6, only={0: {"credit_limit_micro": 2 * 1600}}) as w:
            await accepted(w.nodes[0].app)
            await accepted(w.nodes[0].app)
            job = await finished(w.nodes[0].app, EMBED)
            assert (job.error or {}).get("code") == "insufficient_credit"
            await check_books(w)

    run(main, 6)


def test_a_payer_that_lies_gets_nothing_and_harms_nobody() -> None:
    async def main() -> None:
        async with market(8) as w:
            await trio.sleep(5)
            liar, payee = w.nodes[1], w.nodes[2]
            paid = Paid(digest("test.job", b"none"), [liar.identity.key_record()])
            settled = await liar.app.context.rpc.call(payee.peer, PAID, paid, timeout_s=60.0)
            assert settled.entry == b""
            forged = Paid(paid.job, [Envelope("keys", payee.peer, liar.identity.key_record().body, bytes(64))])
            with pytest.raises(Refused):
                await liar.app.context.rpc.call(payee.peer, PAID, forged, timeout_s=60.0)
            assert await tallied(payee.app) == (0, 0)
            await accepted(payee.app)
            await check_books(w)

    run(main, 8)


@pytest.mark.parametrize("budget", [1599, 1600])
def test_a_budget_is_respected(budget: int) -> None:
    async def main() -> None:
        async with market(9) as w:
            job = await finished(w.nodes[0].app, {**EMBED, "budget_micro": budget})
            if budget == 1600:
                assert (job.verdict, job.cost_micro) == ("accept", 1600)
            else:
                assert (job.error or {}).get("code") == "insufficient_credit"
                assert w.nodes[0].app.context.ledger.head() == 0
            await check_books(w)

    run(main, 9)


def test_a_budget_covers_all_attempts_together() -> None:
    async def main() -> None:
        cheats = dict.fromkeys(range(1, 6), "random-embedding")
        async with market(9, cheats=cheats) as w:
            job = await finished(w.nodes[0].app, {**EMBED, "budget_micro": 1000, "retries": 5})
            assert (job.error or {}).get("code") == "insufficient_credit", job.attempts
            assert [attempt["verdict"] for attempt in job.attempts] == ["reject"]
            await check_books(w)
            spent = sum(p.amount_micro for receipt in await receipts(w) for p in receipt.payments)
            assert spent == job.cost_micro == 300

    run(main, 9)


def test_a_payer_whose_chain_never_comes_holds_no_payee() -> None:
    async def main() -> None:
        async with market(8) as w:
            await trio.sleep(5)
            silent, payee = w.nodes[1], w.nodes[2]
            silent.app.context.ledger._rpc.serve(FETCH, never_answer)
            with trio.fail_after(30):
                paid = Paid(digest("test.job", b"none"), [])
                settled = await silent.app.context.rpc.call(payee.peer, PAID, paid, timeout_s=60.0)
            assert settled.entry == b""

    run(main, 8)


async def never_answer(_peer: PeerId, _fetch: Fetch) -> Page:
    """Take a request and say nothing."""
    await trio.sleep_forever()
    raise AssertionError("unreachable code")


# ---- peers that forked


def test_a_proven_forker_is_neither_hired_nor_drawn() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(11, nodes=7, log=log, only={1: {"price_percent": 1}}) as w:
            forker = w.nodes[1]
            one, other = [
                sign_entry(forker.identity, 0, bytes(32), Release(digest("test.job", label), bytes(32), "cancelled"), 1)
                for label in (b"one", b"other")
            ]
            proof = prove(one, other)
            assert proof is not None
            await w.nodes[0].app.context.ledger.learn_fork(proof)
            for _ in range(3):
                job = await accepted(w.nodes[0].app)
                assert len(job.attempts) == 1
            asked = {f.peer for f in log if f.sent and f.node == 0 and f.protocol in (HIRE.name, AUDIT.name)}
            assert forker.peer not in asked

    run(main, 11)


# ---- jurors that break rules


class SecondKey:
    """An identity that votes with a second BLS key, properly proven, and announces the first."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._secret = bls.keygen(digest("test.bls", identity.peer))
        possession = bls.prove_possession(self._secret, owner=identity.peer)
        self.record = seal(identity, "keys", KeyRecord(bls.public_key(self._secret), possession))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._identity, name)

    def bls_sign(self, message: bytes) -> bytes:
        return bls.sign(self._secret, message)


def show_second_key(node: SimNode, protocol: str, frame: bytes) -> bytes:
    """Jurors with two keys show juries the second."""
    said = decoded(JuryAnswer, frame) if protocol == AUDIT.name else None
    identity: Any = node.identity
    if said is None or not isinstance(identity, SecondKey):
        return frame
    return codec.encode(JuryAnswer(said.said, identity.record))


@pytest.mark.parametrize("liars", [[1], [2], [1, 2], [1, 2, 3, 4, 5]])
def test_a_juror_with_two_keys_spoils_nothing(liars: list[int]) -> None:
    """It would make a certificate that holds for those who know one key and not for those who know the other."""

    def two_faced(node: SimNode) -> None:
        if node.number in liars:
            node.identity = SecondKey(node.identity)  # type: ignore[assignment]  # what it lacks, it passes on

    async def main() -> None:
        async with market(10, before=two_faced, alter=show_second_key) as w:
            job = await finished(w.nodes[0].app, EMBED)
            assert job.state == "settled", job.error
            worker = node_of(w, str(job.worker)).number
            honest = {1, 2, 3, 4, 5} - {worker, *liars}
            assert job.verdict == ("accept" if len(honest) >= 3 else "unaudited")
            passed_over = {exc.peer for exc in w.nodes[0].blamed}
            assert passed_over <= {w.nodes[liar].peer for liar in liars}
            convicted = w.nodes[0].app.context.keyring.two_faced()
            assert {check_two_keys(proof) for proof in convicted.values()} == convicted.keys() == passed_over
            again = await finished(w.nodes[0].app, {**EMBED, "seed": 2, "retries": 0})
            if again.state == "settled":
                drawn = {str(member["peer"]) for member in again.jury} | {again.worker}
                assert not drawn & {to_text(peer) for peer in passed_over}
            else:
                assert (again.error or {}).get("code") == "no_provider", again.error
            await check_books(w)

    run(main, 10)
