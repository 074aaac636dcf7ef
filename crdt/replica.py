"""One replica of one namespace: admits operations, keeps the values they make, and writes new ones.

Invariant: values, heads and digest are functions of the set of admitted operations, whatever the order of their
arrival. What the local clock or the local disk decides (a stamp too far ahead, a full log) only delays an
operation; what the rules decide refuses it, and refuses it on every replica alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from crdt.dag import Dag, Fork
from crdt.hlc import Clock
from crdt.limits import AHEAD_MAX_MS, DOTS_MAX, LOG_BYTES_MAX, PARENTS_MAX
from crdt.lww_map import Entry, LwwMap
from crdt.namespace import Namespace
from crdt.op import Change, MapDelete, MapSet, Op, SetAdd, SetRemove, SignedOp, parse, sign
from crdt.or_set import OrSet
from crdt.orphans import Orphans
from wire import codec
from wire.envelope import Signer
from wire.errors import LocalError, Malformed, RemoteError
from wire.hashing import digest
from wire.peer import PeerId

REFUSED_PENALTY = 0.5


@dataclass(slots=True)
class Ingested:
    """What became of some operations.

    Attributes:
        added: newly admitted, in the order of the log.
        faults: senders of operations that no honest replica would have passed on.
        waiting: ids that were not admitted but may be later: dependencies unknown, stamp too far ahead, log full.
        full: how many of those wait because the log is full.
    """

    added: list[SignedOp] = field(default_factory=list)
    faults: list[RemoteError] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    full: int = 0


class Replica:
    """A replica.

    Args:
        namespace: the shared rules.
        ahead_max_ms: how far in the future a stamp may lie before its operation has to wait.
        log_bytes_max: operations past this many bytes have to wait; a local backstop.
    """

    def __init__(
        self, namespace: Namespace, *, ahead_max_ms: int = AHEAD_MAX_MS, log_bytes_max: int = LOG_BYTES_MAX
    ) -> None:
        self.namespace = namespace
        self.rules = namespace.rules
        self._ahead_max_ms = ahead_max_ms
        self._log_bytes_max = log_bytes_max
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.map = LwwMap()
        self.set = OrSet(own_only=self.namespace.policy == "author-keyed")
        self._dag = Dag(self.namespace)
        self._clock = Clock(ahead_max_ms=self._ahead_max_ms)
        self._orphans = Orphans()
        self._log: list[bytes] = []
        self._ids: list[bytes] = []
        self._log_bytes = 0

    def restore(self, raws: Iterable[bytes]) -> None:
        """Read back operations that this replica once admitted, in the order of its log; signatures are trusted.

        Raises:
            Malformed: they are not what a replica under these rules writes.
        """
        for raw in raws:
            signed = parse(raw).trust()
            if self._dag.missing(signed) or signed.id in self._dag or self._fault(signed) is not None:
                raise Malformed(f"operation {signed.id.hex()} does not belong where it stands")
            self._admit(signed)

    def __len__(self) -> int:
        return len(self._log)

    def __contains__(self, op_id: bytes) -> bool:
        return op_id in self._dag

    def raw(self, position: int) -> bytes:
        """The operation at a position of the log, as it travels."""
        return self._log[position]

    def raw_of(self, op_id: bytes) -> bytes | None:
        """A known operation, as it travels."""
        position = self._dag.position(op_id)
        return None if position is None else self._log[position]

    def heads(self) -> list[bytes]:
        """Ids that nothing known depends on, ascending."""
        return self._dag.heads()

    def digest(self) -> bytes:
        """32 bytes, equal on two replicas exactly if they hold the same operations under the same rules."""
        return self._dag.digest()

    def tip(self, author: PeerId) -> tuple[int, bytes | None]:
        """Number and id of the author's last operation; (0, None) before the first."""
        return self._dag.tip(author)

    def forks(self) -> list[Fork]:
        """One proof per author that forked its chain."""
        return self._dag.forks()

    def missing(self) -> list[bytes]:
        """Ids of operations that others depend on and that are unknown; a bounded number, ascending."""
        return self._orphans.missing()

    def covered(self, ids: Iterable[bytes], *, floor: int) -> bytearray:
        """As `Dag.covered`."""
        return self._dag.covered(ids, floor=floor)

    def locator(self) -> list[bytes]:
        """Some known ids: one at each distance 1, 2, 4, 8... from the end of the log."""
        distances = (1 << power for power in range(len(self._log).bit_length()))
        return [self._ids[-distance] for distance in distances if distance <= len(self._ids)]

    def state_digest(self) -> bytes:
        """32-byte hash of the values and what decides them: equal wherever the operations are."""
        rows: list[object] = (
            [(key, entry.stamp, entry.op, entry.value) for key, entry in self.map.entries()]
            if self.namespace.kind == "map"
            else list(self.set.entries())
        )
        return digest("crdt.state", self.rules, codec.encode(rows))

    def ingest(self, ops: Iterable[SignedOp], *, sender: PeerId, now_ms: int) -> Ingested:
        """Admit what can be admitted, and everything that waited for it.

        Args:
            ops: operations whose signatures hold.
            sender: whose fault a refused operation is.
            now_ms: Unix time.
        """
        result = Ingested()
        for signed in ops:
            work = [(signed, sender)]
            while work:
                one, source = work.pop()
                if self._take(one, source, now_ms, result):
                    work.extend(self._orphans.release(one.id))
        return result

    def write(self, change: Change, signer: Signer, now_ms: int) -> SignedOp:
        """Sign and admit a change of our own.

        Raises:
            LocalError: the change breaks the rules or a limit, or the quota or the log is full.
        """
        seq, previous = self._dag.tip(signer.peer)
        parents = [head for head in self.heads() if head != previous][:PARENTS_MAX]
        op = Op(1, self.namespace.name, seq + 1, previous, parents, self._clock.tick(now_ms), change)
        try:
            signed = sign(signer, op)
        except Malformed as exc:
            raise LocalError(str(exc)) from exc
        fault = self._fault(signed)
        if fault is None and not self._has_room(signed):
            fault = f"namespace {self.namespace.name!r} is full"
        if fault is not None:
            raise LocalError(fault)
        self._admit(signed)
        return signed

    def removals(self, element: bytes, remover: PeerId) -> list[Change]:
        """The changes by which `remover` takes `element` out, as far as the policy lets it; may be empty."""
        own_only = self.namespace.policy == "author-keyed"
        dots = self.set.dots(element, author=remover if own_only else None)
        return [SetRemove(element, dots[at : at + DOTS_MAX]) for at in range(0, len(dots), DOTS_MAX)]

    def _take(self, signed: SignedOp, sender: PeerId, now_ms: int, result: Ingested) -> bool:
        """Admit, refuse or keep one operation; whether it was admitted."""
        if signed.id in self._dag:
            return False
        fault = self.namespace.fault(signed.author, signed.op)
        if fault is None and not self._clock.allows(signed.op.stamp, now_ms):
            result.waiting.append(signed.id)
            return False
        missing = self._dag.missing(signed) if fault is None else []
        if missing:
            self._orphans.add(signed, sender, missing)
            result.waiting.append(signed.id)
            return False
        fault = fault or self._dag.fault(signed)
        if fault is not None:
            result.faults.append(RemoteError(sender, f"operation refused: {fault}", penalty=REFUSED_PENALTY))
            return False
        if not self._has_room(signed):
            result.waiting.append(signed.id)
            result.full += 1
            return False
        self._admit(signed)
        result.added.append(signed)
        return True

    def _fault(self, signed: SignedOp) -> str | None:
        return self.namespace.fault(signed.author, signed.op) or self._dag.fault(signed)

    def _has_room(self, signed: SignedOp) -> bool:
        return self._log_bytes + len(signed.raw) <= self._log_bytes_max

    def _admit(self, signed: SignedOp) -> None:
        self._dag.admit(signed)
        self._clock.observe(signed.op.stamp)
        self._log.append(signed.raw)
        self._ids.append(signed.id)
        self._log_bytes += len(signed.raw)
        self._apply(signed)

    def _apply(self, signed: SignedOp) -> None:
        change, stamp = signed.op.change, signed.op.stamp
        if isinstance(change, MapSet):
            self.map.apply(change.key, Entry(stamp, signed.id, change.value, signed.author))
        elif isinstance(change, MapDelete):
            self.map.apply(change.key, Entry(stamp, signed.id, None, signed.author))
        elif isinstance(change, SetAdd):
            self.set.add(change.element, signed.id, signed.author)
        else:
            self.set.remove(change.element, change.dots, signed.author)
