"""Circuit relay and DCUtR messages: round trip, bounds, and the same bytes as the schema that other stacks use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.relay.circuit_v2.pb import circuit_pb2, dcutr_pb2

from node.reach import protobuf
from node.reach.circuit_messages import MESSAGE_BYTES_MAX, HolePunch, Hop, Kind, Limit, Reservation, Status, Stop
from node.reach.protobuf import Delimited, delimit
from tests.repo.project import ROOT
from wire.errors import Malformed

IDS = st.binary(min_size=1, max_size=64)
ADDRESSES = st.lists(st.binary(max_size=256), max_size=16).map(tuple)
NUMBERS = st.integers(0, 2**32 - 1)
LIMITS = st.none() | st.builds(Limit, NUMBERS, NUMBERS)
RESERVATIONS = st.none() | st.builds(Reservation, NUMBERS, ADDRESSES, st.binary(max_size=99))
STATUS = st.none() | st.sampled_from([int(status) for status in Status])
HOPS = st.builds(Hop, st.sampled_from(Kind), IDS | st.just(b""), STATUS, RESERVATIONS, LIMITS)
STOPS = st.builds(Stop, st.booleans(), IDS | st.just(b""), STATUS, LIMITS)
PUNCHES = st.builds(HolePunch, st.booleans(), ADDRESSES)


def _bare(message: bytes) -> bytes:
    reader = Delimited(1 << 20)
    reader.feed(message)
    found = reader.next()
    assert found is not None
    return found


@given(HOPS)
def test_a_hop_message_reads_back_here_and_by_the_official_schema(hop: Hop) -> None:
    raw = _bare(hop.encode())
    assert Hop.decode(raw) == hop
    theirs = circuit_pb2.HopMessage.FromString(raw)
    assert (theirs.type, theirs.peer.id) == (hop.kind, hop.peer)
    assert (theirs.status if theirs.HasField("status") else None) == hop.status
    assert tuple(theirs.reservation.addrs) == (hop.reservation.addresses if hop.reservation else ())
    assert Hop.decode(theirs.SerializeToString()) == hop


@given(STOPS)
def test_a_stop_message_reads_back_here_and_by_the_official_schema(stop: Stop) -> None:
    raw = _bare(stop.encode())
    assert Stop.decode(raw) == stop
    theirs = circuit_pb2.StopMessage.FromString(raw)
    assert (theirs.type == circuit_pb2.StopMessage.CONNECT) is stop.connect
    assert Stop.decode(theirs.SerializeToString()) == stop


@given(PUNCHES)
def test_a_hole_punch_message_reads_back_here_and_by_the_official_schema(punch: HolePunch) -> None:
    raw = _bare(punch.encode())
    assert HolePunch.decode(raw) == punch
    theirs = dcutr_pb2.HolePunch.FromString(raw)
    assert tuple(theirs.ObsAddrs) == punch.addresses
    assert HolePunch.decode(theirs.SerializeToString()) == punch


@given(st.binary(max_size=200), st.sampled_from([Hop, Stop, HolePunch]))
def test_whatever_arrives_is_read_or_refused(raw: bytes, kind: Any) -> None:
    try:
        message = kind.decode(raw)
    except Malformed:
        return
    assert kind.decode(_bare(message.encode())) == message


@given(st.lists(st.binary(max_size=50), max_size=5), st.binary(max_size=20), st.integers(1, 7))
def test_messages_are_cut_wherever_the_stream_is_cut(messages: list[bytes], rest: bytes, step: int) -> None:
    stream = b"".join(map(delimit, messages))
    reader, found = Delimited(50), []
    for at in range(0, len(stream), step):
        reader.feed(stream[at : at + step])
        while (message := reader.next()) is not None:
            found.append(message)
    reader.feed(rest)
    assert (found, reader.rest()) == (messages, rest)


def test_a_long_message_is_refused_by_its_length_alone() -> None:
    reader = Delimited(MESSAGE_BYTES_MAX)
    reader.feed(protobuf.encode_varint(MESSAGE_BYTES_MAX + 1))
    with pytest.raises(Malformed):
        reader.next()
    endless = Delimited(MESSAGE_BYTES_MAX)
    endless.feed(b"\xff" * 11)
    with pytest.raises(Malformed):
        endless.next()


VECTORS = json.loads((ROOT / "tests/vectors/circuit-v1.json").read_text())["messages"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, str]) -> None:
    kind: Any = {"hop": Hop, "stop": Stop, "punch": HolePunch}[vector["kind"]]
    try:
        said = repr(kind.decode(bytes.fromhex(vector["hex"])))
    except Malformed:
        said = "refused"
    assert said == vector["expect"]
