"""A relay's answers to STUN, on the UDP ports with the numbers of its TCP ports: no third party learns who asks."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from node.reach.addresses import Endpoint
from node.reach.stun import REQUEST_BYTES_MAX, Answerer


class StunServer:
    """Answers for as long as `serve` runs."""

    def __init__(self) -> None:
        self.answerer: Answerer | None = None
        self.listening: list[Endpoint] = []

    async def serve(self, endpoints: Sequence[Endpoint]) -> None:
        """Answer on each of these that can be had."""
        self.answerer = Answerer(trio.current_time())
        async with trio.open_nursery() as nursery:
            for at in endpoints:
                family = trio.socket.AF_INET6 if ":" in at.ip else trio.socket.AF_INET
                sock = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
                try:
                    await sock.bind((at.ip, at.port))
                except OSError:
                    sock.close()
                    continue
                self.listening.append(at)
                nursery.start_soon(self._answer_on, sock, self.answerer)

    async def _answer_on(self, sock: trio.socket.SocketType, answerer: Answerer) -> None:
        with sock:
            while True:
                try:
                    datagram, where = await sock.recvfrom(REQUEST_BYTES_MAX + 1)
                    reply = answerer.answer(datagram, where[0], where[1], trio.current_time())
                    if reply is not None:
                        await sock.sendto(reply, where)
                except OSError:
                    continue  # an answer that could not be delivered, told by the network
