"""Records: what is refused and whose fault it is, which of two is kept, and what the shelf keeps of many."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht.core import Core
from dht.messages import FindNode, FindValue, Node, Nodes, Ping, Pong, Reply, Request, Store, Stored
from dht.provider import NAMESPACE, RULES, key_of
from dht.record import DOMAIN, Equivocation, Record, Rules, SignedRecord, Slot, equivocation, select, sign, validate
from dht.shelf import Quotas, Shelf
from tests.dht.coreworld import MODEL, START_MS, identity, signed_ad
from tests.dht.make_vectors import outcome
from wire import cid, codec
from wire.envelope import Envelope, seal
from wire.errors import LocalError, Malformed, RemoteError
from wire.peer import PeerId

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "dht-record-v1.json").read_text())
A, B, C = identity(1), identity(2), identity(3)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_record_vector(vector: dict[str, Any]) -> None:
    """Each vector names the one reason it must fail, or the record's id."""
    assert outcome(bytes.fromhex(vector["hex"]), vector["now_ms"]) == vector["expect"]
    assert vector["name"].startswith("good") == (len(vector["expect"]) == 64)


@settings(max_examples=60)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_survives(at: int, bit: int) -> None:
    raw = bytearray(codec.encode(signed_ad(A).envelope))
    raw[at % len(raw)] ^= 1 << bit
    assert outcome(bytes(raw), START_MS).startswith(("Malformed", "Untimely"))


def test_our_own_bad_record_is_a_local_error() -> None:
    with pytest.raises(LocalError, match="a key of 3 bytes"):
        sign(A, Record("value", b"abc", 1, START_MS, START_MS + 1, b""), RULES)


def test_of_two_records_the_higher_seq_stands_then_the_smaller_id() -> None:
    old, new = signed_ad(A, seq=1), signed_ad(A, seq=2)
    twin = signed_ad(A, seq=2, load=3.0)
    assert select(old, new) is select(new, old) is new
    assert select(new, twin) is select(twin, new) is min(new, twin, key=lambda signed: signed.id)


def test_an_equivocation_convinces_a_stranger_and_cannot_be_made_up() -> None:
    first, second, later = signed_ad(A, seq=1), signed_ad(A, seq=1, load=1.0), signed_ad(A, seq=2)
    proof = equivocation(first, second)
    assert proof is not None
    assert proof == equivocation(second, first)
    assert codec.decode(Equivocation, codec.encode(proof)).author() == A.peer
    assert equivocation(first, later) is equivocation(first, first) is None
    for one, two in ((first, later), (first, first), (first, signed_ad(B, load=1.0))):
        pair = sorted((one, two), key=lambda signed: signed.id)
        with pytest.raises(Malformed):
            Equivocation(pair[0].envelope, pair[1].envelope).author()
    with pytest.raises(Malformed):
        Equivocation(proof.second, proof.first).author()


def shelf(**quotas: int) -> Shelf:
    return Shelf(b"salt", quotas=Quotas(**quotas))


def held(kept: Shelf, now_ms: int = START_MS) -> set[bytes]:
    return {record.id for record in kept.get(NAMESPACE, key_of(MODEL), now_ms)}


def test_every_order_of_arrival_ends_with_the_same_shelf() -> None:
    """Three authors, an update and an equivocation: 120 orders, one result."""
    records = [signed_ad(A, seq=1), signed_ad(A, seq=2), signed_ad(A, seq=2, load=1.0), signed_ad(B), signed_ad(C)]
    results = set()
    for order in permutations(records):
        kept = shelf()
        for record in order:
            kept.put(record)
        results.add(frozenset(held(kept)))
    assert len(results) == 1
    assert len(results.pop()) == 3


@settings(max_examples=30)
@given(order=st.permutations(range(12)))
def test_a_full_key_keeps_the_same_authors_whoever_came_first(order: list[int]) -> None:
    kept, other = shelf(per_key=4), shelf(per_key=4)
    for number in range(12):
        kept.put(CROWD[number])
    for number in order:
        other.put(CROWD[number])
    assert held(kept) == held(other)
    assert len(kept) == 4


CROWD = [signed_ad(identity(number, "crowd")) for number in range(12)]


def test_two_nodes_keep_different_authors_of_a_full_key() -> None:
    one, two = Shelf(b"one", quotas=Quotas(per_key=4)), Shelf(b"two", quotas=Quotas(per_key=4))
    for record in CROWD:
        one.put(record)
        two.put(record)
    assert held(one) != held(two)


def test_a_peer_of_standing_keeps_its_seat_among_strangers() -> None:
    trusted = CROWD[7].author
    kept = Shelf(b"salt", quotas=Quotas(per_key=2), weight=lambda author: 1e6 if author == trusted else 1.0)
    for record in CROWD:
        kept.put(record)
    assert CROWD[7].id in held(kept)


def test_an_author_past_its_quota_loses_its_own_record_that_ends_first() -> None:
    kept = shelf(per_author=2)
    models = [cid.of(bytes([number])) for number in range(3)]
    kept.put(signed_ad(B, model=models[0]))
    for number, life_ms in enumerate((300_000, 200_000, 400_000)):
        kept.put(signed_ad(A, model=models[number], life_ms=life_ms))
    left = [{record.author for record in kept.get(NAMESPACE, key_of(model), START_MS)} for model in models]
    assert left == [{A.peer, B.peer}, set(), {A.peer}]


def test_a_full_shelf_takes_from_whoever_holds_most() -> None:
    kept = shelf(total=20, per_author=100)
    kept.put(signed_ad(B))
    for number in range(60):
        kept.put(signed_ad(A, model=cid.of(bytes([number]))))
    assert [record.author for record in kept.get(NAMESPACE, key_of(MODEL), START_MS)] == [B.peer]
    assert len(kept) <= 20


def test_expired_records_are_not_given_out_and_are_swept() -> None:
    kept = shelf()
    kept.put(signed_ad(A, seq=1, life_ms=1000))
    kept.put(signed_ad(A, seq=2, life_ms=3000))
    kept.put(signed_ad(B, life_ms=2000))
    assert held(kept, START_MS + 2000) == {signed_ad(A, seq=2, life_ms=3000).id}
    assert [kept.sweep(START_MS + after) for after in (1000, 2000, 3000)] == [0, 1, 1]
    assert len(kept) == 0


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_the_changes_rebuild_the_shelf_and_no_quota_is_passed(seed: int) -> None:
    """A copy that follows `drain` holds exactly what the shelf holds."""
    random = Random(seed)
    kept, copy = shelf(per_key=3, per_author=3, total=10), dict[Slot, SignedRecord]()
    for step in range(60):
        kept.put(random.choice(POOL))
        if random.random() < 0.1:
            kept.sweep(START_MS + random.choice((1000, 2000)))
        if step % 7 == 0 or step == 59:
            changes = kept.drain()
            for slot in changes.drops:
                copy.pop(slot, None)
            copy.update(changes.puts)
            assert len(copy) == len(kept) <= 10
    for model in MODELS:
        there = {record.id for record in kept.get(NAMESPACE, key_of(model), START_MS)}
        assert there == {record.id for slot, record in copy.items() if slot.key == key_of(model)}
        assert len(there) <= 3


MODELS = [cid.of(bytes([number])) for number in range(5)]
POOL = [
    signed_ad(identity(author, "pool"), model=model, seq=seq, life_ms=1000 * (1 + seq % 3))
    for author in range(6)
    for model in MODELS
    for seq in range(3)
]


def core(number: int = 0) -> Core:
    return Core(identity(number).peer, shelf(), RULES)


def forged() -> Envelope:
    good = signed_ad(A).envelope
    return Envelope(good.domain, good.author, good.body, bytes(64))


def test_a_storer_says_what_it_keeps_and_blames_nobody_for_clocks() -> None:
    old, new = signed_ad(A, seq=1), signed_ad(A, seq=2)
    late = signed_ad(B, now_ms=START_MS - 600_001)
    request = Request(Store([new.envelope, old.envelope, new.envelope, late.envelope]), [])
    assert core().handle(C.peer, request, START_MS) == Stored([True, False, True, False])


@pytest.mark.parametrize(
    "request_",
    [
        Request(Store([forged()]), []),
        Request(Store([]), []),
        Request(Store([signed_ad(A).envelope] * 33), []),
        Request(FindNode(bytes(31)), []),
        Request(FindValue(NAMESPACE, bytes(33)), []),
        Request(Ping(), ["/a"] * 9),
        Request(Ping(), ["/" + "a" * 200]),
        Request(Ping(), ["/a\n"]),
        Request(Ping(), [""]),
    ],
)
def test_a_request_past_the_rules_is_blamed_on_its_sender(request_: Request) -> None:
    with pytest.raises(RemoteError) as caught:
        core().handle(C.peer, request_, START_MS)
    assert caught.value.peer == C.peer
    assert caught.value.penalty >= 0.25


VALUE = Request(FindValue(NAMESPACE, key_of(MODEL)), [])
OTHER = sign(A, Record("value", bytes(32), 1, START_MS, START_MS + 1000, b""), RULES)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (VALUE, Reply(Nodes([], [forged()]), [])),
        (VALUE, Reply(Nodes([], [OTHER.envelope]), [])),
        (VALUE, Reply(Pong(), [])),
        (VALUE, Reply(Nodes([Node(PeerId(b"short"), [])], []), [])),
        (VALUE, Reply(Nodes([Node(B.peer, ["/a"] * 9)], []), [])),
        (Request(Ping(), []), Reply(Nodes([], []), [])),
        (Request(FindNode(bytes(32)), []), Reply(Nodes([], [signed_ad(A).envelope]), [])),
        (Request(Store([signed_ad(A).envelope]), []), Reply(Stored([True, True]), [])),
    ],
)
def test_a_reply_past_the_rules_is_blamed_and_earns_no_seat(request_: Request, reply: Reply) -> None:
    asker = core()
    with pytest.raises(RemoteError):
        asker.answered(C.peer, request_, reply, START_MS)
    assert list(asker.table) == []


def test_contacts_are_told_with_the_addresses_they_stated_themselves() -> None:
    """What a third party says about B's addresses never reaches anybody through us."""
    teller = core()
    teller.answered(
        C.peer, Request(FindNode(bytes(32)), []), Reply(Nodes([Node(B.peer, ["/lie"])], []), ["/c"]), START_MS
    )
    told = teller.handle(A.peer, Request(FindNode(bytes(32)), ["/a"]), START_MS)
    assert told == Nodes([Node(C.peer, ["/c"])], [])
    teller.answered(B.peer, Request(Ping(), []), Reply(Pong(), ["/b"]), START_MS)
    told = teller.handle(A.peer, Request(FindNode(bytes(32)), ["/a"]), START_MS)
    assert isinstance(told, Nodes)
    assert {(node.peer, *node.addresses) for node in told.nodes} == {(B.peer, "/b"), (C.peer, "/c")}


def test_a_peer_that_asks_is_probed_before_others_hear_of_it() -> None:
    asked = core()
    asked.handle(A.peer, Request(Ping(), ["/a"]), START_MS)
    assert asked.take_probes() == [A.peer]
    assert asked.handle(B.peer, Request(FindNode(bytes(32)), []), START_MS) == Nodes([], [])


def test_twenty_copies_of_one_record_cost_one_signature_check(monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[Envelope] = []

    def counted(envelope: Envelope, rules: Rules, now_ms: int) -> SignedRecord:
        checks.append(envelope)
        return validate(envelope, rules, now_ms)

    monkeypatch.setattr("dht.core.validate", counted)
    node, envelope = core(), seal(A, DOMAIN, signed_ad(A).record)
    for _ in range(20):
        node.check(envelope, START_MS)
    assert len(checks) == 1
