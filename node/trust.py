"""The node's own view of trust: MeritRank over the edges of every chain that it has verified."""

from __future__ import annotations

from collections.abc import Collection

from ledger.service import Ledger
from recommend.graph import EdgeKind, LocalGraph, evidence
from recommend.rank import Ranked, Recommender
from wire.peer import PeerId

_KINDS: dict[str, EdgeKind] = {"work": "work", "jury": "jury", "reject": "rejected"}


class Trust:
    """A graph that follows the ledger, and the questions one asks of it."""

    def __init__(self, me: PeerId, ledger: Ledger) -> None:
        self._me = me
        self._ledger = ledger
        self._graph = LocalGraph()
        self._recommender = Recommender(self._graph)

    def fresh(self) -> Recommender:
        """The recommender, after taking in what the ledger has learned; an edge stands for the number of its events."""
        for edge in self._ledger.trust_edges():
            kind = _KINDS[edge.kind]
            self._graph.put([evidence(edge.payer, edge.payee, kind, count=edge.receipts, seq=edge.receipts)])
        return self._recommender

    def rank(self, peers: Collection[PeerId]) -> list[Ranked]:
        """Everyone reached by our walks, with `peers` added."""
        return self.fresh().rank(self._me, peers)
