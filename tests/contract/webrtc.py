"""Two transports on this machine with a WebRTC connection between them, and none of TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from node.reach.ways import Ways
from node.transport_libp2p import Libp2pTransport
from node.webrtc.helper import open_helper
from node.webrtc.service import WebRtc


@asynccontextmanager
async def over_webrtc(alice: Libp2pTransport, bob: Libp2pTransport) -> AsyncIterator[tuple[WebRtc, WebRtc]]:
    """Alice, who knows where bob is, gets a WebRTC connection with him; what they had of TCP is closed.

    One process serves both, for starting one takes longer than most tests.
    """
    async with open_helper() as helper:
        ends = [WebRtc(one, helper) for one in (alice, bob)]
        for end in ends:
            end.serve()
        await alice.dialler.connect_directly(bob.peer, bob.addresses()[0])
        ways = [Ways(*one.network) for one in (alice, bob)]
        tcp = [*ways[0].direct(bob.peer), *ways[1].direct(alice.peer)]
        assert await ends[0].upgrade(bob.peer), helper.last_words.decode(errors="replace")
        for connection in tcp:
            await connection.close()
        yield ends[0], ends[1]
