"""What a replica admits, refuses and keeps waiting, and what follows for its values."""

from __future__ import annotations

import pytest

from crdt.limits import DOTS_MAX, ORPHANS_MAX, PARENTS_MAX
from crdt.namespace import Namespace, author_key
from crdt.op import MapDelete, MapSet, SetAdd, SetRemove, SignedOp
from crdt.replica import Ingested, Replica
from tests.crdt.helpers import NOW_MS, Key, replica, signed
from wire.errors import LocalError, Malformed

ANN, BOB, EVE = Key("ann"), Key("bob"), Key("eve")
STAMP = NOW_MS << 16


def take(at: Replica, *ops: SignedOp, now_ms: int = NOW_MS) -> Ingested:
    return at.ingest(ops, sender=EVE.peer, now_ms=now_ms)


def only_fault(result: Ingested) -> str:
    assert (result.added, result.waiting) == ([], [])
    (fault,) = result.faults
    assert fault.peer == EVE.peer
    return fault.reason


def test_an_operation_waits_for_its_ancestors_and_then_all_are_admitted() -> None:
    first = signed(ANN, MapSet("k", b"1"))
    second = signed(ANN, MapSet("k", b"2"), after=first, stamp=STAMP + 1)
    third = signed(BOB, MapDelete("k"), parents=[second], stamp=STAMP + 2)
    at = replica()
    assert take(at, third).waiting == [third.id]
    assert at.missing() == [second.id]
    assert take(at, second).waiting == [second.id]
    assert at.missing() == [first.id]
    assert [one.id for one in take(at, first).added] == [first.id, second.id, third.id]
    assert at.heads() == [third.id]
    assert at.missing() == []
    assert at.map.get("k") is None


def test_an_operation_is_admitted_once() -> None:
    one = signed(ANN, MapSet("k", b"1"))
    at = replica()
    assert take(at, one, one).added == [one]
    assert take(at, one) == Ingested()


def test_a_stamp_too_far_ahead_waits_and_is_nobody_s_fault() -> None:
    early = signed(ANN, MapSet("k", b"1"), stamp=(NOW_MS + 61_000) << 16)
    at = replica()
    result = take(at, early)
    assert (result.added, result.faults, result.waiting) == ([], [], [early.id])
    assert take(at, early, now_ms=NOW_MS + 1_000).added == [early]


def test_a_stamp_not_after_that_of_a_dependency_is_refused() -> None:
    first = signed(ANN, MapSet("k", b"1"))
    second = signed(BOB, MapSet("k", b"2"), parents=[first], stamp=STAMP)
    at = replica()
    take(at, first)
    assert "stamp" in only_fault(take(at, second))


def test_a_chain_must_continue_its_own_author_s_last_number() -> None:
    first = signed(ANN, MapSet("k", b"1"))
    stolen = signed(BOB, MapSet("k", b"2"), after=first, stamp=STAMP + 1)
    at = replica()
    take(at, first)
    assert "previous" in only_fault(take(at, stolen))


def test_a_key_of_another_author_is_refused_where_keys_are_owned() -> None:
    at = replica(policy="author-keyed")
    foreign = signed(EVE, MapSet(author_key(ANN.peer, "cid"), b"v"))
    assert "another author" in only_fault(take(at, foreign))
    own = signed(ANN, MapSet(author_key(ANN.peer, "cid"), b"v"))
    assert take(at, own).added == [own]
    lookalike = signed(EVE, MapSet(author_key(EVE.peer, "cid")[:-4], b"v"))
    assert "another author" in only_fault(take(at, lookalike))


def test_a_change_of_the_wrong_type_or_namespace_is_refused() -> None:
    assert "SetAdd in a map" in only_fault(take(replica("map"), signed(ANN, SetAdd(b"x"))))
    assert "MapSet in a set" in only_fault(take(replica("set"), signed(ANN, MapSet("k", b""))))
    assert "namespace" in only_fault(take(replica("map"), signed(ANN, MapSet("k", b""), namespace="other")))


def test_the_quota_counts_along_the_author_s_own_chain_so_order_cannot_matter() -> None:
    chain = [signed(ANN, MapSet("k", b"0"))]
    for index in range(1, 4):
        chain.append(signed(ANN, MapSet("k", b"%d" % index), after=chain[-1], stamp=STAMP + index))
    for order in (chain, chain[::-1]):
        at = replica(ops_max=3)
        results = [take(at, one) for one in order]
        assert sum(len(result.faults) for result in results) == 1
        assert len(at) == 3
        assert at.heads() == [chain[2].id]
    at = replica(bytes_max=sum(len(one.raw) for one in chain[:2]))
    take(at, *chain[:2])
    assert "bytes" in only_fault(take(at, chain[2]))


def test_our_own_write_over_the_quota_is_a_local_error() -> None:
    at = replica(ops_max=1)
    at.write(MapSet("k", b""), ANN, NOW_MS)
    before = at.digest()
    with pytest.raises(LocalError, match="at most 1"):
        at.write(MapSet("k", b""), ANN, NOW_MS)
    assert at.digest() == before


def test_a_full_log_makes_operations_wait_and_refuses_our_own() -> None:
    one = signed(ANN, MapSet("k", b"1"))
    at = Replica(Namespace("notes", "map"), log_bytes_max=len(one.raw))
    take(at, one)
    other = signed(BOB, MapSet("k", b"1"))
    result = take(at, other)
    assert (result.waiting, result.full, result.faults) == ([other.id], 1, [])
    with pytest.raises(LocalError, match="full"):
        at.write(MapSet("k", b""), BOB, NOW_MS)


def test_both_branches_of_a_fork_are_kept_and_the_fork_is_shown() -> None:
    first = signed(EVE, MapSet("k", b"0"))
    left = signed(EVE, MapSet("k", b"left"), after=first, stamp=STAMP + 1)
    right = signed(EVE, MapSet("k", b"right"), after=first, stamp=STAMP + 1)
    one, two = replica(), replica()
    take(one, first, left, right)
    take(two, first, right, left)
    assert one.digest() == two.digest()
    assert one.state_digest() == two.state_digest()
    assert one.map.get("k") == (b"left" if left.id > right.id else b"right")
    for at in (one, two):
        (fork,) = at.forks()
        assert (fork.author, fork.seq, {fork.first, fork.second}) == (EVE.peer, 2, {left.id, right.id})


def test_a_write_joins_the_heads_up_to_the_limit() -> None:
    at = replica()
    take(at, *(signed(Key(f"peer {index}"), MapSet("k", b"")) for index in range(PARENTS_MAX + 5)))
    own = at.write(MapSet("k", b"mine"), ANN, NOW_MS)
    assert len(own.op.parents) == PARENTS_MAX
    assert len(at.heads()) == 6
    assert at.map.get("k") == b"mine"


def test_a_removal_of_many_adds_is_split() -> None:
    at = replica("set")
    take(at, *(signed(Key(f"peer {index}"), SetAdd(b"x")) for index in range(DOTS_MAX + 1)))
    for change in at.removals(b"x", ANN.peer):
        at.write(change, ANN, NOW_MS)
    assert at.set.members() == []
    assert len(at) == DOTS_MAX + 3


def test_a_remove_that_names_what_nobody_has_seen_still_commutes() -> None:
    add = signed(ANN, SetAdd(b"x"))
    for element, gone in ((b"x", True), (b"y", False)):
        remove = signed(EVE, SetRemove(element, [add.id]))
        one, two = replica("set"), replica("set")
        take(one, add, remove)
        take(two, remove, add)
        assert one.set.members() == two.set.members() == ([] if gone else [b"x"])


def test_orphans_are_bounded_and_the_oldest_go_first() -> None:
    root = signed(ANN, MapSet("k", b""))
    at = replica()
    children = [
        signed(Key(f"peer {index}"), MapSet("k", b""), parents=[root], stamp=STAMP + 1)
        for index in range(ORPHANS_MAX + 10)
    ]
    take(at, *children)
    assert [one.id for one in take(at, root).added[:1]] == [root.id]
    assert len(at) == ORPHANS_MAX + 1
    assert len(take(at, *children).added) == 10


def test_restoring_gives_the_same_replica_and_refuses_what_does_not_fit() -> None:
    at = replica()
    ops = [at.write(MapSet(f"k{index}", b"v"), ANN if index % 2 else BOB, NOW_MS) for index in range(6)]
    again = replica()
    again.restore(one.raw for one in ops)
    assert (again.digest(), again.state_digest()) == (at.digest(), at.state_digest())
    assert again.write(MapSet("k", b""), ANN, 0).op.stamp > ops[-1].op.stamp
    for broken in ([ops[1].raw], [ops[0].raw, ops[0].raw], [ops[0].raw[:-70]]):
        with pytest.raises(Malformed):
            replica().restore(broken)
