"""The DHT of libp2p beside ours: a node of ours is no part of it and says so, and both live on one host.

Why ours is another one is in docs/spec/dht.md.
"""

from __future__ import annotations

import pytest
import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.records.validator import NamespacedValidator, Validator
from libp2p.tools.anyio_service import background_trio_service

from node.libp2p_host import libp2p_id
from node.rpc.node import open_rpc
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.interop.js import running
from wire.codec import Wire
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.peer import PeerId, from_text, to_text
from wire.rpc.seam import PROTOCOL, Method

KAD = "/ipfs/kad/1.0.0"
LIMIT_S = 120.0
INSTALL_S = 300.0


class Text(Wire, frozen=True):
    """All that is said."""

    text: str


SAME = Method("test.same", Text, Text)


class Anything(Validator):
    """Takes every record."""

    def validate(self, key: str, value: bytes) -> None:
        """It is right."""

    def select(self, key: str, values: list[bytes]) -> int:
        """The first."""
        return 0


def nobody(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def same(_peer: PeerId, text: Text) -> Text:
    """The same again."""
    return text


async def asked(ours: Libp2pTransport, peer: PeerId) -> bytes:
    """The answer to a frame on our protocol; the refusal may come with the opening or after it."""
    channel = await ours.open(peer, PROTOCOL)
    await channel.send(b"x")
    return await channel.receive()


async def test_each_refuses_the_others_protocol_and_blames_nobody() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with running("kad.mjs") as js, open_transport(b"i" * 32, blame=nobody) as ours:
            hello = await js.heard("peer")
            peer = from_text(hello["peer"])
            ours.learn(peer, hello["addresses"])
            await js.tell(kad=ours.addresses()[0])
            assert (await js.heard("refused"))["refused"] == "UnsupportedProtocolError"
            identified = await js.heard("identified")
            assert KAD not in identified["protocols"]
            with pytest.raises((Unreachable, ChannelClosed)):
                await asked(ours, peer)


async def test_both_live_on_one_host() -> None:
    """py-libp2p's kad-dht over our session and muxer exchanges records with js, and our calls go on beside it."""
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            running("kad.mjs") as js,
            open_transport(b"i" * 32, blame=nobody) as ours,
            open_rpc(ours, blame=nobody) as rpc,
            open_transport(b"c" * 32, listen=[], blame=nobody) as caller,
            open_rpc(caller, blame=nobody) as calls,
        ):
            hello = await js.heard("peer")
            peer = from_text(hello["peer"])
            ours.learn(peer, hello["addresses"])
            caller.learn(ours.peer, ours.addresses())
            rpc.serve(SAME, same)
            host, _ = ours.network
            taken = NamespacedValidator({"quorate": Anything()}, strict_validation=True)
            kad = KadDHT(host, DHTMode.SERVER, validator=taken, validator_changed=True, strict_validation=True)
            async with background_trio_service(kad):
                await js.tell(dial=ours.addresses()[0])
                assert KAD in (await js.heard("identified"))["protocols"]
                await kad.add_peer(libp2p_id(peer), skip_server_mode_check=True)
                await kad.put_value("/quorate/from-us", b"ours")
                await js.tell(get="/quorate/from-us")
                assert (await js.heard("got"))["got"] == "ours"
                await js.tell(put="/quorate/from-js", value="its")
                await js.heard("put")
                assert await kad.get_value("/quorate/from-js") == b"its"
                assert await calls.call(ours.peer, SAME, Text("still"), timeout_s=LIMIT_S) == Text("still")
    assert to_text(peer) == hello["peer"]
