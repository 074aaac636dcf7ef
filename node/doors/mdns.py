"""Peers on the same local network find each other by multicast DNS, with nobody to introduce them.

    async with open_mdns(me, listening, found):
        ...

We listen, ask and answer on networks with private IPv4 addresses that we listen on, and tell on each only our addresses
there. What is heard is a stranger's word: an address counts only if it names the host that sent it, the handshake
proves who is there, and per network there are bounds on what is read, answered and learned in a second.
Source: github.com/libp2p/specs, discovery/mdns.md; RFC 6762.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from node.doors import dns
from node.reach.addresses import host_of, scope
from wire.errors import Malformed
from wire.limits import ADDRESSES_PER_PEER_MAX
from wire.peer import PeerId, from_text

GROUP, PORT = "224.0.0.251", 5353
SERVICE = "_p2p._udp.local"
TTL_S = 120
QUERY_S, QUERY_S_MAX = 1.0, 300.0
"""Seconds between questions: twice as many after each (RFC 6762, section 5.2)."""

ANSWER_S = 1.0
"""An answer is given at most once in so many seconds on one network (RFC 6762, section 6)."""

LOOK_S = 1.0
READ_PER_S = 50
"""Datagrams that are read in a second on one network; the kernel drops what does not wait."""

PEERS_MAX = 256
"""Peers that are passed on in `PEERS_S` on one network; whoever makes up more of them is not heard further."""

PEERS_S = 60.0
NETWORKS_MAX = 8
IP_MULTICAST_ALL = 49

Found = Callable[[PeerId, list[str]], Awaitable[None]]
"""Told of a peer and where it says that it is."""


def told(raw: bytes, sender: str, me: PeerId) -> dict[PeerId, list[str]]:
    """Peers in an answer, each with its addresses at the sender; sans-IO.

    Raises:
        Malformed: not a DNS message.
    """
    message = dns.parse(raw)
    instances = {target for name, target in message.pointers if name == SERVICE} if message.response else set()
    found: dict[PeerId, list[str]] = {}
    for name, texts in message.texts:
        for text in texts if name in instances else ():
            if not text.startswith(b"dnsaddr=") or not text.isascii():
                continue
            address = text.removeprefix(b"dnsaddr=").decode()
            at = host_of(address)
            try:
                peer = from_text(address.rpartition("/p2p/")[2])
            except Malformed:
                continue
            known = found.setdefault(peer, [])
            if at is not None and at.ip == sender and peer != me and len(known) < ADDRESSES_PER_PEER_MAX:
                known.append(address)
    return {peer: addresses for peer, addresses in found.items() if addresses}


class Network:
    """One local network: the address that we have on it, and what was said there."""

    def __init__(self, ip: str, me: PeerId, listening: Callable[[], list[str]], found: Found) -> None:
        self._ip = ip
        self._me = me
        self._listening = listening
        self._found = found
        self._instance = f"{secrets.token_hex(16)}.{SERVICE}"
        self._answered = -ANSWER_S
        self._heard: set[PeerId] = set()
        self._heard_since = trio.current_time()
        self.lost = ""

    async def run(self) -> None:
        """Ask and answer until cancelled; a network that has gone ends it."""
        try:
            with self._socket() as sock:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask, sock)
                    await self._listen(sock)
        except* OSError as exc:  # the address has gone, or the port is not to be shared: nothing is found there
            self.lost = str(exc.exceptions[0])

    def _socket(self) -> trio.socket.SocketType:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own = socket.inet_aton(self._ip)
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + own)
            sock.bind((GROUP, PORT))
        except OSError:
            sock.close()
            raise
        return trio.socket.from_stdlib_socket(sock)

    async def _ask(self, sock: trio.socket.SocketType) -> None:
        pause_s = QUERY_S
        while True:
            await sock.sendto(dns.query(SERVICE), (GROUP, PORT))
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, QUERY_S_MAX)

    async def _listen(self, sock: trio.socket.SocketType) -> None:
        while True:
            began = trio.current_time()
            for _ in range(READ_PER_S):
                raw, (sender, *_) = await sock.recvfrom(dns.MESSAGE_BYTES_MAX + 1)
                if scope(sender) == "private":
                    await self._hear(sock, raw, sender)
            await trio.sleep_until(began + 1.0)

    async def _hear(self, sock: trio.socket.SocketType, raw: bytes, sender: str) -> None:
        try:
            message = dns.parse(raw)
            if not message.response and SERVICE in message.asked:
                await self._answer(sock)
            peers = told(raw, sender, self._me)
        except Malformed:
            return
        now = trio.current_time()
        if now - self._heard_since > PEERS_S:
            self._heard, self._heard_since = set(), now
        for peer, addresses in peers.items():
            if peer not in self._heard and len(self._heard) < PEERS_MAX:
                self._heard.add(peer)
                await self._found(peer, addresses)

    async def _answer(self, sock: trio.socket.SocketType) -> None:
        now = trio.current_time()
        here = [text for text in self._listening() if (at := host_of(text)) is not None and at.ip == self._ip]
        texts = [text for address in here[:ADDRESSES_PER_PEER_MAX] if len(text := f"dnsaddr={address}".encode()) < 256]
        if texts and now - self._answered >= ANSWER_S:
            self._answered = now
            await sock.sendto(dns.answer(SERVICE, self._instance, texts, TTL_S), (GROUP, PORT))


def networks(listening: list[str]) -> list[str]:
    """The private IPv4 addresses among those that we listen on; sans-IO."""
    at = [found for text in listening if (found := host_of(text)) is not None]
    return list(dict.fromkeys(each.ip for each in at if each.version == 4 and scope(each.ip) == "private"))[
        :NETWORKS_MAX
    ]


@asynccontextmanager
async def open_mdns(me: PeerId, listening: Callable[[], list[str]], found: Found) -> AsyncIterator[None]:
    """Find peers, and be found, for as long as the scope lasts.

    Args:
        listening: what we listen on now, wildcards replaced by our interfaces' addresses, each ending in our peer id.
        found: told of each peer once a minute at most.
    """

    async def watch() -> None:
        running: dict[str, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery:
            while True:
                wanted = networks(listening())
                for ip in [ip for ip in running if ip not in wanted]:
                    running.pop(ip).cancel()
                for ip in wanted:
                    if ip not in running:
                        running[ip] = trio.CancelScope()
                        nursery.start_soon(run, ip, running[ip])
                await trio.sleep(LOOK_S)

    async def run(ip: str, scope: trio.CancelScope) -> None:
        with scope:
            await Network(ip, me, listening, found).run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield
        nursery.cancel_scope.cancel()
