"""What a relay gives: bounded per peer, host, subnet and in all; paced so that busy guests get the same."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.reach.circuit_messages import Status
from node.reach.quota import MODEST, Limits, Pace, Quota, host_and_subnet
from wire.peer import PeerId

A, B, C, D = (PeerId(bytes([n]) * 32) for n in range(1, 5))
FEW = Limits(
    reservations_max=3,
    reservations_per_ip_max=2,
    reservations_per_subnet_max=2,
    reservation_s=100,
    circuits_max=4,
    circuits_per_peer_max=2,
    circuits_per_subnet_max=3,
)
PEERS = st.sampled_from([A, B, C, D])
PLACES = st.sampled_from(["203.0.113.1", "203.0.113.2", "198.51.100.1"])


def subnet(ip: str) -> str:
    return ip.rpartition(".")[0]


class QuotaMachine(RuleBasedStateMachine):
    """Reservations and circuits in any order stay within their bounds, and a guest keeps what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.quota = Quota(FEW)
        self.now = 0.0
        self.until: dict[PeerId, tuple[float, str]] = {}
        self.open: list[tuple[PeerId, str, PeerId]] = []

    def held(self) -> dict[PeerId, tuple[float, str]]:
        return {peer: entry for peer, entry in self.until.items() if entry[0] > self.now}

    @rule(peer=PEERS, ip=PLACES)
    def reserve(self, peer: PeerId, ip: str) -> None:
        others = [at for guest, (_, at) in self.held().items() if guest != peer]
        room = len(others) < 3 and sum(subnet(at) == subnet(ip) for at in others) < 2
        until = self.quota.reserve(peer, ip, self.now)
        assert (until is not None) is room
        if until is not None:
            self.until[peer] = (until, ip)

    @rule(source=PEERS, ip=PLACES, guest=PEERS)
    def connect(self, source: PeerId, ip: str, guest: PeerId) -> None:
        status = self.quota.connect(source, ip, guest, self.now)
        ends = Counter(end for caller, _, called in self.open for end in (caller, called))
        from_there = sum(subnet(at) == subnet(ip) for _, at, _ in self.open)
        if guest not in self.held():
            assert status is Status.NO_RESERVATION
        elif source == guest:
            assert status is Status.PERMISSION_DENIED
        else:
            full = len(self.open) >= 4 or ends[source] >= 2 or ends[guest] >= 2 or from_there >= 3
            assert status is (Status.RESOURCE_LIMIT_EXCEEDED if full else Status.OK)
        if status is Status.OK:
            self.open.append((source, ip, guest))

    @rule()
    def disconnect(self) -> None:
        if self.open:
            self.quota.disconnect(*self.open.pop(0))

    @rule(peer=PEERS)
    def leave(self, peer: PeerId) -> None:
        self.quota.drop(peer)
        self.until.pop(peer, None)

    @rule(seconds=st.floats(0, 150))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counted(self) -> None:
        assert self.quota.circuits == len(self.open) <= 4


TestQuota = QuotaMachine.TestCase


@pytest.mark.parametrize(
    ("ip", "host", "network"),
    [
        ("203.0.113.7", "203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
    ],
)
def test_an_address_is_counted_by_what_one_customer_commands(ip: str, host: str, network: str) -> None:
    assert host_and_subnet(ip) == (host, network)


def test_a_host_with_many_identities_is_one_guest() -> None:
    quota = Quota(Limits(reservations_per_ip_max=2))
    given = [quota.reserve(peer, "203.0.113.1", 0.0) for peer in (A, B, C)]
    assert [each is not None for each in given] == [True, True, False]
    assert quota.reserve(D, "203.0.113.2", 0.0) is not None
    assert quota.refused == 1


def test_one_busy_guest_gets_everything_and_two_get_half_each() -> None:
    pace, size = Pace(1000), 100
    alone = [pace.take(A, size, 0.0) for _ in range(30)]
    assert alone[-1] == pytest.approx(2.0)  # 3,000 bytes at 1,000 a second, one second of it saved up

    def passed(guests: list[PeerId]) -> Counter[PeerId]:
        """Bytes in ten seconds, every guest taking whenever it may."""
        shared, sent, free = Pace(1000), Counter[PeerId](), dict.fromkeys(guests, 0.0)
        while min(free.values()) < 10:
            guest = min(free, key=lambda each: free[each])
            free[guest] += shared.take(guest, size, free[guest])
            sent[guest] += size
        return sent

    assert passed([A])[A] == pytest.approx(11_000, rel=0.05)
    both = passed([A, B])
    assert both[A] == pytest.approx(both[B], rel=0.1)
    assert both.total() == pytest.approx(12_000, rel=0.15)


def test_without_a_pace_nobody_waits() -> None:
    pace = Pace(0)
    assert {pace.take(A, 1 << 30, float(n)) for n in range(3)} == {0.0}


def test_what_is_given_unasked_is_less_than_what_an_owner_grants() -> None:
    whole = Limits()
    assert MODEST.bytes_per_s > 0
    for name in ("reservations_max", "reservations_per_ip_max", "circuits_max", "circuit_s", "circuit_bytes_max"):
        assert getattr(MODEST, name) < getattr(whole, name)
