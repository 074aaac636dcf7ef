"""What an operator sees of connections: how each peer is reached, what moved, and the events of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from node.events import EVENTS_MAX, Events
from node.figures import SECONDS, Histogram, Outcomes
from node.libp2p.gate import Gate
from node.penalties import PEERS_MAX, Penalties
from node.pings import PROTOCOL, answer, ping
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.errors import RemoteError, TransportError
from wire.peer import PeerId, to_text


def nobody_to_blame(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def until(holds: Any) -> None:
    """Wait for something that a task of the transport does."""
    with trio.fail_after(10):
        while not holds():  # noqa: ASYNC110 - the transport has no event for it
            await trio.sleep(0.01)


def watched(transport: Libp2pTransport) -> Events:
    """The events of a transport."""
    events = Events(lambda: 0)
    transport.connections.emit = events.emit
    return events


async def test_a_peer_comes_and_goes() -> None:
    async with open_transport(b"b" * 32, blame=nobody_to_blame) as bob:
        bob.serve(PROTOCOL, answer)
        events = watched(bob)
        async with open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice:
            alice.learn(bob.peer, bob.addresses())
            await ping(alice, bob.peer, 3, lambda: bytes(32))
            (seen,) = bob.connections.views(alice.peer)
            (made,) = alice.connections.views(bob.peer)
            assert (seen.path, seen.direction, seen.transport) == ("direct", "inbound", "tcp")
            assert (made.path, made.direction, made.address) == (
                "direct",
                "outbound",
                bob.addresses()[0].partition("/p2p")[0],
            )
            assert seen.bytes_in is not None
            assert made.bytes_out is not None
            assert 3 * 32 < seen.bytes_in <= made.bytes_out
            assert bob.connections.standing() == {("inbound", "direct"): 1}
            assert alice.dialler.figures.ended == {("tcp", "ok"): 1}
            assert alice.book.reached(9) == [bob.peer]
            assert bob.channels == {PROTOCOL: 1}
        await until(lambda: len(events.since(-1)) == 2)
        came, went = events.since(-1)
        assert (came["type"], came["peer"], came["path"]) == ("peer_connected", to_text(alice.peer), "direct")
        assert (went["type"], went["peer"]) == ("peer_disconnected", to_text(alice.peer))
        assert bob.connections.path(alice.peer) is None
        assert bob.connections.bytes_moved()[0] >= seen.bytes_in
        assert bob.connections.opened == {("inbound", "direct"): 1}


async def test_a_changed_address_is_an_event() -> None:
    async with open_transport(b"b" * 32, blame=nobody_to_blame) as bob:
        events = watched(bob)
        bob.advertise([f"/ip4/203.0.113.7/tcp/1/p2p/{to_text(bob.peer)}"])
        bob.advertise([f"/ip4/203.0.113.7/tcp/1/p2p/{to_text(bob.peer)}"])
        assert [event["type"] for event in events.since(-1)] == ["reachability_changed"]
        assert events.since(-1)[0]["addresses"] == [f"/ip4/203.0.113.7/tcp/1/p2p/{to_text(bob.peer)}"]


async def test_refusals_have_their_reason() -> None:
    gate = Gate(subnets=["127.0.0.0/8"])
    async with (
        open_transport(b"b" * 32, blame=nobody_to_blame, gate=gate) as bob,
        open_transport(b"h" * 32, listen=[], blame=nobody_to_blame) as alice,
    ):
        alice.learn(bob.peer, bob.addresses())
        with pytest.raises(TransportError):
            await alice.open(bob.peer, PROTOCOL)
        assert gate.refusals["denied_address"] >= 1
        assert alice.dialler.figures.ended == {("tcp", "failed"): 1}


def test_late_readers_get_the_newest_events() -> None:
    events = Events(lambda: 7)
    for n in range(EVENTS_MAX + 10):
        events.emit("counted", n=n)
    kept = events.since(-1)
    assert [event["seq"] for event in kept] == list(range(10, EVENTS_MAX + 10))
    assert kept[0] == {"seq": 10, "at_ms": 7, "type": "counted", "n": 10}
    assert events.since(events.last) == []


def test_times_fall_into_buckets() -> None:
    histogram = Histogram()
    for seconds in (0.0, 0.0005, 0.002, 100.0):
        histogram.observe(seconds)
    found = dict(histogram.cumulated())
    assert (found["0.0005"], found["0.001"], found["0.0025"], found["60.0"], found["+Inf"]) == (2, 2, 3, 3, 4)
    assert len(found) == len(SECONDS) + 1
    outcomes = Outcomes()
    outcomes.add("a", "ok", 1.0)
    outcomes.add("a", "busy", 2.0)
    assert outcomes.ended == {("a", "ok"): 1, ("a", "busy"): 1}
    assert outcomes.took["a"].total_s == 3.0


def test_penalties_add_up_and_are_bounded() -> None:
    penalties, peer = Penalties(), PeerId(bytes(32))
    penalties.note(RemoteError(peer, "lied", penalty=0.5))
    penalties.note(RemoteError(peer, "lied again", penalty=0.25))
    assert penalties.of(peer) == {"count": 2, "total": 0.75, "last": "lied again"}
    for n in range(1, PEERS_MAX + 1):
        penalties.note(RemoteError(n.to_bytes(32, "big"), "one of many"))
    assert penalties.of(peer)["count"] == 0
    assert penalties.count == PEERS_MAX
