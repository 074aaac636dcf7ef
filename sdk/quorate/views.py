"""What a node says of itself and of jobs: typed JSON. Fields that this version does not know are ignored."""

from __future__ import annotations

from typing import Any

import msgspec


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all views: immutable, compared by value."""


class Node(View, frozen=True):
    """The node itself; `peer` is its libp2p peer id."""

    peer: str
    version: str = ""
    addresses: list[str] = []
    models: list[Model] = []
    peers_connected: int = 0
    balance_micro: int = 0
    roles: list[str] = []
    uptime_s: float = 0.0


class Model(View, frozen=True):
    """A model that somebody offers."""

    name: str
    cid: str
    kind: str
    lanes: list[str] = []
    providers: int = 0
    card: dict[str, Any] = {}


class PeerRecord(View, frozen=True):
    """What the node's audits say of a peer as worker or juror of one model (its name, or CID).

    `e_value` is the evidence against it: a peer that fails no more often than is tolerated ever reaches 1,000 with
    a chance of at most 1 in 1,000, and is `ejected` there. All that a `watched` worker does is audited.
    """

    role: str
    model: str
    audits: int = 0
    failures: int = 0
    e_value: float = 1.0
    watched: bool = False
    ejected: bool = False


class Connection(View, frozen=True):
    """One connection with a peer: `path` is `direct` or `relayed` (`via` says by whom), `direction` who made it.

    Bytes are those on the wire, `since_ms` is Unix time, `rtt_ms` the last round trip that was measured.
    """

    path: str
    via: str | None = None
    direction: str = ""
    address: str | None = None
    transport: str = ""
    since_ms: int = 0
    streams: int = 0
    bytes_in: int | None = None
    bytes_out: int | None = None
    rtt_ms: float | None = None


class PeerPenalties(View, frozen=True):
    """What the node blamed a peer for since it started."""

    count: int = 0
    total: float = 0.0
    last: str | None = None


class Peer(View, frozen=True):
    """A peer that the node knows; `models` are names or CIDs, `trust` its score."""

    peer: str
    addresses: list[str] = []
    connected: bool = False
    models: list[Any] = []
    trust: float | None = None
    records: list[PeerRecord] = []
    connections: list[Connection] = []
    penalties: PeerPenalties = PeerPenalties()


class Ranked(View, frozen=True):
    """A peer in the node's MeritRank view, with the reason in plain words."""

    peer: str
    score: float
    rank: int
    why: str = ""


class Ledger(View, frozen=True):
    """The node's own ledger: amounts in micro-credits, the last entries oldest first."""

    balance_micro: int
    reserved_micro: int = 0
    height: int = 0
    head: str | None = None
    entries: list[dict[str, Any]] = []


class Audit(View, frozen=True):
    """Result of an audit of the node's ledger from its first entry."""

    ok: bool
    entries: int
    issues: list[Any] = []


class JurorView(View, frozen=True):
    """A juror, what it said (None while it has not) and what it measured."""

    peer: str
    verdict: str | None = None
    distances: dict[str, float] = {}


class Attempt(View, frozen=True):
    """One worker that was tried; `reason` says how it ended."""

    worker: str | None = None
    verdict: str | None = None
    reason: str | None = None


class ImageView(View, frozen=True):
    width: int
    height: int
    png_base64: str


class OutputView(View, frozen=True):
    text: str | None = None
    image: ImageView | None = None
    embeddings: list[list[float]] | None = None


class ErrorView(View, frozen=True):
    code: str = ""
    message: str = ""
    known: list[str] | None = None


class LevelView(View, frozen=True):
    """A jury on the way up: what it said by majority, and each of its jurors."""

    verdict: str
    jury: list[JurorView] = []


class DisputeView(View, frozen=True):
    """A dispute over single steps; `loser` is None if the referee failed, `step` if a side lost before it was found."""

    challenger: str
    fault: str
    loser: str | None = None
    step: int | None = None


class EscalationView(View, frozen=True):
    """How the policy "escalate" ended: `decided_by` is the number of a level from 0, "dispute" or "nobody"."""

    decided_by: int | str
    levels: list[LevelView] = []
    disputes: list[DisputeView] = []


class JobView(View, frozen=True):
    """A job as the node sees it; `state` is one of queued, matched, running, auditing, settled, failed, cancelled."""

    id: str
    kind: str
    model: str
    state: str
    verdict: str | None = None
    lane: str = ""
    worker: str | None = None
    jury: list[JurorView] = []
    thresholds: dict[str, float] = {}
    output: OutputView | None = None
    cost_micro: int = 0
    attempts: list[Attempt] = []
    escalation: EscalationView | None = None
    error: ErrorView | None = None
    seconds: float | None = None

    @property
    def final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL_STATES


class BatchItemView(View, frozen=True):
    """One job of a batch: whether a jury looked at its answer, and in words what may be said of it."""

    index: int
    audited: bool = False
    verdict: str | None = None
    checked: str = ""
    jury: list[JurorView] = []
    output: OutputView | None = None


class BatchView(View, frozen=True):
    """A batch as the node sees it; `rate` is audits/jobs, `verdict` that on the whole; states as of a job."""

    id: str
    kind: str
    model: str
    state: str
    verdict: str | None = None
    lane: str = ""
    worker: str | None = None
    jobs: int = 0
    audits: int = 0
    rate: str = ""
    thresholds: dict[str, float] = {}
    items: list[BatchItemView] = []
    cost_micro: int = 0
    attempts: list[Attempt] = []
    error: ErrorView | None = None
    seconds: float | None = None

    @property
    def final(self) -> bool:
        """Whether the batch has ended."""
        return self.state in FINAL_STATES


FINAL_STATES = frozenset({"settled", "failed", "cancelled"})


class Event(View, frozen=True):
    """One step of a job; `seq` counts from the first, `at_ms` is Unix time.

    Attributes:
        type: queued, matched, running, auditing, escalated, dispute, rejected, settled, failed or cancelled.
        done, total: progress while running, in steps of the model.
        text: newly generated text while running.
        data: everything the node sent with the event.
    """

    seq: int
    type: str
    at_ms: int = 0
    done: int | None = None
    total: int | None = None
    text: str | None = None
    data: dict[str, Any] = {}

    @property
    def final(self) -> bool:
        """Whether this is the last event of its job."""
        return self.type in FINAL_STATES
