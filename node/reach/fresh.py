"""Dialling as a stranger would: a new identity on a new port, and nothing of the connections that stand.

Asking the node's own host to connect would find the connection that the asker made and say "reachable" whatever the
address. A fresh host knows nobody, so what answers is what listens there, and the handshake proves whose it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import trio
from multiaddr import Multiaddr

from node.channel_libp2p import LOST
from node.libp2p_host import build_host, libp2p_id, peer_id
from node.reach.addresses import Circuit, Endpoint
from node.reach.circuit import Circuits
from node.reach.ways import FAILED, Ways
from wire.errors import TransportError, Unreachable
from wire.peer import PeerId

DIAL_BACK_S = 3.0
"""Seconds for TCP, Noise and Yamux together."""

CALL_THROUGH_S = 6.0
"""Seconds for a connection with a relay, a circuit through it, and a handshake at its far end."""


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


async def call_through(peer: PeerId, through: Circuit, announce: Callable[[PeerId], None]) -> bool:
    """Whether a stranger who goes through a relay meets `peer` at the far end.

    Args:
        announce: told who the stranger will be, before anything is dialled.
    """
    host, swarm, noise = build_host(secrets.token_bytes(32))

    async def connect(relay: PeerId, address: str) -> None:
        try:
            await swarm.dial_addr(Multiaddr(address), libp2p_id(relay))
        except FAILED as exc:
            raise Unreachable(str(exc)) from exc

    announce(peer_id(host.get_id()))
    async with host.run([]):
        stranger = Circuits(Ways(host, swarm), connect, changed=_nothing, arrived=_nothing)
        try:
            with trio.fail_after(CALL_THROUGH_S):
                await stranger.dial(peer, through)
        except (*FAILED, TransportError):
            return False
        finally:
            with trio.CancelScope(shield=True):
                for socket in list(noise.sockets):
                    await socket.close()
        return True


def _nothing(*_: object) -> None:
    """A stranger holds no reservations, and nobody calls it."""
