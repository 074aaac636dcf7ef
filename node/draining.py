"""Stopping without letting anybody down: nothing new is taken on, what is under way ends, and then the node goes.

1. No new job, batch, audit or loan is accepted, from peers (typed `Busy`) or from the user; our models are published
   no more. Jobs under way go on with all that they need of the network.
2. When none is left, peers are told that we go (Yamux GoAway), new connections and channels are refused, new calls get
   `Busy`. Calls that we are answering end.

The caller bounds the time; what is still under way then is cut off like at any other end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from node.gossip.params import PROTOCOL as GOSSIP_PROTOCOL
from node.rpc.node import RpcNode
from node.transport_libp2p import Libp2pTransport
from wire.rpc.seam import PROTOCOL as RPC_PROTOCOL

if TYPE_CHECKING:
    from node.node import Node

STANDING = frozenset((GOSSIP_PROTOCOL, RPC_PROTOCOL))
"""Protocols whose channels stay open for as long as both sides run: that one is open is no work."""

LOOK_S = 0.02
"""How often we look whether what was under way has ended."""


async def drain(node: Node) -> None:
    """Return once nothing is under way; cancelled, it leaves the node as far as it came."""
    node.begin_to_stop()
    transport, rpc = node.context.transport, node.rpc
    while node.jobs_under_way() or _answering(node):  # noqa: ASYNC110 - ends of many kinds, seconds apart
        await trio.sleep(LOOK_S)
    if isinstance(transport, Libp2pTransport):
        transport.go_away()
    if isinstance(rpc, RpcNode):
        rpc.take_no_more()
        while _answering(node):  # noqa: ASYNC110 - as above
            await trio.sleep(LOOK_S)
        await rpc.flushed()


def _answering(node: Node) -> int:
    """Calls of peers, and channels that they opened, on which one of our handlers works."""
    transport, rpc = node.context.transport, node.rpc
    calls = rpc.under_way()[1] if isinstance(rpc, RpcNode) else 0
    if not isinstance(transport, Libp2pTransport):
        return calls
    return calls + sum(count for protocol, count in transport.serving.items() if protocol not in STANDING)
