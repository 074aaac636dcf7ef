"""What a node sees of its ledger: jobs settle, credit is bounded, chains travel, crashes repeat nothing."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from ledger.audit import audit_all
from ledger.entry import Jury, Offer, Release, majority, sign_entry
from ledger.fork import prove
from ledger.service import Ledger, open_ledger
from ledger.state import InsufficientCredit
from ledger.store import open_store
from tests.ledger.parties import (
    LATER_MS,
    NOW_MS,
    Key,
    calls_of,
    certificate,
    check,
    check_without_keys,
    job_id,
    ledger_of,
    net,
    now,
    plain_offer,
    verdict_job,
)
from wire.errors import LocalError, RemoteError, StorageError

JURY = (3, 4, 5)


async def five(stack: AsyncExitStack, folder: Path) -> list[Ledger]:
    """A payer, a worker and a jury of three on one network."""
    on = await stack.enter_async_context(net())
    return [await stack.enter_async_context(ledger_of(folder, number, on)) for number in (1, 2, *JURY)]


async def chains_of(*ledgers: Ledger) -> dict[object, list[object]]:
    return {ledger.peer: list(await ledger.entries(ledger.peer, 0, 10_000)) for ledger in ledgers}


async def test_an_accepted_job_pays_worker_and_jury_and_balances_sum_to_zero(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        payer, worker, *jury = parties = await five(stack, tmp_path)
        await verdict_job(payer, worker, jury, 1, "accept")
        assert [party.balance() for party in parties] == [-1030, 1000, 10, 10, 10]
        assert payer.reserved() == 0
        found = audit_all(await chains_of(*parties), check)  # type: ignore[arg-type]  # keys are PeerId
        assert (found.ok, found.sum_micro, found.pending, found.issues) == (True, 0, {}, [])


async def test_a_rejected_job_pays_the_jury_only_and_leaves_a_negative_edge(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        payer, worker, *jury = parties = await five(stack, tmp_path)
        await verdict_job(payer, worker, jury, 1, "reject")
        assert [party.balance() for party in parties] == [-30, 0, 10, 10, 10]
        edges = {(edge.payee, edge.weight, edge.kind) for edge in payer.trust_edges()}
        assert edges == {(worker.peer, -1000.0, "reject"), *((juror.peer, 10.0, "jury") for juror in jury)}
        assert all(edge.payer == payer.peer for edge in payer.trust_edges())


async def test_every_party_derives_the_same_trust_edges_from_the_payers_chain(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        payer, worker, *jury = parties = await five(stack, tmp_path)
        await verdict_job(payer, worker, jury, 1, "accept")
        await verdict_job(payer, worker, jury, 2, "accept")
        assert (payer.peer, worker.peer, 2000.0, "work", 2) in worker.trust_edges()
        assert [party.trust_edges() for party in parties[1:]] == [payer.trust_edges()] * 4


async def test_an_unaudited_job_pays_nobody_and_frees_the_reservation(tmp_path: Path) -> None:
    async with ledger_of(tmp_path, 1) as payer:
        offer = await payer.offer(job_id(1), Key(2).peer, 1000, 10, majority(job_id(1), 3), LATER_MS)
        assert payer.reserved() == 1030
        await payer.receipt(offer.id, "unaudited")
        assert (payer.balance(), payer.reserved(), payer.job(job_id(1))) == (0, 0, "unaudited")
        assert payer.trust_edges() == []


async def test_a_released_offer_gives_the_credit_back_and_another_worker_can_be_tried(tmp_path: Path) -> None:
    async with ledger_of(tmp_path, 1, allowance_micro=1500) as payer:
        first = await payer.offer(job_id(1), Key(2).peer, 1000, 10, majority(job_id(1), 3), LATER_MS)
        with pytest.raises(InsufficientCredit):
            await payer.offer(job_id(1), Key(3).peer, 1000, 10, majority(job_id(1), 3), LATER_MS)
        await payer.release(first.id, "worker_died")
        assert payer.available() == 1500
        await payer.offer(job_id(1), Key(3).peer, 1000, 10, majority(job_id(1), 3), LATER_MS)
        with pytest.raises(LocalError, match="released"):
            await payer.offer(job_id(1), Key(2).peer, 1000, 10, majority(job_id(1), 3), LATER_MS)


async def test_no_credit_before_verification(tmp_path: Path) -> None:
    """The named invariant, at the signer: no certificate, a forged one or too few signers, and nothing is signed."""
    jury = [Key(number).peer for number in JURY]
    async with ledger_of(tmp_path, 1) as payer, ledger_of(tmp_path, 2) as worker:
        offer = await payer.offer(job_id(1), worker.peer, 1000, 10, majority(job_id(1), 3), LATER_MS)
        accept = await worker.accept(offer)
        good = certificate(job_id(1), "accept", jury)
        forged = type(good)(good.statement, good.signers, bytes(96))
        for bad in (
            None,
            forged,
            certificate(job_id(2), "accept", jury),
            certificate(job_id(1), "reject", jury),
            certificate(job_id(1), "accept", jury[:1]),
            certificate(job_id(1), "accept", [*jury[:2], worker.peer]),
            certificate(job_id(1), "accept", [*jury[:2], payer.peer]),
        ):
            with pytest.raises(LocalError, match="certificate"):
                await payer.receipt(offer.id, "accept", [bad] if bad else [], accept)
        assert (payer.head(), payer.balance()) == (1, 0)
        await payer.receipt(offer.id, "accept", [good], accept)
        assert payer.balance() == -1030


async def test_a_payee_does_not_settle_what_it_cannot_verify(tmp_path: Path) -> None:
    async with net() as on, ledger_of(tmp_path, 1, on) as payer, ledger_of(tmp_path, 2, on) as worker:
        offer = await payer.offer(job_id(1), worker.peer, 1000, 10, majority(job_id(1), 1), LATER_MS)
        accept = await worker.accept(offer)
        made = certificate(job_id(1), "accept", [Key(3).peer])
        receipt = await payer.receipt(offer.id, "accept", [made], accept)
        juror = Key(3)
        async with (
            calls_of(juror, on) as rpc,
            open_ledger(tmp_path / "3.db", juror, rpc, now, check_without_keys) as blind,
        ):
            with pytest.raises(LocalError, match="keys must be known"):
                await blind.settle(receipt)
            assert (blind.balance(), blind.trust_edges(), blind.head(payer.peer)) == (0, [], 2)
        async with ledger_of(tmp_path, 3, on) as seeing:
            assert await seeing.recheck() == 1
            await seeing.settle(receipt)
            assert seeing.balance() == 10
            assert len(seeing.trust_edges()) == 2


async def test_the_same_event_after_a_crash_returns_the_entry_that_exists(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        on = await stack.enter_async_context(net())
        worker = await stack.enter_async_context(ledger_of(tmp_path, 2, on))
        juror = await stack.enter_async_context(ledger_of(tmp_path, 3, on))
        async with ledger_of(tmp_path, 1, on) as payer:
            receipt, settles = await verdict_job(payer, worker, [juror], 1, "accept")
        async with ledger_of(tmp_path, 1, on) as payer:
            again, settles_again = await verdict_job(payer, worker, [juror], 1, "accept")
            assert (again, settles_again) == (receipt, settles)
            assert (payer.head(), worker.head(), juror.head()) == (2, 2, 1)
            with pytest.raises(LocalError, match="otherwise"):
                await payer.receipt(receipt.body.offer, "unaudited")  # type: ignore[union-attr]  # a receipt's body
            with pytest.raises(LocalError, match="otherwise"):
                await payer.offer(job_id(1), worker.peer, 1, 1, majority(job_id(1), 1), LATER_MS)


async def test_a_group_is_all_or_nothing(tmp_path: Path) -> None:
    def offer(number: int, price: int) -> Offer:
        return plain_offer(job_id(number), Key(2).peer, price, 0, 1, LATER_MS)

    async with ledger_of(tmp_path, 1, allowance_micro=1000) as payer:
        first = await payer.offer(job_id(0), Key(2).peer, 100, 0, majority(job_id(0), 1), LATER_MS)
        with pytest.raises(InsufficientCredit):
            await payer.append([offer(1, 600), offer(2, 600)])
        assert (payer.head(), payer.head_id(), payer.reserved()) == (1, first.id, 100)
        entries = await payer.append([offer(1, 300), offer(2, 600), Release(job_id(0), first.id, "cancelled")])
        assert [entry.header.height for entry in entries] == [1, 2, 3]
        assert payer.reserved() == 900
        assert (await payer.audit()).ok


async def test_concurrent_offers_never_promise_more_than_the_allowance(tmp_path: Path) -> None:
    refused = []
    async with ledger_of(tmp_path, 1, allowance_micro=1000) as payer, trio.open_nursery() as nursery:

        async def offer(number: int) -> None:
            try:
                await payer.offer(job_id(number), Key(2).peer, 100, 0, majority(job_id(number), 1), LATER_MS)
            except InsufficientCredit as exc:
                refused.append(exc)

        for number in range(50):
            nursery.start_soon(offer, number)
    assert len(refused) == 40
    async with ledger_of(tmp_path, 1, allowance_micro=1000) as payer:
        assert (payer.head(), payer.available()) == (10, 0)


async def test_a_restarted_node_finds_its_open_offers_and_what_it_may_still_settle(tmp_path: Path) -> None:
    async with net() as on, ledger_of(tmp_path, 1, on) as payer:
        async with ledger_of(tmp_path, 2, on) as worker:
            offer = await payer.offer(job_id(1), worker.peer, 1000, 0, majority(job_id(1), 1), LATER_MS)
            accept = await worker.accept(offer)
            made = certificate(job_id(1), "accept", [Key(3).peer])
            receipt = await payer.receipt(offer.id, "accept", [made], accept)
            still = await payer.offer(job_id(2), worker.peer, 7, 0, majority(job_id(2), 1), LATER_MS)
        assert [entry_id for entry_id, _ in payer.open_offers()] == [still.id]
        async with ledger_of(tmp_path, 2, on) as worker:
            assert await worker.unsettled() == []
            await worker.pull(payer.peer, payer.peer)
            assert await worker.unsettled() == [receipt]
            await worker.settle(receipt)
            assert await worker.unsettled() == []


async def test_a_payer_beyond_its_credit_is_refused_and_blamed(tmp_path: Path) -> None:
    async with (
        net() as on,
        ledger_of(tmp_path, 1, on, allowance_micro=10_000_000) as spender,
        ledger_of(tmp_path, 2, on) as worker,
    ):
        await worker.accept(await spender.offer(job_id(1), worker.peer, 900_000, 0, majority(job_id(1), 1), LATER_MS))
        beyond = await spender.offer(job_id(2), worker.peer, 200_000, 0, majority(job_id(2), 1), LATER_MS)
        with pytest.raises(RemoteError, match="credit") as caught:
            await worker.accept(beyond)
        assert caught.value.peer == spender.peer
        assert (await worker.credit(spender.peer)).available_micro(1_000_000) == -100_000


async def test_earnings_count_for_another_peer_only_with_the_payers_certified_receipt(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        payer, worker, *jury = await five(stack, tmp_path)
        on = await stack.enter_async_context(net())
        await verdict_job(payer, worker, jury, 1, "accept")
        async with ledger_of(tmp_path, 9, on) as stranger:
            await stranger.ingest(worker.peer, await worker.entries(worker.peer))
            assert (await stranger.credit(worker.peer)).balance_micro == 0
            await stranger.ingest(payer.peer, await payer.entries(payer.peer))
            assert (await stranger.credit(worker.peer)).balance_micro == 1000
            assert (await stranger.credit(payer.peer)).balance_micro == -1030


async def test_long_chains_travel_in_pages_and_are_audited_at_the_other_end(tmp_path: Path) -> None:
    async with (
        net() as on,
        ledger_of(tmp_path, 1, on, allowance_micro=10_000) as author,
        ledger_of(tmp_path, 2, on) as reader,
    ):
        await author.append([plain_offer(job_id(n), Key(9).peer, 1, 0, 1, LATER_MS) for n in range(600)])
        pulled = await reader.pull(author.peer, author.peer)
        assert (pulled.added, pulled.height, pulled.peer_height, pulled.fork) == (600, 600, 600, None)
        assert (await reader.pull(author.peer, author.peer)).added == 0
        audit = await reader.audit(author.peer)
        assert (audit.ok, audit.entries) == (True, 600)


async def test_a_fork_met_on_the_way_is_proven_kept_and_costs_the_forker_its_trust(tmp_path: Path) -> None:
    forker = Key(1)
    branch = sign_entry(forker, 0, bytes(32), plain_offer(job_id(77), Key(9).peer, 5, 0, 1, LATER_MS), NOW_MS)
    async with AsyncExitStack() as stack:
        payer, worker, *jury = await five(stack, tmp_path)
        await verdict_job(payer, worker, jury, 1, "accept")
        assert worker.trust_edges()
        with pytest.raises(RemoteError, match="not on its chain"):
            await worker.settle(sign_entry(forker, 1, branch.id, (await payer.entries(payer.peer))[1].body, NOW_MS))
        done = await worker.ingest(payer.peer, [branch])
        assert done.fork == prove(branch, (await worker.entries(payer.peer))[0])
        assert worker.forkers() == {payer.peer}
        assert worker.trust_edges() == []
        with pytest.raises(LocalError, match="forked"):
            await worker.offer(job_id(2), payer.peer, 1, 0, majority(job_id(2), 1), LATER_MS)
        # The proof travels with the chain.
        assert not jury[0].forkers()
        await jury[0].pull(worker.peer, payer.peer)
        assert jury[0].forkers() == {payer.peer}
        assert done.fork in await jury[0].forks(payer.peer)
    async with ledger_of(tmp_path, JURY[0]) as reopened:
        assert reopened.forkers() == {payer.peer}


async def test_a_shorter_branch_at_another_peer_is_noticed(tmp_path: Path) -> None:
    forker = Key(1)
    branch = sign_entry(forker, 0, bytes(32), plain_offer(job_id(77), Key(9).peer, 5, 0, 1, LATER_MS), NOW_MS)
    async with net() as on, ledger_of(tmp_path, 1) as author:
        for number in range(3):
            await author.offer(job_id(number), Key(9).peer, 1, 0, majority(job_id(number), 1), LATER_MS)
        async with ledger_of(tmp_path, 2, on) as misled, ledger_of(tmp_path, 3, on) as reader:
            await misled.ingest(forker.peer, [branch])
            await reader.ingest(forker.peer, await author.entries(forker.peer))
            pulled = await reader.pull(misled.peer, forker.peer)
            assert pulled.fork is not None
            assert reader.forkers() == {forker.peer}


async def test_duplicates_and_reordered_pages_are_no_fork(tmp_path: Path) -> None:
    async with ledger_of(tmp_path, 1) as author, ledger_of(tmp_path, 2) as reader:
        for number in range(4):
            await author.offer(job_id(number), Key(9).peer, 1, 0, majority(job_id(number), 1), LATER_MS)
        entries = await author.entries(author.peer)
        for page in (entries[2:], entries[:2], entries[:2], entries[1:], entries):
            assert (await reader.ingest(author.peer, page)).fork is None
        assert reader.head(author.peer) == 4
        assert not reader.forkers()


async def test_a_restored_backup_recovers_its_head_before_it_signs(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    async with net() as on, ledger_of(tmp_path, 2, on) as counterparty:
        async with ledger_of(tmp_path, 1, on) as author:
            await author.offer(job_id(1), Key(9).peer, 1, 0, majority(job_id(1), 1), LATER_MS)
            assert author.unclean, "a new file may hide an older chain"
        (backup / "1.db").write_bytes((tmp_path / "1.db").read_bytes())
        async with ledger_of(tmp_path, 1, on) as author:
            assert not author.unclean, "closed cleanly"
            await author.offer(job_id(2), Key(9).peer, 1, 0, majority(job_id(2), 1), LATER_MS)
            last = await author.offer(job_id(3), Key(9).peer, 1, 0, majority(job_id(3), 1), LATER_MS)
            await counterparty.pull(author.peer, author.peer)
        async with ledger_of(backup, 1, on) as restored:
            assert restored.head() == 1
            recovered = await restored.recover_head([Key(8).peer, counterparty.peer])
            assert (recovered.imported, recovered.height, recovered.answered) == (2, 3, (counterparty.peer,))
            assert (restored.head_id(), restored.reserved()) == (last.id, 3)
            after = await restored.offer(job_id(4), Key(9).peer, 1, 0, majority(job_id(4), 1), LATER_MS)
            assert after.header.previous == last.id
            pulled = await counterparty.pull(restored.peer, restored.peer)
            assert (pulled.added, pulled.fork) == (1, None)


async def test_entries_lost_with_a_torn_write_ahead_log_come_back_from_a_counterparty(tmp_path: Path) -> None:
    """Not even a disk that forgets makes an honest peer a forker, if it asks before it signs."""
    torn = tmp_path / "torn"
    torn.mkdir()
    async with net() as on, ledger_of(tmp_path, 2, on) as counterparty:
        async with ledger_of(tmp_path, 1, on) as author:
            for number in range(5):
                await author.offer(job_id(number), Key(9).peer, 1, 0, majority(job_id(number), 1), LATER_MS)
            await counterparty.pull(author.peer, author.peer)
            (torn / "1.db").write_bytes((tmp_path / "1.db").read_bytes())
            log = (tmp_path / "1.db-wal").read_bytes()
            (torn / "1.db-wal").write_bytes(log[: len(log) - 5000])
        async with ledger_of(torn, 1, on) as author:
            assert author.unclean
            assert author.head() < 5
            assert (await author.recover_head([counterparty.peer])).height == 5
            assert not author.unclean
            await author.offer(job_id(5), Key(9).peer, 1, 0, majority(job_id(5), 1), LATER_MS)
            assert (await counterparty.pull(author.peer, author.peer)).fork is None
        assert not counterparty.forkers()


async def test_a_chain_that_went_two_ways_signs_no_more(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    async with net() as on, ledger_of(tmp_path, 2, on) as counterparty:
        async with ledger_of(tmp_path, 1, on) as author:
            await author.offer(job_id(1), Key(9).peer, 1, 0, majority(job_id(1), 1), LATER_MS)
            await counterparty.pull(author.peer, author.peer)
        async with ledger_of(backup, 1, on) as hasty:
            await hasty.offer(job_id(2), Key(9).peer, 1, 0, majority(job_id(2), 1), LATER_MS)
            with pytest.raises(StorageError, match="another history"):
                await hasty.recover_head([counterparty.peer])
            with pytest.raises(StorageError, match="another history"):
                await hasty.offer(job_id(3), Key(9).peer, 1, 0, majority(job_id(3), 1), LATER_MS)
        async with ledger_of(backup, 1, on) as hasty:
            with pytest.raises(StorageError, match="another history"):
                await hasty.offer(job_id(3), Key(9).peer, 1, 0, majority(job_id(3), 1), LATER_MS)


async def test_a_closed_ledger_refuses_politely(tmp_path: Path) -> None:
    async with ledger_of(tmp_path, 1) as ledger:
        await ledger.offer(job_id(1), Key(2).peer, 1, 0, majority(job_id(1), 1), LATER_MS)
    with pytest.raises(LocalError, match="closed"):
        await ledger.offer(job_id(2), Key(2).peer, 1, 0, majority(job_id(2), 1), LATER_MS)
    with pytest.raises(StorageError):
        await ledger.entries(ledger.peer)


async def test_the_file_of_another_identity_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "2.db", Key(1).peer)[0].close()
    with pytest.raises(LocalError, match="another identity"):
        async with ledger_of(tmp_path, 2):
            pass


@pytest.mark.parametrize("field", ["price_micro", "fee_micro", "expires_ms"])
@pytest.mark.parametrize("value", [-1, 2**53 + 1, 2**64, -(2**70)])
async def test_amounts_out_of_bounds_are_refused_before_anything_is_signed(
    tmp_path: Path, field: str, value: int
) -> None:
    good = {"price_micro": 1, "fee_micro": 1, "expires_ms": LATER_MS}
    juries = majority(job_id(1), 3)
    async with ledger_of(tmp_path, 1, allowance_micro=2**60) as payer:
        with pytest.raises(LocalError):
            await payer.offer(job_id(1), Key(2).peer, juries=juries, **{**good, field: value})
        assert payer.head() == 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"job": b"short"}, "length"),
        ({"payee": Key(1).peer}, "self_dealing"),
        ({"payee": b"x" * 33}, "length"),
        ({"expires_ms": NOW_MS}, "expired"),
        ({"juries": [Jury(job_id(1), 22, 12)]}, "<= 21"),
        ({"juries": [Jury(job_id(2), 3, 2)]}, "juries"),
        ({"juries": majority(job_id(1), 3) * 257}, "<= 256"),
        ({"price_micro": 2**53, "fee_micro": 1}, "amount"),
    ],
)
async def test_bad_offers_are_refused_with_the_reason(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    good: dict[str, object] = {"job": job_id(1), "payee": Key(2).peer, "price_micro": 1, "fee_micro": 1}
    good["juries"] = majority(job_id(1), 3)
    async with ledger_of(tmp_path, 1, allowance_micro=2**60) as payer:
        with pytest.raises(LocalError, match=match):
            await payer.offer(**{**good, "expires_ms": LATER_MS, **changes})  # type: ignore[arg-type]  # bad on purpose
        assert payer.head() == 0
