"""Relayed bytes as a contribution: the guest acknowledges them on its chain, the relay settles that on its own.

No credit without both signatures, and none twice: an acknowledgement counts towards what a guest may use only when the
relay's own chain takes it for the first time. The guest pays for no more than it has counted itself, at no higher price
than `PRICE_MAX_MICRO`, and within its budget; the relay passes no more than `CREDIT_BYTES` ahead of it. So the most
that either can lose to the other is a few MiB. Format: docs/spec/reach.md, docs/spec/ledger.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
import trio

from ledger.entry import RELAYED_MIB_MAX, Entry, Relayed, decode_entry
from ledger.service import Ledger
from node.market.pricing import RELAYED_MIB_MICRO
from node.reach.meter import CREDIT_BYTES, MIB, Meter
from node.relay_messages import ACCOUNT, PAID, Account, AccountAsk, Acknowledged
from wire import codec
from wire.errors import Busy, LocalError, Malformed, RemoteError, TransportError
from wire.peer import PeerId, short
from wire.rpc.seam import Rpc

CALL_S = 10.0
PULL_S = 8.0
LOOK_S = 0.5
STEP_MIB = 4
"""MiB beyond the free share that are acknowledged at a time: half of what a relay lets stand open."""

RENEW_S = 240.0
"""Seconds after which a relay is told again that we pay."""

REST_S = 600.0
"""Seconds for which a relay is left alone that keeps no accounts, or asks too much."""

RETELL_S = 5.0
"""Seconds after which an acknowledgement is told again that did not get through."""

COLLECT_S = 600.0

PRICE_MAX_MICRO = 2 * RELAYED_MIB_MICRO
DAY_S = 86_400.0

_FAILED = (TransportError, RemoteError, Busy, LocalError, Malformed)
_log = structlog.get_logger("relaying")


class RelayBooks:
    """The relay's side.

    Args:
        paid: told how many bytes a guest has paid for.
        place: the subnet from which a guest holds its reservation; None for who holds none.
        allowance_micro: how far below zero a guest's balance may be, as for any payer.
    """

    def __init__(
        self,
        rpc: Rpc,
        ledger: Ledger,
        meter: Meter,
        paid: Callable[[PeerId, int], None],
        place: Callable[[PeerId], str | None],
        *,
        price_micro: int,
        allowance_micro: int,
    ) -> None:
        self._ledger = ledger
        self._meter = meter
        self._note = paid
        self._place = place
        self._price_micro = price_micro
        self._allowance_micro = allowance_micro
        self._lock = trio.Lock()
        self.earned_micro = 0
        rpc.serve(ACCOUNT, self._account)
        rpc.serve(PAID, self._paid)

    async def _account(self, guest: PeerId, ask: AccountAsk) -> Account:
        if self._place(guest) is None:
            raise LocalError("only who holds a reservation has an account")
        if ask.pays:
            self._meter.agree(guest, trio.current_time())
        return self._of(guest)

    def _of(self, guest: PeerId) -> Account:
        free = self._meter.free(guest, self._place(guest) or "", trio.current_time())
        return Account(self._price_micro, free, self._meter.unpaid(guest), CREDIT_BYTES)

    async def _paid(self, guest: PeerId, told: Acknowledged) -> Account:
        entry = decode_entry(told.entry)
        body = entry.body
        if not isinstance(body, Relayed) or entry.header.author != guest or body.relay != self._ledger.peer:
            raise RemoteError(guest, "acknowledges nothing that we relayed for it", penalty=0.2)
        with trio.move_on_after(PULL_S):
            await self._settle(guest, entry, body)
            return self._of(guest)
        raise Busy(LOOK_S, "the guest's chain takes long")

    async def _settle(self, guest: PeerId, entry: Entry, body: Relayed) -> None:
        async with self._lock:  # whether an entry is new must not change between the look and the settling
            if self._ledger.settled(entry.id):
                return
            await self._ledger.pull(guest, guest)
            if (await self._ledger.credit(guest)).available_micro(self._allowance_micro) < 0:
                raise RemoteError(guest, "pays with more than its credit", penalty=0.2)
            if await self._ledger.entry(entry.id) is None:
                raise RemoteError(guest, "acknowledges by an entry that is not on its chain", penalty=0.5)
            with trio.CancelScope(shield=True):  # a guest that stops waiting has paid all the same
                await self._ledger.settle(entry)
                self.earned_micro += body.amount_micro
                self._note(guest, body.amount_micro // self._price_micro * MIB)
        _log.info("relaying_paid", guest=short(guest), mib=body.mib, amount_micro=body.amount_micro)

    async def collect_forever(self) -> None:
        """`collect`, now and then."""
        while True:
            await self.collect()
            await trio.sleep(COLLECT_S)

    async def collect(self) -> None:
        """Settle what was acknowledged and not told, as while this node was off."""
        try:
            open_ones = await self._ledger.unsettled_relayed()
        except LocalError as exc:
            _log.error("relaying_not_read", reason=str(exc))
            return
        for entry in open_ones:
            guest, body = entry.header.author, entry.body
            assert isinstance(body, Relayed), "the ledger lists acknowledgements"
            try:
                with trio.move_on_after(PULL_S):
                    await self._settle(guest, entry, body)
            except _FAILED as exc:
                _log.info("relaying_not_settled", guest=short(guest), reason=str(exc))


@dataclass
class _Tab:
    """What we owe one relay, by our own count, in this session."""

    session: bytes
    number: int = 0
    paid_bytes: int = 0
    looked_bytes: int = 0
    told: Entry | None = None  # acknowledged, and not yet known to the relay
    due: float = 0.0
    rests_until: float = 0.0


@dataclass
class Spending:
    """A budget for each day."""

    budget_micro: int
    spent_micro: int = 0
    total_micro: int = 0
    _day: int = field(default=0)

    def left(self, now: float) -> int:
        """What may still be spent today."""
        if int(now // DAY_S) != self._day:
            self._day, self.spent_micro = int(now // DAY_S), 0
        return self.budget_micro - self.spent_micro

    def spend(self, amount_micro: int) -> None:
        """Count a payment."""
        self.spent_micro += amount_micro
        self.total_micro += amount_micro


class RelayPayer:
    """The guest's side.

    Args:
        carried: bytes that came and went through each relay that lets callers in to us, by our own count.
        budget_micro: micro-credits for all relays together, in a day.
        session: makes 32 bytes that never repeat.
    """

    def __init__(
        self,
        rpc: Rpc,
        ledger: Ledger,
        carried: Callable[[], Mapping[PeerId, int]],
        *,
        budget_micro: int,
        session: Callable[[], bytes],
    ) -> None:
        self._rpc = rpc
        self._ledger = ledger
        self._carried = carried
        self._session = session
        self._tabs: dict[PeerId, _Tab] = {}
        self.spending = Spending(budget_micro)

    async def run(self) -> None:
        """Tell relays that we pay, and acknowledge what they pass, for ever."""
        while True:
            carried = self._carried()
            self._tabs = {relay: tab for relay, tab in self._tabs.items() if relay in carried or tab.told is not None}
            async with trio.open_nursery() as nursery:
                for relay in {*carried, *self._tabs}:
                    if relay not in self._tabs:
                        self._tabs[relay] = _Tab(self._session())
                    nursery.start_soon(self._tend, relay, self._tabs[relay], carried.get(relay, 0))
            await trio.sleep(LOOK_S)

    async def _tend(self, relay: PeerId, tab: _Tab, carried: int) -> None:
        now = trio.current_time()
        moved = carried - tab.looked_bytes >= STEP_MIB * MIB // 2
        if now < tab.rests_until or (tab.told is None and not moved and now < tab.due):
            return
        try:
            if tab.told is not None:
                account = await self._tell(relay, tab.told)
                tab.told = None
            else:
                account = await self._rpc.call(relay, ACCOUNT, AccountAsk(True), timeout_s=CALL_S)
            tab.looked_bytes, tab.due = carried, now + RENEW_S
            await self._acknowledge(relay, tab, carried, account)
        except _FAILED as exc:
            _log.debug("relay_account_failed", relay=short(relay), reason=str(exc))
            tab.rests_until = now + (RETELL_S if tab.told is not None else REST_S)

    async def _tell(self, relay: PeerId, entry: Entry) -> Account:
        return await self._rpc.call(relay, PAID, Acknowledged(codec.encode(entry)), timeout_s=CALL_S)

    async def _acknowledge(self, relay: PeerId, tab: _Tab, carried: int, account: Account) -> None:
        """Pay for what the relay asks, if we counted as much, the price is fair, and the budget allows it."""
        if not 0 < account.price_micro <= PRICE_MAX_MICRO:
            raise RemoteError(relay, f"asks {account.price_micro} micro-credits for a MiB", penalty=0.0)
        affordable = min(self.spending.left(trio.current_time()), self._ledger.available()) // account.price_micro
        mib = min(account.unpaid_bytes // MIB, (carried - tab.paid_bytes) // MIB, affordable, RELAYED_MIB_MAX)
        if mib < min(STEP_MIB, max(affordable, 1)):
            return
        entry = await self._ledger.acknowledge(tab.session, tab.number, relay, mib, account.price_micro)
        tab.number += 1
        tab.paid_bytes += mib * MIB
        self.spending.spend(mib * account.price_micro)
        tab.told = entry
        await self._tell(relay, entry)
        tab.told = None
