"""Replicas at work: local changes made durable, new operations pushed, the rest pulled from one peer at a time.

Every step that changes a replica and the file behind it runs under one lock, and so do the answers to peers: what
has left this node is on its disk. Concurrent local changes share a transaction: whoever gets the lock first
commits for all that wait. If the disk refuses, the replicas are read back from the file and the callers are told.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from crdt.limits import PAGE_BYTES_MAX, PAGE_OPS_MAX
from crdt.namespace import Namespace
from crdt.op import Change, MapDelete, MapSet, SetAdd, SignedOp
from crdt.replica import Ingested, Replica
from crdt.store import OpStore
from crdt.sync import (
    FETCH,
    PULL,
    PUSH,
    Batch,
    Cursor,
    Fetch,
    Page,
    Pull,
    PullSession,
    Push,
    Pushed,
    SyncServer,
    check,
    sift,
)
from crdt.values import Values
from wire.envelope import Signer
from wire.errors import Busy, LocalError, Malformed, Refused, RemoteError, StorageError, TransportError
from wire.peer import PeerId, short
from wire.rpc.seam import Rpc

_log = structlog.get_logger("crdt")

WRITES_WAITING_MAX = 4096
WRITES_PER_COMMIT = 256
PUSH_FANOUT = 8
RELAY_FANOUT = 2
OUTBOX_OPS_MAX = 1024
CURSORS_MAX = 4096
SYNCS_MAX = 8
FETCH_ROUNDS_MAX = 8
SERVED_PER_PEER_MAX = 4
CALL_TIMEOUT_S = 10.0
SYNC_TIMEOUT_S = 60.0


Offload = Callable[..., Awaitable[Any]]
"""Runs a function that blocks: `trio.to_thread.run_sync`, or `run_inline` under a virtual clock."""


async def run_inline(function: Callable[..., Any], *args: Any) -> Any:
    """Run in this task; under a virtual clock a thread would seem to take for ever."""
    await trio.lowlevel.checkpoint()
    return function(*args)


class Watch:
    """Names of namespaces that have changed since they were last taken; repeated changes count once."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._some = trio.Event()

    def note(self, name: str) -> None:
        """Remember that `name` has changed."""
        self._names[name] = None
        self._some.set()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> str:
        """The next name; waits for one. Read the namespace after, not before, taking its name."""
        await self._some.wait()
        name = next(iter(self._names))
        del self._names[name]
        if not self._names:
            self._some = trio.Event()
        return name


@dataclass(slots=True)
class _Write:
    replica: Replica
    plan: Callable[[Replica], Sequence[Change]]
    done: bool = False
    error: LocalError | None = None


class Replicas(Values):
    """The shared state of one node; `open_replicas` makes it."""

    def __init__(
        self,
        store: OpStore,
        signer: Signer,
        rpc: Rpc,
        now_ms: Callable[[], int],
        namespaces: Sequence[Namespace],
        peers: Callable[[], list[PeerId]],
        nursery: trio.Nursery,
        blame: Callable[[RemoteError], None],
        rng: random.Random,
        offload: Offload,
    ) -> None:
        super().__init__(namespaces)
        self._store = store
        self._signer = signer
        self._rpc = rpc
        self._now_ms = now_ms
        self._peers = peers
        self._nursery = nursery
        self._report = blame
        self._rng = rng
        self._offload = offload
        self._lock = trio.Lock()
        self._writes: list[_Write] = []
        self._watches: set[Watch] = set()
        self._servers: dict[str, SyncServer] = {}
        self._cursors: dict[tuple[PeerId, str], Cursor] = {}
        self._serving: Counter[PeerId] = Counter()
        self._syncing: set[PeerId] = set()
        self._outboxes: dict[PeerId, list[tuple[str, bytes]]] = {}
        self._broken: str | None = None
        self._load()

    # Local changes ----------------------------------------------------------------------------------

    async def map_set(self, ns: str, key: str, value: bytes) -> None:
        """Give `key` a value; durable when this returns.

        Raises:
            LocalError: unknown namespace, key of another author, over a limit or quota.
            StorageError: the disk refused; nothing was changed.
            Busy: too many changes are waiting.
        """
        await self._change(ns, "map", lambda _: [MapSet(key, value)])

    async def map_delete(self, ns: str, key: str) -> None:
        """Take `key` away; does nothing where there is no value. Raises as `map_set`."""
        await self._change(ns, "map", lambda at: [MapDelete(key)] if at.map.get(key) is not None else [])

    async def set_add(self, ns: str, element: bytes) -> None:
        """Add `element`; does nothing if an add of our own already counts. Raises as `map_set`."""
        me = self._signer.peer
        await self._change(ns, "set", lambda at: [] if at.set.dots(element, author=me) else [SetAdd(element)])

    async def set_remove(self, ns: str, element: bytes) -> None:
        """Undo the adds of `element` known here (in an author-keyed set: our own). Raises as `map_set`."""
        await self._change(ns, "set", lambda at: at.removals(element, self._signer.peer))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[Watch]:
        """Watch for changes, local and remote: `async for name in watch`."""
        watch = Watch()
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    async def _change(self, ns: str, kind: Any, plan: Callable[[Replica], Sequence[Change]]) -> None:
        write = _Write(self._replica(ns, kind), plan)
        if len(self._writes) >= WRITES_WAITING_MAX:
            raise Busy(0.1, "too many changes are waiting for the disk")
        self._writes.append(write)
        try:
            async with self._lock:
                if not write.done:
                    await self._commit_writes()
        finally:
            if not write.done:
                self._writes.remove(write)
        if write.error is not None:
            raise write.error

    async def _commit_writes(self) -> None:
        """Make and commit the changes that wait, oldest first; the lock is held."""
        writes, self._writes = self._writes[:WRITES_PER_COMMIT], self._writes[WRITES_PER_COMMIT:]
        added: list[tuple[Replica, list[SignedOp]]] = []
        now_ms = self._now_ms()
        for write in writes:
            write.done = True
            try:
                self._check_disk()
                for change in write.plan(write.replica):
                    added.append((write.replica, [write.replica.write(change, self._signer, now_ms)]))
            except LocalError as exc:
                write.error = exc
        try:
            await self._commit(added)
        except StorageError as exc:
            for write in writes:
                write.error = write.error or StorageError(str(exc))
            return
        for replica, ops in added:
            self._push(replica, ops, source=None)

    async def _commit(self, added: list[tuple[Replica, list[SignedOp]]]) -> None:
        """Write what the replicas have admitted, or make them forget it."""
        if not any(ops for _, ops in added):
            return
        grouped: dict[str, tuple[Replica, list[SignedOp]]] = {}
        for replica, ops in added:
            grouped.setdefault(replica.namespace.name, (replica, []))[1].extend(ops)
        try:
            with trio.CancelScope(shield=True):
                await self._offload(self._store.append, list(grouped.values()))
        except StorageError:
            self._load()
            raise
        for watch in self._watches:
            for name in grouped:
                watch.note(name)

    def _load(self) -> None:
        """Read everything back from the file; runs of the log that peers know of end here."""
        self._broken = "the file of operations could not be read"
        for name, replica in self._replicas.items():
            replica.reset()
            self._servers[name] = SyncServer(replica, os.urandom(16))
            try:
                replica.restore(self._store.load(name))
            except Malformed as exc:
                raise StorageError(f"operations of {name!r} on disk: {exc}") from exc
        self._broken = None

    def _check_disk(self) -> None:
        if self._broken is not None:
            raise StorageError(self._broken)

    # Peers ------------------------------------------------------------------------------------------

    async def sync_with(self, peer: PeerId) -> bool:
        """Pull what `peer` holds of every namespace; whether we then held all that it named.

        Raises:
            TransportError: the connection, or no answer in time.
            Busy: the peer has too much to do.
            RemoteError: the peer refused or broke the protocol. Bad operations are reported, not raised.
            StorageError: what was pulled could not be kept.
        """
        return all([await self._pull(peer, self._replicas[name]) for name in self.namespaces])

    async def fetch(self, ns: str, op_id: bytes, peers: Sequence[PeerId]) -> None:
        """Pull from one peer after the other, until the operation is kept; what fails is left to the usual rounds."""
        for peer in peers:
            if peer == self._signer.peer or self.holds(ns, op_id) or len(self._syncing) >= SYNCS_MAX:
                continue
            await self._sync_quietly(peer)

    async def _pull(self, peer: PeerId, replica: Replica) -> bool:
        key = (peer, replica.namespace.name)
        session = PullSession(replica, peer, self._cursors.get(key))
        while (ask := session.request()) is not None:
            page = await self._rpc.call(peer, PULL, ask, timeout_s=CALL_TIMEOUT_S)
            session.on_page(page)
            session.on_ingested(await self._take(replica, peer, page.ops))
        await self._fetch_missing(peer, replica)
        cursor, fault = session.finish()
        self._cursors.pop(key, None)
        if fault is not None:
            self._report(fault)
        if cursor is not None:
            self._cursors[key] = cursor
            if len(self._cursors) > CURSORS_MAX:
                del self._cursors[next(iter(self._cursors))]
        return session.in_sync

    async def _fetch_missing(self, peer: PeerId, replica: Replica) -> None:
        """Ask for what kept operations depend on, as long as that helps."""
        for _ in range(FETCH_ROUNDS_MAX):
            missing = replica.missing()
            if not missing:
                return
            fetch = Fetch(replica.namespace.name, replica.rules, missing)
            batch = await self._rpc.call(peer, FETCH, fetch, timeout_s=CALL_TIMEOUT_S)
            await self._take(replica, peer, batch.ops)
            if replica.missing() == missing:
                return

    async def _take(self, replica: Replica, sender: PeerId, raws: Sequence[bytes]) -> Ingested:
        """Check, admit and commit operations as they came; what is wrong with them is reported."""
        fresh, faults = sift(replica, sender, raws)
        signed, forged = await self._offload(check, sender, fresh) if fresh else ([], [])
        async with self._lock:
            self._check_disk()
            result = replica.ingest(signed, sender=sender, now_ms=self._now_ms())
            await self._commit([(replica, result.added)])
        for fault in (*faults, *forged, *result.faults):
            self._report(fault)
        if result.full:
            _log.warning("namespace_full", namespace=replica.namespace.name, waiting=result.full)
        return result

    @contextmanager
    def _admitted(self, peer: PeerId, ask: Pull | Fetch | Push) -> Iterator[None]:
        """A request is answered within, unless its peer has too many under way, or other rules."""
        if self._serving[peer] >= SERVED_PER_PEER_MAX:
            raise Busy(1.0, "too many requests at once")
        self._serving[peer] += 1
        try:
            self._check_disk()
            self._replica(ask.namespace)
            self._servers[ask.namespace].admit_rules(ask)
            yield
        except StorageError as exc:
            _log.error("crdt_not_stored", peer=short(peer), reason=str(exc))
            raise Busy(10.0, "cannot store") from exc
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]

    async def _on_pull(self, peer: PeerId, ask: Pull) -> Page:
        with self._admitted(peer, ask):
            async with self._lock:
                self._check_disk()
                return self._servers[ask.namespace].on_pull(ask)

    async def _on_fetch(self, peer: PeerId, ask: Fetch) -> Batch:
        with self._admitted(peer, ask):
            async with self._lock:
                self._check_disk()
                return self._servers[ask.namespace].on_fetch(ask)

    async def _on_push(self, peer: PeerId, ask: Push) -> Pushed:
        with self._admitted(peer, ask):
            replica = self._replica(ask.namespace)
            result = await self._take(replica, peer, ask.ops)
            self._push(replica, result.added, source=peer)
            if replica.missing() and len(self._syncing) < SYNCS_MAX:
                self._nursery.start_soon(self._sync_quietly, peer)
            return Pushed(len(result.added))

    def _push(self, replica: Replica, ops: Sequence[SignedOp], *, source: PeerId | None) -> None:
        """Hand new operations to some peers; those that another peer pushed here go to fewer."""
        if not ops:
            return
        others = [peer for peer in self._peers() if peer not in (self._signer.peer, source)]
        for peer in self._rng.sample(others, min(len(others), PUSH_FANOUT if source is None else RELAY_FANOUT)):
            if peer not in self._outboxes:
                self._outboxes[peer] = []
                self._nursery.start_soon(self._drain, peer)
            outbox = self._outboxes[peer]
            outbox.extend((replica.namespace.name, one.raw) for one in ops)
            del outbox[:-OUTBOX_OPS_MAX]

    async def _drain(self, peer: PeerId) -> None:
        """Push until the outbox is empty; what cannot be sent is left to anti-entropy."""
        outbox = self._outboxes[peer]
        try:
            while outbox:
                name = outbox[0][0]
                raws = _page(name, outbox)
                del outbox[: len(raws)]
                push = Push(name, self._replicas[name].rules, raws)
                await self._rpc.call(peer, PUSH, push, timeout_s=CALL_TIMEOUT_S)
        except (TransportError, Busy, RemoteError) as exc:
            _log.debug("push_failed", peer=short(peer), reason=str(exc))
        finally:
            del self._outboxes[peer]

    async def _sync_quietly(self, peer: PeerId) -> None:
        """One pull whose failure is nobody's business but the log's, and the peer's if it is at fault."""
        if peer in self._syncing:
            return
        self._syncing.add(peer)
        try:
            with trio.move_on_after(SYNC_TIMEOUT_S):
                await self.sync_with(peer)
        except (TransportError, Busy, Refused) as exc:
            _log.debug("sync_failed", peer=short(peer), reason=str(exc))
        except RemoteError as exc:
            self._cursors = {key: cursor for key, cursor in self._cursors.items() if key[0] != peer}
            self._report(exc)
        except StorageError as exc:
            _log.error("crdt_not_stored", peer=short(peer), reason=str(exc))
        finally:
            self._syncing.discard(peer)

    def serve(self) -> None:
        """Answer peers from now on."""
        self._rpc.serve(PULL, self._on_pull)
        self._rpc.serve(FETCH, self._on_fetch)
        self._rpc.serve(PUSH, self._on_push)

    def close(self) -> None:
        """Take and answer nothing more: the transport may outlive this service."""
        self._broken = "the shared state is closed"

    async def run(self, period_s: float) -> None:
        """Pull from a random known peer about every `period_s` seconds, for ever."""
        pause_s = period_s * 0.2 * self._rng.random()
        while True:
            await trio.sleep(pause_s)
            others = [peer for peer in self._peers() if peer != self._signer.peer]
            if others:
                await self._sync_quietly(self._rng.choice(others))
            pause_s = period_s * (0.5 + self._rng.random())


def _page(name: str, outbox: list[tuple[str, bytes]]) -> list[bytes]:
    """The longest beginning of an outbox that one push can carry."""
    raws: list[bytes] = []
    size = 0
    for at, raw in outbox[:PAGE_OPS_MAX]:
        size += len(raw)
        if at != name or size > PAGE_BYTES_MAX:
            break
        raws.append(raw)
    return raws


def _log_fault(fault: RemoteError) -> None:
    _log.info("peer_at_fault", peer=short(PeerId(fault.peer)), reason=fault.reason, penalty=fault.penalty)


@asynccontextmanager
async def open_replicas(
    path: Path,
    signer: Signer,
    rpc: Rpc,
    now_ms: Callable[[], int],
    *,
    namespaces: Sequence[Namespace],
    peers: Callable[[], list[PeerId]],
    period_s: float = 5.0,
    blame: Callable[[RemoteError], None] = _log_fault,
    rng: random.Random | None = None,
    offload: Offload = trio.to_thread.run_sync,
) -> AsyncIterator[Replicas]:
    """Open the shared state of this node and keep it in step with its peers until the scope ends.

    Args:
        path: the SQLite file; created where there is none.
        signer: this node's identity.
        rpc: where peers are called and answered.
        now_ms: Unix time.
        namespaces: what to keep; peers must have the same rules.
        peers: whom to push to and pull from, asked anew each time.
        period_s: mean time between pulls.
        blame: told of every fault of a peer.
        rng: chooses peers and jitter; seed it for a run that repeats.
        offload: where disk and signatures are waited for.

    Raises:
        StorageError: the file cannot be used.
    """
    store = OpStore(path)
    try:
        async with trio.open_nursery() as nursery:
            rng = rng or random.Random(os.urandom(16))
            replicas = Replicas(store, signer, rpc, now_ms, namespaces, peers, nursery, blame, rng, offload)
            replicas.serve()
            nursery.start_soon(replicas.run, period_s)
            try:
                yield replicas
            finally:
                replicas.close()
            nursery.cancel_scope.cancel()
    finally:
        store.close()
