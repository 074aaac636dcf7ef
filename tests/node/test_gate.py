"""Who may connect, by address, subnet and peer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.libp2p.gate import (
    CONNECTIONS_PER_SUBNET_MAX,
    HANDSHAKES_MAX,
    HANDSHAKES_PER_SUBNET_MAX,
    Gate,
    Visit,
)
from wire.errors import LocalError
from wire.peer import PeerId


def entered(gate: Gate, address: str) -> Visit:
    """Somebody who was let in."""
    visit = gate.enter(address)
    assert visit is not None
    return visit


def test_one_subnet_has_so_many_handshakes_and_its_neighbour_as_many() -> None:
    gate = Gate()
    visits = [entered(gate, f"192.0.2.{n}") for n in range(HANDSHAKES_PER_SUBNET_MAX)]
    assert gate.enter("192.0.2.200") is None
    assert gate.enter("::ffff:192.0.2.201") is None
    entered(gate, "192.0.3.1")
    visits[0].leave()
    entered(gate, "192.0.2.200")


def test_all_together_have_so_many_handshakes() -> None:
    gate = Gate()
    for n in range(HANDSHAKES_MAX):
        entered(gate, f"10.0.{n}.1")
    assert gate.enter("10.1.0.1") is None
    assert gate.refused == 1


def test_one_subnet_has_so_many_connections() -> None:
    gate = Gate()
    for _ in range(CONNECTIONS_PER_SUBNET_MAX):
        assert entered(gate, "2001:db8::1").authenticated()
    late = entered(gate, "2001:db8:0:ff::1")
    assert not late.authenticated()
    late.leave()
    assert entered(gate, "2001:db8:0:100::1").authenticated()


def test_this_machine_is_bounded_by_the_whole_only() -> None:
    gate = Gate()
    for _ in range(3 * CONNECTIONS_PER_SUBNET_MAX):
        assert entered(gate, "127.0.0.1").authenticated()
    assert entered(gate, "::1").authenticated()


def test_what_is_denied_stays_out() -> None:
    peer = PeerId(bytes(31) + b"\1")
    gate = Gate([peer], ["192.0.2.0/24", "2001:db8::/32"])
    assert gate.denies(peer)
    assert not gate.denies(PeerId(bytes(31) + b"\2"))
    assert [gate.enter(at) for at in ("192.0.2.9", "2001:db8:1::1", "::ffff:192.0.2.1", "nowhere")] == [None] * 4
    assert gate.denies_address("192.0.2.9")
    entered(gate, "192.0.3.9")


def test_a_subnet_that_is_none_is_refused() -> None:
    with pytest.raises(LocalError, match="subnet"):
        Gate(subnets=["192.0.2.1/24"])


@given(st.lists(st.tuples(st.sampled_from(["10.0.0.1", "10.0.1.1", "::1"]), st.booleans()), max_size=60))
def test_who_leaves_leaves_nothing_behind(visits: list[tuple[str, bool]]) -> None:
    gate = Gate()
    inside = []
    for address, finishes in visits:
        visit = gate.enter(address)
        if visit is not None:
            inside.append(visit)
            if finishes:
                visit.authenticated()
    for visit in inside:
        visit.leave()
    assert not gate.handshakes
    assert not gate.connections
