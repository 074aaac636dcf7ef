"""The numbers that walks estimate, solved: the oracle of the tests and the fallback for small graphs.

`visits` sums the power series of personalised PageRank (Page, Brin, Motwani, Winograd 1999) on sparse rows.
`solve` gives every quantity of `recommend.meritrank` on a dense matrix. With `G = (I - (1 - alpha) P)^-1`, the
expected visits (Kemeny and Snell, Finite Markov Chains, 3.2), a walk from u ever hits v with probability
h(u, v) = G(u, v) / G(v, v). Let a be the probability that ego hits u before v and b that it hits v before u:
h(e, u) = a + b h(v, u) and h(e, v) = b + a h(u, v), so a = (h(e, u) - h(e, v) h(v, u)) / (1 - h(u, v) h(v, u)),
and the share of v's walks that passed u before is a h(u, v) / h(e, v).
"""

from __future__ import annotations

import numpy as np

from recommend.graph import Compiled, Floats, Ints
from recommend.meritrank import NO_VISITS, Merit, Settings, personal, scores
from wire.peer import PeerId

DENSE_PEERS_MAX = 2_000
"""Most peers that `solve` takes; its matrices grow with the square."""


def step_shares(graph: Compiled) -> Floats:
    """Probability of each edge, given that the walk goes on from its source ([m])."""
    total = np.bincount(graph.source, weights=np.abs(graph.weight), minlength=len(graph.peers))
    return np.abs(graph.weight) / total[graph.source]


def visits(graph: Compiled, ego: PeerId, settings: Settings, *, tolerance: float = 1e-12) -> Floats:
    """Expected visits to each peer by one walk of `ego` along trust, its start included ([n]).

    The series is cut when what is left of it is below `tolerance`.
    """
    graph = personal(graph, ego)
    trusts = graph.weight > 0
    share = (1 - settings.alpha) * step_shares(graph)[trusts]
    source, target, n = graph.source[trusts], graph.target[trusts], len(graph.peers)
    now: Floats = np.zeros(n, np.float64)
    now[graph.index[ego]] = 1.0
    total: Floats = now.copy()
    while now.sum() > tolerance * settings.alpha:
        now = np.bincount(target, weights=share * now[source], minlength=n).astype(np.float64)
        total += now
    return total


def solve(graph: Compiled, ego: PeerId, settings: Settings) -> Merit:
    """The view of `ego` that infinitely many walks would give.

    Raises:
        ValueError: the graph has more than `DENSE_PEERS_MAX` peers.
    """
    n = len(graph.peers)
    if n > DENSE_PEERS_MAX:
        raise ValueError(f"{n} peers, at most {DENSE_PEERS_MAX} can be solved")
    graph, e = personal(graph, ego), graph.index[ego]
    trust, distrust = np.zeros((n, n)), np.zeros((n, n))
    share = (1 - settings.alpha) * step_shares(graph)
    for matrix, sign in ((trust, 1), (distrust, -1)):
        some = graph.weight * sign > 0
        matrix[graph.source[some], graph.target[some]] = share[some]
    expected: Floats = np.linalg.inv(np.eye(n) - trust).astype(np.float64)
    reach, neck, through = _reach_and_neck(expected, e)
    against = expected[e] @ distrust
    score = scores(reach, against, neck, settings.beta)
    return Merit(graph.peers, graph.index, 0, reach, against, neck, through, score, NO_VISITS)


def _reach_and_neck(expected: Floats, e: int) -> tuple[Floats, Floats, Ints]:
    n = len(expected)
    hit = np.clip(expected / np.diag(expected), 0, 1)
    reach = hit[e].copy()
    reach[e] = 0.0
    return_share = hit * hit.T
    np.fill_diagonal(return_share, 0.0)
    before = (hit[e][:, None] - hit[e][None, :] * hit.T) / (1 - return_share)  # [u, v]: ego hits u before v
    through_u = before * hit
    np.fill_diagonal(through_u, 0.0)
    through_u[e, :] = 0.0
    share = np.divide(through_u, reach, out=np.zeros((n, n)), where=reach > 0)
    share = np.clip(np.where(share > 1e-12, share, 0.0), 0, 1)
    neck = share.max(axis=0)
    return reach, neck, np.where(neck > 0, share.argmax(axis=0), -1)
