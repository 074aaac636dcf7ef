"""One budget for all peers: the bound holds, the greedy lose first, and an even share is nobody's to take away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wire.memory import BYTES_MAX, MARGIN_BYTES, Memory
from wire.peer import PeerId

MIB = 1 << 20


class Heap:
    """A part that holds what a test says; streams of it are let go whole."""

    def __init__(self, *streams: int, stalled: int = 0) -> None:
        self.streams = list(streams)
        self._stalled = stalled

    def held(self) -> int:
        """Bytes kept now."""
        return sum(self.streams)

    def stalled(self) -> int:
        """Bytes that nobody reads."""
        return min(self._stalled, self.held())

    def shed(self, size: int) -> None:
        """Let go of the largest."""
        goal = self.held() - size
        while self.held() > max(goal, 0):
            self.streams.remove(max(self.streams))


def peer(n: int) -> PeerId:
    """Some peer."""
    return PeerId(n.to_bytes(32, "big"))


def filled(*heaps: Heap, bytes_max: int = 64 * MIB, peers_max: int = 64) -> Memory:
    """A budget with one part for each peer, looked at once."""
    memory = Memory(bytes_max, peers_max=peers_max)
    for n, heap in enumerate(heaps):
        memory.join(peer(n), heap)
    memory.look()
    return memory


def test_nothing_is_taken_while_there_is_room() -> None:
    heaps = [Heap(MIB, MIB) for _ in range(20)]
    memory = filled(*heaps)
    assert (memory.held, memory.lean, memory.times_shed) == (40 * MIB, True, 0)
    assert filled(Heap(MIB)).lean is False


def test_who_holds_most_lets_go_first() -> None:
    large, small = Heap(*[MIB] * 50), [Heap(MIB) for _ in range(20)]
    memory = filled(large, *small)
    assert memory.held <= 64 * MIB
    assert all(each.held() == MIB for each in small)
    assert 0 < large.held() < 50 * MIB


def test_who_leaves_most_unread_lets_go_before_who_holds_most() -> None:
    busy, idle = Heap(*[MIB] * 40), Heap(*[MIB] * 30, stalled=30 * MIB)
    filled(busy, idle)
    assert busy.held() == 40 * MIB
    assert idle.held() < 30 * MIB


def test_a_peer_has_one_share_whatever_it_keeps_it_in() -> None:
    memory = Memory(64 * MIB, peers_max=64)
    parts = [Heap(*[MIB] * 17), Heap(*[MIB] * 16)]
    others = [Heap(*[MIB] * 32)]
    for part in parts:
        memory.join(peer(1), part)
    memory.join(peer(2), others[0])
    memory.look()
    assert sum(part.held() for part in parts) < 33 * MIB
    assert others[0].held() == 32 * MIB


def test_a_part_that_has_left_counts_no_more() -> None:
    memory = Memory()
    part = Heap(MIB)
    memory.join(peer(1), part)
    memory.leave(peer(1), part)
    memory.leave(peer(1), part)
    memory.look()
    assert memory.held == 0


def test_the_sums_are_made_before_the_bound_can_be_passed() -> None:
    memory, part = Memory(8 * MIB, peers_max=8), Heap()
    memory.join(peer(1), part)
    most = 0
    for _ in range(2000):
        part.streams.append(16 << 10)
        memory.grew(16 << 10)
        most = max(most, part.held())
    assert most <= 8 * MIB
    assert memory.times_shed > 0


@given(st.lists(st.lists(st.integers(1, 4 * MIB), max_size=24), min_size=1, max_size=64), st.data())
def test_the_bound_holds_and_even_shares_are_safe(held: list[list[int]], data: st.DataObject) -> None:
    heaps = [Heap(*streams, stalled=data.draw(st.integers(0, 8 * MIB))) for streams in held]
    before = [heap.held() for heap in heaps]
    memory = filled(*heaps)
    assert memory.held == sum(heap.held() for heap in heaps) <= 64 * MIB - MARGIN_BYTES
    for heap, was in zip(heaps, before, strict=True):
        assert heap.held() == was or was > memory.share_bytes


def test_the_default_is_a_quarter_of_a_gibibyte() -> None:
    assert BYTES_MAX == 256 * MIB
    assert Memory().share_bytes > 500 << 10
