"""The routing table, against its invariants."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dht.keys import node_id
from dht.limits import ADDRESSES_MAX, PENALTY_HALF_LIFE_MS, PENALTY_YIELD, PROBE_AGE_MS
from dht.table import RoutingTable
from wire.hashing import digest
from wire.peer import PeerId

ME = PeerId(digest("test.table", b"me"))
PEERS = [PeerId(digest("test.table", n.to_bytes(4, "big"))) for n in range(60)]
K = 3


def same_bucket(table: RoutingTable, count: int) -> list[PeerId]:
    """Peers of the farthest bucket."""
    return [peer for peer in PEERS if table.bucket_of(peer) == 255][:count]


class TableMachine(RuleBasedStateMachine):
    """Any order of answers, requests, failures and penalties."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RoutingTable(ME, k=K)
        self.now_ms = 1
        self.ever_answered: set[PeerId] = set()

    @rule(peer=st.sampled_from([*PEERS, ME]), count=st.integers(0, 12))
    def answered(self, peer: PeerId, count: int) -> None:
        before = {contact.peer for contact in self.table if contact.failures == 0}
        self.table.answered(peer, [f"/a/{n}" for n in range(count)], self.now_ms)
        self.ever_answered.add(peer)
        if all(self.table._penalties.of(other, self.now_ms) < PENALTY_YIELD for other in before):
            assert before <= {contact.peer for contact in self.table}, "a newcomer displaced a live contact"

    @rule(peer=st.sampled_from([*PEERS, ME]))
    def heard(self, peer: PeerId) -> None:
        before = {contact.peer for contact in self.table}
        self.table.heard(peer, ["/a"], self.now_ms)
        assert {contact.peer for contact in self.table} == before, "a request gave its sender a seat"

    @rule(peer=st.sampled_from(PEERS))
    def failed(self, peer: PeerId) -> None:
        self.table.failed(peer, self.now_ms)

    @rule(peer=st.sampled_from(PEERS), penalty=st.sampled_from([0.1, 0.5, 1.0]))
    def blame(self, peer: PeerId, penalty: float) -> None:
        self.table.blame(peer, penalty, self.now_ms)

    @rule(wait_ms=st.integers(1, PENALTY_HALF_LIFE_MS))
    def wait(self, wait_ms: int) -> None:
        self.now_ms += wait_ms

    @invariant()
    def seats_are_bounded_and_earned(self) -> None:
        seated = list(self.table)
        sizes: dict[int, int] = {}
        for contact in seated:
            bucket = self.table.bucket_of(contact.peer)
            sizes[bucket] = sizes.get(bucket, 0) + 1
            assert contact.peer in self.ever_answered
            assert contact.peer != ME
            assert len(contact.addresses) <= ADDRESSES_MAX
        assert all(size <= K for size in sizes.values())
        assert len({contact.peer for contact in seated}) == len(seated)

    @invariant()
    def closest_is_what_sorting_gives(self) -> None:
        target = node_id(PEERS[0])
        expected = sorted(self.table, key=lambda c: (c.failures > 0, node_id(c.peer) ^ target))[:K]
        assert self.table.closest(target, K) == expected


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40)


def test_the_oldest_of_a_full_bucket_is_probed_once_it_has_been_quiet() -> None:
    table = RoutingTable(ME, k=2)
    old, mid, new = same_bucket(table, 3)
    table.answered(old, [], 1)
    table.answered(mid, [], 2)
    assert table.answered(new, [], 3) is None
    assert table.answered(new, [], 1 + PROBE_AGE_MS) == old


def test_a_contact_that_fails_twice_leaves_its_seat_to_the_newest_in_waiting() -> None:
    table = RoutingTable(ME, k=2)
    old, mid, early, late = same_bucket(table, 4)
    for at_ms, peer in enumerate((old, mid, early, late), 1):
        table.answered(peer, [], at_ms)
    assert table.failed(old, 5) is None
    assert table.failed(old, 6) == late
    table.answered(late, [], 7)
    assert {contact.peer for contact in table} == {mid, late}


def test_a_banned_peer_comes_back_when_its_penalty_has_decayed() -> None:
    table = RoutingTable(ME, k=2)
    table.answered(PEERS[0], [], 1)
    table.blame(PEERS[0], 1.0, 2)
    table.answered(PEERS[0], [], 1 + PENALTY_HALF_LIFE_MS)
    assert list(table) == []
    table.answered(PEERS[0], [], 3 + PENALTY_HALF_LIFE_MS)
    assert [contact.peer for contact in table] == [PEERS[0]]
