"""What the namespaces of a node hold: the reading half of its replicas."""

from __future__ import annotations

from collections.abc import Iterable

from crdt.dag import Fork
from crdt.lww_map import Entry
from crdt.namespace import Kind, Namespace
from crdt.replica import Replica
from wire.errors import LocalError
from wire.hashing import digest
from wire.peer import PeerId


class Values:
    """Replicas by name of their namespace."""

    def __init__(self, namespaces: Iterable[Namespace]) -> None:
        self._replicas = {namespace.name: Replica(namespace) for namespace in namespaces}

    @property
    def namespaces(self) -> list[str]:
        """The names of the namespaces kept here, ascending."""
        return sorted(self._replicas)

    def map_get(self, ns: str, key: str) -> bytes | None:
        """The value at `key` of a map, or None."""
        return self._replica(ns, "map").map.get(key)

    def map_entry(self, ns: str, key: str) -> Entry | None:
        """What stands at `key`, with author, stamp and operation id; a deletion has the value None."""
        return self._replica(ns, "map").map.entry(key)

    def map_items(self, ns: str) -> dict[str, bytes]:
        """All keys and values of a map, keys ascending."""
        return dict(self._replica(ns, "map").map.items())

    def set_members(self, ns: str) -> list[bytes]:
        """The elements of a set, ascending."""
        return self._replica(ns, "set").set.members()

    def tip(self, ns: str, author: PeerId) -> tuple[int, bytes | None]:
        """Number and id of the author's last operation kept of a namespace; (0, None) before the first."""
        return self._replica(ns).tip(author)

    def holds(self, ns: str, op_id: bytes) -> bool:
        """Whether an operation is kept."""
        return op_id in self._replica(ns)

    def forks(self, ns: str) -> list[Fork]:
        """One proof per author that wrote two histories; information, not an accusation."""
        return self._replica(ns).forks()

    def digest(self, ns: str | None = None) -> bytes:
        """32 bytes that are equal on two nodes exactly if they hold the same operations (of one namespace, or all)."""
        if ns is not None:
            return self._replica(ns).digest()
        parts = (part for name in self.namespaces for part in (name.encode(), self._replicas[name].digest()))
        return digest("crdt.replicas", *parts)

    def operations(self, ns: str) -> int:
        """How many operations are kept of a namespace."""
        return len(self._replica(ns))

    def _replica(self, ns: str, kind: Kind | None = None) -> Replica:
        replica = self._replicas.get(ns)
        if replica is None:
            raise LocalError(f"unknown namespace {ns[:40]!r}; known: {', '.join(self.namespaces)}")
        if kind is not None and replica.namespace.kind != kind:
            raise LocalError(f"namespace {ns!r} is a {replica.namespace.kind}, not a {kind}")
        return replica
