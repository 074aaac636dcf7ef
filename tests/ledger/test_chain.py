"""What may follow what: each rule of a chain, by the word that names it when it is broken."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from ledger.audit import audit_all, audit_chain, from_lines, to_lines
from ledger.chain import FUTURE_MS_MAX, Validation, validate
from ledger.entry import Accept, Body, Entry, Payment, Receipt, Release, Settle, majority, sign_entry
from ledger.ports import CertificateCheck
from ledger.state import rebuild
from tests.ledger.parties import LATER_MS, NOW_MS, Key, certificate, check, check_without_keys, job_id, plain_offer
from wire import codec
from wire.errors import Malformed
from wire.peer import PeerId

PAYER, WORKER = Key(1), Key(2)
JURY = sorted(Key(number).peer for number in (3, 4, 5))
JOB = job_id(1)
OFFER = plain_offer(JOB, WORKER.peer, 1000, 10, 3, LATER_MS)


def chain(key: Key, *bodies: Body) -> list[Entry]:
    """A well-linked chain of `bodies`, whatever they say."""
    entries: list[Entry] = []
    for height, body in enumerate(bodies):
        previous = entries[-1].id if entries else bytes(32)
        entries.append(sign_entry(key, height, previous, body, NOW_MS + height))
    return entries


def look_in(*chains: Sequence[Entry]) -> dict[bytes, Entry]:
    return {entry.id: entry for entries in chains for entry in entries}


def judge(author: Key, entries: Sequence[Entry], *others: Sequence[Entry], by: CertificateCheck = check) -> Validation:
    known = look_in(*others)
    return validate(author.peer, entries, by, lambda entry_id: known.get(entry_id))


OFFERED = chain(PAYER, OFFER)[0]
ACCEPTED = chain(WORKER, Accept(JOB, OFFERED.id, PAYER.peer))
FEES = [Payment(juror, 10) for juror in JURY]
PAID = [Payment(WORKER.peer, 1000), *FEES]
CERTIFICATE = certificate(JOB, "accept", JURY)


def receipt(**changes: object) -> Receipt:
    good = Receipt(JOB, OFFERED.id, ACCEPTED[0].id, "accept", [codec.encode(CERTIFICATE)], PAID)
    return msgspec.structs.replace(good, **changes)


RECEIVED = chain(PAYER, OFFER, receipt())
SETTLE = Settle(JOB, RECEIVED[1].id, PAYER.peer, 1000)
SETTLED = chain(WORKER, Accept(JOB, OFFERED.id, PAYER.peer), SETTLE)


def test_a_job_from_offer_to_settlement_is_complete_on_both_sides() -> None:
    assert judge(PAYER, RECEIVED, ACCEPTED) == Validation("complete", 2)
    assert judge(WORKER, SETTLED, RECEIVED) == Validation("complete", 2)


def test_what_is_not_known_is_listed_and_not_held_against_the_author() -> None:
    payer = judge(PAYER, RECEIVED, by=check_without_keys)
    assert (payer.level, [(gap.height, gap.kind, gap.ref) for gap in payer.gaps]) == (
        "partial",
        [(1, "entry", ACCEPTED[0].id), (1, "certificate", RECEIVED[1].id)],
    )
    worker = judge(WORKER, SETTLED)
    assert [(gap.height, gap.kind, gap.ref) for gap in worker.gaps] == [
        (0, "entry", OFFERED.id),
        (1, "entry", RECEIVED[1].id),
    ]


def test_holes_in_a_chain_are_listed() -> None:
    long = chain(PAYER, *(plain_offer(job_id(n), WORKER.peer, 1, 0, 1, LATER_MS) for n in range(5)), receipt())
    found = judge(PAYER, [long[1], long[4], long[5]], ACCEPTED)
    assert found.level == "partial"
    assert [(gap.kind, gap.height, gap.until) for gap in found.gaps[:2]] == [("heights", 0, 1), ("heights", 2, 4)]
    assert (found.gaps[2].kind, found.gaps[2].ref) == ("own", OFFERED.id)


SMALL = msgspec.structs.replace(OFFER, juries=majority(JOB, 1))
SMALL_OFFERED = chain(PAYER, SMALL)[0]
SMALL_ACCEPTED = chain(WORKER, Accept(JOB, SMALL_OFFERED.id, PAYER.peer))[0]

CHEATS: dict[str, tuple[str, list[Body]]] = {
    "offer to oneself": ("self_dealing", [msgspec.structs.replace(OFFER, payee=PAYER.peer)]),
    "offer that reserves too much": ("amount", [msgspec.structs.replace(OFFER, price_micro=2**53)]),
    "offer that ends before it begins": ("expired", [msgspec.structs.replace(OFFER, expires_ms=NOW_MS)]),
    "offer twice to one payee": ("twice", [OFFER, msgspec.structs.replace(OFFER, price_micro=1)]),
    "offer after the receipt": (
        "twice",
        [OFFER, receipt(), msgspec.structs.replace(OFFER, payee=Key(9).peer)],
    ),
    "receipt without an offer": ("offer", [receipt()]),
    "receipt for another job than the offer": ("offer", [OFFER, receipt(job=job_id(2))]),
    "receipt twice": ("twice", [OFFER, receipt(), receipt()]),
    "receipt after release": ("offer", [OFFER, Release(JOB, OFFERED.id, "cancelled"), receipt()]),
    "release after receipt": ("offer", [OFFER, receipt(), Release(JOB, OFFERED.id, "cancelled")]),
    "release twice": (
        "offer",
        [OFFER, Release(JOB, OFFERED.id, "cancelled"), Release(JOB, OFFERED.id, "cancelled")],
    ),
    "release of nothing": ("offer", [Release(JOB, OFFERED.id, "cancelled")]),
    "reward without a certificate": ("certificate", [OFFER, receipt(certificates=[])]),
    "reward with bytes for a certificate": ("certificate", [OFFER, receipt(certificates=[b"\x93\x01\x02\x03"])]),
    "reward with a forged certificate": (
        "certificate",
        [OFFER, receipt(certificates=[codec.encode(msgspec.structs.replace(CERTIFICATE, signature=bytes(32)))])],
    ),
    "reward with another job's certificate": (
        "certificate",
        [OFFER, receipt(certificates=[codec.encode(certificate(job_id(2), "accept", JURY))])],
    ),
    "reward with a rejection": (
        "certificate",
        [OFFER, receipt(certificates=[codec.encode(certificate(JOB, "reject", JURY))])],
    ),
    "reward without a majority": (
        "certificate",
        [
            OFFER,
            receipt(certificates=[codec.encode(certificate(JOB, "accept", JURY[:1]))], payments=[PAID[0], FEES[0]]),
        ],
    ),
    "more signers than the offer pays": (
        "certificate",
        [
            SMALL,
            receipt(offer=SMALL_OFFERED.id, accept=SMALL_ACCEPTED.id),
        ],
    ),
    "one juror counted twice": (
        "certificate",
        [OFFER, receipt(certificates=[codec.encode(certificate(JOB, "accept", [JURY[0], JURY[0]]))])],
    ),
    "the worker judges itself": (
        "certificate",
        [OFFER, receipt(certificates=[codec.encode(certificate(JOB, "accept", [*JURY[:2], WORKER.peer]))])],
    ),
    "the payer judges": (
        "certificate",
        [OFFER, receipt(certificates=[codec.encode(certificate(JOB, "accept", [*JURY[:2], PAYER.peer]))])],
    ),
    "unaudited with a certificate": ("certificate", [OFFER, receipt(verdict="unaudited", payments=[])]),
    "unaudited and paid": ("payments", [OFFER, receipt(verdict="unaudited", certificates=[])]),
    "worker paid less": ("payments", [OFFER, receipt(payments=[Payment(WORKER.peer, 999), *FEES])]),
    "worker paid more": ("payments", [OFFER, receipt(payments=[Payment(WORKER.peer, 1001), *FEES])]),
    "worker not paid": ("payments", [OFFER, receipt(payments=FEES)]),
    "juror not paid": ("payments", [OFFER, receipt(payments=PAID[:-1])]),
    "stranger paid": ("payments", [OFFER, receipt(payments=[*PAID, Payment(Key(9).peer, 1)])]),
    "worker paid on a rejection": (
        "payments",
        [OFFER, receipt(verdict="reject", certificates=[codec.encode(certificate(JOB, "reject", JURY))])],
    ),
    "verdict on work that nobody accepted": ("linked", [OFFER, receipt(accept=bytes(32))]),
    "acceptance by somebody else": ("linked", [OFFER, receipt(accept=OFFERED.id)]),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_payers_cheat_is_invalid(cheat: str) -> None:
    code, bodies = CHEATS[cheat]
    found = judge(PAYER, chain(PAYER, *bodies), ACCEPTED, [OFFERED, SMALL_ACCEPTED])
    assert (found.level, found.code, found.height) == ("invalid", code, len(bodies) - 1)


def test_no_credit_before_verification() -> None:
    """A reward entry carries a verdict certificate, or it is invalid; with every payment it could name."""
    for payments in ([], FEES, PAID, PAID[:1]):
        for verdict in ("accept", "reject"):
            found = judge(
                PAYER, chain(PAYER, OFFER, receipt(certificates=[], verdict=verdict, payments=payments)), ACCEPTED
            )
            assert (found.level, found.code) == ("invalid", "certificate")
            assert "no credit before verification" in found.reason


PAYEE_CHEATS: dict[str, tuple[str, list[Body]]] = {
    "accept twice": ("twice", [Accept(JOB, OFFERED.id, PAYER.peer), Accept(JOB, OFFERED.id, PAYER.peer)]),
    "accept for another job": ("linked", [Accept(job_id(2), OFFERED.id, PAYER.peer)]),
    "accept from another payer": ("linked", [Accept(JOB, OFFERED.id, Key(9).peer)]),
    "accept a receipt": ("linked", [Accept(JOB, RECEIVED[1].id, PAYER.peer)]),
    "settle twice": ("twice", [SETTLE, SETTLE]),
    "settle more than the share": ("payments", [msgspec.structs.replace(SETTLE, amount_micro=1001)]),
    "settle less than the share": ("payments", [msgspec.structs.replace(SETTLE, amount_micro=999)]),
    "settle with another payer": ("linked", [msgspec.structs.replace(SETTLE, payer=Key(9).peer)]),
    "settle another job": ("linked", [msgspec.structs.replace(SETTLE, job=job_id(2))]),
    "settle an offer": ("linked", [msgspec.structs.replace(SETTLE, receipt=OFFERED.id)]),
    "settle with oneself": ("self_dealing", [msgspec.structs.replace(SETTLE, payer=WORKER.peer)]),
}


@pytest.mark.parametrize("cheat", PAYEE_CHEATS)
def test_a_payees_cheat_is_invalid(cheat: str) -> None:
    code, bodies = PAYEE_CHEATS[cheat]
    found = judge(WORKER, chain(WORKER, *bodies), RECEIVED)
    assert (found.level, found.code, found.height) == ("invalid", code, len(bodies) - 1)


def test_a_stranger_cannot_take_a_share() -> None:
    stranger = Key(9)
    found = judge(stranger, chain(stranger, SETTLE), RECEIVED)
    assert (found.level, found.code) == ("invalid", "payments")


def test_an_offer_to_another_payee_cannot_be_accepted() -> None:
    stranger = Key(9)
    found = judge(stranger, chain(stranger, Accept(JOB, OFFERED.id, PAYER.peer)), RECEIVED)
    assert (found.level, found.code) == ("invalid", "linked")


def test_an_offer_cannot_be_accepted_after_its_end() -> None:
    late = sign_entry(WORKER, 0, bytes(32), Accept(JOB, OFFERED.id, PAYER.peer), LATER_MS + 1)
    assert judge(WORKER, [late], RECEIVED).code == "expired"


def test_links_heights_times_and_authors_are_checked() -> None:
    first, second = chain(PAYER, OFFER, Release(JOB, OFFERED.id, "cancelled"))
    body = second.body

    def then(key: Key, height: int, previous: bytes, time_ms: int) -> str:
        return judge(PAYER, [first, sign_entry(key, height, previous, body, time_ms)]).code

    assert then(PAYER, 1, first.id, NOW_MS) == ""
    assert then(PAYER, 1, bytes(32), NOW_MS) == "link"
    assert then(PAYER, 0, bytes(32), NOW_MS) == "height"
    assert then(PAYER, 1, first.id, NOW_MS - 1) == "time"
    assert then(WORKER, 1, first.id, NOW_MS) == "author"
    assert judge(PAYER, [sign_entry(PAYER, 0, job_id(1), OFFER, NOW_MS)]).code == "link"
    assert judge(PAYER, [msgspec.structs.replace(first, signature=bytes(64))]).code == "signature"
    assert judge(PAYER, [msgspec.structs.replace(first, body=body)]).code == "body_hash"


def test_entries_from_the_future_are_refused_for_now() -> None:
    entries = chain(PAYER, OFFER)
    early = NOW_MS - FUTURE_MS_MAX
    assert validate(PAYER.peer, entries, check, now_ms=early - 1).code == "future"
    assert validate(PAYER.peer, entries, check, now_ms=early).level == "complete"


def test_the_read_model_follows_the_chain() -> None:
    book = rebuild(PAYER.peer, RECEIVED[:1])
    assert (book.balance_micro, book.reserved_micro, book.jobs[JOB]) == (0, 1030, "offered")
    book = rebuild(PAYER.peer, RECEIVED)
    assert (book.balance_micro, book.reserved_micro, book.jobs[JOB]) == (-1030, 0, "accept")
    assert (book.sums(WORKER.peer).paid_micro, book.sums(JURY[0]).paid_micro) == (1000, 10)
    book = rebuild(WORKER.peer, SETTLED)
    assert (book.balance_micro, book.jobs[JOB], book.sums(PAYER.peer).earned_micro) == (1000, "settled", 1000)


def test_an_audit_of_all_chains_shows_what_is_pending() -> None:
    everyone: dict[PeerId, list[Entry]] = {PAYER.peer: RECEIVED, WORKER.peer: ACCEPTED}
    found = audit_all(everyone, check)
    assert found.ok
    assert (found.balances, found.sum_micro) == ({PAYER.peer: -1030, WORKER.peer: 0}, -1030)
    assert found.pending == {WORKER.peer: 1000, **dict.fromkeys(JURY, 10)}
    found = audit_all({**everyone, WORKER.peer: SETTLED}, check)
    assert (found.balances, found.sum_micro) == ({PAYER.peer: -1030, WORKER.peer: 1000}, -30)


def test_an_audit_of_all_chains_credits_no_settle_that_matches_nothing() -> None:
    thief = Key(9)
    stolen = chain(thief, SETTLE)
    found = audit_all({PAYER.peer: RECEIVED, WORKER.peer: SETTLED, thief.peer: stolen}, check)
    assert (found.ok, found.balances[thief.peer]) == (False, 0)
    assert {issue.author for issue in found.issues if issue.level == "invalid"} == {thief.peer}
    assert audit_all({thief.peer: stolen}, check).ok, "a payer's chain that is not at hand is a gap"


def test_an_audit_stops_at_the_first_invalid_entry_and_says_where() -> None:
    forged = msgspec.structs.replace(RECEIVED[1], signature=bytes(64))
    seen: list[int] = []
    audit = audit_chain(PAYER.peer, iter([RECEIVED[0], forged]), check, on_progress=seen.append)
    assert (audit.ok, audit.entries, seen) == (False, 1, [1])
    assert [(issue.height, issue.code) for issue in audit.issues] == [(1, "signature")]


def test_an_export_reads_back_to_the_same_entries() -> None:
    lines = list(to_lines(RECEIVED))
    assert list(from_lines([*lines, ""])) == RECEIVED
    for bad in ("{", "[]", lines[0][:-1], lines[0].replace(OFFERED.id.hex(), RECEIVED[1].id.hex()), "[" * 70_000):
        with pytest.raises(Malformed, match="line 1"):
            list(from_lines([bad]))
