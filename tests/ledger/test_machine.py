"""Offers, verdicts, acknowledgements, crashes, replays and bad deliveries, in any order, keep the books straight.

Four honest parties deal with one another while a fifth signs two histories. Always: balances are what the model says,
nobody promises more than it has, no honest party is accused, whatever is asked again is answered with the same entry.
At the end: every chain audits from genesis, debits equal credits and what is pending, and the forker is convicted
wherever both of its histories arrive.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from ledger.audit import audit_all
from ledger.entry import ZERO, Accept, Body, Entry, Offer, Receipt, Relayed, Release, Settle, sign_entry
from ledger.replica import Replicas
from ledger.rules import owed
from ledger.state import InsufficientCredit
from ledger.store import open_store
from ledger.writer import OwnChain, Request
from tests.ledger.parties import LATER_MS, NOW_MS, Key, certificate, check, job_id, now, plain_offer
from wire import codec
from wire.errors import LocalError
from wire.peer import PeerId

ALLOWANCE_MICRO = 1_000
HONEST = (1, 2, 3, 4)
FORKER = Key(5)
numbers = st.sampled_from(HONEST)


class Party:
    """The blocking half of a ledger, as the service drives it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.key, self.path = Key(number), folder / f"{number}.db"
        self.open()

    def open(self) -> None:
        self.store, _ = open_store(self.path, self.key.peer)
        self.own = OwnChain(self.store, self.key, now, check, ALLOWANCE_MICRO)
        self.replicas = Replicas(self.store, check)

    def crash(self) -> None:
        """Let go of the file as a killed process does: nothing is said to the ledger."""
        self.store._db.conn.close()
        self.open()

    def append(self, body: Body, *linked: Entry) -> Entry:
        (result,), _ = self.own.commit([Request((body,), linked)])
        if isinstance(result, LocalError):
            raise result
        return result[0]

    def chain(self) -> list[Entry]:
        return list(self.store.replay(self.key.peer))


class Market(RuleBasedStateMachine):
    offers = Bundle("offers")
    receipts = Bundle("receipts")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.parties = {number: Party(Path(self.folder.name), number) for number in HONEST}
        self.by_peer = {party.key.peer: party for party in self.parties.values()}
        self.released: list[tuple[Party, Body, tuple[Entry, ...], Entry]] = []
        self.closed: set[bytes] = set()
        self.accepted: dict[bytes, Entry] = {}
        self.balance = dict.fromkeys(self.by_peer, 0)
        self.reserved = dict.fromkeys(self.by_peer, 0)
        self.jobs = 0
        self.branches: tuple[list[Entry], list[Entry]] = ([], [])
        self.fed: dict[int, set[int]] = {number: set() for number in HONEST}

    def teardown(self) -> None:
        chains = {peer: party.chain() for peer, party in self.by_peer.items()}
        found = audit_all(chains, check)
        assert (found.ok, found.issues) == (True, [])
        assert found.balances == self.balance
        assert found.sum_micro + sum(found.pending.values()) == 0
        self.forker_is_convicted_where_both_branches_arrived()
        for party in self.parties.values():
            party.store.close()
        self.folder.cleanup()

    def forker_is_convicted_where_both_branches_arrived(self) -> None:
        for number, fed in self.fed.items():
            assert (FORKER.peer in self.parties[number].replicas.forkers) == (len(fed) == 2)

    def done(self, party: Party, body: Body, linked: tuple[Entry, ...], entry: Entry) -> Entry:
        self.released.append((party, body, linked, entry))
        return entry

    @initialize()
    def fork(self) -> None:
        for branch, price in zip(self.branches, (1, 2), strict=True):
            for height in range(3):
                body = plain_offer(job_id(10_000 + height), Key(1).peer, price, 0, 1, LATER_MS)
                branch.append(sign_entry(FORKER, height, branch[-1].id if branch else ZERO, body, NOW_MS))

    @rule(target=offers, payer=numbers, payee=numbers, price=st.integers(0, 300), fee=st.integers(0, 50))
    def offer(self, payer: int, payee: int, price: int, fee: int) -> Entry | MultipleResults[Entry]:
        self.jobs += 1
        party, body = self.parties[payer], plain_offer(job_id(self.jobs), Key(payee).peer, price, fee, 1, LATER_MS)
        peer = party.key.peer
        if payer == payee:
            with pytest.raises(LocalError, match=r"self_dealing|reserves"):
                party.append(body)
            return multiple()
        if ALLOWANCE_MICRO + self.balance[peer] - self.reserved[peer] < body.reserve_micro:
            with pytest.raises(InsufficientCredit):
                party.append(body)
            return multiple()
        self.reserved[peer] += body.reserve_micro
        return self.done(party, body, (), party.append(body))

    @rule(entry=offers, lost=st.booleans())
    def accept(self, entry: Entry, lost: bool) -> None:
        if entry.id in self.accepted:
            return
        assert isinstance(entry.body, Offer)
        party = self.by_peer[entry.body.payee]
        body = Accept(entry.body.job, entry.id, entry.header.author)
        self.accepted[entry.id] = self.done(party, body, (entry,), self.perhaps_twice(party, body, entry, lost))

    def perhaps_twice(self, party: Party, body: Body, linked: Entry, lost: bool) -> Entry:
        """Append; if the answer is lost in a crash after the commit, ask again."""
        first = party.append(body, linked)
        if not lost:
            return first
        party.crash()
        again = party.append(body, linked)
        assert again == first
        return again

    @rule(target=receipts, entry=offers, verdict=st.sampled_from(["accept", "accept", "reject", "unaudited"]))
    def receive(
        self, entry: Entry, verdict: Literal["accept", "reject", "unaudited"]
    ) -> Entry | MultipleResults[Entry]:
        if entry.id in self.closed:
            return multiple()
        offer, payer = entry.body, entry.header.author
        assert isinstance(offer, Offer)
        signers = [next(peer for peer in self.by_peer if peer not in (payer, offer.payee))]
        if verdict != "unaudited" and entry.id not in self.accepted:
            self.no_verdict_on_work_that_nobody_accepted(payer, entry.id, offer)
            self.accept(entry, lost=False)
        accept = self.accepted.get(entry.id)
        made = [] if verdict == "unaudited" else [certificate(offer.job, verdict, signers)]
        payments, raw = owed(offer, verdict, made), [codec.encode(each) for each in made]
        body = Receipt(offer.job, entry.id, accept.id if accept else ZERO, verdict, raw, payments)
        linked = (accept,) if accept else ()
        self.closed.add(entry.id)
        self.reserved[payer] -= offer.reserve_micro
        self.balance[payer] -= sum(payment.amount_micro for payment in payments)
        return self.done(self.by_peer[payer], body, linked, self.by_peer[payer].append(body, *linked))

    def no_verdict_on_work_that_nobody_accepted(self, payer: PeerId, offer_id: bytes, offer: Offer) -> None:
        with pytest.raises(LocalError, match="linked"):
            self.by_peer[payer].append(Receipt(offer.job, offer_id, ZERO, "reject", [], []))

    @rule(entry=receipts)
    def settle(self, entry: Entry) -> None:
        """Everyone tries. Before the payer's chain is known it is refused; then each share is taken once."""
        for number in HONEST:
            self.settle_one(entry, number)

    @rule(
        target=receipts,
        payer=numbers,
        relay=numbers,
        session=st.integers(0, 2),
        number=st.integers(0, 2),
        mib=st.integers(1, 4),
        price=st.integers(1, 100),
    )
    def acknowledge(
        self, payer: int, relay: int, session: int, number: int, mib: int, price: int
    ) -> Entry | MultipleResults[Entry]:
        """Each number of a session is paid once, whatever is asked again; nobody pays himself, or more than he has."""
        party = self.parties[payer]
        peer, body = party.key.peer, Relayed(job_id(20_000 + session), Key(relay).peer, number, mib, price)
        known = party.own.book.relayed.get((body.job, number))
        before = party.own.totals
        if known is None and payer != relay and body.amount_micro <= before.available_micro(ALLOWANCE_MICRO):
            self.balance[peer] -= body.amount_micro
            return self.done(party, body, (), party.append(body))
        kept = party.store.get(known) if known is not None else None
        if kept is not None and kept.body == body:
            assert party.append(body) == kept
        else:
            with pytest.raises(LocalError):
                party.append(body)
        assert party.own.totals == before
        return multiple()

    def settle_one(self, entry: Entry, number: int) -> None:
        party, payer, receipt = self.parties[number], entry.header.author, entry.body
        assert isinstance(receipt, Receipt | Relayed)
        if isinstance(receipt, Relayed):
            share = receipt.amount_micro if receipt.relay == party.key.peer else 0
        else:
            share = sum(part.amount_micro for part in receipt.payments if part.peer == party.key.peer)
        body = Settle(receipt.job, entry.id, payer, max(share, 1))
        if party.store.get(entry.id) is None:
            with pytest.raises(LocalError):
                party.append(body)
            party.replicas.ingest(payer, self.by_peer[payer].chain(), NOW_MS)
        if share == 0:
            with pytest.raises(LocalError):
                party.append(body)
            return
        fresh = entry.id not in party.own.book.settles
        self.done(party, body, (), party.append(body))
        self.balance[party.key.peer] += share if fresh else 0

    @rule(entry=offers, chance=st.integers(0, 3))
    def release(self, entry: Entry, chance: int) -> None:
        if entry.id in self.closed or chance:
            return
        offer, payer = entry.body, self.by_peer[entry.header.author]
        assert isinstance(offer, Offer)
        body = Release(offer.job, entry.id, "worker_died")
        self.done(payer, body, (), payer.append(body))
        self.closed.add(entry.id)
        self.reserved[payer.key.peer] -= offer.reserve_micro

    @precondition(lambda self: self.released)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Whatever was asked once gives the same entry again, or is refused; it never adds one."""
        party, body, linked, entry = data.draw(st.sampled_from(self.released))
        before = party.own.totals
        if isinstance(body, Offer) and party.own.book.offers[entry.id].state == "released":
            with pytest.raises(LocalError, match="released"):
                party.append(body)
        else:
            assert party.append(body, *linked) == entry
        assert party.own.totals == before

    @rule(number=numbers)
    def crash(self, number: int) -> None:
        self.parties[number].crash()

    @rule(author=numbers, reader=numbers, cuts=st.lists(st.integers(0, 30), min_size=2, max_size=6))
    def deliver(self, author: int, reader: int, cuts: list[int]) -> None:
        """Pieces of a chain arrive in any order, again and again; one's own chain as well."""
        chain = self.parties[author].chain()
        party = self.parties[reader]
        for start, end in zip(cuts[::2], cuts[1::2], strict=False):
            own = party.own.book if author == reader else None
            done = party.replicas.ingest(self.parties[author].key.peer, chain[start:end], NOW_MS, own)
            assert done.fork is None

    @rule(reader=numbers, branch=st.integers(0, 1), start=st.integers(0, 2))
    def equivocate(self, reader: int, branch: int, start: int) -> None:
        if start and not self.fed[reader]:
            start = 0
        self.fed[reader].add(branch)
        self.parties[reader].replicas.ingest(FORKER.peer, self.branches[branch][start:], NOW_MS)

    @invariant()
    def books_are_straight(self) -> None:
        for peer, party in self.by_peer.items():
            totals = party.own.totals
            assert (totals.balance_micro, totals.reserved_micro) == (self.balance[peer], self.reserved[peer])
            assert totals.available_micro(ALLOWANCE_MICRO) >= 0

    @invariant()
    def no_honest_party_is_accused(self) -> None:
        for party in self.parties.values():
            assert party.replicas.forkers <= {FORKER.peer}


Market.TestCase.settings = settings(max_examples=40, stateful_step_count=50)
test_market = Market.TestCase
