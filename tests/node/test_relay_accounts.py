"""Relayed bytes in the ledger: real transports, relays, calls and ledgers on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from ledger.audit import audit_all
from ledger.entry import Relayed, Settle
from ledger.service import Ledger, open_ledger
from node.node import now_ms
from node.reach.meter import MIB
from node.reach.quota import Limits
from node.reach.service import Reach, open_reach
from node.relay_accounts import PRICE_MAX_MICRO, RelayBooks, RelayPayer
from node.relay_messages import ACCOUNT, PAID, Account, AccountAsk, Acknowledged
from node.rpc.node import RpcNode, open_rpc
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.ledger.parties import check
from tests.repo.project import ROOT
from wire import codec
from wire.errors import ChannelClosed, Malformed, RemoteError
from wire.identity import Identity
from wire.transport import Channel

SINK = "/test/sink/1"
FRAME = bytes(500_000)
PRICE_MICRO = 20
LIMITS = Limits(free_bytes_per_hour=2 * MIB)


VECTORS = json.loads((ROOT / "tests/vectors/relay-account-v1.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_message_vector(vector: dict[str, Any]) -> None:
    kinds: dict[str, type[Any]] = {kind.__name__: kind for kind in (AccountAsk, Acknowledged, Account)}
    raw = bytes.fromhex(vector["hex"])
    if vector["expect"] == "refused":
        with pytest.raises(Malformed):
            codec.decode(kinds[vector["kind"]], raw)
        return
    given = {key: bytes.fromhex(value) if key == "entry" else value for key, value in vector["expect"].items()}
    assert codec.decode(kinds[vector["kind"]], raw) == kinds[vector["kind"]](**given)


async def _sink(channel: Channel) -> None:
    while True:
        await channel.receive()
        await channel.send(b"got it")


@dataclass
class Node:
    """What takes part in accounting."""

    transport: Libp2pTransport
    reach: Reach
    rpc: RpcNode
    ledger: Ledger


class World:
    """Starts nodes; all end with the test."""

    def __init__(self, stack: AsyncExitStack, nursery: trio.Nursery, folder: Path) -> None:
        self._stack, self._nursery, self._folder = stack, nursery, folder
        self._numbers = count(1)
        self.blamed: list[RemoteError] = []
        self.nobody_pays = trio.CancelScope()

    async def node(self, *, relays: list[str] | None = None, limits: Limits | None = None) -> Node:
        number = next(self._numbers)
        identity, enter, blame = Identity(bytes([number]) * 32), self._stack.enter_async_context, self.blamed.append
        transport = await enter(open_transport(identity, blame=blame))
        reach = await enter(open_reach(transport, relays=relays or [], limits=limits, blame=blame))
        rpc = await enter(open_rpc(transport, blame=blame))
        ledger = await enter(open_ledger(self._folder / f"{number}.db", identity, rpc, now_ms, check))
        transport.serve(SINK, _sink)
        return Node(transport, reach, rpc, ledger)

    def books(self, relay: Node) -> RelayBooks:
        assert relay.reach.relay is not None
        part = relay.reach.relay
        return RelayBooks(
            relay.rpc,
            relay.ledger,
            part.meter,
            part.paid,
            part.quota.subnet,
            price_micro=PRICE_MICRO,
            allowance_micro=1_000_000,
        )

    def payer(self, guest: Node, budget_micro: int) -> RelayPayer:
        circuits, numbers = guest.reach.circuits, count()
        payer = RelayPayer(
            guest.rpc,
            guest.ledger,
            lambda: {relay: circuits.carried[relay] for relay in circuits.held},
            budget_micro=budget_micro,
            session=lambda: next(numbers).to_bytes(32, "big"),
        )
        self._nursery.start_soon(self._pay, payer)
        return payer

    async def _pay(self, payer: RelayPayer) -> None:
        with self.nobody_pays:
            await payer.run()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        yield World(stack, nursery, folder)
        nursery.cancel_scope.cancel()


async def _until(predicate: Any) -> None:
    with trio.fail_after(60):
        while not predicate():  # noqa: ASYNC110 - the library has no event for it
            await trio.sleep(0.02)


async def _send(world: World, guest: Node, megabytes: int) -> int:
    """Frames that got through to a guest, of so many megabytes."""
    caller = await world.node()
    circuits = [address for address in guest.transport.addresses() if "/p2p-circuit/" in address]
    caller.transport.learn(guest.transport.peer, circuits)
    with trio.fail_after(120):
        channel = await caller.transport.open(guest.transport.peer, SINK)
        for number in range(2 * megabytes):
            try:
                await channel.send(FRAME)
                await channel.receive()
            except ChannelClosed:
                return number
    return 2 * megabytes


async def _pair(world: World) -> tuple[Node, Node]:
    relay = await world.node(limits=LIMITS)
    guest = await world.node(relays=relay.transport.addresses())
    await _until(lambda: guest.reach.circuits.held)
    return relay, guest


async def test_what_a_guest_has_relayed_beyond_its_free_share_is_paid_on_both_chains(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        relay, guest = await _pair(w)
        books, payer = w.books(relay), w.payer(guest, 100_000)
        await _until(lambda: relay.reach.relay and relay.reach.relay.meter._agreed)
        assert await _send(w, guest, 30) == 60
        w.nobody_pays.cancel()  # in the middle of telling, maybe: the relay finds what it was not told
        await relay.ledger.pull(guest.ledger.peer, guest.ledger.peer)
        await books.collect()
        chains = {each.ledger.peer: await each.ledger.entries(each.ledger.peer, 0, 1000) for each in (relay, guest)}
        found = audit_all(chains, check)
        assert (found.ok, found.issues, found.sum_micro) == (True, [], 0)
        paid = [entry.body for entry in chains[guest.ledger.peer] if isinstance(entry.body, Relayed)]
        assert relay.ledger.balance() == -guest.ledger.balance() == books.earned_micro
        assert 0 < payer.spending.total_micro <= books.earned_micro == sum(body.amount_micro for body in paid)
        assert 10 <= sum(body.mib for body in paid) <= 29
        assert {body.price_micro for body in paid} == {PRICE_MICRO}
        assert [body.number for body in paid] == list(range(len(paid)))
        assert all(isinstance(entry.body, Settle) for entry in chains[relay.ledger.peer])
        assert relay.ledger.trust_edges() == []
        assert w.blamed == []


async def test_who_pays_nothing_gets_the_free_share_and_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        relay, guest = await _pair(w)
        w.books(relay)
        assert 0 < await _send(w, guest, 5) < 5
        assert (relay.ledger.balance(), guest.ledger.balance()) == (0, 0)


async def test_a_budget_is_not_exceeded(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        relay, guest = await _pair(w)
        w.books(relay)
        payer = w.payer(guest, 6 * PRICE_MICRO)
        await _until(lambda: relay.reach.relay and relay.reach.relay.meter._agreed)
        assert await _send(w, guest, 30) < 60
        assert 0 < payer.spending.total_micro <= 6 * PRICE_MICRO


@pytest.mark.parametrize(
    ("claims", "price_micro"), [(1 << 40, PRICE_MICRO), (1 << 40, PRICE_MAX_MICRO + 1), (4 * MIB, 0), (-5, PRICE_MICRO)]
)
async def test_a_relay_that_charges_for_what_it_did_not_pass_gets_nothing(
    tmp_path: Path, claims: int, price_micro: int
) -> None:
    async with world(tmp_path) as w:
        relay, guest = await _pair(w)
        asked = trio.Event()

        async def account(peer: object, ask: AccountAsk) -> Account:
            asked.set()
            return Account(price_micro, 0, claims, 0)

        relay.rpc.serve(ACCOUNT, account)
        payer = w.payer(guest, 100_000)
        with trio.fail_after(30):
            await asked.wait()
        await _send(w, guest, 1)
        assert payer.spending.total_micro == 0
        assert guest.ledger.head() == 0


async def test_an_acknowledgement_counts_once_however_often_it_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        relay, guest = await _pair(w)
        books = w.books(relay)
        entry = await guest.ledger.acknowledge(bytes(32), 0, relay.ledger.peer, 4, PRICE_MICRO)
        told = Acknowledged(codec.encode(entry))
        first = await guest.rpc.call(relay.ledger.peer, PAID, told, timeout_s=30)
        again = await guest.rpc.call(relay.ledger.peer, PAID, told, timeout_s=30)
        assert first.unpaid_bytes == again.unpaid_bytes == -4 * MIB
        assert relay.ledger.balance() == books.earned_micro == 4 * PRICE_MICRO


async def test_nobody_shows_the_acknowledgement_of_another(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        relay, guest = await _pair(w)
        w.books(relay)
        other = await w.node(relays=relay.transport.addresses())
        await _until(lambda: other.reach.circuits.held)
        entry = await guest.ledger.acknowledge(bytes(32), 0, relay.ledger.peer, 4, PRICE_MICRO)
        with pytest.raises(RemoteError):
            await other.rpc.call(relay.ledger.peer, PAID, Acknowledged(codec.encode(entry)), timeout_s=30)
        assert relay.ledger.balance() == 0


async def test_a_relay_finds_what_was_acknowledged_while_it_was_off(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        relay, guest = await _pair(w)
        books = w.books(relay)
        await guest.ledger.acknowledge(bytes(32), 0, relay.ledger.peer, 4, PRICE_MICRO)
        await relay.ledger.pull(guest.ledger.peer, guest.ledger.peer)
        await books.collect()
        assert relay.ledger.balance() == 4 * PRICE_MICRO
