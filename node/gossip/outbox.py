"""What waits to be sent to one peer, merged and bounded. Sans-IO.

Messages wait once each and at most `outbox_bytes_max` of them; the oldest is dropped for a newer one, since gossip
tells the peer of it all the same. Control is kept as a state (the last word on a topic counts), so it cannot grow.
"""

from __future__ import annotations

from typing import TypeVar

from node.gossip.params import CONTROLS_MAX, PUBLISH_MAX, SUBSCRIPTIONS_MAX, Params
from node.gossip.rpc import Ihave, Prune, Rpc, Subscription


class Outbox:
    """To one peer."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._subscriptions: dict[str, bool] = {}
        self._messages: dict[bytes, bytes] = {}
        self._mesh: dict[str, Prune | None] = {}
        self._ihave: dict[str, tuple[bytes, ...]] = {}
        self._iwant: dict[bytes, None] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._subscriptions or self._messages or self._mesh or self._ihave or self._iwant)

    def subscribe(self, topic: str, joined: bool) -> None:
        """Say that we joined or left a topic."""
        self._subscriptions[topic] = joined

    def graft(self, topic: str) -> None:
        """Ask for a mesh link."""
        self._mesh[topic] = None

    def prune(self, topic: str, backoff_s: float) -> None:
        """Refuse or end one."""
        self._mesh[topic] = Prune(topic, max(1, int(backoff_s)))

    def ihave(self, topic: str, ids: list[bytes]) -> None:
        """Say what we hold; an older list that still waits is replaced."""
        self._ihave[topic] = tuple(ids)

    def iwant(self, ids: list[bytes]) -> None:
        """Ask for messages."""
        self._iwant.update(dict.fromkeys(ids))
        while len(self._iwant) > self._params.ihave_ids_max:
            del self._iwant[next(iter(self._iwant))]

    def message(self, identity: bytes, raw: bytes) -> int:
        """Send a message; how many others were dropped for it."""
        if identity in self._messages:
            return 0
        self._messages[identity] = raw
        self.bytes += len(raw)
        dropped = 0
        while self.bytes > self._params.outbox_bytes_max:
            self.discard(next(iter(self._messages)))
            dropped += 1
        return dropped

    def discard(self, identity: bytes) -> None:
        """Do not send a message, if it still waits: the peer has it."""
        raw = self._messages.pop(identity, None)
        if raw is not None:
            self.bytes -= len(raw)

    def take(self, bytes_max: int) -> Rpc:
        """The next RPC: all control that waits, and messages up to about `bytes_max` (at least one)."""
        subscriptions = _first(self._subscriptions, SUBSCRIPTIONS_MAX)
        mesh = _first(self._mesh, CONTROLS_MAX)
        ihave, size = self._take_ihave(bytes_max)
        publish: list[bytes] = []
        while self._messages and len(publish) < PUBLISH_MAX:
            identity, raw = next(iter(self._messages.items()))
            if publish and size + len(raw) > bytes_max:
                break
            publish.append(raw)
            size += len(raw)
            self.discard(identity)
        iwant, self._iwant = tuple(self._iwant), {}
        return Rpc(
            tuple(Subscription(joined, topic) for topic, joined in subscriptions.items()),
            tuple(publish),
            tuple(Ihave(topic, ids) for topic, ids in ihave.items()),
            iwant,
            tuple(topic for topic, prune in mesh.items() if prune is None),
            tuple(prune for prune in mesh.values() if prune is not None),
        )

    def _take_ihave(self, bytes_max: int) -> tuple[dict[str, tuple[bytes, ...]], int]:
        taken: dict[str, tuple[bytes, ...]] = {}
        size = 0
        while self._ihave and len(taken) < CONTROLS_MAX:
            topic, ids = next(iter(self._ihave.items()))
            length = sum(map(len, ids))
            if taken and size + length > bytes_max:
                break
            taken[topic] = self._ihave.pop(topic)
            size += length
        return taken, size


V = TypeVar("V")


def _first(waiting: dict[str, V], most: int) -> dict[str, V]:
    taken = dict(list(waiting.items())[:most])
    for key in taken:
        del waiting[key]
    return taken
