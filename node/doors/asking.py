"""Asking one router for a port mapping, in trio: PCP, NAT-PMP, then UPnP; each with a bound on time and bytes.

Only the default gateway is asked, and only what comes from its address is read.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import h11
import trio

from node.doors import pcp, upnp
from node.doors.pcp import Granted, Refused
from wire.errors import Malformed

FIRST_WAIT_S = 0.25
TRIES = 4
"""Sendings of a request, each waiting twice as long as the one before (RFC 6886, section 3.1)."""

SEARCH_S = 2.0
"""Seconds for answers to a search: twice the spread that it asks for."""

HTTP_S = 5.0
DATAGRAMS_MAX = 64
"""Datagrams read for one request; whoever floods us with others gets no more of our time."""

PORTS_TRIED = 4
"""Ports outside that are tried where the first is somebody else's."""

DESCRIPTION = "quorate"


@dataclass
class Router:
    """A router that may map, and what we know of it.

    Args:
        ip: its address inside. own_ip: ours, by which it knows us.
        nonce: shows it, on renewal, that the mapping is ours.
    """

    ip: str
    own_ip: str
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(12))
    device: upnp.Service | None = None
    pcp_port: int = pcp.PORT
    ssdp_port: int = upnp.PORT


class NoMapping(Exception):
    """The router makes none by this means; says why."""


async def by_pcp(router: Router, port: int, outside: int, lifetime_s: int) -> Granted:
    """Ask by PCP.

    Raises:
        NoMapping: it refused, or did not answer.
    """
    ask = pcp.pcp_ask(router.nonce, router.own_ip, port, outside, lifetime_s)
    return await _datagrams(router, ask, lambda raw: pcp.pcp_answer(raw, router.nonce, port))


async def by_nat_pmp(router: Router, port: int, outside: int, lifetime_s: int) -> Granted:
    """Ask by NAT-PMP.

    Raises:
        NoMapping: it refused, or did not answer.
    """
    return await _datagrams(router, pcp.pmp_ask(port, outside, lifetime_s), lambda raw: pcp.pmp_answer(raw, port))


async def _datagrams(router: Router, ask: bytes, read: Callable[[bytes], Granted | None]) -> Granted:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        try:
            await sock.bind((router.own_ip, 0))
            await sock.connect((router.ip, router.pcp_port))  # the kernel drops what others send
            for attempt in range(TRIES):
                with trio.move_on_after(FIRST_WAIT_S * 2**attempt):
                    await sock.send(ask)
                    for _ in range(DATAGRAMS_MAX):
                        found = read(await sock.recv(pcp.ANSWER_BYTES_MAX + 1))
                        if found is not None:
                            return found
        except (OSError, Refused, Malformed) as exc:
            raise NoMapping(str(exc)) from exc
    raise NoMapping("no answer")


# ---- UPnP


async def find(router: Router) -> upnp.Service:
    """The gateway's service that maps ports.

    Raises:
        NoMapping: it has none, or did not answer.
    """
    urls: dict[str, None] = {}
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        try:
            await sock.bind((router.own_ip, 0))
            sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_TTL, 2)
            sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, trio.socket.inet_aton(router.own_ip))
            for target in upnp.TARGETS:
                for at in ((upnp.GROUP, upnp.PORT), (router.ip, router.ssdp_port)):
                    await sock.sendto(upnp.search(target), at)
            with trio.move_on_after(SEARCH_S):
                for _ in range(DATAGRAMS_MAX):
                    raw, sender = await sock.recvfrom(upnp.ANSWER_BYTES_MAX + 1)
                    url = upnp.location(raw, router.ip) if sender[0] == router.ip else None
                    if url is not None:
                        urls[url] = None
                        break
        except OSError as exc:
            raise NoMapping(str(exc)) from exc
    return await _described(router, urls)


async def _described(router: Router, urls: Iterable[str]) -> upnp.Service:
    for url in urls:
        try:
            found = upnp.service(await _http("GET", url), url, router.ip)
        except Malformed as exc:
            raise NoMapping(str(exc)) from exc
        if found is not None:
            return found
    raise NoMapping("no gateway device answers")


async def by_upnp(router: Router, port: int, outside: int, lifetime_s: int) -> Granted:
    """Ask by UPnP, or remove a mapping that was made so.

    Raises:
        NoMapping: it refused, or did not answer.
    """
    if router.device is None:
        router.device = await find(router)
    where = {"NewRemoteHost": "", "NewExternalPort": outside, "NewProtocol": "TCP"}
    try:
        if not lifetime_s:
            await _call(router.device, "DeletePortMapping", **where)
            return Granted(outside, 0)
        told = await _call(router.device, "GetExternalIPAddress")
        for attempt in range(PORTS_TRIED):
            granted = await _map(router, port, outside + 101 * attempt, lifetime_s)
            if granted is not None:
                return Granted(granted.port, granted.lifetime_s, upnp.ip_of(told.get("NewExternalIPAddress", "")))
    except (upnp.SoapFault, Malformed) as exc:
        raise NoMapping(str(exc)) from exc
    raise NoMapping("every port tried is somebody else's")


async def _map(router: Router, port: int, outside: int, lifetime_s: int) -> Granted | None:
    """A mapping; None if the port outside is taken."""
    assert router.device is not None, "found before"
    outside = outside if outside <= 65535 else outside - 50_000
    try:
        await _call(
            router.device,
            "AddPortMapping",
            NewRemoteHost="",
            NewExternalPort=outside,
            NewProtocol="TCP",
            NewInternalPort=port,
            NewInternalClient=router.own_ip,
            NewEnabled=1,
            NewPortMappingDescription=DESCRIPTION,
            NewLeaseDuration=lifetime_s,
        )
    except upnp.SoapFault as exc:
        if exc.code == upnp.CONFLICT:
            return None
        if exc.code != upnp.ONLY_PERMANENT or not lifetime_s:
            raise
        await _map(router, port, outside, 0)
    return Granted(outside, pcp.LIFETIME_S)


async def _call(service: upnp.Service, action: str, **arguments: object) -> dict[str, str]:
    headers, body = upnp.call(service.kind, action, **arguments)
    return upnp.result(await _http("POST", service.url, headers, body), action)


async def _http(method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """A body, bounded; a redirection is not followed, and nothing is unpacked.

    Raises:
        NoMapping: none came.
    """
    parts = urlsplit(url)
    connection = h11.Connection(h11.CLIENT)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    said = {"Host": parts.netloc, "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
    try:
        with trio.fail_after(HTTP_S):
            async with await trio.open_tcp_stream(str(parts.hostname), parts.port or 80) as stream:
                request = h11.Request(method=method, target=target, headers=list(said.items()))
                events = (request, h11.Data(data=body), h11.EndOfMessage())
                await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
                return await _answer(connection, stream)
    except (h11.ProtocolError, trio.TooSlowError, trio.BrokenResourceError, OSError) as exc:
        raise NoMapping(f"{method} {url}: {exc!r}") from exc


async def _answer(connection: h11.Connection, stream: trio.abc.ReceiveStream) -> bytes:
    said = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(upnp.BODY_BYTES_MAX))
        elif isinstance(event, h11.Response):
            if event.status_code not in (200, 500):  # a SOAP fault comes with 500
                raise NoMapping(f"status {event.status_code}")
        elif isinstance(event, h11.Data):
            said += event.data
            if len(said) > upnp.BODY_BYTES_MAX:
                raise NoMapping("an endless answer")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(said)
        elif isinstance(event, h11.ConnectionClosed):
            raise NoMapping("the device closed")
