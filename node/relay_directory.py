"""Relays in the DHT: the filling of `node.reach.ports.Directory`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from dht import relay
from dht.limits import ADDRESSES_MAX, PROVIDER_LIFE_MS
from dht.service import Dht
from node.reach.ports import Offer
from recommend.rank import Ranked
from wire import codec
from wire.peer import PeerId

TRUSTED = 9.0
"""Added to the weight of a stranger (1.0) for the relay that we trust most; less for others, in proportion."""


class Ranking(Protocol):
    """Our view of whom to trust."""

    def rank(self, peers: Collection[PeerId]) -> list[Ranked]:
        """Everyone reached by our walks, with `peers` added."""
        ...


class RelayDirectory:
    """Publishes and looks up relay ads.

    Args:
        trust: None where there is no such view.
    """

    def __init__(self, dht: Dht, trust: Ranking | None) -> None:
        self._dht = dht
        self._trust = trust

    async def look_up(self) -> Sequence[Offer]:
        """Every ad that the nodes responsible for it keep, at most one for each relay."""
        records = await self._dht.get(relay.NAMESPACE, relay.KEY)
        weights = self._weights([record.author for record in records])
        ads = [(record.author, relay.parse(record.record, record.author)) for record in records]
        return [Offer(peer, ad.addresses, weights.get(peer, 1.0), ad.load) for peer, ad in ads]

    def _weights(self, peers: Collection[PeerId]) -> Mapping[PeerId, float]:
        scores = {each.peer: each.score for each in self._trust.rank(peers)} if self._trust is not None else {}
        best = max((scores.get(peer, 0.0) for peer in peers), default=0.0)
        return {peer: 1 + TRUSTED * max(scores.get(peer, 0.0), 0.0) / best for peer in peers} if best > 0 else {}

    async def publish(self, addresses: Sequence[str], load: float) -> int:
        """See the port."""
        ad = relay.RelayAd(list(addresses)[:ADDRESSES_MAX], load)
        life_s = PROVIDER_LIFE_MS / 1000
        return (await self._dht.publish(relay.NAMESPACE, relay.KEY, codec.encode(ad), life_s=life_s)).stored

    def withdraw(self) -> None:
        """See the port."""
        self._dht.unpublish(relay.NAMESPACE, relay.KEY)
