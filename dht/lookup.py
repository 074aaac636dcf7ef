"""One iterative look-up as a state machine (Kademlia, section 2.3): replies in, peers to ask out.

It ends when the `k` closest peers that it knows and that have not failed have all answered, or after
`ASKS_MAX` requests. Every peer is asked once. Records are merged from all who answered, never taken from the
first: what one node withholds or holds stale, another shows. A liar can make it ask at most `k` peers more per
answer, and cannot take away a candidate that somebody else named unless `k` closer peers answer.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from enum import Enum, auto

from dht.keys import node_id
from dht.limits import ALPHA, ASKS_MAX, CANDIDATES_MAX, EVIDENCE_MAX, SLOW_ASKS_MAX, VALUES_MAX, K
from dht.messages import Node
from dht.record import Equivocation, SignedRecord, Slot, equivocation, select
from wire.peer import PeerId


class _State(Enum):
    NEW = auto()
    ASKED = auto()
    SLOW = auto()
    ANSWERED = auto()
    FAILED = auto()


class Lookup:
    """Finds the peers closest to `target`, and the records that they hold.

    `start`, `on_reply`, `on_failure` and `on_slow` each return the peers to ask next.
    """

    def __init__(
        self,
        target: int,
        me: PeerId,
        seeds: Iterable[Node],
        *,
        k: int = K,
        alpha: int = ALPHA,
        asks_max: int = ASKS_MAX,
    ) -> None:
        self.target = target
        self.asks = 0
        self.evidence: list[Equivocation] = []
        self._me = me
        self._k, self._alpha, self._asks_max = k, alpha, asks_max
        self._nodes: dict[PeerId, Node] = {}
        self._state: dict[PeerId, _State] = {}
        self._order: list[tuple[int, PeerId]] = []
        self._running = {_State.ASKED: 0, _State.SLOW: 0}
        self._values: dict[Slot, SignedRecord] = {}
        self._hear(seeds)

    @property
    def done(self) -> bool:
        """Whether nothing is under way; `start` must have been called."""
        return not any(self._running.values())

    def start(self) -> list[Node]:
        """The first peers to ask; empty if there is nobody."""
        return self._next()

    def on_reply(self, peer: PeerId, nodes: Sequence[Node], records: Iterable[SignedRecord] = ()) -> list[Node]:
        """Take a reply: the contacts and the validated records of `peer`; strangers and repeats are ignored."""
        if not self._settle(peer, _State.ANSWERED):
            return []
        self._hear(nodes[: self._k])
        self.merge(records)
        return self._next()

    def on_failure(self, peer: PeerId) -> list[Node]:
        """Note that `peer` did not answer, or not properly."""
        return self._next() if self._settle(peer, _State.FAILED) else []

    def on_slow(self, peer: PeerId) -> list[Node]:
        """Let others be asked meanwhile: `peer` is overdue, but may still answer."""
        if self._state.get(peer) is not _State.ASKED or self._running[_State.SLOW] >= SLOW_ASKS_MAX:
            return []
        self._move(peer, _State.SLOW)
        return self._next()

    def closest(self) -> list[Node]:
        """At most `k` peers that answered, closest first."""
        answered = (peer for _, peer in self._order if self._state[peer] is _State.ANSWERED)
        return [self._nodes[peer] for peer, _ in zip(answered, range(self._k), strict=False)]

    def known(self, peer: PeerId) -> Node | None:
        """What the look-up was told about `peer`, whether or not it answered."""
        return self._nodes.get(peer)

    def values(self) -> list[SignedRecord]:
        """The best record of each slot, in the order in which slots were first seen."""
        return list(self._values.values())

    def merge(self, records: Iterable[SignedRecord]) -> None:
        """Take validated records, from a reply or from our own shelf."""
        for record in records:
            held = self._values.get(record.slot)
            if held is None:
                if len(self._values) < VALUES_MAX:
                    self._values[record.slot] = record
                continue
            proof = equivocation(held, record)
            if proof is not None and len(self.evidence) < EVIDENCE_MAX:
                self.evidence.append(proof)
            self._values[record.slot] = select(held, record)

    def _hear(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node.peer == self._me or node.peer in self._state:
                continue
            distance = node_id(node.peer) ^ self.target
            if len(self._order) >= CANDIDATES_MAX and not self._drop_farther_than(distance):
                continue
            insort(self._order, (distance, node.peer))
            self._nodes[node.peer] = node
            self._state[node.peer] = _State.NEW

    def _drop_farther_than(self, distance: int) -> bool:
        """Make room by forgetting the farthest candidate, if it was not asked and is farther than `distance`."""
        last, peer = self._order[-1]
        if last <= distance or self._state[peer] is not _State.NEW:
            return False
        self._order.pop()
        del self._nodes[peer], self._state[peer]
        return True

    def _settle(self, peer: PeerId, state: _State) -> bool:
        if self._state.get(peer) not in self._running:
            return False
        self._move(peer, state)
        return True

    def _move(self, peer: PeerId, state: _State) -> None:
        for old, step in ((self._state[peer], -1), (state, 1)):
            if old in self._running:
                self._running[old] += step
        self._state[peer] = state

    def _next(self) -> list[Node]:
        asks: list[Node] = []
        hopeful = 0
        for _, peer in self._order:
            if hopeful >= self._k or self._running[_State.ASKED] >= self._alpha or self.asks >= self._asks_max:
                break
            state = self._state[peer]
            hopeful += state is not _State.FAILED
            if state is _State.NEW:
                self._move(peer, _State.ASKED)
                self.asks += 1
                asks.append(self._nodes[peer])
        return asks
