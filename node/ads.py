"""Who serves which model now, at which price and load, as gossip tells it; the DHT knows the same, minutes later.

An ad on this topic is the provider record of the DHT (`dht.provider`), signed anew when the load has changed: it
names its author, its number rises, it ends by itself. It is kept within the quotas of a shelf of the DHT, so that
nobody wins by being first or by having many names. Whoever looks for workers reads the fresh ones here; the DHT stays
where everybody is found. Format: docs/spec/gossip.md, "Topics".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from dht.provider import NAMESPACE, RULES, ProviderAd, key_of, parse
from dht.record import SignedRecord, Untimely, validate
from dht.shelf import Quotas, Shelf, Weight
from node.gossip.params import DATA_BYTES_MAX, TopicParams
from node.gossip.router import Arrived, Verdict
from node.gossip.service import Gossip
from wire import codec
from wire.envelope import Envelope
from wire.errors import LocalError, Malformed
from wire.peer import PeerId

ADS = "/quorate/ads/1"
PARAMS = TopicParams(rate=1.0, burst=16.0)

QUOTAS = Quotas(per_key=128, per_author=32, total=4096, total_bytes=8 << 20)

FRESH_MS = 150_000
"""How long ago a fresh ad was signed, at most."""

TELL_S = 5.0
"""Seconds between two looks at whether our own ads have changed."""

TELLS_MAX = 4
"""Ads told at one time; the others follow."""

AGAIN_S = 60.0
"""Seconds after which an ad is told again although nothing has changed."""

LOAD_STEP = 0.25
"""Loads that differ by less are told as one."""

_log = structlog.get_logger("ads")


class Ads:
    """What this node has heard; sans-IO.

    Args:
        me: our own identity, whose ads are not kept.
        salt: 16 secret bytes, which decide who keeps a seat under a model with too many ads.
        weight: a peer's standing, where there are more ads than seats.
    """

    def __init__(self, me: PeerId, salt: bytes, weight: Weight) -> None:
        self._me = me
        self._shelf = Shelf(salt, quotas=QUOTAS, weight=weight)

    def __len__(self) -> int:
        return len(self._shelf)

    def hear(self, author: PeerId, data: bytes, now_ms: int) -> Verdict:
        """Judge a message of the topic, and keep what is new in it.

        Args:
            author: who published it. data: its body. now_ms: Unix time.

        Raises:
            Malformed: no honest peer relays it.
        """
        envelope = codec.decode(Envelope, data, bytes_max=DATA_BYTES_MAX)
        if envelope.author != author:
            raise Malformed("an ad in another's name")
        try:
            record = validate(envelope, RULES, now_ms)
        except Untimely:
            return "ignore"
        if record.record.namespace != NAMESPACE:
            raise Malformed("not an ad")
        self._shelf.sweep(now_ms)
        outcome = self._shelf.put(record).outcome
        self._shelf.drain()
        return "accept" if outcome == "stored" else "ignore"

    def fresh(self, model: str, now_ms: int) -> dict[PeerId, ProviderAd]:
        """The ads of others for a model that were signed lately."""
        held = self._shelf.get(NAMESPACE, key_of(model), now_ms)
        fresh = [each for each in held if each.author != self._me and now_ms - each.record.issued_ms <= FRESH_MS]
        return {each.author: parse(each.record) for each in sorted(fresh, key=lambda each: each.author)}


@dataclass
class _Told:
    """An ad as it was told last."""

    ad: ProviderAd
    at_s: float


class AdNews:
    """Tells others of our own ads, and hears theirs.

    Args:
        own: our ads as they are now, one for each model; none if we serve nobody.
        sign: makes the record of an ad.
    """

    def __init__(
        self,
        gossip: Gossip,
        ads: Ads,
        own: Callable[[], Sequence[ProviderAd]],
        sign: Callable[[ProviderAd], SignedRecord],
        now_ms: Callable[[], int],
    ) -> None:
        self._gossip = gossip
        self._ads = ads
        self._own = own
        self._sign = sign
        self._now_ms = now_ms
        self._told: dict[str, _Told] = {}

    def subscribe(self) -> None:
        """Take part."""
        self._gossip.subscribe(ADS, self.on_ad, PARAMS)

    async def on_ad(self, arrived: Arrived) -> Verdict:
        """A peer offers a model."""
        return self._ads.hear(arrived.author, arrived.data, self._now_ms())

    async def run(self) -> None:
        """Tell what is new of our own, for ever."""
        while True:
            await trio.sleep(TELL_S)
            self.tell(trio.current_time())

    def tell(self, now_s: float) -> None:
        """Tell those that have changed, or were not told for long; the ones that waited longest first."""
        due = [ad for ad in self._own() if self._due(ad, now_s)]
        due.sort(key=lambda ad: told.at_s if (told := self._told.get(ad.model)) is not None else float("-inf"))
        for ad in due[:TELLS_MAX]:
            self._told[ad.model] = _Told(ad, now_s)
            try:
                data = codec.encode(self._sign(ad).envelope)
            except LocalError as exc:
                _log.warning("ad_not_told", model=ad.model, reason=str(exc))
                continue
            if len(data) <= DATA_BYTES_MAX:
                self._gossip.publish(ADS, data)

    def _due(self, ad: ProviderAd, now_s: float) -> bool:
        told = self._told.get(ad.model)
        if told is None or now_s - told.at_s >= AGAIN_S:
            return True
        changed = (ad.price_micro, ad.lanes, ad.addresses) != (told.ad.price_micro, told.ad.lanes, told.ad.addresses)
        return changed or abs(ad.load - told.ad.load) >= LOAD_STEP
