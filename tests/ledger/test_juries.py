"""What an offer may promise to several juries, and what the receipt then owes: ladders and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.audit import audit_all
from ledger.chain import validate
from ledger.edges import TrustEdge, TrustGraph
from ledger.entry import (
    AUDITS_MAX,
    ENTRY_BYTES_MAX,
    SEATS_MAX,
    ZERO,
    Accept,
    Body,
    Entry,
    Jury,
    Offer,
    Payment,
    Receipt,
    Settle,
    decode_entry,
    majority,
    sign_entry,
)
from ledger.rules import owed
from ledger.state import OfferRecord
from tests.ledger.parties import LATER_MS, NOW_MS, Key, certificate, check, check_without_keys, job_id, ledger_of, net
from wire import codec
from wire.job import Certificate, VerdictWord
from wire.limits import JURIES_MAX, JURY_MAX
from wire.peer import PeerId

PAYER, WORKER = Key(1), Key(2)
JURORS = [Key(number) for number in range(3, 60)]
JOBS = [job_id(number) for number in range(1, 6)]
LADDER = Offer(JOBS[0], WORKER.peer, 1000, 10, "ladder", [Jury(JOBS[0], 3, 3), Jury(JOBS[1], 7, 6)], 0, LATER_MS)
BATCH = Offer(job_id(99), WORKER.peer, 1000, 10, "batch", [Jury(job, 3, 2) for job in JOBS], 2, LATER_MS)


def jury(level: int, size: int) -> list[PeerId]:
    """`size` jurors, others for each level."""
    return [key.peer for key in JURORS[level * 10 : level * 10 + size]]


def said(level: int, size: int, verdict: VerdictWord = "accept", of: int | None = None) -> Certificate:
    """`size` jurors certify the job of this place."""
    return certificate(JOBS[level], verdict, jury(level if of is None else of, size))


def judge(offer: Offer, verdict: Any, certificates: list[Certificate], **changes: Any) -> str:
    """The rule that a payer's chain with this offer and receipt breaks; empty if none."""
    offered = sign_entry(PAYER, 0, bytes(32), offer, NOW_MS)
    accept = sign_entry(WORKER, 0, bytes(32), Accept(offer.job, offered.id, PAYER.peer), NOW_MS)
    raw = [codec.encode(each) for each in certificates]
    body = Receipt(offer.job, offered.id, accept.id, verdict, raw, owed(offer, verdict, certificates))
    receipt = sign_entry(PAYER, 1, offered.id, msgspec.structs.replace(body, **changes), NOW_MS)
    return validate(PAYER.peer, [offered, receipt], check, lambda entry_id: {accept.id: accept}.get(entry_id)).code


def offers(**changes: Any) -> str:
    """The rule that this offer breaks."""
    made = sign_entry(PAYER, 0, bytes(32), msgspec.structs.replace(LADDER, **changes), NOW_MS)
    return validate(PAYER.peer, [made], check).code


BAD_OFFERS: dict[str, dict[str, Any]] = {
    "an even jury": {"juries": [Jury(JOBS[0], 4, 3)]},
    "half a jury decides": {"juries": [Jury(JOBS[0], 3, 1)]},
    "more needed than sit": {"juries": [Jury(JOBS[0], 3, 4)]},
    "two juries for one job": {"juries": [Jury(JOBS[0], 3, 2)] * 2},
    "a ladder of another job": {"juries": [Jury(JOBS[1], 3, 2)]},
    "a ladder without a jury": {"juries": []},
    "a ladder of five": {"juries": [Jury(job, 3, 2) for job in JOBS]},
    "a ladder with audits": {"audits": 1},
    "two juries by the rule for one": {"rule": "one"},
    "one jury of another job": {"rule": "one", "juries": [Jury(JOBS[1], 3, 2)]},
    "one jury with audits": {"rule": "one", "juries": majority(JOBS[0], 3), "audits": 1},
    "a batch without juries": {"rule": "batch", "juries": [], "audits": 1},
    "a batch that nobody audits": {"rule": "batch", "juries": BATCH.juries},
    "more audits than jobs": {"rule": "batch", "juries": BATCH.juries, "audits": 6},
    "a batch of unequal juries": {"rule": "batch", "juries": LADDER.juries, "audits": 1},
    "too many jurors": {"rule": "batch", "juries": [Jury(job_id(n), 21, 11) for n in range(30)], "audits": 19},
}


@pytest.mark.parametrize("what", BAD_OFFERS)
def test_juries_that_make_no_sense_are_refused(what: str) -> None:
    assert offers(**BAD_OFFERS[what]) == "juries"


def test_no_second_offer_names_a_jury_for_a_job_of_the_same_payee() -> None:
    """Else the payee could be had to commit twice to one level's job, and its requester to choose the draw."""
    first = sign_entry(PAYER, 0, bytes(32), LADDER, NOW_MS)
    again = Offer(JOBS[1], WORKER.peer, 1, 0, "one", majority(JOBS[1], 7), 0, LATER_MS)
    elsewhere = msgspec.structs.replace(again, payee=Key(9).peer)
    for second, code in ((again, "twice"), (elsewhere, "")):
        chain = [first, sign_entry(PAYER, 1, first.id, second, NOW_MS)]
        assert validate(PAYER.peer, chain, check).code == code


def test_what_an_offer_reserves() -> None:
    assert [offer.reserve_micro for offer in (LADDER, BATCH)] == [1000 + 10 * 10, 1000 + 2 * 3 * 10]
    unchecked = msgspec.structs.replace(LADDER, rule="one", juries=[])
    assert (unchecked.seats, offers(rule="one", juries=[])) == (0, "")


PROVEN = bytes([7]) * 32
LADDER_CASES: dict[str, tuple[str, Any, list[Certificate], dict[str, Any]]] = {
    "the first level decides": ("", "accept", [said(0, 3)], {}),
    "the second decides, the first was of two minds": ("", "accept", [said(0, 1), said(1, 6)], {}),
    "the second decides alone": ("", "reject", [said(1, 7, "reject")], {}),
    "a dispute decides for the one who rejected": ("", "reject", [said(0, 1, "reject")], {"dispute": PROVEN}),
    "the worker fell silent in its dispute": ("", "reject", [said(1, 5, "reject")], {"dispute": bytes(32)}),
    "the answer stands after disputes": ("", "accept", [said(0, 2), said(1, 5)], {"dispute": bytes(32)}),
    "nobody decided": ("", "unaudited", [], {}),
    "a first level that is not of one mind decides": ("certificate", "accept", [said(0, 2)], {}),
    "a second level with five of seven decides": ("certificate", "accept", [said(0, 2), said(1, 5)], {}),
    "a first level of two before none": ("certificate", "reject", [said(0, 2, "reject")], {}),
    "levels out of order": ("certificate", "accept", [said(1, 6), said(0, 3)], {}),
    "one level twice": ("certificate", "accept", [said(0, 3), said(0, 3)], {}),
    "a level of another ladder": ("certificate", "accept", [said(2, 7)], {}),
    "levels that disagree": ("certificate", "accept", [said(0, 1, "reject"), said(1, 6)], {}),
    "the other verdict": ("certificate", "reject", [said(0, 3)], {}),
    "a juror of both levels": ("certificate", "accept", [said(0, 1, of=1), said(1, 6)], {}),
    "more signers than sit": ("certificate", "accept", [said(0, 4)], {}),
    "a dispute without a vote": ("certificate", "reject", [], {"dispute": PROVEN}),
    "an unaudited dispute": ("dispute", "unaudited", [], {"dispute": PROVEN}),
    "evidence against an answer that stands": ("dispute", "accept", [said(0, 3)], {"dispute": PROVEN}),
    "half a hash": ("dispute", "reject", [said(0, 3, "reject")], {"dispute": PROVEN[:16]}),
    "a canary": ("canary", "reject", [said(0, 3, "reject")], {"canary": PROVEN}),
}


@pytest.mark.parametrize("what", LADDER_CASES)
def test_the_receipt_of_a_ladder(what: str) -> None:
    code, verdict, certificates, changes = LADDER_CASES[what]
    assert judge(LADDER, verdict, certificates, **changes) == code


def test_levels_certify_one_answer() -> None:
    other = said(1, 6)
    statement = msgspec.structs.replace(other.statement, root=bytes([1]) * 32)
    assert judge(LADDER, "accept", [said(0, 1), msgspec.structs.replace(other, statement=statement)]) == "certificate"


BATCH_CASES: dict[str, tuple[str, Any, list[Certificate], dict[str, Any]]] = {
    "as many audits as agreed": ("", "accept", [said(0, 2), said(3, 3)], {}),
    "one rejection": ("", "reject", [said(2, 2, "reject")], {}),
    "one rejection beside an acceptance": ("", "reject", [said(2, 3), said(4, 2, "reject")], {}),
    "nobody decided": ("", "unaudited", [], {}),
    "an audit less": ("certificate", "accept", [said(0, 2)], {}),
    "an audit more": ("certificate", "accept", [said(0, 2), said(1, 2), said(2, 2)], {}),
    "one job twice": ("certificate", "accept", [said(0, 2), said(0, 3)], {}),
    "jobs out of order": ("certificate", "accept", [said(1, 2), said(0, 2)], {}),
    "an audit that rejected": ("certificate", "accept", [said(0, 2), said(1, 2, "reject")], {}),
    "a rejection that nobody signed": ("certificate", "reject", [said(0, 2), said(1, 2)], {}),
    "rejections beyond the audits": ("certificate", "reject", [said(n, 2, "reject") for n in range(3)], {}),
    "too few signers": ("certificate", "accept", [said(0, 2), said(1, 1)], {}),
    "no certificate": ("certificate", "accept", [], {}),
    "a dispute": ("dispute", "reject", [said(0, 2, "reject")], {"dispute": PROVEN}),
    "a canary": ("", "reject", [said(0, 2, "reject")], {"canary": PROVEN}),
    "a canary with half a hash": ("canary", "reject", [said(0, 2, "reject")], {"canary": PROVEN[:16]}),
    "an unaudited canary": ("canary", "unaudited", [], {"canary": PROVEN}),
    "a fee too few": ("payments", "accept", [said(0, 2), said(1, 2)], {"payments": [Payment(WORKER.peer, 1000)]}),
}


@pytest.mark.parametrize("what", BATCH_CASES)
def test_the_receipt_of_a_batch(what: str) -> None:
    code, verdict, certificates, changes = BATCH_CASES[what]
    assert judge(BATCH, verdict, certificates, **changes) == code


@pytest.mark.parametrize(("verdict", "kinds"), [("accept", {"work", "jury"}), ("reject", {"reject", "jury"})])
def test_the_worker_of_a_canary_gets_no_edge(verdict: Any, kinds: set[str]) -> None:
    """It only lent its name; the jurors looked all the same."""
    signed = [said(0, 2, verdict), said(3, 3, verdict)]
    plain = Receipt(BATCH.job, ZERO, ZERO, verdict, [], owed(BATCH, verdict, signed))
    graphs = TrustGraph(), TrustGraph()
    graphs[0].add(PAYER.peer, plain, BATCH)
    graphs[1].add(PAYER.peer, msgspec.structs.replace(plain, canary=PROVEN), BATCH)
    found = [{edge.kind for edge in graph.edges()} for graph in graphs]
    assert found == [kinds, {"jury"}]


def test_whoever_signed_twice_earns_two_fees_in_one_payment() -> None:
    both = jury(0, 1)[0]
    certificates = [said(0, 2), said(1, 2, of=0)]
    assert owed(BATCH, "accept", certificates)[0] == Payment(WORKER.peer, 1000)
    assert Payment(both, 20) in owed(BATCH, "accept", certificates)
    assert judge(BATCH, "accept", certificates) == ""


def test_a_key_that_is_not_known_is_a_gap() -> None:
    offered = sign_entry(PAYER, 0, bytes(32), LADDER, NOW_MS)
    accept = sign_entry(WORKER, 0, bytes(32), Accept(LADDER.job, offered.id, PAYER.peer), NOW_MS)
    certificates = [said(0, 1), said(1, 6)]
    raw = [codec.encode(each) for each in certificates]
    body = Receipt(LADDER.job, offered.id, accept.id, "accept", raw, owed(LADDER, "accept", certificates))
    receipt = sign_entry(PAYER, 1, offered.id, body, NOW_MS)
    found = validate(
        PAYER.peer, [offered, receipt], check_without_keys, lambda entry_id: {accept.id: accept}.get(entry_id)
    )
    assert (found.level, [gap.kind for gap in found.gaps]) == ("partial", ["certificate"])


def test_debits_and_credits_of_a_ladder_balance_and_make_edges() -> None:
    certificates = [said(0, 1, "reject"), said(1, 6, "reject")]
    offered = sign_entry(PAYER, 0, bytes(32), LADDER, NOW_MS)
    accept = sign_entry(WORKER, 0, bytes(32), Accept(LADDER.job, offered.id, PAYER.peer), NOW_MS)
    raw = [codec.encode(each) for each in certificates]
    body = Receipt(LADDER.job, offered.id, accept.id, "reject", raw, owed(LADDER, "reject", certificates))
    receipt = sign_entry(PAYER, 1, offered.id, body, NOW_MS)
    juror = next(key for key in JURORS if key.peer == jury(1, 1)[0])
    settle = sign_entry(juror, 0, bytes(32), Settle(LADDER.job, receipt.id, PAYER.peer, 10), NOW_MS)
    chains: dict[PeerId, list[Entry]] = {PAYER.peer: [offered, receipt], WORKER.peer: [accept], juror.peer: [settle]}
    found = audit_all(chains, check)
    assert found.ok
    assert (found.balances[PAYER.peer], found.balances[juror.peer], sum(found.pending.values())) == (-70, 10, 60)
    graph = TrustGraph()
    graph.add(PAYER.peer, body, LADDER)
    edges = graph.edges()
    assert TrustEdge(PAYER.peer, WORKER.peer, -1000.0, "reject", 1) in edges
    assert [edge.weight for edge in edges if edge.kind == "jury"] == [10.0] * 7


def test_the_largest_offers_and_receipts_fit_into_an_entry() -> None:
    def size(body: Body) -> int:
        entry = sign_entry(PAYER, 2**53, job_id(1), body, NOW_MS)
        assert decode_entry(codec.encode(entry)) == entry
        return len(codec.encode(entry))

    jobs = [job_id(n) for n in range(JURIES_MAX)]
    juries = [Jury(job, JURY_MAX, 11) for job in jobs]
    assert size(Offer(jobs[0], WORKER.peer, 2**53, 2**40, "batch", juries, 18, LATER_MS)) < ENTRY_BYTES_MAX // 4
    for audits, seats in ((SEATS_MAX // JURY_MAX, JURY_MAX), (AUDITS_MAX, SEATS_MAX // AUDITS_MAX)):
        crowd = [Key(1000 + n).peer for n in range(audits * seats)]
        certificates = [certificate(jobs[n], "accept", crowd[n * seats : (n + 1) * seats]) for n in range(audits)]
        raw = [codec.encode(each) + bytes(64) for each in certificates]  # a BLS signature is longer than our hash
        payments = [Payment(peer, 2**53) for peer in [WORKER.peer, *crowd]]
        assert size(Receipt(job_id(1), job_id(2), job_id(3), "accept", raw, payments, PROVEN)) < ENTRY_BYTES_MAX


async def test_a_juror_finds_the_offer_that_pays_for_its_jury(tmp_path: Path) -> None:
    async with net() as on, ledger_of(tmp_path, 1, on) as payer, ledger_of(tmp_path, 3, on) as juror:
        offer = await payer.offer(JOBS[0], WORKER.peer, 1000, 10, LADDER.juries, LATER_MS, rule="ladder")
        assert (payer.reserved(), offer.body) == (1100, LADDER)
        await juror.pull(payer.peer, payer.peer)
        found = [await juror.offer_judged(payer.peer, job, WORKER.peer) for job in JOBS[:3]]
        assert found == [OfferRecord(offer.id, LADDER), OfferRecord(offer.id, LADDER), None]
        assert await juror.offer_judged(payer.peer, JOBS[0], Key(9).peer) is None
        await payer.release(offer.id, "cancelled")
        await juror.pull(payer.peer, payer.peer)
        assert await juror.offer_judged(payer.peer, JOBS[1], WORKER.peer) == OfferRecord(offer.id, LADDER, "released")
