"""How much one side may have under way at the other: the credit of a channel, in one direction.

Both sides keep the same book. A message counts from its first chunk until it is released: so whoever may begin a
message can also finish it, and no set of half-sent messages can block another. Small messages have a pool of their own,
so that large ones never keep them waiting.
"""

from __future__ import annotations

from wire.rpc.frames import CHUNK_BYTES

OVERHEAD_BYTES = 64
"""Counted on top of each message, so that empty ones are not free."""

SMALL_BYTES_MAX = CHUNK_BYTES
"""A message of up to so many bytes is small: it is sent in one frame."""

POOL_BYTES = (1 << 20, 6 << 20)
"""Credit for small messages, and for the others."""

WINDOW_BYTES = 256 << 10
"""Credit of one request and direction: beyond it a message may begin only if none is outstanding."""


def cost(size: int) -> int:
    """What a message of `size` bytes counts."""
    return size + OVERHEAD_BYTES


class Share:
    """Two pools; costs say by themselves which they belong to."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used = [0, 0]

    @property
    def used(self) -> int:
        """Bytes outstanding in both pools."""
        return sum(self._used)

    def fits(self, amount: int) -> bool:
        """Whether a message of this cost may begin."""
        large = amount > SMALL_BYTES_MAX + OVERHEAD_BYTES
        return self._used[large] + amount <= POOL_BYTES[large]

    def take(self, amount: int) -> None:
        """A message has begun."""
        self._used[amount > SMALL_BYTES_MAX + OVERHEAD_BYTES] += amount

    def give(self, amount: int) -> None:
        """A message was released."""
        large = amount > SMALL_BYTES_MAX + OVERHEAD_BYTES
        self._used[large] -= amount
        assert self._used[large] >= 0, "more was released than taken"
