"""The process that speaks WebRTC for a node: `python -m node.webrtc <descriptor> [<denied subnet> ...]`.

The descriptor is a socket to the node, of packets. Each packet orders one connection: JSON, and with it the descriptor
of a socket for that connection alone. The process ends when the node closes its end, so also when the node is killed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import aioice.ice
import ifaddr

from node.reach.addresses import scope
from node.webrtc.candidates import Subnet
from node.webrtc.connection import Order, run

PACKET_BYTES_MAX = 1024
ADDRESSES_MAX = 8
CONNECTIONS_MAX = 64


def _own_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """The addresses of this machine on which a connection listens; in place of aioice's, which leaves out loopback."""
    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            wanted = use_ipv4 if isinstance(ip.ip, str) else use_ipv6
            if wanted and scope(text) != "none":
                found.append(text)
    far_first = sorted(found, key=lambda text: ("public", "private", "loopback").index(scope(text)))
    return far_first[:ADDRESSES_MAX]


async def _obey(control: socket.socket, denied: Sequence[Subnet]) -> None:
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    connections: set[asyncio.Task[None]] = set()

    def on_order() -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(control, PACKET_BYTES_MAX, 1)
        except BlockingIOError:
            return
        if not packet or not descriptors:
            over.set_result(None)
            loop.remove_reader(control)
            return
        sock = socket.socket(fileno=descriptors[0])
        sock.setblocking(False)
        if len(connections) >= CONNECTIONS_MAX:
            sock.close()
            return
        task = loop.create_task(run(_order(json.loads(packet), denied), sock))
        connections.add(task)
        task.add_done_callback(connections.discard)

    loop.add_reader(control, on_order)
    await over


def _order(said: dict[str, Any], denied: Sequence[Subnet]) -> Order:
    stun = said["stun"]
    return Order(said["offer"], said["path"], None if stun is None else (stun[0], stun[1]), denied)


def main() -> None:
    """Serve the node at the other end of the descriptor that the command line names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal means the node, which ends us
    aioice.ice.get_host_addresses = _own_addresses
    control = socket.socket(fileno=int(sys.argv[1]))
    control.setblocking(False)
    asyncio.run(_obey(control, [ip_network(text) for text in sys.argv[2:]]))


if __name__ == "__main__":
    main()
