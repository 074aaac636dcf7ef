"""A relay and those who use it, on loopback, with the real transport: whom it lets in, and where it stops."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import trio

from node.libp2p_host import libp2p_id
from node.reach.addresses import Circuit
from node.reach.circuit import Ended
from node.reach.circuit_messages import HOP, STOP, Hop, Kind, Status, Stop
from node.reach.fresh import call_through
from node.reach.quota import Limits
from node.reach.service import Reach, open_reach
from node.transport_libp2p import Libp2pTransport, open_transport
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.transport import Channel

ECHO = "/test/echo/1"
LIMITS = Limits(reservations_per_ip_max=8, circuit_bytes_max=300_000)


async def _echo(channel: Channel) -> None:
    while True:
        await channel.send(await channel.receive())


@dataclass
class World:
    """Starts nodes; all end with the test."""

    stack: AsyncExitStack
    blamed: list[RemoteError] = field(default_factory=list)

    async def node(self, seed: bytes, *, relays: list[str] | None = None, limits: Limits | None = None) -> Node:
        """One more node, which echoes."""
        transport = await self.stack.enter_async_context(open_transport(seed * 32, blame=self.blamed.append))
        reach = await self.stack.enter_async_context(
            open_reach(transport, relays=relays or [], limits=limits, blame=self.blamed.append)
        )
        transport.serve(ECHO, _echo)
        return Node(transport, reach)


@dataclass
class Node:
    """A transport and how it is reached."""

    transport: Libp2pTransport
    reach: Reach

    async def guest_of(self, *relays: Node) -> None:
        """Wait until these relays let this node's callers in."""
        wanted = {relay.transport.peer for relay in relays}
        with trio.fail_after(10):
            while set(self.reach.circuits.held) != wanted:  # noqa: ASYNC110 - the library has no event for it
                await trio.sleep(0.01)

    def circuits(self) -> list[str]:
        """Its circuit addresses."""
        return [address for address in self.transport.addresses() if "/p2p-circuit/" in address]

    async def call(self, other: Node) -> Channel:
        """A channel to a node that is only known behind relays."""
        self.transport.learn(other.transport.peer, other.circuits())
        with trio.fail_after(10):
            return await self.transport.open(other.transport.peer, ECHO)


async def _there_and_back(channel: Channel, frame: bytes = b"frame") -> None:
    with trio.fail_after(10):
        await channel.send(frame)
        assert await channel.receive() == frame


async def test_a_guest_is_called_through_its_relay() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay = await world.node(b"r", limits=LIMITS)
        guest = await world.node(b"g", relays=relay.transport.addresses())
        await guest.guest_of(relay)
        caller = await world.node(b"c")
        channel = await caller.call(guest)
        assert channel.peer == guest.transport.peer
        await _there_and_back(channel)
        assert caller.reach.view()["peers_relayed"] == 1
        assert relay.reach.view()["relaying"]["circuits"] == 1


async def test_a_circuit_that_ends_takes_no_other_with_it() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay = await world.node(b"r", limits=LIMITS)
        guest = await world.node(b"g", relays=relay.transport.addresses())
        await guest.guest_of(relay)
        first, second = await world.node(b"c"), await world.node(b"d")
        ends, stays = await first.call(guest), await second.call(guest)
        await _there_and_back(ends)
        await _there_and_back(stays)
        await first.reach.ways.drop(guest.transport.peer)
        await _there_and_back(stays)


async def test_a_circuit_that_is_used_up_ends_and_another_may_follow() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay = await world.node(b"r", limits=LIMITS)
        guest = await world.node(b"g", relays=relay.transport.addresses())
        await guest.guest_of(relay)
        caller = await world.node(b"c")
        channel = await caller.call(guest)
        for _ in range(2):
            await _there_and_back(channel, bytes(50_000))
        with pytest.raises(ChannelClosed):
            await _there_and_back(channel, bytes(200_000))
        await _there_and_back(await caller.call(guest))


async def test_nobody_is_called_who_did_not_ask_for_it() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay = await world.node(b"r", limits=LIMITS)
        stranger = await world.node(b"s")
        stranger.transport.learn(relay.transport.peer, relay.transport.addresses())
        await _there_and_back(await stranger.transport.open(relay.transport.peer, ECHO))
        caller = await world.node(b"c")
        through = f"{relay.transport.addresses()[0]}/p2p-circuit"
        caller.transport.learn(stranger.transport.peer, [through])
        with pytest.raises(Unreachable, match="no reservation"), trio.fail_after(10):
            await caller.transport.open(stranger.transport.peer, ECHO)


async def test_a_node_lets_in_only_whom_its_own_relays_bring() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        node = await world.node(b"n")
        pretender = await world.node(b"p")
        pretender.transport.learn(node.transport.peer, node.transport.addresses())
        await _there_and_back(await pretender.transport.open(node.transport.peer, ECHO))
        stream = await pretender.reach.ways.open(node.transport.peer, STOP)
        await stream.write(Stop(True, libp2p_id(pretender.transport.peer).to_bytes()).encode())
        assert Stop.decode(await stream.message()).status == Status.PERMISSION_DENIED


async def test_a_relay_is_not_used_through_a_relay() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        outer = await world.node(b"r", limits=LIMITS)
        inner = await world.node(b"i", relays=outer.transport.addresses(), limits=LIMITS)
        await inner.guest_of(outer)
        caller = await world.node(b"c")
        await _there_and_back(await caller.call(inner))
        stream = await caller.reach.ways.open(inner.transport.peer, HOP)
        await stream.write(Hop(Kind.RESERVE).encode())
        assert Hop.decode(await stream.message()).status == Status.PERMISSION_DENIED


async def test_a_reservation_is_whose_the_handshake_was_not_whose_the_message_says() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay = await world.node(b"r", limits=LIMITS)
        asker = await world.node(b"a")
        asker.transport.learn(relay.transport.peer, relay.transport.addresses())
        await _there_and_back(await asker.transport.open(relay.transport.peer, ECHO))
        victim = await world.node(b"v")
        stream = await asker.reach.ways.open(relay.transport.peer, HOP)
        await stream.write(Hop(Kind.RESERVE, libp2p_id(victim.transport.peer).to_bytes()).encode())
        assert Hop.decode(await stream.message()).status == Status.OK
        assert relay.reach.relay is not None
        quota = relay.reach.relay.quota
        here, asks, other = "127.0.0.1", asker.transport.peer, victim.transport.peer
        assert quota.connect(other, here, asks, trio.current_time()) is Status.OK
        assert quota.connect(asks, here, other, trio.current_time()) is Status.NO_RESERVATION


async def _hold(guest: Node, relay: Node, ended: list[Ended]) -> None:
    """Hold a reservation as on a relay that nobody named: it counts once we came through it ourselves."""
    me, testers = guest.transport.peer, guest.reach.circuits.testers

    async def proof(circuit: Circuit) -> bool:
        return await call_through(me, circuit, testers.add)

    address = relay.transport.addresses()[0].rpartition("/p2p/")[0]
    ended.append(await guest.reach.circuits.hold(relay.transport.peer, (address,), proof))


async def test_a_relay_that_was_found_counts_once_we_came_through_it_as_a_stranger() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay, guest, caller = await world.node(b"r", limits=LIMITS), await world.node(b"g"), await world.node(b"c")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hold, guest, relay, [])
            await guest.guest_of(relay)
            await _there_and_back(await caller.call(guest))
            nursery.cancel_scope.cancel()


async def test_a_relay_that_takes_reservations_and_brings_nobody_is_found_out() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        liar, guest = await world.node(b"r", limits=LIMITS), await world.node(b"g")
        assert liar.reach.relay is not None

        async def drop_it(caller: object, called: object) -> None:
            return None

        liar.reach.relay._call = drop_it  # type: ignore[method-assign,assignment]  # what a liar does
        ended: list[Ended] = []
        with trio.fail_after(20):
            await _hold(guest, liar, ended)
        assert ended == [Ended(0.0, "lies")]
        assert guest.circuits() == []


async def test_a_refusal_leaves_the_connection_alone() -> None:
    """It carries other things than reservations, and is needed when the relay is asked again."""
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay = await world.node(b"r", limits=Limits(reservations_max=0))
        guest = await world.node(b"g")
        guest.transport.learn(relay.transport.peer, relay.transport.addresses())
        channel = await guest.transport.open(relay.transport.peer, ECHO)
        ended = await guest.reach.circuits.hold(relay.transport.peer, (relay.transport.addresses()[0],))
        assert ended.served_s == 0
        assert "refused" in ended.reason
        await _there_and_back(channel)


async def test_a_relay_that_rests_takes_no_reservations_and_keeps_its_circuits() -> None:
    async with AsyncExitStack() as stack:
        world = World(stack)
        relay = await world.node(b"r", limits=LIMITS)
        guest = await world.node(b"g", relays=relay.transport.addresses())
        await guest.guest_of(relay)
        channel = await (await world.node(b"c")).call(guest)
        assert relay.reach.relay is not None
        relay.reach.relay.serve(False)
        await _there_and_back(channel)
        assert relay.reach.view()["relaying"]["serving"] is False
        late = await world.node(b"l")
        address = relay.transport.addresses()[0].rpartition("/p2p/")[0]
        assert (await late.reach.circuits.hold(relay.transport.peer, (address,))).served_s == 0
