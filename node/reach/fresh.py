"""Dialling somebody back as a stranger would: a new identity on a new port, and nothing of the connections that stand.

Asking the node's own host to connect would find the connection that the asker made and say "reachable" whatever the
address. A fresh host knows nobody, so what answers is what listens there, and the handshake proves whose it is.
"""

from __future__ import annotations

import secrets

import trio
from multiaddr import Multiaddr

from node.channel_libp2p import LOST
from node.libp2p_host import build_host, libp2p_id
from node.reach.addresses import Endpoint
from wire.peer import PeerId

DIAL_BACK_S = 3.0
"""Seconds for TCP, Noise and Yamux together."""


async def dial_back(peer: PeerId, at: Endpoint) -> bool:
    """Whether a stranger who dials `at` meets `peer` there."""
    host, swarm, noise = build_host(secrets.token_bytes(32))
    async with host.run([]):
        try:
            with trio.fail_after(DIAL_BACK_S):
                await swarm.dial_addr(Multiaddr(at.text()), libp2p_id(peer))
        except (*LOST, trio.TooSlowError):
            return False
        finally:
            with trio.CancelScope(shield=True):
                for socket in list(noise.sockets):
                    await socket.close()
        return True
