"""What all peers together make a node hold: one budget, shared out fairly. Sans-IO.

Every place that keeps bytes of a peer (a connection, a channel of calls) joins as a part of that peer and says roughly
what it takes on (`grew`); the exact sums are made now and then (`look`), always before the bound could be passed.

- Beyond half of the bound the node is *lean*: connections let no receive window grow.
- At the bound, peers that hold more than their even share let go, those first who leave most lying unread, then those
  who hold most, until an eighth is free again. Who holds no more than the share never loses anything by it, however
  many identities others make up.
"""

from __future__ import annotations

from typing import Protocol

from wire.peer import PeerId

BYTES_MAX = 256 << 20
"""Bytes held for all peers together."""

PEERS_MAX = 512
"""Peers among which the bound is shared evenly; a node has no more connections."""

STEP_BYTES = 4 << 20
"""The sums are made after so many bytes at the latest."""

MARGIN_BYTES = 512 << 10
"""What may arrive between two looks at least: room for one read of a connection, and a message of calls begun."""


class Part(Protocol):
    """One place where bytes of a peer are kept."""

    def held(self) -> int:
        """Bytes kept now."""
        ...

    def stalled(self) -> int:
        """Those among them that nobody has used anything of for seconds."""
        ...

    def shed(self, size: int) -> None:
        """Let go of `size` bytes or more, if there are as many, whatever that ends."""
        ...


class Memory:
    """See the module.

    Args:
        bytes_max: the bound. peers_max: among how many it is shared evenly.
    """

    def __init__(self, bytes_max: int = BYTES_MAX, *, peers_max: int = PEERS_MAX) -> None:
        assert bytes_max > MARGIN_BYTES, "there must be room for what arrives between two looks"
        self.bytes_max = bytes_max
        self.share_bytes = (bytes_max - MARGIN_BYTES) // peers_max
        self.held = 0
        self.lean = False
        self.times_shed = 0
        self._parts: dict[PeerId, list[Part]] = {}
        self._left = 0

    def join(self, peer: PeerId, part: Part) -> None:
        """Bytes of `peer` are kept in a new place."""
        self._parts.setdefault(peer, []).append(part)

    def leave(self, peer: PeerId, part: Part) -> None:
        """A place is gone, with all that it kept; leaving twice is no fault."""
        parts = [each for each in self._parts.get(peer, ()) if each is not part]
        if parts:
            self._parts[peer] = parts
        else:
            self._parts.pop(peer, None)

    def grew(self, size: int) -> None:
        """Some part has taken on so many bytes, which may have left again."""
        self._left -= size
        if self._left <= 0:
            self.look()

    def look(self) -> None:
        """Make the sums, and let go of what is too much."""
        most = self.bytes_max - MARGIN_BYTES
        sums = {peer: sum(part.held() for part in parts) for peer, parts in self._parts.items()}
        self.held = sum(sums.values())
        if self.held > most:
            self._shed(sums, self.held - most * 7 // 8)
            self.held = sum(part.held() for parts in self._parts.values() for part in parts)
        self.lean = self.held > most // 2
        self._left = max(MARGIN_BYTES // 2, min(STEP_BYTES, most - self.held))

    def _shed(self, sums: dict[PeerId, int], excess: int) -> None:
        greedy = [peer for peer, held in sums.items() if held > self.share_bytes]
        stalled = {peer: sum(part.stalled() for part in self._parts[peer]) for peer in greedy}
        for peer in sorted(greedy, key=lambda peer: (stalled[peer], sums[peer]), reverse=True):
            if excess <= 0:
                return
            over = min(sums[peer] - self.share_bytes, excess)
            excess -= over
            self.times_shed += 1
            for part in sorted(self._parts.get(peer, ()), key=lambda part: part.held(), reverse=True):
                if over > 0:
                    held = part.held()
                    part.shed(over)
                    over -= held - part.held()


class Growth:
    """Tells a `Memory` by how much one part of it has grown, for parts that cannot say so as it happens."""

    def __init__(self, memory: Memory, part: Part) -> None:
        self._memory, self._part = memory, part
        self._held = 0

    def look(self) -> None:
        """Compare with the last look."""
        held = self._part.held()
        if held > self._held:
            self._memory.grew(held - self._held)
        self._held = held
