"""Anti-entropy between two replicas, as messages in and messages out.

A replica's log only grows, so "everything after position p of your log" is a complete and bounded question. A pull
asks that, naming heads the asker holds and samples of its log further back, and the server leaves out what those
already imply. At first contact p is 0; later the asker goes on from the cursor that the last pull reached. Equal
digests end a pull at once. A cursor belongs to one run of the server (`log`): after a restart the server counts
anew, and the asker starts from 0.

Nothing is believed: every operation is checked on its own, faults are charged to whoever sent it, and a server
that names heads which it does not hand over loses its cursor and is charged too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from crdt.limits import FETCH_MAX, HAVE_MAX, HEADS_MAX, OP_BYTES_MAX, PAGE_BYTES_MAX, PAGE_OPS_MAX, PULL_PAGES_MAX
from crdt.op import Name, OpId, SignedOp, UnverifiedOp, parse
from crdt.replica import REFUSED_PENALTY, Ingested, Replica
from wire.codec import Wire
from wire.errors import LocalError, Malformed, RemoteError
from wire.peer import PeerId
from wire.rpc.seam import Method

LogId = Annotated[bytes, Meta(min_length=16, max_length=16)]
Position = Annotated[int, Meta(ge=0, le=1 << 53)]
RawOp = Annotated[bytes, Meta(max_length=OP_BYTES_MAX)]
RawOps = Annotated[list[RawOp], Meta(max_length=PAGE_OPS_MAX)]

_COVERS_KEPT = 4


class Pull(Wire, frozen=True, tag="pull"):
    """Ask for the operations at `after` and later in the log `log` (None at first contact) that `have` lack."""

    namespace: Name
    rules: OpId
    digest: OpId
    log: LogId | None
    after: Position
    have: Annotated[list[OpId], Meta(max_length=HAVE_MAX)]


class Fetch(Wire, frozen=True, tag="fetch"):
    """Ask for operations by id."""

    namespace: Name
    rules: OpId
    ids: Annotated[list[OpId], Meta(max_length=FETCH_MAX)]


class Push(Wire, frozen=True, tag="push"):
    """Hand over new operations unasked."""

    namespace: Name
    rules: OpId
    ops: RawOps


class Page(Wire, frozen=True):
    """Answer to a pull; `after` is where to go on, `heads` are at most `HEADS_MAX` of the server's heads."""

    log: LogId
    digest: OpId
    heads: Annotated[list[OpId], Meta(max_length=HEADS_MAX)]
    ops: RawOps
    after: Position
    more: bool


class Batch(Wire, frozen=True):
    """Answer to a fetch: those of the operations that are known and fit."""

    ops: RawOps


class Pushed(Wire, frozen=True):
    """Answer to a push: how many operations were new and admitted."""

    added: Position


PULL = Method("crdt.pull", Pull, Page)
FETCH = Method("crdt.fetch", Fetch, Batch)
PUSH = Method("crdt.push", Push, Pushed)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far into which log of a peer we have pulled everything."""

    log: bytes
    after: int


def sift(replica: Replica, sender: PeerId, raws: Iterable[bytes]) -> tuple[list[UnverifiedOp], list[RemoteError]]:
    """Decode operations as they came; those already known are left out before their signature costs anything."""
    fresh, faults = [], []
    for raw in raws:
        try:
            one = parse(raw)
        except Malformed as exc:
            faults.append(RemoteError(sender, f"operation refused: {exc}", penalty=REFUSED_PENALTY))
        else:
            if one.id not in replica:
                fresh.append(one)
    return fresh, faults


def check(sender: PeerId, fresh: Iterable[UnverifiedOp]) -> tuple[list[SignedOp], list[RemoteError]]:
    """Check signatures; touches no replica, so it may run in another thread."""
    signed, faults = [], []
    for one in fresh:
        try:
            signed.append(one.verify())
        except Malformed as exc:
            faults.append(RemoteError(sender, f"operation refused: {exc}", penalty=REFUSED_PENALTY))
    return signed, faults


class PullSession:
    """The asker's side of one pull.

    Args:
        replica: ours.
        peer: the server.
        cursor: where the last pull from it ended, if known.
    """

    def __init__(self, replica: Replica, peer: PeerId, cursor: Cursor | None) -> None:
        self._replica = replica
        self._peer = peer
        self._log = None if cursor is None else cursor.log
        self._after = 0 if cursor is None else cursor.after
        self._have = list(dict.fromkeys([*replica.heads()[:HEADS_MAX], *replica.locator()]))[:HAVE_MAX]
        self._page: Page | None = None
        self._pages = 0
        self._clean = True

    def request(self) -> Pull | None:
        """The next question; None when the pull has ended."""
        if self._page is not None and not self._page.more:
            return None
        if self._pages >= PULL_PAGES_MAX:
            return None
        replica = self._replica
        return Pull(replica.namespace.name, replica.rules, replica.digest(), self._log, self._after, self._have)

    def on_page(self, page: Page) -> None:
        """Take in the answer, before its operations are ingested.

        Raises:
            RemoteError: it promises more without getting further.
        """
        if page.log != self._log:
            self._log, self._after = page.log, 0
        if page.after < self._after or (page.more and page.after == self._after):
            raise RemoteError(self._peer, "a page that leads nowhere")
        self._page, self._after = page, page.after
        self._pages += 1

    def on_ingested(self, result: Ingested) -> None:
        """Note what became of the page's operations."""
        self._clean = self._clean and not result.waiting

    def finish(self) -> tuple[Cursor | None, RemoteError | None]:
        """Where the next pull may go on, and the server's fault if it kept operations back."""
        if self._page is None or self._log is None or not self._clean:
            return None, None
        done = not self._page.more
        if done and not all(head in self._replica for head in self._page.heads):
            return None, RemoteError(self._peer, "named heads and kept back what leads to them", penalty=0.1)
        return Cursor(self._log, self._after), None

    @property
    def in_sync(self) -> bool:
        """Whether the server, when it last answered, held nothing that we lack now."""
        page = self._page
        return page is not None and not page.more and all(head in self._replica for head in page.heads)


class SyncServer:
    """The server's side.

    Args:
        replica: ours.
        log: 16 random bytes that name this run.
    """

    def __init__(self, replica: Replica, log: bytes) -> None:
        self._replica = replica
        self._log = log
        self._covers: OrderedDict[tuple[int, frozenset[bytes]], bytearray] = OrderedDict()

    def admit_rules(self, ask: Pull | Fetch | Push) -> None:
        """Raises: LocalError if the asker's rules for the namespace differ from ours."""
        if ask.rules != self._replica.rules:
            raise LocalError(f"namespace {ask.namespace!r} has other rules here")

    def on_pull(self, pull: Pull) -> Page:
        """Answer a pull."""
        replica = self._replica
        heads = replica.heads()[:HEADS_MAX]
        if pull.digest == replica.digest():
            return Page(self._log, replica.digest(), heads, [], len(replica), False)
        at = min(pull.after, len(replica)) if pull.log == self._log else 0
        covered, floor = self._covered(pull.have, at)
        ops: list[bytes] = []
        size = 0
        while at < len(replica) and len(ops) < PAGE_OPS_MAX:
            if at - floor >= len(covered) or not covered[at - floor]:
                raw = replica.raw(at)
                size += len(raw)
                if size > PAGE_BYTES_MAX:
                    break
                ops.append(raw)
            at += 1
        return Page(self._log, replica.digest(), heads, ops, at, at < len(replica))

    def on_fetch(self, fetch: Fetch) -> Batch:
        """Answer a fetch."""
        ops: list[bytes] = []
        size = 0
        for op_id in dict.fromkeys(fetch.ids):
            raw = self._replica.raw_of(op_id)
            if raw is not None and size + len(raw) <= PAGE_BYTES_MAX and len(ops) < PAGE_OPS_MAX:
                ops.append(raw)
                size += len(raw)
        return Batch(ops)

    def _covered(self, have: list[bytes], floor: int) -> tuple[bytearray, int]:
        """Marks of what `have` implies from `floor` on; kept, because the pages of one pull ask alike."""
        known = frozenset(op_id for op_id in have if op_id in self._replica)
        for kept_floor, kept in self._covers:
            if kept == known and kept_floor <= floor:
                self._covers.move_to_end((kept_floor, kept))
                return self._covers[kept_floor, kept], kept_floor
        marks = self._replica.covered(known, floor=floor)
        self._covers[floor, known] = marks
        if len(self._covers) > _COVERS_KEPT:
            self._covers.popitem(last=False)
        return marks, floor
