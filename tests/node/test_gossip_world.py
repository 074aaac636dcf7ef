"""Gossip among many: loss, churn, floods, eclipse and spam, in virtual time; a run repeats itself by its seed."""

from __future__ import annotations

import pytest

from node.gossip.message import Message, sign
from node.gossip.params import TopicParams
from node.gossip.router import Arrived, Verdict
from node.gossip.rpc import Ihave, Rpc, Subscription
from tests.node.gossip_world import TOPIC, Node, World, delivered, duplicates, honest_world

ENOUGH = 0.999


def _talk(world: World, authors: list[Node], seconds: int, per_s: int = 5) -> list[tuple[Node, bytes]]:
    """Let nodes write in turn; who wrote what. Everybody but the author is to have it."""
    written = []
    for tick in range(seconds * per_s):
        author = authors[world.rng.randrange(len(authors))]
        data = f"message {tick}".encode()
        author.got[data] += 1
        author.publish(data)
        written.append((author, data))
        world.run(1.0 / per_s)
    return written


def _share(world: World, honest: list[Node], seconds: int, settle_s: float = 10.0) -> float:
    written = _talk(world, honest, seconds)
    world.run(settle_s)
    return delivered([data for _, data in written], honest)


@pytest.mark.parametrize("seed", range(3))
def test_every_message_reaches_everybody_at_once_and_few_copies_do(seed: int) -> None:
    world = honest_world(24, seed)
    for node in world.nodes:
        assert 4 <= len(node.router.mesh(TOPIC)) <= world.params.d_hi
    assert _share(world, world.nodes, 10, settle_s=0.5) == 1.0
    assert duplicates(world.nodes) <= world.params.d_hi
    assert all(max(node.got.values()) == 1 for node in world.nodes)
    assert min(node.router.score(peer, world.now) for node in world.nodes for peer in node.router.peers()) >= 0


def test_a_run_repeats_itself() -> None:
    def trace() -> tuple[int, float]:
        world = honest_world(12, 7, loss=0.05)
        _talk(world, world.nodes, 10)
        return world.sent, duplicates(world.nodes)

    assert trace() == trace()


def test_a_hundred_nodes_of_which_each_knows_few() -> None:
    world = honest_world(100, 1, degree=5)
    assert _share(world, world.nodes, 4, settle_s=2.0) == 1.0
    assert duplicates(world.nodes) <= world.params.d_hi


@pytest.mark.parametrize("seed", range(2))
def test_what_is_lost_is_fetched_by_its_id(seed: int) -> None:
    world = honest_world(24, seed, loss=0.05)
    assert _share(world, world.nodes, 20) >= ENOUGH
    assert sum(node.router.counts["dropped"] for node in world.nodes) == 0


def test_without_lazy_gossip_some_would_be_missing() -> None:
    """The test above can fail: with mesh links of half the size and much loss, the eager part alone is not enough."""
    world = honest_world(24, 0, loss=0.6)
    written = _talk(world, world.nodes, 10)
    early = delivered([data for _, data in written[-5:]], world.nodes)
    world.run(20.0)
    late = delivered([data for _, data in written[-5:]], world.nodes)
    assert early < late


def test_churn_costs_nobody_who_stays_a_message() -> None:
    world = honest_world(36, 3, loss=0.01)
    leavers, stay = world.nodes[:12], world.nodes[12:]

    def churn(turn: int) -> None:
        goes = leavers[turn % len(leavers)]
        world.leave(goes)
        back = leavers[(turn + 6) % len(leavers)]
        if not back.up:
            back.up = True
            world.dial_some(back, 6)
        world.at(world.now + 1.0, lambda: churn(turn + 1))

    world.at(world.now + 1.0, lambda: churn(0))
    written = _talk(world, stay, 20)
    world.run(10.0)
    assert delivered([data for _, data in written], stay) >= ENOUGH


class Dropper(Node):
    """Takes part in the mesh of everybody, and relays nothing."""

    def judge(self, arrived: Arrived) -> Verdict:
        return "ignore"


class Liar(Dropper):
    """And says to hold messages that nobody has written, so that others wait for it."""

    def beat(self) -> None:
        super().beat()
        for peer in self.router.peers(TOPIC):
            self.world.send(
                self, peer, Rpc(ihave=(Ihave(TOPIC, tuple(self.rng.randbytes(46) for _ in range(20))),)).encode()
            )


@pytest.mark.parametrize("kind", [Dropper, Liar])
def test_a_quarter_that_drops_everything_cannot_surround_anybody(kind: type[Node]) -> None:
    world = honest_world(24, 5)
    honest = list(world.nodes)
    attackers = [kind(world, 100 + number) for number in range(8)]
    world.add(*attackers)
    for attacker in attackers:
        for node in honest:
            world.dial(attacker, node)  # into every mesh that has room
    assert _share(world, honest, 30) >= ENOUGH
    names = {attacker.peer for attacker in attackers}
    links = [peer for node in honest for peer in node.router.mesh(TOPIC)]
    assert sum(peer in names for peer in links) <= 0.05 * len(links), "they are put out of the meshes"
    scores = [node.router.score(peer, world.now) for node in honest for peer in names]
    assert sum(score < 0 for score in scores) >= 0.5 * len(scores)
    fair = [node.router.score(peer, world.now) for node in honest for peer in node.router.peers() if peer not in names]
    assert sum(score < 0 for score in fair) <= 0.05 * len(fair), "and honest peers stay"


class Flooder(Node):
    """Sends everybody messages that their authors never signed, as fast as it can."""

    def beat(self) -> None:
        super().beat()
        for peer in self.router.peers(TOPIC):
            victim = self.world.nodes[self.rng.randrange(6)].peer
            forged = [
                Message(victim, TOPIC, self.rng.randbytes(40), self.rng.getrandbits(60), bytes(64)) for _ in range(20)
            ]
            self.world.send(self, peer, Rpc(publish=tuple(each.encode() for each in forged)).encode())


def test_a_flood_of_sybils_is_refused_and_forged_messages_cost_their_authors_nothing() -> None:
    world = honest_world(24, 9)
    honest = list(world.nodes)
    sybils = [Flooder(world, 100 + number, group="192.0.2.1") for number in range(24)]
    world.add(*sybils)
    for sybil in sybils:
        for node in honest:
            world.dial(sybil, node)
    world.run(2.0)
    assert all(node.router.graylisted(sybil.peer, world.now) for node in honest for sybil in sybils)
    assert _share(world, honest, 8) >= ENOUGH
    names = {sybil.peer for sybil in sybils}
    assert not any(peer in names for node in honest for peer in node.router.mesh(TOPIC))
    assert all(data.startswith(b"message") for node in honest for data in node.got)


def test_reconnecting_does_not_wash_a_name() -> None:
    world = honest_world(6, 2)
    honest = list(world.nodes)
    flooder = Flooder(world, 100)
    world.add(flooder)
    for node in honest:
        world.dial(flooder, node)
    world.run(5.0)
    for node in honest:
        world.disconnect(flooder, node)
        world.dial(flooder, node)
    assert all(node.router.graylisted(flooder.peer, world.now) for node in honest)


def test_who_has_a_bad_name_elsewhere_is_not_heard_here() -> None:
    world = honest_world(12, 4)
    bad, honest = world.nodes[0], world.nodes[1:]
    for node in honest:
        node.router.penalise(bad.peer, 1.0, world.now)
    bad.publish(b"from a liar")
    world.run(3.0)
    assert delivered([b"from a liar"], honest) == 0.0
    assert not any(bad.peer in node.router.mesh(TOPIC) for node in honest)
    assert _share(world, honest, 5) == 1.0


def test_a_spamming_author_is_relayed_at_his_rate_and_others_do_not_suffer() -> None:
    world = World(6, topic=TopicParams(rate=2.0, burst=10.0))
    world.add(*(Node(world, number) for number in range(24)))
    for node in world.nodes:
        world.dial_some(node, 6)
    world.run(5.0)
    spammer, honest = world.nodes[0], world.nodes[1:]
    seqno = 1 << 20

    def spam() -> None:
        nonlocal seqno
        for peer in spammer.router.peers(TOPIC):
            seqno += 10
            raws = [sign(spammer.identity, TOPIC, b"spam %d" % (seqno + at), seqno + at).encode() for at in range(10)]
            world.send(spammer, peer, Rpc(publish=tuple(raws)).encode())
        world.at(world.now + 0.2, spam)

    spam()
    seconds = 12
    written = []
    for tick in range(seconds * 5):
        author = honest[tick % len(honest)]
        data = b"message %d" % tick
        author.got[data] += 1
        author.publish(data)
        written.append(data)
        world.run(0.2)
    world.run(5.0)
    assert delivered(written, honest) >= ENOUGH
    for node in honest:
        taken = sum(data.startswith(b"spam") for data in node.got)
        assert taken <= 2.0 * (seconds + 5) + 10 + 1
    assert (
        sum(node.router.score(spammer.peer, world.now) < 0 for node in honest if spammer.peer in node.router.peers())
        > 0
    )


def test_whoever_relays_what_is_rejected_pays_and_nobody_else_sees_it() -> None:
    world = honest_world(12, 8)
    bad, honest = world.nodes[0], world.nodes[1:]
    neighbours = [node for node in honest if bad.peer in node.router.peers()]
    for turn in range(3):
        bad.publish(b"bad %d" % turn)
    world.run(2.0)
    assert all(node.router.graylisted(bad.peer, world.now) for node in neighbours)
    assert all(node.router.counts["reject"] == 0 for node in honest if node not in neighbours)


def test_subscriptions_that_never_end_are_bounded() -> None:
    world = honest_world(2, 0)
    one, other = world.nodes
    for start in range(0, 1000, 100):
        world.send(one, other.peer, Rpc(tuple(Subscription(True, f"t{start + at}") for at in range(100))).encode())
    world.run(1.0)
    state = other.router._peers.get(one.peer)
    assert state is not None
    assert len(state.topics) <= 64
