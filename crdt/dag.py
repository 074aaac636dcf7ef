"""The hash graph of one namespace: what is known, what nothing follows yet, and each author's chain.

Invariant: an operation is admitted only after all of its dependencies, so positions in the log are a topological
order and the known set is closed downwards. Because ids commit to dependencies, the heads name the whole set:
`digest` is equal on two replicas exactly if they hold the same operations (up to hash collisions).

Whether an operation is admissible is a function of the operation and its ancestors only. The quota is therefore
counted along the author's own chain, where every replica counts the same.

Source: Kleppmann, Howard, "Byzantine Eventual Consistency and the Fundamental Limits of Peer-to-Peer Databases"
(arXiv 2012.00472, 2020), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crdt.namespace import Namespace
from crdt.op import SignedOp
from wire.hashing import digest
from wire.peer import PeerId


@dataclass(frozen=True, slots=True)
class _Node:
    author: PeerId
    seq: int
    stamp: int
    chain_bytes: int
    dependencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Two operations of one author and one number: proof that it wrote two histories.

    A restored backup or a copied key looks the same as a lie, so a fork is information, never a penalty.
    """

    author: PeerId
    seq: int
    first: bytes
    second: bytes


class Dag:
    """The graph of one replica.

    Args:
        namespace: the rules; only the chain quota is used here.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._rules = namespace.rules
        self._position: dict[bytes, int] = {}
        self._nodes: list[_Node] = []
        self._heads: set[bytes] = set()
        self._digest: bytes | None = None
        self._chain: dict[tuple[PeerId, int], bytes] = {}
        self._tips: dict[PeerId, tuple[int, bytes]] = {}
        self._forks: dict[PeerId, Fork] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, op_id: bytes) -> bool:
        return op_id in self._position

    def position(self, op_id: bytes) -> int | None:
        """Where a known operation stands in the order of admission, from 0."""
        return self._position.get(op_id)

    def missing(self, signed: SignedOp) -> list[bytes]:
        """Ids of the dependencies that are not known."""
        return [op_id for op_id in signed.op.dependencies if op_id not in self._position]

    def fault(self, signed: SignedOp) -> str | None:
        """Why an operation whose dependencies are known can never be admitted, or None."""
        op = signed.op
        if any(self._nodes[self._position[dep]].stamp >= op.stamp for dep in op.dependencies):
            return "stamp not later than those it depends on"
        if op.previous is not None:
            previous = self._nodes[self._position[op.previous]]
            if previous.author != signed.author or previous.seq + 1 != op.seq:
                return "previous operation is of another author or number"
        if self._chain_bytes(signed) > self._namespace.bytes_max:
            return f"chain of its author over {self._namespace.bytes_max} bytes"
        return None

    def admit(self, signed: SignedOp) -> None:
        """Add an operation that has no fault and misses nothing."""
        op = signed.op
        assert signed.id not in self._position, "admitted once"
        node = _Node(
            signed.author,
            op.seq,
            op.stamp,
            self._chain_bytes(signed),
            tuple(self._position[dep] for dep in op.dependencies),
        )
        self._position[signed.id] = len(self._nodes)
        self._nodes.append(node)
        self._heads.difference_update(op.dependencies)
        self._heads.add(signed.id)
        self._digest = None
        self._note_chain(signed)

    def heads(self) -> list[bytes]:
        """Ids that nothing known depends on, ascending."""
        return sorted(self._heads)

    def digest(self) -> bytes:
        """32-byte name of the set of known operations, under these rules."""
        if self._digest is None:
            self._digest = digest("crdt.heads", self._rules, *self.heads())
        return self._digest

    def tip(self, author: PeerId) -> tuple[int, bytes | None]:
        """Number and id of the author's last operation; (0, None) before the first.

        On a forked chain: the greatest number, then the greatest id.
        """
        return self._tips.get(author, (0, None))

    def forks(self) -> list[Fork]:
        """One proof per author that forked its chain, in the order of authors."""
        return [self._forks[author] for author in sorted(self._forks)]

    def covered(self, ids: Iterable[bytes], *, floor: int) -> bytearray:
        """Marks (1) for each position from `floor` on that is one of `ids` or precedes one; unknown ids are ignored."""
        marks = bytearray(max(len(self._nodes) - floor, 0))
        for op_id in ids:
            position = self._position.get(op_id, -1)
            if position >= floor:
                marks[position - floor] = 1
        for at in range(len(marks) - 1, -1, -1):
            if marks[at]:
                for dependency in self._nodes[at + floor].dependencies:
                    if dependency >= floor:
                        marks[dependency - floor] = 1
        return marks

    def _chain_bytes(self, signed: SignedOp) -> int:
        previous = signed.op.previous
        before = 0 if previous is None else self._nodes[self._position[previous]].chain_bytes
        return before + len(signed.raw)

    def _note_chain(self, signed: SignedOp) -> None:
        slot = (signed.author, signed.op.seq)
        first = self._chain.setdefault(slot, signed.id)
        if first != signed.id and signed.author not in self._forks:
            self._forks[signed.author] = Fork(signed.author, signed.op.seq, first, signed.id)
        tip = (signed.op.seq, signed.id)
        self._tips[signed.author] = max(tip, self._tips.get(signed.author, tip))
