"""What nodes gossip about: heads, proofs and shared state reach everybody soon, and later without gossip too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from crdt.namespace import author_key
from ledger.entry import Entry, Release, sign_entry
from ledger.fork import prove, signed_header
from node.news import HEADS, PROOFS, SHARED, Proof, SharedTip
from node.node import Node
from sim.world import World, run
from tests.sim.market_world import EMBED, EPOCH_MS, finished, market
from tests.wire.test_two_keys import second_record
from wire import codec
from wire.identity import Identity
from wire.two_keys import prove as prove_keys

SOON_S = 8.0
SLOW_S = 600.0
"""A period of the rounds of catching up so long that none falls into the tests of gossip."""


def _apps(w: World) -> list[Node]:
    return [node.app for node in w.nodes]


def _same_chains(w: World) -> bool:
    """Whether everybody has everybody's chain."""
    return all(
        reader.context.ledger.head(node.peer) == node.app.context.ledger.head()
        for reader in _apps(w)
        for node in w.nodes
    )


def _same_state(w: World) -> bool:
    return len({app.replicas.digest() for app in _apps(w)}) == 1


async def _within(w: World, seconds: float, predicate: Callable[[], bool]) -> bool:
    with trio.move_on_after(seconds):
        await w.until(predicate)
        return True
    return False


def _played(play: Callable[[World], object], seed: int = 1, **settings: object) -> None:
    async def main() -> None:
        async with market(seed, **settings) as w:  # type: ignore[arg-type]  # passed on as they are
            await trio.sleep(10)
            await play(w)  # type: ignore[misc]  # always a coroutine here

    run(main, seed)


def test_chains_are_fetched_as_soon_as_they_grow() -> None:
    async def play(w: World) -> None:
        job = await finished(w.nodes[1].app, EMBED)
        assert job.verdict == "accept"
        assert _same_chains(w) or await _within(w, SOON_S, lambda: _same_chains(w))
        assert [error for node in w.nodes for error in node.blamed] == []

    _played(play, sync_period_s=SLOW_S)


def test_without_gossip_they_are_fetched_in_the_end() -> None:
    async def play(w: World) -> None:
        assert all(app.gossip is None for app in _apps(w))
        job = await finished(w.nodes[1].app, EMBED)
        assert job.verdict == "accept"
        await w.nodes[2].app.replicas.map_set("ratings", author_key(w.nodes[2].peer, "x"), b"1")
        assert not _same_chains(w), "not yet"
        assert await _within(w, 120.0, lambda: _same_chains(w) and _same_state(w))

    _played(play, gossip=False)


def test_a_change_of_the_shared_state_that_was_not_pushed_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(w: World) -> None:
        await w.nodes[2].app.replicas.map_set("ratings", author_key(w.nodes[2].peer, "x"), b"1")
        assert not _same_state(w)
        assert await _within(w, SOON_S, lambda: _same_state(w))

    monkeypatch.setattr("crdt.service.PUSH_FANOUT", 0)
    monkeypatch.setattr("crdt.service.RELAY_FANOUT", 0)
    _played(play, sync_period_s=SLOW_S)


def _two_histories(who: Identity, height: int) -> tuple[Entry, Entry]:
    bodies = [Release(bytes(32), bytes(32), reason) for reason in ("cancelled", "expired")]
    one, other = (sign_entry(who, height, bytes(32), body, EPOCH_MS) for body in bodies)
    return one, other


def test_a_fork_that_one_node_has_proven_is_known_to_all() -> None:
    async def play(w: World) -> None:
        forker = w.nodes[5]
        proof = prove(*_two_histories(forker.identity, 3))
        assert proof is not None
        await w.nodes[1].app.context.ledger.learn_fork(proof)
        others = _apps(w)[:5]
        assert await _within(w, SOON_S, lambda: all(forker.peer in app.context.ledger.forkers() for app in others))

    _played(play, sync_period_s=SLOW_S)


def test_two_heads_of_one_height_are_a_proof_for_all() -> None:
    async def play(w: World) -> None:
        forker, others = w.nodes[5], _apps(w)[:5]
        for entry in _two_histories(forker.identity, 3):
            assert forker.app.gossip is not None
            forker.app.gossip.publish(HEADS, codec.encode(signed_header(entry)))
            await trio.sleep(2)
        assert await _within(w, SOON_S, lambda: all(forker.peer in app.context.ledger.forkers() for app in others))
        assert all(app.gossip is not None and app.gossip.score(forker.peer) >= 0 for app in others)

    _played(play, sync_period_s=SLOW_S)


def test_who_announced_two_keys_is_known_to_all() -> None:
    async def play(w: World) -> None:
        liar = w.nodes[5]
        proof = prove_keys(liar.identity.key_record(), second_record(liar.identity))
        assert proof is not None
        w.nodes[1].app.context.keyring.learn_proof(proof)
        others = _apps(w)[:5]
        assert await _within(w, SOON_S, lambda: all(liar.peer in app.context.keyring.two_faced() for app in others))

    _played(play, sync_period_s=SLOW_S)


def test_a_proof_against_a_stranger_is_passed_on_and_not_kept() -> None:
    async def play(w: World) -> None:
        stranger = Identity.from_seed(b"s" * 32)
        proof = prove(*_two_histories(stranger, 3))
        assert w.nodes[1].app.gossip is not None
        w.nodes[1].app.gossip.publish(PROOFS, codec.encode(Proof(proof, None)))
        await trio.sleep(SOON_S)
        assert all(stranger.peer not in app.context.ledger.forkers() for app in _apps(w))
        assert all(app.gossip is not None and app.gossip.about()["accept"] > 0 for app in _apps(w))

    _played(play, sync_period_s=SLOW_S)


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        (HEADS, b"\x00"),
        (HEADS, codec.encode(signed_header(_two_histories(Identity.from_seed(b"s" * 32), 3)[0]))),
        (PROOFS, codec.encode(Proof(None, None))),
        (PROOFS, b""),
        (SHARED, codec.encode(("tags", 0, bytes(32)))),
    ],
)
def test_what_is_not_of_its_topic_costs_whoever_says_it(topic: str, data: bytes) -> None:
    async def play(w: World) -> None:
        liar, others = w.nodes[5], _apps(w)[:5]
        assert liar.app.gossip is not None
        liar.app.gossip.publish(topic, data or b"\x91")
        await trio.sleep(3)
        linked = [app for app in others if app.gossip is not None and liar.peer in app.gossip.peers(topic)]
        assert linked
        assert all(app.gossip is not None and app.gossip.score(liar.peer) < 0 for app in linked)

    _played(play, sync_period_s=SLOW_S)


def test_an_old_tip_and_one_of_an_unknown_namespace_are_nobodys_fault() -> None:
    async def play(w: World) -> None:
        author, others = w.nodes[5], _apps(w)[:5]
        assert author.app.gossip is not None
        for tip in (SharedTip("tags", 2, bytes(32)), SharedTip("tags", 1, bytes(32)), SharedTip("no", 1, bytes(32))):
            author.app.gossip.publish(SHARED, codec.encode(tip))
        await trio.sleep(5)
        assert all(app.gossip is not None and app.gossip.score(author.peer) >= 0 for app in others)

    _played(play, sync_period_s=SLOW_S)
