"""Ads over gossip: what is kept, what is relayed, what nobody can do to others; over a simulated and a real network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from dht.provider import NAMESPACE, PROVIDER_LIFE_MS, RULES, ProviderAd, key_of
from dht.record import DOMAIN, Record, SignedRecord, sign
from node.ads import ADS, AGAIN_S, FRESH_MS, PARAMS, QUOTAS, TELL_S, AdNews, Ads
from node.gossip.service import open_gossip
from node.transport_libp2p import open_transport
from sim.world import SimNode, world
from tests.dht.coreworld import MODEL, START_MS, an_ad, identity, signed_ad
from wire import codec
from wire.envelope import Envelope, seal
from wire.errors import Malformed, RemoteError
from wire.identity import Identity
from wire.peer import PeerId

ME, ONE, OTHER = (identity(n, "ads") for n in range(3))


def heard() -> Ads:
    return Ads(ME.peer, bytes(16), lambda author: 1.0)


def data(record: SignedRecord) -> bytes:
    return codec.encode(record.envelope)


# ---- what is kept


def test_the_highest_number_of_an_author_counts_whatever_the_order() -> None:
    ads = heard()
    first, second = (data(signed_ad(ONE, seq=seq, load=float(seq))) for seq in (1, 2))
    assert ads.hear(ONE.peer, second, START_MS) == "accept"
    assert ads.hear(ONE.peer, first, START_MS) == "ignore", "a replay"
    assert ads.hear(ONE.peer, second, START_MS) == "ignore", "again"
    assert {peer: ad.load for peer, ad in ads.fresh(MODEL, START_MS).items()} == {ONE.peer: 2.0}


def test_an_ad_is_fresh_for_a_while_and_then_forgotten() -> None:
    ads = heard()
    ads.hear(ONE.peer, data(signed_ad(ONE)), START_MS)
    assert ads.fresh(MODEL, START_MS + FRESH_MS).keys() == {ONE.peer}
    assert ads.fresh(MODEL, START_MS + FRESH_MS + 1) == {}
    later = START_MS + PROVIDER_LIFE_MS
    assert ads.hear(OTHER.peer, data(signed_ad(OTHER, now_ms=later)), later) == "accept"
    assert len(ads) == 1


def test_ours_and_those_of_other_models_are_not_read() -> None:
    ads = heard()
    ads.hear(ME.peer, data(signed_ad(ME)), START_MS)
    assert ads.fresh(MODEL, START_MS) == {}
    assert ads.fresh("bafynothing", START_MS) == {}


def in_anothers_name() -> tuple[Identity, bytes]:
    return OTHER, data(signed_ad(ONE))


def forged() -> tuple[Identity, bytes]:
    record = signed_ad(ONE)
    return ONE, codec.encode(Envelope(DOMAIN, ONE.peer, record.envelope.body, bytes(64)))


def not_an_ad() -> tuple[Identity, bytes]:
    return ONE, data(sign(ONE, Record("value", bytes(32), 1, START_MS, START_MS + 1000, b"x"), RULES))


def of_no_model() -> tuple[Identity, bytes]:
    return ONE, codec.encode(_sealed(msgspec.structs.replace(an_ad(), model="digits")))


def under_another_model() -> tuple[Identity, bytes]:
    return ONE, codec.encode(_sealed(an_ad(), key=bytes(32)))


def of_an_endless_life() -> tuple[Identity, bytes]:
    return ONE, codec.encode(_sealed(an_ad(), life_ms=PROVIDER_LIFE_MS + 1))


def of_a_load_that_is_none() -> tuple[Identity, bytes]:
    return ONE, codec.encode(_sealed(an_ad(load=float("nan"))))


def too_long() -> tuple[Identity, bytes]:
    return ONE, codec.encode(_sealed(msgspec.structs.replace(an_ad(), addresses=["/" + "a" * 600] * 8)))


def _sealed(ad: ProviderAd, *, key: bytes | None = None, life_ms: int = 1000) -> Envelope:
    key = key_of(ad.model) if key is None else key
    return seal(ONE, DOMAIN, Record(NAMESPACE, key, 1, START_MS, START_MS + life_ms, codec.encode(ad)))


@pytest.mark.parametrize(
    "bad",
    [
        in_anothers_name, forged, not_an_ad, of_no_model, under_another_model, of_an_endless_life,
        of_a_load_that_is_none, too_long,
    ],
)  # fmt: skip
def test_what_no_honest_peer_relays_is_rejected(bad: Callable[[], tuple[Identity, bytes]]) -> None:
    author, body = bad()
    ads = heard()
    with pytest.raises(Malformed):
        ads.hear(author.peer, body, START_MS)
    assert len(ads) == 0


@pytest.mark.parametrize("now_ms", [START_MS + PROVIDER_LIFE_MS, START_MS - 60_001])
def test_what_is_over_or_to_come_is_ignored_without_blame(now_ms: int) -> None:
    assert heard().hear(ONE.peer, data(signed_ad(ONE)), now_ms) == "ignore"


def test_many_names_do_not_crowd_out_others_for_certain_and_take_no_more_than_their_share() -> None:
    ads = heard()
    ads.hear(ONE.peer, data(signed_ad(ONE)), START_MS)
    flood = [identity(n, "flood") for n in range(2 * QUOTAS.per_key)]
    verdicts = [ads.hear(each.peer, data(signed_ad(each)), START_MS) for each in flood]
    assert len(ads) == QUOTAS.per_key
    assert verdicts.count("ignore") > 0, "what finds no seat is not relayed"
    late = heard()
    for each in [*flood, ONE]:
        late.hear(each.peer, data(signed_ad(each)), START_MS)
    assert late.fresh(MODEL, START_MS).keys() == ads.fresh(MODEL, START_MS).keys(), "nobody wins by being first"


# ---- what is told


@dataclass
class App:
    """A node that serves, as far as ads go."""

    ads: Ads
    news: AdNews
    own: list[ProviderAd]
    signed: int = 0


class Recorder:
    """A gossip that nobody hears."""

    def __init__(self) -> None:
        self.published: list[bytes] = []

    def publish(self, topic: str, body: bytes) -> None:
        assert topic == ADS
        self.published.append(body)


def teller(own: list[ProviderAd]) -> tuple[Recorder, AdNews]:
    recorder = Recorder()
    signer = _signer(ONE, lambda: START_MS)
    return recorder, AdNews(recorder, heard(), lambda: own, signer, lambda: START_MS)  # type: ignore[arg-type]  # all that is used


def _signer(who: Identity, now_ms: Callable[[], int]) -> Callable[[ProviderAd], SignedRecord]:
    count = iter(range(1, 10_000))

    def signed(ad: ProviderAd) -> SignedRecord:
        now, body = now_ms(), codec.encode(ad)
        record = Record(NAMESPACE, key_of(ad.model), next(count), now, now + PROVIDER_LIFE_MS, body)
        return sign(who, record, RULES)

    return signed


def test_an_ad_is_told_when_it_changes_and_now_and_then() -> None:
    own = [an_ad()]
    recorder, news = teller(own)
    for now_s, load, count in (
        (0.0, 0.0, 1),
        (5.0, 0.0, 1),
        (10.0, 0.2, 1),
        (15.0, 0.25, 2),
        (15.0 + AGAIN_S, 0.25, 3),
    ):
        own[0] = an_ad(load=load)
        news.tell(now_s)
        assert len(recorder.published) == count, now_s
    own[0] = an_ad(load=0.25, price_micro=6)
    news.tell(16.0 + AGAIN_S)
    assert len(recorder.published) == 4


def test_of_many_models_each_is_told_in_its_turn_within_the_rate_that_others_bear() -> None:
    from wire import cid

    models = [cid.of(bytes([n])) for n in range(16)]
    own = [an_ad(model) for model in models]
    recorder, news = teller(own)
    for turn in range(4):
        news.tell(turn * TELL_S)
    told = [msgspec.msgpack.decode(codec.decode(Envelope, each).body) for each in recorder.published]
    assert len(told) == 16
    assert len({bytes(record[1]) for record in told}) == 16
    assert len(told) <= PARAMS.burst + PARAMS.rate * 3 * TELL_S


def test_one_that_nobody_would_keep_is_not_told_and_harms_no_other() -> None:
    recorder, news = teller([msgspec.structs.replace(an_ad(), model="no cid"), an_ad()])
    news.tell(0.0)
    assert len(recorder.published) == 1


# ---- over networks


@asynccontextmanager
async def taking_part(
    who: Identity, transport: Any, peers: Callable[[], Sequence[PeerId]], blame: Callable[[RemoteError], None]
) -> AsyncIterator[App]:
    def now_ms() -> int:
        return START_MS + round(trio.current_time() * 1000)

    async with open_gossip(
        who, transport, now_ms, peers=lambda: list(peers()), blame=blame, rng=Random(who.peer)
    ) as gossip, trio.open_nursery() as nursery:  # fmt: skip
        ads, own = Ads(who.peer, bytes(16), lambda author: 1.0), [an_ad()]
        news = AdNews(gossip, ads, lambda: own, _signer(who, now_ms), now_ms)
        news.subscribe()
        nursery.start_soon(news.run)
        yield App(ads, news, own)
        nursery.cancel_scope.cancel()


async def test_every_node_hears_of_every_other_and_of_what_changes(autojump_clock: MockClock) -> None:
    def build(node: SimNode) -> Any:
        return taking_part(node.identity, node.transport, lambda: node.others, node.blamed.append)

    async with world(nodes=8, seed=1, build=build) as w:

        def loads(node: SimNode) -> dict[PeerId, float]:
            now_ms = START_MS + round(trio.current_time() * 1000)
            return {peer: ad.load for peer, ad in node.app.ads.fresh(MODEL, now_ms).items()}

        await trio.sleep(AGAIN_S + 2 * TELL_S)
        assert [len(loads(node)) for node in w.nodes] == [7] * 8
        w.nodes[3].app.own[0] = an_ad(load=2.0)
        await trio.sleep(2 * TELL_S)
        assert [loads(node).get(w.nodes[3].peer) for node in w.nodes if node is not w.nodes[3]] == [2.0] * 7
        await w.nodes[3].crash()
        await trio.sleep(FRESH_MS / 1000 + 1)
        assert [len(loads(node)) for node in w.nodes if node.alive] == [6] * 7
        assert [error for node in w.nodes for error in node.blamed] == []


async def test_a_liar_is_cut_off_and_reaches_nobody(autojump_clock: MockClock) -> None:
    """It floods with replays, which are ignored, and then speaks in another's name, for which it pays."""

    def build(node: SimNode) -> Any:
        return taking_part(node.identity, node.transport, lambda: node.others, node.blamed.append)

    async with world(nodes=5, seed=2, build=build) as w:
        await trio.sleep(AGAIN_S + 2 * TELL_S)
        liar, honest = w.nodes[0], w.nodes[1:]
        gossip = liar.app.news._gossip
        now_ms = START_MS + round(trio.current_time() * 1000)
        for _ in range(50):
            gossip.publish(ADS, data(signed_ad(liar.identity, now_ms=now_ms)))
        for _ in range(20):
            gossip.publish(ADS, data(signed_ad(honest[0].identity, seq=2**40, now_ms=now_ms, load=9.0)))
            await trio.sleep(1.0)
        now_ms = START_MS + round(trio.current_time() * 1000)
        for node in honest[1:]:
            assert node.app.ads.fresh(MODEL, now_ms)[honest[0].peer].load == 0.0
        assert all(node.app.news._gossip.score(liar.peer) < 0 for node in honest)
        assert all(node.app.news._gossip.score(honest[0].peer) >= 0 for node in honest[1:])


async def test_ads_cross_real_connections() -> None:
    people = [Identity.from_seed(bytes([n]) * 32) for n in range(2)]
    blamed: list[RemoteError] = []
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_transport(p.ed25519_seed, blame=blamed.append)) for p in people]
        opened[0].learn(people[1].peer, opened[1].addresses())
        apps = [
            await stack.enter_async_context(
                taking_part(who, transport, lambda other=other: [other.peer], blamed.append)  # type: ignore[misc]  # a bound default
            )
            for who, transport, other in zip(people, opened, reversed(people), strict=True)
        ]
        with trio.fail_after(60):
            while not all(app.ads.fresh(MODEL, START_MS + round(trio.current_time() * 1000)) for app in apps):
                for app in apps:
                    app.news._told.clear()
                    app.news.tell(trio.current_time())
                await trio.sleep(0.2)
    assert blamed == []
