"""Which relays are tried: diverse, few at a time, and never because somebody published a thousand offers."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.reach.choice import (
    CANDIDATES_MAX,
    CANDIDATES_PER_NEIGHBOURHOOD_MAX,
    DIALS_MAX,
    DIALS_PERIOD_S,
    GOOD_S,
    LEFT_S,
    LEFT_S_MAX,
    Candidate,
    Choice,
    neighbourhood,
)
from node.reach.ports import Offer
from wire.peer import PeerId, to_text

ME = PeerId(bytes(32))


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


def offer(number: int, ip: str, *, weight: float = 1.0, load: float = 0.0) -> Offer:
    return Offer(peer(number), [f"/ip{6 if ':' in ip else 4}/{ip}/tcp/4001/p2p/{to_text(peer(number))}"], weight, load)


def sybils(count: int, place: str = "203.0") -> list[Offer]:
    return [offer(1000 + n, f"{place}.{n % 250}.{n // 250 + 1}") for n in range(count)]


def picks(choice: Choice, count: int, now: float = 0.0) -> list[Candidate]:
    """The next ones, as somebody takes who holds each and looks once a minute."""
    held: list[Candidate] = []
    for turn in range(count):
        found = choice.next(
            [each.relay for each in held], [each.neighbourhood for each in held], now + turn * DIALS_PERIOD_S
        )
        held += [found] if found is not None else []
    return held


def test_a_crowd_in_one_place_is_one_choice() -> None:
    honest = [offer(n, f"198.{n}.0.1") for n in range(1, 4)]
    for seed in range(20):
        choice = Choice(ME, Random(seed))
        choice.learn([*sybils(5000), *honest], 0.0)
        assert len(choice) <= 3 + CANDIDATES_PER_NEIGHBOURHOOD_MAX
        assert len({each.neighbourhood for each in picks(choice, 3)}) == 3


def test_what_is_remembered_does_not_grow_with_what_is_offered() -> None:
    choice = Choice(ME, Random(1))
    choice.learn([offer(n, f"{n % 100 + 1}.{n // 100}.0.1") for n in range(5000)], 0.0)
    assert len(choice) == CANDIDATES_MAX


def test_dials_are_bounded_whatever_is_offered() -> None:
    choice, rng = Choice(ME, Random(2)), Random(3)
    now, times = 0.0, []
    while now < 600:
        choice.learn([offer(rng.randrange(1 << 60), f"{rng.randrange(1, 99)}.{rng.randrange(256)}.0.1")], now)
        if (tried := choice.next([], [], now)) is not None:
            times.append(now)
            choice.ended(tried, 0.0, now)
        now += 0.5
    assert len(times) == 10 * DIALS_MAX
    assert all(later - earlier >= DIALS_PERIOD_S for earlier, later in zip(times, times[DIALS_MAX:], strict=False))


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/192.168.1.1/tcp/22",
        "/ip6/fd00::1/tcp/22",
        "/dns4/example.org/tcp/1",
        "/ip4/1.2.3.4",
        "",
    ],
)
def test_nobody_has_us_knock_on_doors_of_our_own_network(address: str) -> None:
    choice = Choice(ME, Random(4))
    choice.learn([Offer(peer(1), [f"{address}/p2p/{to_text(peer(1))}", address])], 0.0)
    assert choice.next([], [], 0.0) is None


def test_offers_of_others_in_our_name_full_ones_and_others_names_are_passed_over() -> None:
    choice = Choice(ME, Random(5))
    stolen = Offer(peer(1), offer(2, "203.0.113.1").addresses)
    choice.learn([stolen, offer(0, "203.0.113.2"), offer(3, "203.0.113.3", load=1.0)], 0.0)
    assert len(choice) == 0


def test_who_fails_is_left_alone_twice_as_long_each_time_even_if_it_is_offered_anew() -> None:
    choice = Choice(ME, Random(6))
    now, pauses = 0.0, []
    for _ in range(9):
        choice.learn([offer(1, "203.0.113.1")], now)
        tried = choice.next([], [], now)
        assert tried is not None
        choice.ended(tried, 1.0, now)
        began = now
        while choice.next([], [], now) is None:
            now += DIALS_PERIOD_S / 4
            choice.learn([offer(1, "203.0.113.1")], now)
        pauses.append(now - began)
        now += DIALS_PERIOD_S
    assert pauses[0] == LEFT_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == LEFT_S_MAX


def test_long_service_is_remembered() -> None:
    choice = Choice(ME, Random(7))
    choice.learn([offer(1, "203.0.113.1")], 0.0)
    tried = choice.next([], [], 0.0)
    assert tried is not None
    for _ in range(6):
        choice.ended(tried, 1.0, 0.0)
    choice.ended(tried, GOOD_S, 100.0)
    assert choice.next([], [], 100.0 + LEFT_S) == tried


def test_a_place_whose_relays_fail_one_after_the_other_is_left_alone() -> None:
    choice = Choice(ME, Random(8))
    tried = 0
    for turn in range(40):
        now = turn * DIALS_PERIOD_S / DIALS_MAX
        choice.learn([offer(5000 + turn, f"203.0.113.{turn + 1}")], now)
        if (found := choice.next([], [], now)) is not None:
            tried += 1
            choice.ended(found, 0.0, now)
    assert tried < 12


def test_whom_we_trust_and_who_has_room_comes_sooner() -> None:
    first = Counter[PeerId]()
    for seed in range(300):
        choice = Choice(ME, Random(seed))
        offers = [offer(1, "1.1.0.1"), offer(2, "2.2.0.1", weight=10.0), offer(3, "3.3.0.1", load=0.9)]
        choice.learn(offers, 0.0)
        first[picks(choice, 1)[0].relay] += 1
    assert first[peer(2)] > 4 * first[peer(1)] > 8 * first[peer(3)]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.integers(0, 1 << 16))
def test_neighbourhoods_of_what_we_hold_come_last(places: list[int], seed: int) -> None:
    choice = Choice(ME, Random(seed))
    choice.learn([offer(n + 1, f"{place + 21}.1.0.{n + 1}") for n, place in enumerate(places)], 0.0)
    held = picks(choice, 3)
    assert len({each.neighbourhood for each in held}) == min(3, len(set(places)), len(places))


def test_neighbourhood() -> None:
    assert neighbourhood("/ip4/203.0.113.9/tcp/1") == "203.0.0.0/16"
    assert neighbourhood("/ip6/2001:db8:1::9/tcp/1") == "2001:db8::/32"


def test_one_address_of_each_version_is_tried() -> None:
    choice, name = Choice(ME, Random(9)), to_text(peer(1))
    texts = [f"/ip6/2001:db8::{n}/tcp/1/p2p/{name}" for n in (1, 2)] + [
        f"/ip4/1.2.3.{n}/tcp/1/p2p/{name}" for n in (1, 2)
    ]
    choice.learn([Offer(peer(1), texts)], 0.0)
    found = choice.next([], [], 0.0)
    assert found is not None
    assert found.addresses == ("/ip4/1.2.3.1/tcp/1", "/ip6/2001:db8::1/tcp/1")
