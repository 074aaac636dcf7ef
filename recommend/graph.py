"""The trust graph that one node knows: directed edges, each stated by its source.

Invariants: an edge is accepted only from its own source; of two statements with one key (source, target,
kind) the later one stands, whatever order they arrive in; trust and distrust of one pair are summed apart and
each is capped, so that no number of small dealings between two peers outweighs what everybody else did.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wire.codec import Wire
from wire.errors import Malformed, RemoteError
from wire.peer import PeerId

EdgeKind = Literal["work", "jury", "rejected", "fault", "rating", "mute"]

EVIDENCE: dict[EdgeKind, float] = {
    "work": 1.0,
    "jury": 0.5,
    "rejected": -10.0,
    "fault": -1.0,
    "rating": 1.0,
    "mute": -20.0,
}
"""Weight of one event of each kind: paid and accepted work, a jury duty done, an answer that a jury rejected,
a broken rule or deadline, a rating by the user, a mute by the user."""

WEIGHT_CAP = 20.0
"""Most trust, and most distrust, that one peer can place in another."""

TARGETS_MAX = 4096
"""Edges that one source may state."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class TrustEdge(Wire, frozen=True):
    """What `source` says of `target`; `weight` is trust above zero and distrust below it.

    Attributes:
        count: events behind the weight, for the explanation; at least 0.
        seq: position in the source's own log; the highest one stands.
    """

    source: PeerId
    target: PeerId
    kind: EdgeKind
    weight: float
    count: int
    seq: int

    def check(self) -> None:
        """Raises: Malformed on a wrong key length, a self-loop, a weight that is not finite, or a negative count."""
        if len(self.source) != 32 or len(self.target) != 32:
            raise Malformed("a peer is a 32-byte key")
        if self.source == self.target:
            raise Malformed("an edge to oneself")
        if not math.isfinite(self.weight):
            raise Malformed(f"weight {self.weight} is not a finite number")
        if self.count < 0 or self.seq < 0:
            raise Malformed("count and seq are not negative")

    @property
    def key(self) -> tuple[PeerId, PeerId, str]:
        """What a later statement replaces."""
        return self.source, self.target, self.kind

    @property
    def order(self) -> tuple[int, float, int]:
        """The larger one stands; at one `seq` the less trusting statement does, so that order of arrival is nothing."""
        return self.seq, -self.weight, self.count


def evidence(source: PeerId, target: PeerId, kind: EdgeKind, *, count: int, seq: int) -> TrustEdge:
    """The edge that stands for `count` events of one kind, with the weight that `EVIDENCE` gives them."""
    return TrustEdge(source, target, kind, EVIDENCE[kind] * count, count, seq)


@dataclass(frozen=True)
class Compiled:
    """The graph as arrays in compressed rows, in ascending order of peers; independent of insertion order.

    Attributes:
        peers: every peer that an edge names, ascending; `index` is its inverse.
        start: [n + 1], row u is `start[u]:start[u + 1]`.
        source, target: [m], indexes into `peers`. A pair with trust and distrust has two edges.
        weight: [m], signed and capped.
    """

    peers: tuple[PeerId, ...]
    index: dict[PeerId, int]
    start: Ints
    source: Ints
    target: Ints
    weight: Floats

    def only(self, keep: NDArray[np.bool_]) -> Compiled:
        """The same peers with the edges where `keep` ([m]) holds."""
        return _rows(self.peers, self.index, self.source[keep], self.target[keep], self.weight[keep])


def _rows(peers: tuple[PeerId, ...], index: dict[PeerId, int], source: Ints, target: Ints, weight: Floats) -> Compiled:
    start = np.zeros(len(peers) + 1, np.int64)
    np.cumsum(np.bincount(source, minlength=len(peers)), out=start[1:])
    return Compiled(peers, index, start, source, target, weight)


class LocalGraph:
    """All edges that this node has learned and checked.

    Args:
        cap: most trust, and most distrust, of one peer in another (same unit as the weights).
    """

    def __init__(self, *, cap: float = WEIGHT_CAP) -> None:
        assert cap > 0, "the cap is positive"
        self.cap = cap
        self.version = 0
        self._edges: dict[tuple[PeerId, PeerId, str], TrustEdge] = {}
        self._out: dict[PeerId, dict[PeerId, set[str]]] = defaultdict(dict)
        self._compiled: tuple[int, Compiled] | None = None

    def put(self, edges: Iterable[TrustEdge], *, author: PeerId | None = None) -> int:
        """Add or replace edges; stale and repeated statements change nothing; a weight of 0 withdraws one.

        Args:
            edges: all are checked before the first is taken.
            author: whose signature covered the edges; None for edges of our own making.

        Returns:
            How many edges changed.

        Raises:
            Malformed: an edge that cannot be.
            RemoteError: an author that speaks for another peer, or of more than `TARGETS_MAX` pairs of (target, kind).
        """
        batch = list(edges)
        for edge in batch:
            edge.check()
            if author is not None and edge.source != author:
                raise RemoteError(author, "states the trust of another peer", penalty=0.5)
        self._check_room(batch)
        changed = sum(self._put_one(edge) for edge in batch)
        self.version += changed > 0
        return changed

    def _check_room(self, batch: list[TrustEdge]) -> None:
        new = {edge.key for edge in batch} - self._edges.keys()
        for source, more in Counter(key[0] for key in new).items():
            if more + sum(map(len, self._out.get(source, {}).values())) > TARGETS_MAX:
                raise RemoteError(source, f"states more than {TARGETS_MAX} edges")

    def _put_one(self, edge: TrustEdge) -> bool:
        known = self._edges.get(edge.key)
        if known is not None and known.order >= edge.order:
            return False
        self._edges[edge.key] = edge
        self._out[edge.source].setdefault(edge.target, set()).add(edge.kind)
        return True

    def edges(self) -> Iterator[TrustEdge]:
        """Every statement that stands, in ascending order of its key; `put` of them rebuilds the graph."""
        return (self._edges[key] for key in sorted(self._edges))

    def between(self, source: PeerId, target: PeerId) -> list[TrustEdge]:
        """What `source` says of `target`, by kind in alphabetical order, withdrawn statements left out."""
        kinds = sorted(self._out.get(source, {}).get(target, ()))
        found = (self._edges[source, target, kind] for kind in kinds)
        return [edge for edge in found if edge.weight != 0]

    def trust(self, source: PeerId, target: PeerId) -> float:
        """Capped sum of the positive statements."""
        return min(self.cap, sum(edge.weight for edge in self.between(source, target) if edge.weight > 0))

    def distrust(self, source: PeerId, target: PeerId) -> float:
        """Capped sum of the negative statements, as a positive number."""
        return min(self.cap, -sum(edge.weight for edge in self.between(source, target) if edge.weight < 0))

    def targets(self, source: PeerId) -> list[PeerId]:
        """Everyone that `source` has said something of, ascending."""
        return sorted(self._out.get(source, {}))

    def compiled(self) -> Compiled:
        """The graph as arrays; kept until an edge changes."""
        if self._compiled is None or self._compiled[0] != self.version:
            self._compiled = self.version, self._compile()
        return self._compiled[1]

    def _compile(self) -> Compiled:
        peers = tuple(sorted(set(self._out).union(*self._out.values())))
        index = {peer: at for at, peer in enumerate(peers)}
        rows: list[tuple[int, int, float]] = []
        for source in sorted(self._out):
            for target in sorted(self._out[source]):
                sums = self.trust(source, target), -self.distrust(source, target)
                rows += [(index[source], index[target], weight) for weight in sums if weight]
        return _rows(
            peers,
            index,
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.int64),
            np.array([row[2] for row in rows], np.float64),
        )
