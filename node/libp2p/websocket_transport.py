"""WebSocket for the swarm: listening on `/ws`, dialling `/ws` and `/wss`. What runs above is the same as over TCP.

    /ip4/192.0.2.7/tcp/4002/ws       /dns4/example.org/tcp/443/wss       /dns/example.org/tcp/443/tls/ws
    /ip4/192.0.2.7/tcp/443/tls/sni/example.org/ws

TLS is spoken when dialling only, with the system's authorities and the name in the address; a node that is to be
reached by `/wss` stands behind a proxy that ends TLS. Noise runs inside in any case.
Source: github.com/libp2p/specs, websockets/README.md.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import trio
from libp2p.abc import IListener, IRawConnection, ITransport
from libp2p.custom_types import THandler
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCPListener
from multiaddr import Multiaddr

from node.libp2p.websocket_stream import WebSocketStream, remote_of

HOSTS = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6, "dns4": socket.AF_INET, "dns6": socket.AF_INET6, "dns": 0}
PLAIN = (["ws"],)
SECURE = (["wss"], ["tls", "ws"], ["tls", "sni", "ws"])

ADDRESSES_MAX = 4
"""IP addresses of one name that are tried."""


def is_websocket(names: list[str]) -> bool:
    """Whether an address with these parts, without a peer, can be dialled here."""
    return names[:1] != [] and names[0] in HOSTS and names[1:2] == ["tcp"] and names[2:] in (*PLAIN, *SECURE)


def _names(address: Multiaddr) -> list[str]:
    names = [part.name for part in address.protocols()]
    return names[:-1] if names[-1:] == ["p2p"] else names


class WebSocketListener(TCPListener):
    """A TCP listener whose connections speak WebSocket."""

    def __init__(self, handler: THandler) -> None:
        async def wrapped(stream: TrioTCPStream) -> None:
            await handler(WebSocketStream(stream.stream, stream.stream, client=False))

        super().__init__(wrapped)  # type: ignore[arg-type]  # it is called with TCP streams only

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        """What it listens on."""
        return tuple(Multiaddr(f"{address}/ws") for address in super().get_addrs())


class WebSocket(ITransport):
    """See the module.

    Args:
        denies: whether nothing may be sent to an IP address.
    """

    def __init__(self, denies: Callable[[str], bool]) -> None:
        self._denies = denies

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        """Connect and shake hands; the caller bounds the time.

        Raises:
            OpenConnectionError: it failed.
        """
        part = {name.name: value for name, value in maddr.items()}
        host = next(str(part[name]) for name in HOSTS if name in part)
        port = int(str(part["tcp"]))
        name = str(part.get("sni", host))
        try:
            tcp = await self._connect(host, port, next(HOSTS[name] for name in HOSTS if name in part))
        except (OSError, ValueError) as exc:
            raise OpenConnectionError(f"{maddr}: {exc}") from exc
        stream: trio.abc.Stream = tcp
        opened = None
        try:
            remote = remote_of(tcp)
            if remote is None or self._denies(remote[0]):
                raise OpenConnectionError(f"{maddr}: denied")
            if "ws" not in part or "tls" in part:
                secure = trio.SSLStream(tcp, ssl.create_default_context(), server_hostname=name)
                await secure.do_handshake()
                stream = secure
            opened = WebSocketStream(stream, tcp, client=True)
            await opened.ask(f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
        except (ConnectionClosedError, trio.BrokenResourceError, OSError) as exc:
            opened = None
            raise OpenConnectionError(f"{maddr}: {exc.__cause__ or exc}") from exc
        finally:
            if opened is None or not opened.opened:
                await trio.aclose_forcefully(tcp)
        return RawConnection(opened, True)

    async def _connect(self, host: str, port: int, family: int) -> trio.SocketStream:
        """TCP to a name in a family, its addresses in turn; in either family, trio does as RFC 8305 says."""
        if not family:
            return await trio.open_tcp_stream(host, port)
        found = await trio.socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        last: OSError = OSError(f"{host} has no address")
        for *_, at in found[:ADDRESSES_MAX]:
            try:
                return await trio.open_tcp_stream(str(at[0]), port)
            except OSError as exc:
                last = exc
        raise last

    def create_listener(self, handler_function: THandler) -> IListener:
        """A listener that hands each connection to the handler before anything was read from it."""
        return WebSocketListener(handler_function)

    def can_dial(self, maddr: Multiaddr) -> bool:
        """Whether it is a WebSocket address."""
        return is_websocket(_names(maddr))

    def can_listen(self, maddr: Multiaddr) -> bool:
        """Whether it is one without TLS, by number."""
        names = _names(maddr)
        return names[:1] in (["ip4"], ["ip6"]) and names[1:] == ["tcp", "ws"]

    def protocols(self) -> list[str]:
        """The parts of addresses that are its own."""
        return ["ws", "wss"]
