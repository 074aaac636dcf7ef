"""What one connection may cost: honest traffic never waits, dear bytes are read in small pieces and rationed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.libp2p.pace import BURST_S, FREE_S, FREE_S_PER_BYTE, PIECE_BYTES_MIN, RESET_S, SHARE, TURN_S, Pace

MOST = 256 << 10


def test_what_honest_bytes_cost_is_free() -> None:
    pace = Pace(0.0, MOST)
    for n in range(10_000):
        assert pace.spent(FREE_S + 200 * FREE_S_PER_BYTE, 200, n * 1e-6) == 0.0
        assert pace.spent(MOST * FREE_S_PER_BYTE, MOST, n * 1e-6) == 0.0
    assert (pace.piece_bytes, pace.pauses) == (MOST, 0)


def test_dear_bytes_come_in_ever_smaller_pieces_and_then_wait() -> None:
    pace = Pace(0.0, MOST)
    now, beyond_s = 0.0, 0.0
    for _ in range(200):
        size = pace.piece_bytes
        cost_s = size * 250e-9  # a frame of one byte is thirteen, and costs some microseconds
        beyond_s += cost_s - FREE_S - size * FREE_S_PER_BYTE
        now += cost_s + pace.spent(cost_s, size, now + cost_s)
    assert pace.piece_bytes == PIECE_BYTES_MIN
    assert cost_s < TURN_S
    assert beyond_s <= BURST_S + now * SHARE + 1e-9


def test_pieces_grow_again_once_bytes_are_cheap() -> None:
    pace = Pace(0.0, MOST)
    pace.spent(0.1, MOST, 0.1)
    assert pace.piece_bytes == MOST // 2
    pace.spent(TURN_S / 10, 1000, 5.0)
    assert pace.piece_bytes == MOST


def test_streams_opened_in_vain_are_charged() -> None:
    pace = Pace(0.0, MOST)
    for _ in range(100):
        pace.charge(RESET_S)
    assert pace.spent(2 * FREE_S, 10, 0.0) > 0.05
    assert pace.pauses == 1


@given(st.lists(st.tuples(st.floats(0, 0.1), st.integers(1, MOST), st.floats(0, 1)), max_size=50))
def test_a_pause_is_never_longer_than_what_was_spent_allows(pieces: list[tuple[float, int, float]]) -> None:
    pace = Pace(0.0, MOST)
    now = spent_s = 0.0
    for cost_s, size, later_s in pieces:
        now += cost_s + later_s
        spent_s += cost_s
        pause_s = pace.spent(cost_s, size, now)
        assert 0.0 <= pause_s <= spent_s / SHARE
        assert PIECE_BYTES_MIN <= pace.piece_bytes <= MOST
        now += pause_s
