"""Look-ups: any order of replies, silence and lies ends, and an honest path leads to the value."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from dht.keys import node_id
from dht.limits import ALPHA, ASKS_MAX, SLOW_ASKS_MAX
from dht.lookup import Lookup
from dht.messages import Node
from dht.provider import key_of
from dht.record import VALUE_RULE, Record, SignedRecord, sign
from tests.dht.coreworld import MODEL, START_MS, identity, signed_ad
from wire.hashing import digest
from wire.peer import PeerId

ME = PeerId(digest("test.lookup", b"me"))
TARGET = int.from_bytes(key_of(MODEL), "big")
PEERS = sorted(
    (PeerId(digest("test.lookup", n.to_bytes(4, "big"))) for n in range(40)), key=lambda p: node_id(p) ^ TARGET
)
VALUE = signed_ad(identity(1))
K = 4


def node(peer: PeerId) -> Node:
    return Node(peer, [])


class Net:
    """A hostile universe: who answers what, and in which order."""

    def __init__(self, random: Random, lookup: Lookup, dead: set[PeerId], told: dict[PeerId, list[Node]]) -> None:
        self.random, self.lookup, self.dead, self.told = random, lookup, dead, told
        self.asked: list[PeerId] = []
        self.records: dict[PeerId, list[SignedRecord]] = {}

    def run(self) -> None:
        """Deliver outcomes in random order until the look-up is done."""
        under_way = self.lookup.start()
        while under_way:
            assert len(under_way) <= ALPHA + SLOW_ASKS_MAX
            self.asked += [one.peer for one in under_way if one.peer not in self.asked]
            assert not self.lookup.done
            peer = self.random.choice(under_way).peer
            if self.random.random() < 0.2:
                under_way += self.lookup.on_slow(peer)
                continue
            under_way = [one for one in under_way if one.peer != peer]
            if peer in self.dead:
                under_way += self.lookup.on_failure(peer)
            else:
                under_way += self.lookup.on_reply(peer, self.told.get(peer, []), self.records.get(peer, []))
        assert self.lookup.done


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), liars=st.sets(st.integers(0, 39), max_size=K - 1), dead=st.sets(st.integers(0, 39)))
def test_an_honest_path_leads_to_the_value_past_liars_and_silence(seed: int, liars: set[int], dead: set[int]) -> None:
    """A chain of honest live peers, each naming the next, ends at the holder; fewer than k liars name anybody."""
    random = Random(seed)
    chain = sorted(set(range(40)) - liars, reverse=True)[:: random.randint(3, 8)]
    holder = chain[-1]
    silent = {PEERS[n] for n in dead - set(chain) - liars}
    closer_honest = [n for n in range(holder) if n not in liars and PEERS[n] not in silent]
    told = {PEERS[one]: [node(PEERS[two])] for one, two in pairwise(chain)}
    for liar in liars:
        fakes = [node(PeerId(digest("fake", bytes([liar, n])))) for n in range(10)]
        told[PEERS[liar]] = [*fakes, *(node(PEERS[n]) for n in random.sample(range(40), 5)), node(ME)]
    fakes_dead = silent | {one.peer for nodes in told.values() for one in nodes if one.peer not in PEERS}
    k = K + len(closer_honest)
    net = Net(
        random, Lookup(TARGET, ME, [node(PEERS[chain[0]])] + [node(PEERS[n]) for n in liars], k=k), fakes_dead, told
    )
    net.records[PEERS[holder]] = [VALUE]
    net.run()
    assert net.lookup.values() == [VALUE]
    assert len(set(net.asked)) == len(net.asked) == net.lookup.asks


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32))
def test_liars_without_end_are_asked_a_bounded_number_of_times(seed: int) -> None:
    """Whoever is asked names 20 new peers, ever closer; all of them answer."""
    random = Random(seed)
    lookup = Lookup(TARGET, ME, [node(PEERS[0])])
    under_way, asks = lookup.start(), 0
    while under_way:
        peer = under_way.pop(random.randrange(len(under_way))).peer
        asks += 1
        fakes = [node(PeerId(random.randbytes(32))) for _ in range(20)]
        under_way += lookup.on_reply(peer, fakes) if random.random() < 0.7 else lookup.on_failure(peer)
    assert asks == lookup.asks <= ASKS_MAX


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_among_honest_peers_the_k_closest_are_found(seed: int) -> None:
    random = Random(seed)
    told = {peer: [node(p) for p in PEERS if p != peer][:K] for peer in PEERS}
    net = Net(random, Lookup(TARGET, ME, [node(random.choice(PEERS))], k=K), set(), told)
    net.run()
    assert [one.peer for one in net.lookup.closest()] == PEERS[:K]


def test_records_are_merged_from_all_who_answer() -> None:
    """One storer holds an old ad of A, another a new one and an ad of B."""
    old, new, other = signed_ad(identity(1), seq=1), signed_ad(identity(1), seq=2), signed_ad(identity(2))
    lookup = Lookup(TARGET, ME, [node(PEERS[0]), node(PEERS[1])])
    lookup.start()
    lookup.on_reply(PEERS[0], [], [new])
    lookup.on_reply(PEERS[1], [], [old, other])
    assert lookup.values() == [new, other]


def test_an_equivocation_is_noticed_between_two_storers() -> None:
    first = signed_ad(identity(1), load=0.0)
    second = signed_ad(identity(1), load=1.0)
    lookup = Lookup(TARGET, ME, [node(PEERS[0]), node(PEERS[1])])
    lookup.start()
    lookup.on_reply(PEERS[0], [], [first])
    lookup.on_reply(PEERS[1], [], [second])
    assert [proof.author() for proof in lookup.evidence] == [first.author]
    assert lookup.values() == [min(first, second, key=lambda signed: signed.id)]


def test_strangers_repeats_and_late_replies_change_nothing() -> None:
    lookup = Lookup(TARGET, ME, [node(PEERS[0])])
    lookup.start()
    assert lookup.on_reply(PEERS[9], [node(PEERS[1])], [VALUE]) == []
    assert lookup.on_failure(PEERS[9]) == []
    lookup.on_failure(PEERS[0])
    assert lookup.on_reply(PEERS[0], [node(PEERS[1])], [VALUE]) == []
    assert lookup.done
    assert (lookup.values(), lookup.closest()) == ([], [])


def test_without_anybody_to_ask_it_is_done_at_once() -> None:
    lookup = Lookup(TARGET, ME, [node(ME)])
    assert lookup.start() == []
    assert lookup.done


def test_a_slow_peer_frees_its_place_and_may_still_answer() -> None:
    lookup = Lookup(TARGET, ME, [node(peer) for peer in PEERS[:5]], alpha=2)
    assert [one.peer for one in lookup.start()] == PEERS[:2]
    assert [one.peer for one in lookup.on_slow(PEERS[0])] == [PEERS[2]]
    assert lookup.on_slow(PEERS[0]) == []
    lookup.on_reply(PEERS[0], [], [VALUE])
    assert lookup.values() == [VALUE]


def test_a_value_of_another_namespace_is_another_slot() -> None:
    record = Record("value", VALUE.record.key, 1, START_MS, START_MS + 1000, b"")
    other = sign(identity(1), record, {"value": VALUE_RULE})
    lookup = Lookup(TARGET, ME, [])
    lookup.merge([VALUE, other])
    assert len(lookup.values()) == 2
