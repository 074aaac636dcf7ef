"""Why a peer stands where it stands: plain counts of what the ego knows, never a formula."""

from __future__ import annotations

from recommend.graph import EdgeKind, LocalGraph
from recommend.meritrank import Merit
from wire.peer import PeerId, short

_FIRST_HAND: dict[EdgeKind, tuple[str, str]] = {
    "work": ("you paid it for 1 accepted job", "you paid it for {n} accepted jobs"),
    "jury": ("it checked 1 job for you", "it checked {n} jobs for you"),
    "rejected": ("a jury rejected 1 of its answers to you", "a jury rejected {n} of its answers to you"),
    "fault": ("it failed you once", "it failed you {n} times"),
    "rating": ("you rated it {w:+g}", "you rated it {w:+g}"),
    "mute": ("you muted it", "you muted it"),
}


def first_hand(graph: LocalGraph, ego: PeerId, peer: PeerId) -> list[str]:
    """What the ego itself has seen of the peer, one phrase per kind of experience."""
    return [
        _FIRST_HAND[edge.kind][edge.count != 1].format(n=edge.count, w=edge.weight) for edge in graph.between(ego, peer)
    ]


def why(graph: LocalGraph, merit: Merit, ego: PeerId, peer: PeerId) -> str:
    """The reasons for a peer's score, joined by semicolons; never empty."""
    reasons = first_hand(graph, ego, peer)
    if graph.trust(ego, peer) < graph.distrust(ego, peer):
        reasons.append("so nobody else's word for it counts")
    at = merit.index.get(peer)
    reach, against = (0.0, 0.0) if at is None else (float(merit.reach[at]), float(merit.against[at]))
    if at is not None and reach > 0:
        reasons.append(f"reached in {reach:.0%} of walks{_through(merit, at)}")
    if against > 0:
        reasons.append(f"{against:.0%} of walks ended by distrust of it")
    return "; ".join(reasons) or "newcomer: no trust of yours leads to it yet"


def _through(merit: Merit, at: int) -> str:
    via = int(merit.through[at])
    return f", through {short(merit.peers[via])} in {float(merit.neck[at]):.0%} of them" if via >= 0 else ""


def excluded_because(graph: LocalGraph, merit: Merit, ego: PeerId, peer: PeerId) -> str:
    """Why a peer must not be given work; empty if it may be."""
    at = merit.index.get(peer)
    negative = at is not None and float(merit.score[at]) < 0
    if not negative and graph.trust(ego, peer) >= graph.distrust(ego, peer):
        return ""
    return f"excluded, more speaks against it than for it: {why(graph, merit, ego, peer)}"
