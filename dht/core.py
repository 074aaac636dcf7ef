"""What one node does with each message: table, shelf and look-ups together, still without clock or socket.

The service and the tests' heap-driven world drive this same class. Penalties follow one rule: what a peer
signed or framed wrongly counts against it, what clocks and connections did wrong does not.
"""

from __future__ import annotations

from collections.abc import Iterable

from dht.keys import node_id, place_of
from dht.limits import CHECKED_MAX, EVIDENCE_MAX, PROBES_MAX, K
from dht.lookup import Lookup
from dht.messages import FindNode, FindValue, Node, Nodes, Ping, Pong, Reply, Request, Store, Stored, Told
from dht.record import Equivocation, Rules, SignedRecord, Untimely, check_time, validate
from dht.shelf import Shelf
from dht.table import Contact, RoutingTable
from wire.envelope import Envelope
from wire.errors import Malformed, RemoteError
from wire.peer import PeerId

FORGED_PENALTY = 0.6
"""For passing on a record that breaks a rule: whoever passes it on should have checked it."""

FRAMED_PENALTY = 0.25
"""For a message past its limits, or of another type than was asked for."""


class Core:
    """The state of one node.

    Args:
        me: our identity.
        shelf: where records are kept.
        rules: of the namespaces.
        k: bucket size and number of storers.
    """

    def __init__(self, me: PeerId, shelf: Shelf, rules: Rules, *, k: int = K) -> None:
        self.me = me
        self.k = k
        self.table = RoutingTable(me, k=k)
        self.shelf = shelf
        self.evidence: dict[PeerId, Equivocation] = {}
        self._rules = rules
        self._checked: dict[tuple[bytes, bytes], SignedRecord] = {}
        self._probes: dict[PeerId, None] = {}

    def handle(self, peer: PeerId, request: Request, now_ms: int) -> Told:
        """Answer a request.

        Raises:
            RemoteError: the peer is banned, or the request breaks a rule.
        """
        if self.table.banned(peer, now_ms):
            raise RemoteError(peer, "banned for what it did before", penalty=0.0)
        try:
            request.check()
        except Malformed as exc:
            raise RemoteError(peer, f"request: {exc}", penalty=FRAMED_PENALTY) from exc
        self._probe(self.table.heard(peer, request.addresses, now_ms))
        match request.ask:
            case Ping():
                return Pong()
            case FindNode(target):
                return Nodes(self._nodes(int.from_bytes(target, "big"), peer), [])
            case FindValue(namespace, key):
                held = self.shelf.get(namespace, key, now_ms)
                return Nodes(self._nodes(place_of(namespace, key), peer), [record.envelope for record in held])
            case Store(envelopes):
                return Stored([self._keep(peer, envelope, now_ms) for envelope in envelopes])

    def answered(self, peer: PeerId, request: Request, reply: Reply, now_ms: int) -> list[SignedRecord]:
        """Take a peer's reply to our request.

        Returns:
            The valid records in it.

        Raises:
            RemoteError: the reply breaks a rule.
        """
        try:
            reply.check()
            _check_fits(request, reply)
        except Malformed as exc:
            raise RemoteError(peer, f"reply: {exc}", penalty=FRAMED_PENALTY) from exc
        records: list[SignedRecord] = []
        if isinstance(reply.told, Nodes) and isinstance(request.ask, FindValue):
            wanted = (request.ask.namespace, request.ask.key)
            records = self._valid(peer, reply.told.records, wanted, now_ms)
        self._probe(self.table.answered(peer, reply.addresses, now_ms))
        return records

    def alive(self, peer: PeerId, now_ms: int) -> None:
        """Note that a peer answered, though only to refuse."""
        self._probe(self.table.answered(peer, (), now_ms))

    def failed(self, peer: PeerId, now_ms: int) -> None:
        """Note that a peer could not be reached, or not in time."""
        self._probe(self.table.failed(peer, now_ms))

    def blame(self, error: RemoteError, now_ms: int) -> None:
        """Note what a peer did wrong."""
        self._probe(self.table.blame(PeerId(error.peer), error.penalty, now_ms))

    def lookup(self, target: int, now_ms: int, *, seeds: Iterable[Node] = ()) -> Lookup:
        """A look-up from our own contacts and `seeds`."""
        self.table.looked(target, now_ms)
        return Lookup(target, self.me, [*self._nodes(target, None), *seeds], k=self.k)

    def keep(self, record: SignedRecord) -> bool:
        """Put a validated record on our own shelf; returns whether it is kept."""
        put = self.shelf.put(record)
        self.convict([put.evidence] if put.evidence else [])
        return put.kept

    def convict(self, evidence: Iterable[Equivocation]) -> None:
        """Remember one equivocation per author; the oldest are forgotten first."""
        for proof in evidence:
            author = proof.first.author
            if author not in self.evidence:
                if len(self.evidence) >= EVIDENCE_MAX:
                    del self.evidence[next(iter(self.evidence))]
                self.evidence[author] = proof

    def responsible(self, place: int, storers: list[Node]) -> bool:
        """Whether we are among the `k` closest to `place`, given the others."""
        return len(storers) < self.k or node_id(self.me) ^ place < node_id(storers[-1].peer) ^ place

    def take_probes(self) -> list[PeerId]:
        """Peers to ping, each once; the caller reports what they answer."""
        probes, self._probes = list(self._probes), {}
        return probes

    def check(self, envelope: Envelope, now_ms: int) -> SignedRecord:
        """`validate`, remembering what was checked before.

        Raises:
            Malformed: as `validate`.
        """
        name = (envelope.id, envelope.signature)
        known = self._checked.pop(name, None)
        if known is None:
            known = validate(envelope, self._rules, now_ms)
        self._checked[name] = known
        if len(self._checked) > CHECKED_MAX:
            del self._checked[next(iter(self._checked))]
        check_time(known.record, now_ms)
        return known

    def _keep(self, peer: PeerId, envelope: Envelope, now_ms: int) -> bool:
        record = self._or_blame(peer, envelope, now_ms)
        return record is not None and self.keep(record)

    def _or_blame(self, peer: PeerId, envelope: Envelope, now_ms: int) -> SignedRecord | None:
        try:
            return self.check(envelope, now_ms)
        except Untimely:
            return None
        except Malformed as exc:
            raise RemoteError(peer, f"record: {exc}", penalty=FORGED_PENALTY) from exc

    def _valid(
        self, peer: PeerId, envelopes: list[Envelope], wanted: tuple[str, bytes], now_ms: int
    ) -> list[SignedRecord]:
        records = [self._or_blame(peer, envelope, now_ms) for envelope in envelopes]
        found = [record for record in records if record is not None]
        if any((record.record.namespace, record.record.key) != wanted for record in found):
            raise RemoteError(peer, "records under another key", penalty=FRAMED_PENALTY)
        return found

    def _nodes(self, target: int, without: PeerId | None) -> list[Node]:
        return [as_node(contact) for contact in self.table.closest(target, self.k, without=without)]

    def _probe(self, peer: PeerId | None) -> None:
        if peer is not None and len(self._probes) < PROBES_MAX:
            self._probes[peer] = None


def as_node(contact: Contact) -> Node:
    """A contact as it is told to others."""
    return Node(contact.peer, list(contact.addresses))


def _check_fits(request: Request, reply: Reply) -> None:
    """Raises: Malformed if the reply is no answer to the request."""
    told = reply.told
    match request.ask:
        case Ping():
            fits = isinstance(told, Pong)
        case FindNode():
            fits = isinstance(told, Nodes) and not told.records
        case FindValue():
            fits = isinstance(told, Nodes)
        case Store(records):
            fits = isinstance(told, Stored) and len(told.kept) == len(records)
    if not fits:
        raise Malformed(f"{type(told).__name__} in answer to {type(request.ask).__name__}")
