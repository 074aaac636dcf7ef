"""Gossip with other implementations: js-libp2p's gossipsub and py-libp2p's, in both directions, and relayed between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_noise_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as StockNoise
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from node.gossip.params import TopicParams
from node.gossip.router import Arrived, Verdict
from node.gossip.service import Gossip, open_gossip
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.interop.js import running
from wire.errors import RemoteError
from wire.identity import Identity
from wire.peer import PeerId, from_multihash, from_text, to_text

T = "/quorate/interop/1"
FOREIGN = TopicParams(rate=50.0, burst=100.0, ordered=False)
"""Others number their messages by chance."""

LIMIT_S = 60.0


class Ours:
    """Our side: a transport, gossip, and what came."""

    def __init__(self, transport: Libp2pTransport, gossip: Gossip, known: list[PeerId]) -> None:
        self.transport = transport
        self.gossip = gossip
        self.known = known
        self.send, self.got = trio.open_memory_channel[tuple[str, bytes]](100)

    def dial(self, address: str) -> None:
        """Let gossip know of a foreign node; it dials where it has few links."""
        peer = from_text(address.rpartition("/p2p/")[2])
        self.transport.learn(peer, [address])
        self.known.append(peer)

    def judge(self, arrived: Arrived) -> Verdict:
        self.send.send_nowait((to_text(arrived.author), arrived.data))
        return "accept"


@asynccontextmanager
async def ours(number: int, blamed: list[RemoteError], *, fast_path: bool = True) -> AsyncIterator[Ours]:
    who = Identity.from_seed(bytes([number]) * 32)
    known: list[PeerId] = []
    async with (
        open_transport(who, blame=blamed.append, fast_path=fast_path) as transport,
        open_gossip(who, transport, lambda: 1, peers=lambda: known, blame=blamed.append, rng=Random(1)) as gossip,
    ):
        side = Ours(transport, gossip, known)
        gossip.subscribe(T, side.judge, FOREIGN)
        yield side


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "stock"])
@pytest.mark.parametrize("we_dial", [True, False])
async def test_with_js_libp2p_in_both_directions(we_dial: bool, fast_path: bool) -> None:
    blamed: list[RemoteError] = []
    with trio.fail_after(LIMIT_S * 6):
        async with running("gossip.mjs", T) as js, ours(1, blamed, fast_path=fast_path) as side:
            hello = await js.heard("peer")
            if we_dial:
                side.dial(hello["addresses"][0])
            else:
                await js.tell(dial=side.transport.addresses()[0])
            with trio.fail_after(LIMIT_S):
                await side.gossip.linked(T, 1)
                await js.heard("subscribed", to_text(side.transport.peer))
                await js.heard("graft", to_text(side.transport.peer))
                await js.tell(publish=b"from js".hex())
                assert await side.got.receive() == (hello["peer"], b"from js")
                side.gossip.publish(T, b"from python")
                got = await js.heard("got")
    assert (bytes.fromhex(got["got"]), got["from"], got["type"]) == (
        b"from python",
        to_text(side.transport.peer),
        "signed",
    )
    assert blamed == []


async def test_a_message_of_js_libp2p_is_relayed_to_another_js_libp2p() -> None:
    blamed: list[RemoteError] = []
    with trio.fail_after(LIMIT_S * 6):
        async with running("gossip.mjs", T) as one, running("gossip.mjs", T) as other, ours(1, blamed) as side:
            author = await one.heard("peer")
            for js in (one, other):
                await js.tell(dial=side.transport.addresses()[0])
            with trio.fail_after(LIMIT_S):
                await side.gossip.linked(T, 2)
                for js in (one, other):
                    await js.heard("graft", to_text(side.transport.peer))
                await one.tell(publish=b"through us".hex())
                got = await other.heard("got")
    assert (bytes.fromhex(got["got"]), got["from"]) == (b"through us", author["peer"])
    assert blamed == []


@asynccontextmanager
async def _py_libp2p() -> AsyncIterator[tuple[Pubsub, str]]:
    """A stock node with its own gossipsub, all defaults but the heartbeat."""
    pair = create_new_key_pair(b"\x09" * 32)
    noise = StockNoise(pair, noise_privkey=create_new_noise_key_pair().private_key)
    host = new_host(key_pair=pair, sec_opt={NOISE: noise})
    router = GossipSub([PROTOCOL_ID_V11], 6, 5, 12, heartbeat_interval=1)
    pubsub = Pubsub(host, router, strict_signing=True)
    async with (
        host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        background_trio_service(router),
        background_trio_service(pubsub),
    ):
        await pubsub.wait_until_ready()
        yield pubsub, str(host.get_addrs()[0])


@pytest.mark.parametrize("we_dial", [True, False])
async def test_with_the_gossipsub_of_py_libp2p_in_both_directions(we_dial: bool) -> None:
    blamed: list[RemoteError] = []
    with trio.fail_after(LIMIT_S):
        async with _py_libp2p() as (pubsub, address), ours(2, blamed) as side:
            inbox = await pubsub.subscribe(T)
            if we_dial:
                side.dial(address)
            else:
                await pubsub.host.connect(info_from_p2p_addr(Multiaddr(side.transport.addresses()[0])))
            await side.gossip.linked(T, 1)
            await pubsub.publish(T, b"from py-libp2p")
            assert await side.got.receive() == (address.rpartition("/p2p/")[2], b"from py-libp2p")
            side.gossip.publish(T, b"from us")
            while (message := await inbox.get()).data != b"from us":
                continue
    assert to_text(side.transport.peer) == from_id(message.from_id)
    assert blamed == []


def from_id(raw: bytes) -> str:
    """The text of a peer id in bytes."""
    return to_text(from_multihash(raw))
