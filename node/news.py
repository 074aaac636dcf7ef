"""What this node gossips about, and what it makes of what others say: heads, proofs, shared state, ads.

Gossip only says that there is something new; the thing itself comes by the exchange between two peers that brings it
without gossip too, only later: a chain by `ledger.sync`, operations by `crdt.sync`. Proofs are small enough to travel
themselves. What is said about peers that this node has nothing to do with is passed on, once checked, and not kept.

| topic | message | accepted if |
|---|---|---|
| heads | the signed header of the author's last ledger entry | its own, signed, not below one that was told before |
| proofs | a fork proof, or two key records of one peer | it convicts somebody not yet convicted in this way |
| shared | number and id of the author's last operation in a namespace | the namespace is known, the number rises |

Two headers of one height are a fork proof at once, whoever holds them: it is told to everybody.
Format: docs/spec/gossip.md, "Topics".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from random import Random
from typing import Annotated, TypeVar

import trio
from msgspec import Meta

from crdt.op import Name, OpId
from crdt.service import Replicas
from ledger import fork
from ledger.entry import InvalidEntry
from ledger.fork import ForkProof, SignedHeader, prove_headers, signed_header
from ledger.service import Ledger
from node.gossip.params import DATA_BYTES_MAX, TopicParams
from node.gossip.router import Arrived, Verdict
from node.gossip.service import Gossip
from node.keys import Keyring
from node.tasks import start_if_open
from wire import codec
from wire.codec import Wire
from wire.envelope import verify
from wire.errors import Malformed, StorageError
from wire.peer import PeerId
from wire.two_keys import TwoKeys
from wire.two_keys import check as check_two_keys

HEADS = "/quorate/heads/1"
PROOFS = "/quorate/proofs/1"
SHARED = "/quorate/shared/1"

TELL_S = 1.0
"""Seconds between two looks at what is new here."""

SPREAD_S = 1.0
"""Up to so many seconds pass before something that was told of is fetched: not everybody asks at once."""

REMEMBERED_MAX = 4096
FETCHES_MAX = 8
PARAMS = {
    HEADS: TopicParams(rate=0.5, burst=5.0),
    PROOFS: TopicParams(rate=0.2, burst=5.0),
    SHARED: TopicParams(rate=2.0, burst=10.0),
}


class Proof(Wire, frozen=True):
    """Of one kind: exactly one of the fields is set."""

    fork: ForkProof | None
    keys: TwoKeys | None

    def check(self) -> tuple[str, PeerId]:
        """What it shows, and of whom.

        Raises:
            Malformed: it proves nothing.
        """
        try:
            if self.fork is not None and self.keys is None:
                return "fork", fork.check(self.fork)
        except InvalidEntry as exc:
            raise Malformed(str(exc)) from exc
        if self.keys is not None and self.fork is None:
            return "keys", check_two_keys(self.keys)
        raise Malformed("a proof of one thing")


class SharedTip(Wire, frozen=True):
    """The author's last operation in a namespace of the shared state."""

    namespace: Name
    number: Annotated[int, Meta(ge=1, le=2**53)]
    op: OpId


V = TypeVar("V")


class Newest(OrderedDict[Hashable, V]):
    """At most `REMEMBERED_MAX` values; the one set longest ago goes first."""

    def __setitem__(self, key: Hashable, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > REMEMBERED_MAX:
            self.popitem(last=False)


@dataclass(frozen=True)
class Sources:
    """What the news are about."""

    me: PeerId
    ledger: Ledger
    replicas: Replicas
    keyring: Keyring
    known: Callable[[PeerId], bool]  # whether we have to do with a peer
    pull: Callable[[PeerId, PeerId], Awaitable[None]]  # fetches a chain: from whom, whose


class News:
    """The topics of one node; `run` tells, and fetches what it was told of."""

    def __init__(self, gossip: Gossip, sources: Sources, rng: Random, nursery: trio.Nursery) -> None:
        self._gossip = gossip
        self._of = sources
        self._rng = rng
        self._nursery = nursery
        self._heads: Newest[SignedHeader] = Newest()
        self._tips: Newest[int] = Newest()
        self._relayed: Newest[None] = Newest()
        self._told: set[tuple[str, PeerId]] = set()
        self._own_head = -1
        self._own_tips: dict[str, int] = {}
        self._fetching = 0

    def subscribe(self) -> None:
        """Take part in all topics; what is known at this time is not news."""
        self._told = {(kind, peer) for kind, peer, _ in self._convictions()}
        self._own_head = self._of.ledger.head()
        self._own_tips = {name: self._of.replicas.tip(name, self._of.me)[0] for name in self._of.replicas.namespaces}
        for topic, judge in ((HEADS, self.on_head), (PROOFS, self.on_proof), (SHARED, self.on_tip)):
            self._gossip.subscribe(topic, judge, PARAMS[topic])

    # ---- heads of chains

    async def on_head(self, arrived: Arrived) -> Verdict:
        """The author's chain has grown, or so it says."""
        told = codec.decode(SignedHeader, arrived.data, bytes_max=DATA_BYTES_MAX)
        header = told.header
        if header.author != arrived.author or not verify(header.author, header.id, told.signature):
            raise Malformed("a head that is not its author's own")
        last = self._heads.get(arrived.author)
        if await self._conflicts(told, last):
            return "ignore"  # the proof goes instead
        if last is not None and header.height <= last.header.height:
            return "ignore"
        self._heads[arrived.author] = told
        if self._of.ledger.head(arrived.author) <= header.height and self._of.known(arrived.author):
            self._soon(self._fetch_chain, arrived)
        return "accept"

    async def _conflicts(self, told: SignedHeader, last: SignedHeader | None) -> bool:
        """Whether a header contradicts one that we have; then everybody hears of it."""
        others = [] if last is None else [last]
        if self._of.ledger.head(told.header.author) > told.header.height:
            kept = await self._of.ledger.entries(told.header.author, told.header.height, 1)
            others += [signed_header(entry) for entry in kept]
        proofs = [proof for other in others if (proof := prove_headers(told, other)) is not None]
        if not proofs:
            return False
        if self._of.known(told.header.author):
            await self._of.ledger.learn_fork(proofs[0])
        self._tell("fork", told.header.author, Proof(proofs[0], None))
        return True

    async def _fetch_chain(self, arrived: Arrived) -> None:
        for peer in dict.fromkeys([arrived.via, arrived.author]):
            head = self._heads.get(arrived.author)
            if head is not None and self._of.ledger.head(arrived.author) <= head.header.height:
                await self._of.pull(peer, arrived.author)

    # ---- proofs

    async def on_proof(self, arrived: Arrived) -> Verdict:
        """Somebody broke a rule that anyone can see broken."""
        proof = codec.decode(Proof, arrived.data, bytes_max=DATA_BYTES_MAX)
        kind, peer = proof.check()
        if (kind, peer) in self._relayed:
            return "ignore"
        self._relayed[kind, peer] = None
        self._told.add((kind, peer))
        if self._of.known(peer):
            await self._keep(proof)
        return "accept"

    async def _keep(self, proof: Proof) -> None:
        if proof.fork is not None:
            await self._of.ledger.learn_fork(proof.fork)
        elif proof.keys is not None:
            self._of.keyring.learn_proof(proof.keys)

    def _convictions(self) -> list[tuple[str, PeerId, TwoKeys | None]]:
        two_faced = self._of.keyring.two_faced()
        return [("fork", peer, None) for peer in sorted(self._of.ledger.forkers())] + [
            ("keys", peer, two_faced[peer]) for peer in sorted(two_faced)
        ]

    def _tell(self, kind: str, peer: PeerId, proof: Proof) -> None:
        if (kind, peer) in self._relayed:
            return
        self._told.add((kind, peer))
        self._relayed[kind, peer] = None
        self._publish(PROOFS, proof)

    # ---- shared state

    async def on_tip(self, arrived: Arrived) -> Verdict:
        """The author has changed something."""
        tip = codec.decode(SharedTip, arrived.data, bytes_max=DATA_BYTES_MAX)
        if tip.namespace not in self._of.replicas.namespaces:
            return "ignore"
        key = arrived.author, tip.namespace
        if tip.number <= self._tips.get(key, 0):
            return "ignore"
        self._tips[key] = tip.number
        if not self._of.replicas.holds(tip.namespace, tip.op):
            self._soon(self._fetch_shared, arrived, tip)
        return "accept"

    async def _fetch_shared(self, arrived: Arrived, tip: SharedTip) -> None:
        await self._of.replicas.fetch(tip.namespace, tip.op, list(dict.fromkeys([arrived.via, arrived.author])))

    # ---- telling and fetching

    def _soon(self, fetch: Callable[..., Awaitable[None]], *args: object) -> None:
        if self._fetching < FETCHES_MAX:  # what is left out comes with the usual rounds
            self._fetching += start_if_open(self._nursery, self._fetch, fetch, args)

    async def _fetch(self, fetch: Callable[..., Awaitable[None]], args: tuple[object, ...]) -> None:
        try:
            await trio.sleep(self._rng.uniform(0.0, SPREAD_S))
            await fetch(*args)
        finally:
            self._fetching -= 1

    async def run(self) -> None:
        """Tell what is new here, for ever."""
        while True:
            await trio.sleep(TELL_S)
            try:
                await self._tell_head()
                await self._tell_proofs()
                self._tell_tips()
            except StorageError:
                continue  # the ledger reports its disk; news can wait

    async def _tell_head(self) -> None:
        height = self._of.ledger.head()
        if height == self._own_head:
            return
        self._own_head = height
        for entry in await self._of.ledger.entries(self._of.me, height - 1, 1):
            self._publish(HEADS, signed_header(entry))

    async def _tell_proofs(self) -> None:
        for kind, peer, keys in self._convictions():
            if (kind, peer) in self._told:
                continue
            self._told.add((kind, peer))
            if keys is not None:
                self._tell(kind, peer, Proof(None, keys))
            for proof in (await self._of.ledger.forks(peer))[:1] if keys is None else []:
                self._tell(kind, peer, Proof(proof, None))

    def _tell_tips(self) -> None:
        for name in self._of.replicas.namespaces:
            number, op = self._of.replicas.tip(name, self._of.me)
            if op is not None and number != self._own_tips.get(name):
                self._own_tips[name] = number
                self._publish(SHARED, SharedTip(name, number, op))

    def _publish(self, topic: str, message: Wire) -> None:
        self._gossip.publish(topic, codec.encode(message))
