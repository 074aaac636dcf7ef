"""RPCs and messages of gossip: round trip, any cut, bounds, and the same bytes as the schema that other stacks use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import signature_validator

from node.gossip import params
from node.gossip.message import Message, sign
from node.gossip.rpc import Ihave, Prune, Rpc, Subscription, Unsigned, decode_message, encode_message
from node.reach import protobuf
from node.reach.protobuf import Delimited, delimit
from tests.repo.project import ROOT
from wire.envelope import verify
from wire.errors import Malformed
from wire.identity import Identity
from wire.peer import PeerId, from_multihash, from_text, to_multihash, to_text

ALICE = Identity.from_seed(b"a" * 32)
BOB = Identity.from_seed(b"b" * 32)

TOPICS = st.text(min_size=1, max_size=24).filter(lambda text: 0 < len(text.encode()) <= params.TOPIC_BYTES_MAX)
IDS = st.lists(st.binary(min_size=1, max_size=params.ID_BYTES_MAX), max_size=6).map(tuple)
RPCS = st.builds(
    Rpc,
    st.lists(st.builds(Subscription, st.booleans(), TOPICS), max_size=4).map(tuple),
    st.lists(st.binary(max_size=300), max_size=4).map(tuple),
    st.lists(st.builds(Ihave, TOPICS, IDS), max_size=4).map(tuple),
    IDS,
    st.lists(TOPICS, max_size=4).map(tuple),
    st.lists(st.builds(Prune, TOPICS, st.none() | st.integers(0, 2**64 - 1)), max_size=4).map(tuple),
)
BODIES = st.binary(min_size=1, max_size=200)


@given(RPCS)
def test_an_rpc_reads_back_here_and_by_the_official_schema(rpc: Rpc) -> None:
    raw = rpc.encode()
    assert Rpc.decode(raw) == rpc
    theirs = rpc_pb2.RPC()
    for each in rpc.subscriptions:
        theirs.subscriptions.add(subscribe=each.subscribe, topicid=each.topic)
    for ihave in rpc.ihave:
        theirs.control.ihave.add(topicID=ihave.topic, messageIDs=list(ihave.ids))
    if rpc.iwant:
        theirs.control.iwant.add(messageIDs=list(rpc.iwant))
    for topic in rpc.graft:
        theirs.control.graft.add(topicID=topic)
    for prune in rpc.prune:
        theirs.control.prune.add(
            topicID=prune.topic, **({} if prune.backoff_s is None else {"backoff": prune.backoff_s})
        )
    assert Rpc.decode(theirs.SerializeToString()) == Rpc(
        rpc.subscriptions, (), rpc.ihave, rpc.iwant, rpc.graft, rpc.prune
    )


@given(st.lists(RPCS, min_size=1, max_size=4), st.data())
def test_a_stream_of_rpcs_may_arrive_in_any_pieces(rpcs: list[Rpc], data: st.DataObject) -> None:
    stream = b"".join(delimit(rpc.encode()) for rpc in rpcs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, found = Delimited(params.RPC_BYTES_MAX), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        while (raw := reader.next()) is not None:
            found.append(Rpc.decode(raw))
    assert found == rpcs
    assert reader.rest() == b""


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_an_rpc_or_are_refused(raw: bytes) -> None:
    try:
        rpc = Rpc.decode(raw)
    except Malformed:
        return
    assert Rpc.decode(rpc.encode()) == rpc


@given(RPCS)
def test_a_cut_rpc_never_reads_as_the_whole(rpc: Rpc) -> None:
    raw = rpc.encode()
    for end in range(len(raw)):
        try:
            assert Rpc.decode(raw[:end]) != rpc
        except Malformed:
            continue


@given(TOPICS, BODIES, st.integers(0, 2**64 - 1))
def test_a_message_holds_here_and_in_py_libp2p(topic: str, body: bytes, seqno: int) -> None:
    message = sign(ALICE, topic, body, seqno)
    raw = message.encode()
    assert Message.decode(raw) == message
    assert message.verified(verify)
    theirs = rpc_pb2.Message.FromString(raw)
    assert signature_validator(theirs)
    assert (theirs.from_id, theirs.data, list(theirs.topicIDs)) == (to_multihash(ALICE.peer), body, [topic])
    assert message.id == theirs.from_id + theirs.seqno


def test_a_key_beside_the_author_is_taken_if_it_is_the_same() -> None:
    message = sign(ALICE, "t", b"x", 1)
    keyed = [
        message.encode() + protobuf.encode([(6, protobuf.encode([(1, 1), (2, who.peer)]))]) for who in (ALICE, BOB)
    ]
    assert Message.decode(keyed[0]) == message
    with pytest.raises(Malformed, match="somebody else"):
        Message.decode(keyed[1])


def _raw(**changes: Any) -> bytes:
    parts = {"source": to_multihash(ALICE.peer), "data": b"x", "seqno": bytes(8), "topic": "t", **changes}
    signature = parts.pop("signature", bytes(64))
    return encode_message(Unsigned(**parts), signature)


@pytest.mark.parametrize(
    "raw",
    [
        _raw(signature=b""),
        _raw(signature=bytes(63)),
        _raw(seqno=b""),
        _raw(seqno=bytes(9)),
        _raw(data=b""),
        _raw(data=bytes(params.DATA_BYTES_MAX + 1)),
        _raw(data=bytes(params.MESSAGE_BYTES_MAX)),
        _raw(source=b""),
        _raw(source=b"\x12\x20" + bytes(32)),
        _raw(topic="t" * (params.TOPIC_BYTES_MAX + 1)),
        _raw(topic=""),
        _raw() + protobuf.encode([(4, b"another topic")]),
        _raw() + protobuf.encode([(9, 0)] * 16),
        b"\x0a",
        b"\xff" * 10,
    ],
)
def test_a_message_that_is_not_whole_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        Message.decode(raw)


@pytest.mark.parametrize("field", ["author", "topic", "data", "seqno"])
def test_a_changed_message_does_not_verify(field: str) -> None:
    message = sign(ALICE, "t", b"x", 1)
    other: dict[str, Any] = {"author": BOB.peer, "topic": "u", "data": b"y", "seqno": 2}
    changed = Message(
        **{**{name: getattr(message, name) for name in message.__dataclass_fields__}, field: other[field]}
    )
    assert not changed.verified(verify)


@pytest.mark.parametrize(
    "rpc",
    [
        Rpc(publish=(b"x",) * (params.PUBLISH_MAX + 1)),
        Rpc(subscriptions=(Subscription(True, "t"),) * (params.SUBSCRIPTIONS_MAX + 1)),
        Rpc(graft=("t",) * (params.CONTROLS_MAX + 1)),
        Rpc(prune=(Prune("t"),) * (params.CONTROLS_MAX + 1)),
        Rpc(ihave=(Ihave("t", ()),) * (params.CONTROLS_MAX + 1)),
        Rpc(ihave=(Ihave("t", (b"x",) * 3000), Ihave("t", (b"x",) * 3000))),
        Rpc(iwant=(b"x",) * (params.IDS_MAX + 1)),
        Rpc(iwant=(b"x" * (params.ID_BYTES_MAX + 1),)),
        Rpc(graft=("t" * (params.TOPIC_BYTES_MAX + 1),)),
    ],
)
def test_an_rpc_with_too_much_of_something_is_refused(rpc: Rpc) -> None:
    with pytest.raises(Malformed):
        Rpc.decode(rpc.encode())


def test_an_rpc_that_is_too_long_is_refused_before_it_is_there() -> None:
    reader = Delimited(params.RPC_BYTES_MAX)
    reader.feed(protobuf.encode_varint(params.RPC_BYTES_MAX + 1))
    with pytest.raises(Malformed):
        reader.next()


@pytest.mark.parametrize("identity", [ALICE, BOB])
def test_a_peer_id_in_bytes_is_the_one_in_text(identity: Identity) -> None:
    peer = identity.peer
    assert from_multihash(to_multihash(peer)) == peer == from_text(to_text(peer))
    for raw in (b"", to_multihash(peer)[1:], to_multihash(peer) + b"x", b"\x12" + to_multihash(peer)[1:]):
        with pytest.raises(Malformed):
            from_multihash(raw)


def test_the_vectors_hold() -> None:
    vectors = json.loads((ROOT / "tests/vectors/gossip-v1.json").read_text())
    for vector in vectors["messages"]:
        raw = bytes.fromhex(vector["hex"])
        try:
            message = Message.decode(raw)
            outcome = message.id.hex() if message.verified(verify) else "not signed"
        except Malformed:
            outcome = "refused"
        assert outcome == vector["expect"], vector["name"]
    for vector in vectors["rpcs"]:
        try:
            outcome = str(Rpc.decode(bytes.fromhex(vector["hex"])))
        except Malformed:
            outcome = "refused"
        assert outcome == vector["expect"], vector["name"]


def test_a_message_of_py_libp2p_is_one_of_ours() -> None:
    """What it signs has no field that we leave out."""
    message = sign(ALICE, "t", b"x", 1)
    theirs = rpc_pb2.Message(data=b"x", topicIDs=["t"], from_id=to_multihash(ALICE.peer), seqno=bytes(7) + b"\x01")
    theirs.signature = ALICE.sign(b"libp2p-pubsub:" + theirs.SerializeToString())
    assert Message.decode(theirs.SerializeToString()) == message
    unsigned, signature, key = decode_message(message.encode())
    assert (PeerId(unsigned.source[6:]), signature, key) == (ALICE.peer, message.signature, b"")
