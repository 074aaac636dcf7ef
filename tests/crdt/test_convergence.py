"""Replicas under arbitrary delivery with a liar among the authors: equal operations make equal values, always,
and after a heal a bounded number of rounds of pulls makes the operations equal."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crdt.namespace import Namespace, author_key
from crdt.op import Change, MapDelete, MapSet, SetAdd, SetRemove, SignedOp, parse
from crdt.replica import Replica
from crdt.sync import Cursor, PullSession, SyncServer, check, sift
from tests.crdt.helpers import NOW_MS, Key, signed
from wire.errors import LocalError

HONEST = [Key(f"honest {index}") for index in range(4)]
LIAR = Key("liar")
ELEMENTS = [b"x", b"y"]
places = st.integers(0, len(HONEST) - 1)


def ids(at: Replica) -> frozenset[bytes]:
    return frozenset(parse(at.raw(position)).id for position in range(len(at)))


class Shared(RuleBasedStateMachine):
    """`pool` is everything anybody ever signed; honest replicas take from it in any order, or from each other."""

    namespace: Namespace

    @initialize()
    def start(self) -> None:
        self.now_ms = NOW_MS
        self.replicas = [Replica(self.namespace) for _ in HONEST]
        self.servers = [SyncServer(at, bytes([index]) * 16) for index, at in enumerate(self.replicas)]
        self.cursors: dict[tuple[int, int], Cursor] = {}
        self.pool: list[SignedOp] = []

    def change(self, draw: st.DataObject, author: Key, at: Replica) -> Change:
        raise NotImplementedError

    def lie(self, draw: st.DataObject) -> Change:
        raise NotImplementedError

    @rule(place=places, draw=st.data())
    def write(self, place: int, draw: st.DataObject) -> None:
        at, key = self.replicas[place], HONEST[place]
        try:
            self.pool.append(at.write(self.change(draw, key, at), key, self.now_ms))
        except LocalError:
            assert sum(one.author == key.peer for one in self.pool) == self.namespace.ops_max

    @rule(draw=st.data(), ahead_ms=st.sampled_from([-5, 0, 1, 59_000, 61_000, 10_000_000]))
    def sign_a_lie(self, draw: st.DataObject, ahead_ms: int) -> None:
        """Fork the liar's chain, link to anything, claim any time, change what is not its own."""
        own = [one for one in self.pool if one.author == LIAR.peer]
        after = draw.draw(st.none() | st.sampled_from(own)) if own else None
        known = {one.id: one for one in self.pool if after is None or one.id != after.id}
        chosen = draw.draw(st.sets(st.sampled_from(sorted(known)), max_size=3)) if known else set()
        parents = [known[op_id] for op_id in sorted(chosen)]
        stamp = ((self.now_ms + ahead_ms) << 16) + draw.draw(st.integers(0, 2))
        self.pool.append(signed(LIAR, self.lie(draw), after=after, parents=parents, stamp=stamp))

    @rule(place=places, seed=st.integers(0, 1 << 16), count=st.integers(1, 8))
    def deliver_some(self, place: int, seed: int, count: int) -> None:
        """Loss, duplication and reordering: any choice of what was ever signed, in any order."""
        if self.pool:
            chosen = random.Random(seed).choices(self.pool, k=count)
            self.replicas[place].ingest(chosen, sender=LIAR.peer, now_ms=self.now_ms)

    @rule(place=places, seed=st.integers(0, 1 << 16))
    def deliver_damaged(self, place: int, seed: int) -> None:
        if self.pool:
            rng = random.Random(seed)
            raw = bytearray(rng.choice(self.pool).raw)
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            fresh, faults = sift(self.replicas[place], LIAR.peer, [bytes(raw)])
            passed, forged = check(LIAR.peer, fresh)
            assert passed == []
            assert len(faults) + len(forged) + (not fresh and not faults) == 1

    @rule(place=places, other=places, pages=st.integers(1, 2))
    def pull_some(self, place: int, other: int, pages: int) -> None:
        self.pull(place, other, pages)

    @rule(passed_ms=st.sampled_from([1, 1_000, 61_000]))
    def pass_time(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @invariant()
    def equal_operations_make_equal_values(self) -> None:
        by_digest = {at.digest(): at for at in self.replicas}
        for at in self.replicas:
            twin = by_digest[at.digest()]
            assert ids(at) == ids(twin)
            assert at.state_digest() == twin.state_digest()
        assert len({ids(at) for at in self.replicas}) == len(by_digest)

    def teardown(self) -> None:
        """Heal: once clocks allow every stamp, a round of pulls gives everyone what anyone had admitted.

        That can set free operations kept for want of ancestors, which then need rounds of their own: never more
        rounds than there are operations, and one is enough where nothing was kept.
        """
        self.now_ms += 20_000_000
        kept = any(at.missing() for at in self.replicas)
        for _ in range(len(self.pool) if kept else 1):
            for place in range(len(HONEST)):
                for other in range(len(HONEST)):
                    self.pull(place, other, pages=10)
        assert len({at.digest() for at in self.replicas}) == 1
        assert len({at.state_digest() for at in self.replicas}) == 1

    def pull(self, place: int, other: int, pages: int) -> None:
        at, sender = self.replicas[place], HONEST[other].peer
        session = PullSession(at, sender, self.cursors.get((place, other)))
        for _ in range(pages):
            ask = session.request()
            if ask is None:
                break
            page = self.servers[other].on_pull(ask)
            session.on_page(page)
            passed, faults = check(sender, sift(at, sender, page.ops)[0])
            result = at.ingest(passed, sender=sender, now_ms=self.now_ms)
            session.on_ingested(result)
            assert faults == [], "an honest replica passes nothing on that another refuses"
            assert [fault for fault in result.faults if fault.peer == sender] == []
        cursor, fault = session.finish()
        assert fault is None
        self.cursors.pop((place, other), None)
        if cursor is not None:
            self.cursors[place, other] = cursor


class OwnedMap(Shared):
    namespace = Namespace("notes", "map", "author-keyed", ops_max=6)

    def change(self, draw: st.DataObject, author: Key, at: Replica) -> Change:
        key = author_key(author.peer, draw.draw(st.sampled_from("ab")))
        changes: list[Change] = [MapSet(key, b"1"), MapSet(key, b"2"), MapDelete(key)]
        return draw.draw(st.sampled_from(changes))

    def lie(self, draw: st.DataObject) -> Change:
        owner = draw.draw(st.sampled_from([LIAR, LIAR, HONEST[0]]))
        return MapSet(author_key(owner.peer, "a"), draw.draw(st.sampled_from(ELEMENTS)))

    @invariant()
    def nobody_writes_under_the_name_of_another(self) -> None:
        for at in self.replicas:
            for key, entry in at.map.entries():
                assert key.startswith(author_key(entry.author, ""))


class OpenSet(Shared):
    namespace = Namespace("notes", "set")

    def change(self, draw: st.DataObject, author: Key, at: Replica) -> Change:
        changes: list[Change] = [SetAdd(element) for element in ELEMENTS]
        changes += [change for element in ELEMENTS for change in at.removals(element, author.peer)]
        return draw.draw(st.sampled_from(changes))

    def lie(self, draw: st.DataObject) -> Change:
        adds = sorted(one.id for one in self.pool if isinstance(one.op.change, SetAdd))
        element = draw.draw(st.sampled_from(ELEMENTS))
        if not adds or draw.draw(st.booleans()):
            return SetAdd(element)
        return SetRemove(element, [draw.draw(st.sampled_from(adds))])


class OwnedSet(OpenSet):
    namespace = Namespace("notes", "set", "author-keyed")


BOUNDS = settings(max_examples=40, stateful_step_count=30)
TestOwnedMap = OwnedMap.TestCase
TestOpenSet = OpenSet.TestCase
TestOwnedSet = OwnedSet.TestCase
TestOwnedMap.settings = TestOpenSet.settings = TestOwnedSet.settings = BOUNDS
