"""One router, message by message: what is relayed, what is refused and who pays, and that its state stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node.gossip.message import Message, sign
from node.gossip.params import DATA_BYTES_MAX, PEERS_MAX, RPC_BYTES_MAX, Params, ScoreParams, TopicParams
from node.gossip.router import Arrived, Router
from node.gossip.rpc import Ihave, Prune, Rpc, Subscription
from node.reach.protobuf import decode, encode
from wire.errors import LocalError, RemoteError
from wire.identity import Identity
from wire.peer import PeerId

T = "t"
ME, ALICE, BOB, CAROL, DAVE = (Identity.from_seed(bytes([number]) * 32) for number in range(1, 6))
HELLO = Rpc((Subscription(True, T),)).encode()


def _router(*peers: Identity, topic: TopicParams | None = None, params: Params | None = None) -> Router:
    router = Router(ME, Random(1), seqno=100, params=params)
    router.subscribe(T, topic or TopicParams(rate=1.0, burst=5.0), 0.0)
    for each in peers:
        assert router.add_peer(each.peer, 0.0, outbound=True)
        router.on_rpc(each.peer, HELLO, 0.0)
    router.heartbeat(0.0)
    _drain(router)
    return router


def _drain(router: Router) -> dict[PeerId, Rpc]:
    """What each peer is sent, as one RPC."""
    sent: dict[PeerId, Rpc] = {}
    for peer in router.ready():
        while (raw := router.take(peer)) is not None:
            old, new = sent.get(peer, Rpc()), Rpc.decode(raw)
            sent[peer] = Rpc(*(getattr(old, name) + getattr(new, name) for name in Rpc.__dataclass_fields__))
    return sent


def _says(author: Identity, data: bytes, seqno: int = 1) -> bytes:
    return Rpc(publish=(sign(author, T, data, seqno).encode(),)).encode()


def _bring(router: Router, via: Identity, raw: bytes, now: float = 1.0) -> list[Arrived]:
    return router.on_rpc(via.peer, raw, now)


def _bodies(sent: dict[PeerId, Rpc]) -> dict[PeerId, list[bytes]]:
    return {peer: [Message.decode(raw).data for raw in rpc.publish] for peer, rpc in sent.items() if rpc.publish}


def test_nothing_is_relayed_before_it_is_accepted_and_then_to_all_but_who_had_it() -> None:
    router = _router(ALICE, BOB, CAROL)
    (arrived,) = _bring(router, ALICE, _says(DAVE, b"news"))
    assert (arrived.topic, arrived.author, arrived.data, arrived.via) == (T, DAVE.peer, b"news", ALICE.peer)
    assert _drain(router) == {}
    assert _bring(router, BOB, _says(DAVE, b"news")) == [], "once is enough"
    router.verdict(arrived.id, "accept", 2.0)
    assert _bodies(_drain(router)) == {CAROL.peer: [b"news"]}
    router.verdict(arrived.id, "reject", 2.0)
    assert router.score(ALICE.peer, 2.0) > 0, "a second verdict changes nothing"


@pytest.mark.parametrize("verdict", ["ignore", "reject"])
def test_what_is_not_accepted_goes_nowhere_and_only_a_rejection_costs(verdict: str) -> None:
    router = _router(ALICE, BOB)
    (arrived,) = _bring(router, ALICE, _says(DAVE, b"news"))
    _bring(router, BOB, _says(DAVE, b"news"))
    router.verdict(arrived.id, verdict, 1.0)  # type: ignore[arg-type]  # from a list of literals
    assert _drain(router) == {}
    assert {router.score(each.peer, 1.0) < 0 for each in (ALICE, BOB)} == {verdict == "reject"}


def test_who_brings_a_message_that_was_rejected_pays_as_well() -> None:
    router = _router(ALICE, BOB)
    (arrived,) = _bring(router, ALICE, _says(DAVE, b"news"))
    router.verdict(arrived.id, "reject", 1.0)
    _bring(router, BOB, _says(DAVE, b"news"))
    assert router.score(BOB.peer, 1.0) < 0


def _forged() -> bytes:
    message = sign(ALICE, T, b"x", 1)
    return Message(DAVE.peer, T, b"x", 1, message.signature).encode()


def _unsigned() -> bytes:
    fields = decode(sign(DAVE, T, b"x", 1).encode())
    return encode([(number, value) for number, values in fields.items() for value in values if number != 5])


def _wrongly_signed() -> bytes:
    raw = bytearray(sign(DAVE, T, b"x", 1).encode())
    raw[-1] ^= 1
    return bytes(raw)


def _oversized() -> bytes:
    return encode(
        [(1, sign(DAVE, T, b"x", 1).encode()[2:40]), (2, bytes(DATA_BYTES_MAX + 1)), (3, bytes(8)), (4, b"t")]
    )


@pytest.mark.parametrize("make", [_forged, _unsigned, _wrongly_signed, _oversized, lambda: b"\xff\xff", lambda: b""])
def test_what_no_honest_peer_relays_is_charged_to_who_brought_it(make: Callable[[], bytes]) -> None:
    router = _router(ALICE, BOB)
    assert _bring(router, ALICE, Rpc(publish=(make(),)).encode()) == []
    assert _drain(router) == {}
    assert router.score(ALICE.peer, 1.0) < 0 <= router.score(DAVE.peer, 1.0)
    assert _bring(router, BOB, _says(DAVE, b"x")), "the true one is still welcome"


def test_a_few_of_them_and_nothing_of_the_peer_is_looked_at_any_more() -> None:
    router = _router(ALICE)
    for _ in range(3):
        _bring(router, ALICE, Rpc(publish=(_forged(),)).encode())
    assert router.graylisted(ALICE.peer, 1.0)
    assert _bring(router, ALICE, _says(DAVE, b"true")) == []
    router.heartbeat(1.0)
    assert router.mesh(T) == []
    router.heartbeat(3600.0)
    assert not router.graylisted(ALICE.peer, 3600.0), "time heals"


def test_an_rpc_that_is_none_is_the_peers_fault() -> None:
    router = _router(ALICE)
    with pytest.raises(RemoteError) as caught:
        _bring(router, ALICE, b"\x0a\xff")
    assert caught.value.peer == ALICE.peer
    for _ in range(5):
        with pytest.raises(RemoteError):
            _bring(router, ALICE, b"\x0a\xff")
        if router.graylisted(ALICE.peer, 1.0):
            break
    assert router.graylisted(ALICE.peer, 1.0)


def test_a_replay_is_a_duplicate_and_later_on_a_fault() -> None:
    router = _router(ALICE, BOB)
    raw = _says(DAVE, b"news", seqno=5)
    (arrived,) = _bring(router, ALICE, raw)
    router.verdict(arrived.id, "accept", 1.0)
    assert _bring(router, BOB, raw, 100.0) == []
    router.heartbeat(500.0)
    assert _bring(router, BOB, raw, 500.0) == []
    assert router.counts["replayed"] == 1
    assert len(_bring(router, BOB, _says(DAVE, b"news", seqno=6), 500.0)) == 1


def test_authors_who_do_not_count_upwards_have_topics_too() -> None:
    router = _router(ALICE, topic=TopicParams(ordered=False))
    for seqno, now in ((9, 1.0), (3, 500.0)):
        router.heartbeat(now)
        assert len(_bring(router, ALICE, _says(DAVE, b"x", seqno), now)) == 1


def test_an_author_is_relayed_at_his_rate_and_another_has_his_own() -> None:
    router = _router(ALICE, topic=TopicParams(rate=1.0, burst=5.0))
    taken = [bool(_bring(router, ALICE, _says(DAVE, b"x", seqno), 1.0)) for seqno in range(1, 9)]
    assert taken == [True] * 5 + [False] * 3
    assert _bring(router, ALICE, _says(CAROL, b"x"), 1.0)
    assert _bring(router, ALICE, _says(DAVE, b"x", 20), 2.5)
    assert router.score(ALICE.peer, 2.5) >= 0, "who relays is not to blame"


def test_forged_messages_do_not_use_up_an_authors_rate() -> None:
    router = _router(ALICE, BOB, topic=TopicParams(rate=0.0, burst=1.0))
    _bring(router, ALICE, Rpc(publish=(_forged(),) * 3).encode())
    assert len(_bring(router, BOB, _says(DAVE, b"x"))) == 1


def test_a_peer_that_sends_more_than_anybody_reads_is_not_read() -> None:
    params = Params(intake_rate=1.0, intake_burst=10.0)
    router = _router(ALICE, topic=TopicParams(rate=100.0, burst=100.0), params=params)
    raws = tuple(sign(DAVE, T, b"x", seqno).encode() for seqno in range(1, 21))
    assert len(_bring(router, ALICE, Rpc(publish=raws).encode())) == 10


def test_own_messages_go_to_everybody_in_the_topic_and_come_back_unheard() -> None:
    router = _router(ALICE, BOB)
    router.publish(T, b"mine", 1.0)
    sent = _drain(router)
    assert _bodies(sent) == {ALICE.peer: [b"mine"], BOB.peer: [b"mine"]}
    assert _bring(router, ALICE, Rpc(publish=sent[BOB.peer].publish).encode()) == []
    for data in (b"", bytes(DATA_BYTES_MAX + 1)):
        with pytest.raises(LocalError):
            router.publish(T, data, 1.0)


def test_without_flood_publishing_a_stranger_to_the_topic_has_a_fanout() -> None:
    params = Params(flood_publish=False, d=2)
    router = Router(ME, Random(1), seqno=1, params=params)
    for each in (ALICE, BOB, CAROL, DAVE):
        router.add_peer(each.peer, 0.0, outbound=True)
        router.on_rpc(each.peer, HELLO, 0.0)
    router.publish(T, b"one", 1.0)
    first = set(_bodies(_drain(router)))
    router.publish(T, b"two", 2.0)
    assert len(first) == 2
    assert set(_bodies(_drain(router))) == first, "the same peers as long as we go on"


def test_a_graft_in_a_full_mesh_is_refused_unless_we_dialled() -> None:
    many = [Identity.from_seed(bytes([9, number]) * 16) for number in range(14)]
    router = _router(*many[:12])
    while len(router.mesh(T)) < 12:
        for each in many[:12]:
            _bring(router, each, Rpc(graft=(T,)).encode())
    router.add_peer(many[12].peer, 1.0, outbound=False)
    router.add_peer(many[13].peer, 1.0, outbound=True)
    for each in many[12:]:
        _bring(router, each, Rpc((Subscription(True, T),), graft=(T,)).encode())
    sent = _drain(router)
    assert [prune.topic for prune in sent[many[12].peer].prune] == [T]
    assert many[13].peer in router.mesh(T)
    router.heartbeat(2.0)
    assert len(router.mesh(T)) == router.params.d


def test_whoever_grafts_before_his_time_pays() -> None:
    router = _router(ALICE, BOB)
    _bring(router, ALICE, Rpc(prune=(Prune(T, 60),)).encode())
    assert router.mesh(T) == [BOB.peer]
    router.heartbeat(2.0)
    assert router.mesh(T) == [BOB.peer], "nor do we ask"
    for _ in range(6):
        _bring(router, ALICE, Rpc(graft=(T,)).encode(), 3.0)
    assert router.score(ALICE.peer, 3.0) < 0
    assert _drain(router)[ALICE.peer].prune[0].backoff_s == 60
    router.heartbeat(2000.0)
    assert ALICE.peer in router.mesh(T), "later it is welcome again"


@pytest.mark.parametrize("backoff_s", [0, 2**64 - 1])
def test_a_backoff_is_neither_nothing_nor_for_ever(backoff_s: int) -> None:
    router = _router(ALICE)
    _bring(router, ALICE, Rpc(prune=(Prune(T, backoff_s),)).encode(), 0.0)
    router.heartbeat(router.params.backoff_max_s + 2.0)
    assert router.mesh(T) == [ALICE.peer]


def _ids(count: int) -> tuple[bytes, ...]:
    return tuple(b"id%d" % number for number in range(count))


def test_ids_are_asked_for_once_and_not_more_than_fit() -> None:
    router = _router(ALICE, BOB, CAROL)
    _bring(router, ALICE, Rpc(ihave=(Ihave(T, _ids(100)), Ihave("unknown", (b"other",)))).encode())
    asked = _drain(router)[ALICE.peer].iwant
    assert len(asked) == router.params.iwant_ids_max
    assert b"other" not in asked
    for each in (BOB, CAROL):
        _bring(router, each, Rpc(ihave=(Ihave(T, (asked[0],)),)).encode())
    assert set(_drain(router)) == {BOB.peer}, "two may be asked for one message, not three"
    answer = router.params.iwant_ids_max * (DATA_BYTES_MAX + 300)
    assert answer <= RPC_BYTES_MAX


def test_a_broken_promise_is_remembered() -> None:
    router = _router(ALICE, BOB)
    for beat in range(1, 12):
        now = beat * 4.0
        router.heartbeat(now)
        _bring(router, ALICE, Rpc(ihave=(Ihave(T, (b"id%d" % beat,)),)).encode(), now)
    assert router.score(ALICE.peer, 48.0) < 0 <= router.score(BOB.peer, 48.0)


def test_what_we_hold_is_sent_to_who_asks_but_not_for_ever() -> None:
    router = _router(ALICE)
    identity = router.publish(T, b"mine", 1.0)
    _drain(router)
    counts = []
    for _ in range(5):
        _bring(router, ALICE, Rpc(iwant=(identity, b"unknown")).encode())
        counts.append(len(_drain(router).get(ALICE.peer, Rpc()).publish))
    assert counts == [1, 1, 1, 0, 0]
    for beat in range(6):
        router.heartbeat(2.0 + beat)
    assert router.sizes()["held_messages"] == 0


def test_a_peer_that_does_not_read_costs_a_bounded_outbox() -> None:
    router = _router(ALICE, BOB, topic=TopicParams(rate=1e6, burst=1e6))
    for _ in range(200):
        router.publish(T, bytes(DATA_BYTES_MAX), 1.0)
    assert router.sizes()["waiting_bytes"] <= 2 * router.params.outbox_bytes_max
    assert router.counts["dropped"] > 0
    for peer in router.ready():
        while (raw := router.take(peer)) is not None:
            assert len(raw) <= RPC_BYTES_MAX


def test_leaving_a_topic_is_said_and_what_arrives_for_it_is_not_read() -> None:
    router = _router(ALICE)
    router.unsubscribe(T, 1.0)
    sent = _drain(router)[ALICE.peer]
    assert [each.subscribe for each in sent.subscriptions] == [False]
    assert [each.topic for each in sent.prune] == [T]
    assert _bring(router, ALICE, _says(DAVE, b"x")) == []
    router.unsubscribe(T, 1.0)
    with pytest.raises(LocalError):
        router.subscribe("u", TopicParams(), 1.0) or router.subscribe("u", TopicParams(), 1.0)


def test_a_crowd_at_one_address_is_not_trusted() -> None:
    router = Router(ME, Random(1), seqno=1)
    crowd = [PeerId(number.to_bytes(32, "big")) for number in range(20)]
    for peer in crowd:
        router.add_peer(peer, 0.0, outbound=False, group="192.0.2.7")
    assert all(router.graylisted(peer, 0.0) for peer in crowd)
    for peer in crowd[8:]:
        router.remove_peer(peer, 1.0)
    assert router.score(crowd[0], 1.0) == 0.0


def test_there_is_room_for_so_many_peers() -> None:
    router = Router(ME, Random(1), seqno=1)
    added = [router.add_peer(PeerId(n.to_bytes(32, "big")), 0.0, outbound=False) for n in range(PEERS_MAX + 2)]
    assert added == [True] * PEERS_MAX + [False] * 2
    assert not router.add_peer(ME.peer, 0.0, outbound=False)


def test_state_is_bounded_after_ten_thousand_messages_and_gone_when_it_is_quiet() -> None:
    small = {"seen_max": 2000, "authors_max": 500, "held_messages_max": 300, "promises_max": 200, "backoffs_max": 100}
    params = Params(**small, scores=ScoreParams(behaviour_weight=0.0))
    router = Router(ME, Random(1), seqno=1, params=params, verify=lambda *_: True)
    router.subscribe(T, TopicParams(rate=100.0, burst=100.0), 0.0)
    peers = [PeerId(bytes([1, number]) * 16) for number in range(4)]
    for peer in peers:
        router.add_peer(peer, 0.0, outbound=True)
        router.on_rpc(peer, HELLO, 0.0)
    most: dict[str, int] = {}
    for number in range(10_000):
        now = number / 100
        author = PeerId((number % 3000).to_bytes(32, "big"))
        message = Message(author, T, b"x" * 200, number + 1, bytes(64)).encode()
        said = Ihave(T, tuple(b"%d-%d" % (number, each) for each in range(3)))
        via = peers[number % 4]
        for arrived in router.on_rpc(via, Rpc((), (message,), (said,), prune=(Prune(T, 1),)).encode(), now):
            router.verdict(arrived.id, ("accept", "ignore")[number % 2], now)  # type: ignore[arg-type]  # both are
        if number % 100 == 0:
            router.heartbeat(now)
            _drain(router)
        for name, size in router.sizes().items():
            most[name] = max(size, most.get(name, 0))
    assert router.counts["accept"] > 4000
    assert most["seen"] <= params.seen_max + params.authors_max
    assert most["authors"] <= params.authors_max
    assert most["held_messages"] <= params.held_messages_max
    assert most["copies"] <= params.held_messages_max
    assert most["asked"] <= 3 * params.promises_max
    assert most["deliveries"] <= 100 * (params.delivery_window_s + 2)
    assert most["links"] <= params.backoffs_max + params.d_hi
    assert most["waiting_bytes"] <= 4 * params.outbox_bytes_max
    for later in range(8):
        router.heartbeat(500.0 + later)
    quiet = router.sizes()
    assert {name: quiet[name] for name in ("held_messages", "held_bytes", "deliveries")} == {
        "held_messages": 0,
        "held_bytes": 0,
        "deliveries": 0,
    }
    assert quiet["seen"] <= params.authors_max


class AnyOrder(RuleBasedStateMachine):
    """Whatever peers and the application do in whatever order: nothing but typed errors, and a sound mesh."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.router = Router(ME, Random(3), seqno=1, params=Params(seen_s=10.0), verify=lambda *_: True)
        self.waiting: list[bytes] = []
        self.given: set[bytes] = set()
        self.relayed: set[bytes] = set()
        self.seqno = 0

    peers = st.integers(0, 19).map(lambda number: PeerId(bytes([1, number]) * 16))
    topics = st.sampled_from(["a", "b"])

    @rule(peer=peers, outbound=st.booleans())
    def join(self, peer: PeerId, outbound: bool) -> None:
        self.router.add_peer(peer, self.now, outbound=outbound, group=None)

    @rule(peer=peers)
    def go(self, peer: PeerId) -> None:
        self.router.remove_peer(peer, self.now)

    @rule(topic=topics)
    def subscribe(self, topic: str) -> None:
        try:
            self.router.subscribe(topic, TopicParams(), self.now)
        except LocalError:
            self.router.unsubscribe(topic, self.now)

    @rule(peer=peers, topic=topics, joined=st.booleans(), data=st.data())
    def control(self, peer: PeerId, topic: str, joined: bool, data: st.DataObject) -> None:
        ids = tuple(data.draw(st.lists(st.sampled_from([b"x", b"y", *sorted(self.given)]), max_size=4)))
        kind = data.draw(st.sampled_from(["subscribe", "graft", "prune", "ihave", "iwant"]))
        rpc = {
            "subscribe": Rpc((Subscription(joined, topic),)),
            "graft": Rpc((Subscription(True, topic),), graft=(topic,)),
            "prune": Rpc(prune=(Prune(topic, 1),)),
            "ihave": Rpc(ihave=(Ihave(topic, ids),)),
            "iwant": Rpc(iwant=ids),
        }[kind]
        self.router.on_rpc(peer, rpc.encode(), self.now)

    @rule(peer=peers, author=peers, topic=topics)
    def message(self, peer: PeerId, author: PeerId, topic: str) -> None:
        self.seqno += 1
        raw = Message(author, topic, b"x", self.seqno, bytes(64)).encode()
        for arrived in self.router.on_rpc(peer, Rpc(publish=(raw, raw)).encode(), self.now):
            assert arrived.id not in self.given
            self.given.add(arrived.id)
            self.waiting.append(arrived.id)

    @rule(verdict=st.sampled_from(["accept", "ignore", "reject"]), at=st.integers(0, 9))
    def judge(self, verdict: str, at: int) -> None:
        if self.waiting:
            identity = self.waiting.pop(at % len(self.waiting))
            if verdict == "accept":
                self.relayed.add(identity)
            self.router.verdict(identity, verdict, self.now)  # type: ignore[arg-type]  # from a list of literals

    @rule(seconds=st.floats(0.0, 30.0))
    def beat(self, seconds: float) -> None:
        self.now += seconds
        self.router.heartbeat(self.now)

    @rule()
    def send(self) -> None:
        for rpc in _drain(self.router).values():
            assert {Message.decode(raw).id for raw in rpc.publish} <= self.relayed

    @invariant()
    def bounded(self) -> None:
        for topic in ("a", "b"):
            mesh = self.router.mesh(topic)
            assert set(mesh) <= set(self.router.peers(topic))
            assert len(mesh) == len(set(mesh))


AnyOrder.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase
