"""Finding relays and being found, with a directory and relays that are made up, under a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

import trio
from trio.testing import MockClock

from node.reach.choice import DIALS_MAX
from node.reach.circuit import Circuits, Ended, Proof
from node.reach.discovery import PUBLISH_S, Discovery, offer
from node.reach.ports import Offer
from wire.errors import Unreachable
from wire.peer import PeerId, to_text

ME = PeerId(bytes(32))


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


class Book:
    """A directory that a test writes."""

    def __init__(self) -> None:
        self.offers: list[Offer] = []
        self.looked_up = 0
        self.published: list[tuple[float, list[str], float]] = []
        self.withdrawn = 0
        self.stored = 2
        self.broken = False

    def add(self, number: int, ip: str) -> None:
        self.offers.append(Offer(peer(number), [f"/ip4/{ip}/tcp/4001/p2p/{to_text(peer(number))}"]))

    async def look_up(self) -> Sequence[Offer]:
        self.looked_up += 1
        if self.broken:
            raise Unreachable("nobody answers")
        return self.offers

    async def publish(self, addresses: Sequence[str], load: float) -> int:
        self.published.append((trio.current_time(), list(addresses), load))
        if self.broken:
            raise Unreachable("nobody answers")
        return self.stored

    def withdraw(self) -> None:
        self.withdrawn += 1


class Relays:
    """What stands for reservations: each relay lets us in until it is told to end."""

    def __init__(self) -> None:
        self.tried: list[tuple[float, PeerId]] = []
        self.ends: dict[PeerId, trio.Event] = {}
        self.refusing: Callable[[PeerId], bool] = lambda relay: False
        self.testers: set[PeerId] = set()

    async def hold(self, relay: PeerId, addresses: Sequence[str], proof: Proof | None = None) -> Ended:
        began = trio.current_time()
        self.tried.append((began, relay))
        if self.refusing(relay):
            await trio.sleep(0.1)
            return Ended(0.0, "refused")
        self.ends[relay] = trio.Event()
        try:
            await self.ends[relay].wait()
        finally:
            del self.ends[relay]
        return Ended(trio.current_time() - began, "lost")


class World:
    """One node that wants `wanted` relays."""

    def __init__(self, nursery: trio.Nursery, named: Sequence[PeerId] = ()) -> None:
        self.book, self.relays, self.wanted = Book(), Relays(), 3
        circuits = cast(Circuits, self.relays)
        self.discovery = Discovery(ME, circuits, self.book, named, lambda: self.wanted, Random(1))
        nursery.start_soon(self.discovery.run)

    @property
    def held(self) -> set[int]:
        return {int.from_bytes(relay, "big") for relay in self.relays.ends}


async def test_relays_are_found_held_and_replaced_when_they_go(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for number in (1, 2, 3, 4):
            world.book.add(number, f"{number}.1.0.1")
        await trio.sleep(5)
        assert len(world.held) == 3
        gone = next(iter(world.held))
        world.relays.ends[peer(gone)].set()
        await trio.sleep(2)
        assert world.held == {1, 2, 3, 4} - {gone}
        nursery.cancel_scope.cancel()


async def test_who_is_not_missed_is_let_go_and_nothing_is_looked_up_then(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for number in (1, 2, 3):
            world.book.add(number, f"{number}.1.0.1")
        await trio.sleep(5)
        world.wanted = 1
        await trio.sleep(1)
        assert len(world.held) == 1
        world.wanted = 0
        before = world.book.looked_up
        await trio.sleep(1000)
        assert (world.held, world.book.looked_up) == (set(), before)
        nursery.cancel_scope.cancel()


async def test_a_relay_that_was_named_to_us_is_not_tried_here(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery, named=[peer(1)])
        world.book.add(1, "1.1.0.1")
        world.book.add(2, "2.1.0.1")
        await trio.sleep(60)
        assert world.held == {2}
        nursery.cancel_scope.cancel()


async def test_a_crowd_of_liars_costs_a_few_dials_a_minute_and_hides_nobody(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for number in range(2, 2000):
            world.book.add(number, f"{number % 7 + 2}.{number % 11}.{number % 251}.{number // 251 + 1}")
        world.book.add(1, "1.1.0.1")
        world.relays.refusing = lambda relay: relay != peer(1)
        await trio.sleep(1800)
        assert world.held == {1}
        times = [at for at, _ in world.relays.tried]
        assert all(later - earlier >= 60 for earlier, later in zip(times, times[DIALS_MAX:], strict=False))
        nursery.cancel_scope.cancel()


async def test_where_nobody_offers_it_is_asked_ever_more_seldom_and_a_broken_directory_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.book.broken = True
        await trio.sleep(3600)
        assert 10 < world.book.looked_up < 25
        world.book.broken = False
        world.book.add(1, "1.1.0.1")
        await trio.sleep(301)
        assert world.held == {1}
        nursery.cancel_scope.cancel()


async def test_an_offer_is_published_renewed_and_withdrawn(autojump_clock: MockClock) -> None:
    book, here = Book(), ["/ip4/203.0.113.1/tcp/1/p2p/x"]
    shown: list[str] = []
    load: Any = iter([0.0, 0.5])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offer, book, lambda: list(shown), lambda: next(load))
        await trio.sleep(100)
        assert book.published == []
        shown += here
        await trio.sleep(PUBLISH_S + 2)
        assert [told[1:] for told in book.published] == [(here, 0.0), (here, 0.5)]
        shown.clear()
        await trio.sleep(PUBLISH_S * 2)
        assert (len(book.published), book.withdrawn) == (2, 1)
        nursery.cancel_scope.cancel()


async def test_an_offer_that_nobody_keeps_is_published_again_soon(autojump_clock: MockClock) -> None:
    book = Book()
    book.stored = 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offer, book, lambda: ["/ip4/203.0.113.1/tcp/1/p2p/x"], lambda: 0.0)
        await trio.sleep(10)
        assert len(book.published) > 2
        book.broken = True
        await trio.sleep(10)
        assert len(book.published) > 5
        book.broken, book.stored = False, 20
        await trio.sleep(5)
        count = len(book.published)
        await trio.sleep(PUBLISH_S / 2)
        assert len(book.published) == count
        nursery.cancel_scope.cancel()
