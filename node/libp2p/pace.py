"""How much of the processor what one connection sends may take, where it costs more than its bytes are worth. Sans-IO.

Frames of one byte, streams opened by the thousand, sealed messages without content: a few kilobytes of them cost
milliseconds, in which nobody else is served. So a connection whose bytes turn out dear is read in small pieces, and
waits once its allowance is spent; the rest stays in its socket, where it is the sender's. What honest traffic costs,
`FREE_S` for each read and `FREE_S_PER_BYTE` for what it brought, is never counted.
"""

from __future__ import annotations

FREE_S, FREE_S_PER_BYTE = 30e-6, 60e-9
"""Processor time that a read and each of its bytes may cost; frames of a hundred bytes or more stay below."""

SHARE = 0.1
"""Of the processor, for what goes beyond."""

BURST_S = 0.01
"""Spent beyond before the first pause."""

TURN_S = 0.0004
"""Processor time of one piece, about."""

PIECE_BYTES_MIN = 1 << 10

RESET_S = 0.0002
"""What a stream costs that the other side opens and resets: a task, a negotiation."""


class Pace:
    """The account of one connection. `now` is any monotonic clock in seconds."""

    def __init__(self, now: float, piece_bytes_max: int) -> None:
        self._most = piece_bytes_max
        self._left, self._at = BURST_S, now
        self.piece_bytes = piece_bytes_max
        self.pauses = 0

    def spent(self, seconds: float, size: int, now: float) -> float:
        """So much processor time went into so many bytes; for how many seconds nothing more is to be read."""
        beyond = seconds - FREE_S - FREE_S_PER_BYTE * size
        if seconds > TURN_S and beyond > 0:
            self.piece_bytes = max(PIECE_BYTES_MIN, min(self.piece_bytes, size) // 2)
        elif self.piece_bytes < self._most and seconds < TURN_S / 4:
            self.piece_bytes = min(2 * self.piece_bytes, self._most)
        self._left = min(BURST_S, self._left + SHARE * (now - self._at))
        self._at = now
        self.charge(max(0.0, beyond))
        if self._left >= 0:
            return 0.0
        self.pauses += 1
        return -self._left / SHARE

    def charge(self, seconds: float) -> None:
        """Something that the peer sent has cost us elsewhere, and was good for nothing."""
        self._left -= seconds
