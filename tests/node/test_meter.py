"""What a relay passes for whom: the free share, what is paid for, and a few MiB on credit; never more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.reach.meter import AGREED_S, CREDIT_BYTES, HOUR_S, MIB, Meter
from node.reach.quota import Limits
from wire.peer import PeerId

A, B, C = (PeerId(bytes([n]) * 32) for n in range(1, 4))
HOME = "203.0.113.0/24"
LIMITS = Limits(free_bytes_per_hour=10 * MIB, free_bytes_per_subnet_hour=15 * MIB)


def test_a_guest_has_its_free_share_each_hour_and_its_subnet_too() -> None:
    meter = Meter(LIMITS)
    assert [meter.take(A, HOME, 5 * MIB, 1.0) for _ in range(3)] == ["pass", "pass", "end"]
    assert not meter.may(A, HOME, 1.0)
    assert [meter.take(B, HOME, 5 * MIB, 1.0) for _ in range(2)] == ["pass", "end"]
    assert meter.take(C, "elsewhere", 5 * MIB, 1.0) == "pass"
    assert meter.take(A, HOME, 5 * MIB, HOUR_S + 1) == "pass"


def test_who_agreed_to_pay_is_waited_for_and_goes_on_once_it_has() -> None:
    meter = Meter(LIMITS)
    meter.agree(A, 1.0)
    assert meter.take(A, HOME, 10 * MIB, 1.0) == "pass"
    assert [meter.take(A, HOME, 4 * MIB, 1.0) for _ in range(3)] == ["pass", "pass", "wait"]
    meter.paid(A, 4 * MIB)
    assert [meter.take(A, HOME, 4 * MIB, 1.0) for _ in range(2)] == ["pass", "wait"]
    assert meter.take(A, HOME, 4 * MIB, 1.0 + AGREED_S) == "end"


def test_debts_are_forgotten_with_the_hour_and_what_was_paid_ahead_is_not() -> None:
    meter = Meter(LIMITS)
    meter.agree(A, 1.0)
    meter.paid(B, MIB)
    assert meter.take(A, HOME, 11 * MIB, 1.0) == "wait"
    assert meter.take(A, HOME, 10 * MIB, 1.0) == "pass"
    assert meter.take(A, HOME, 3 * MIB, 1.0) == "pass"
    assert meter.unpaid(A) == 3 * MIB
    meter.free(A, HOME, HOUR_S + 1)
    assert (meter.unpaid(A), meter.unpaid(B)) == (0, -MIB)


@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "pay", "agree", "wait"]), st.sampled_from([A, B]), st.integers(1, 4 * MIB)),
        max_size=60,
    )
)
def test_nobody_gets_more_than_free_paid_and_credit(steps: list[tuple[str, PeerId, int]]) -> None:
    """Within one hour, in any order."""
    meter, now = Meter(LIMITS), 0.0
    passed, paid = {A: 0, B: 0}, {A: 0, B: 0}
    for what, guest, size in steps:
        if what == "take":
            passed[guest] += size if meter.take(guest, HOME, size, now) == "pass" else 0
        elif what == "pay":
            meter.paid(guest, size)
            paid[guest] += size
        elif what == "agree":
            meter.agree(guest, now)
        else:
            now += 1
        for each in (A, B):
            assert passed[each] <= LIMITS.free_bytes_per_hour + paid[each] + CREDIT_BYTES
        assert sum(passed.values()) <= LIMITS.free_bytes_per_subnet_hour + sum(paid.values()) + 2 * CREDIT_BYTES
