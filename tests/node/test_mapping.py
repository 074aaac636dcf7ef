"""Port mappings: the formats, the service with a router that answers, and routers that lie, flood or say nothing."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from node.doors import asking, mapping, pcp, upnp
from node.doors.asking import NoMapping, Router, by_nat_pmp, by_pcp, by_upnp
from node.doors.mapping import open_mapping
from node.doors.pcp import Granted, Refused
from node.doors.routes import gateway
from node.reach.addresses import Endpoint
from wire.errors import Malformed

NONCE = bytes(range(12))
HOST = "127.0.0.1"


# ---- PCP and NAT-PMP


def pcp_reply(
    ask: bytes, *, result: int = 0, lifetime_s: int = 3600, port: int = 4001, ip: str = "203.0.113.9"
) -> bytes:
    """What a router answers to a MAP request."""
    nonce, inside = ask[24:36], ask[40:42]
    at = bytes(10) + b"\xff\xff" + bytes(map(int, ip.split(".")))
    head = struct.pack(">BBBBII12x", 2, 0x81, 0, result, lifetime_s, 7)
    return head + nonce + b"\x06\0\0\0" + inside + port.to_bytes(2, "big") + at


def pmp_reply(ask: bytes, *, result: int = 0, lifetime_s: int = 3600, port: int = 4001) -> bytes:
    """What a router answers to a mapping request."""
    return struct.pack(">BBHIHHI", 0, 130, result, 7, int.from_bytes(ask[4:6], "big"), port, lifetime_s)


def test_a_pcp_request_is_as_the_rfc_has_it() -> None:
    raw = pcp.pcp_ask(NONCE, "10.0.0.2", 4001, 4002, 3600)
    assert raw[:8].hex() == "0201000000000e10"
    assert raw[8:24].hex() == "00000000000000000000ffff0a000002"
    assert raw[24:36] == NONCE
    assert raw[36:44].hex() == "060000000fa10fa2"
    assert raw[44:].hex() == "00000000000000000000ffff00000000"
    assert pcp.pcp_answer(pcp_reply(raw, port=4002), NONCE, 4001) == Granted(4002, 3600, "203.0.113.9")


def test_a_nat_pmp_request_is_as_the_rfc_has_it() -> None:
    raw = pcp.pmp_ask(4001, 4002, 3600)
    assert raw.hex() == "000200000fa10fa200000e10"
    assert pcp.pmp_ask(4001, 4002, 0).hex() == "000200000fa1000000000000"
    assert pcp.pmp_answer(pmp_reply(raw, port=4002), 4001) == Granted(4002, 3600)


def test_an_answer_to_something_else_is_none() -> None:
    raw = pcp.pcp_ask(NONCE, "10.0.0.2", 4001, 4001, 3600)
    assert pcp.pcp_answer(pcp_reply(raw), bytes(12), 4001) is None
    assert pcp.pcp_answer(pcp_reply(raw), NONCE, 4002) is None
    assert pcp.pcp_answer(raw, NONCE, 4001) is None
    assert pcp.pmp_answer(pmp_reply(pcp.pmp_ask(4001, 1, 1)), 4002) is None
    assert pcp.pmp_answer(bytes(12), 4001) is None


def test_a_refusal_says_its_code() -> None:
    raw = pcp.pcp_ask(NONCE, "10.0.0.2", 4001, 4001, 3600)
    with pytest.raises(Refused, match="result 8"):
        pcp.pcp_answer(pcp_reply(raw, result=8), NONCE, 4001)
    with pytest.raises(Refused, match="result 1"):
        pcp.pcp_answer(b"\x00\x81\x00\x01\x00\x00\x00\x09", NONCE, 4001)
    with pytest.raises(Refused, match="result 2"):
        pcp.pmp_answer(pmp_reply(pcp.pmp_ask(4001, 1, 1), result=2), 4001)


@pytest.mark.parametrize("raw", [b"", b"\x02\x81\x00", b"\x02\x81\x00\x00" + bytes(20), bytes(2000)])
def test_a_pcp_answer_of_another_length_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        pcp.pcp_answer(raw, NONCE, 4001)


@pytest.mark.parametrize("raw", [b"", b"\x00\x82\x00\x00" + bytes(3), bytes(2000)])
def test_a_nat_pmp_answer_of_another_length_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        pcp.pmp_answer(raw, 4001)


# ---- UPnP

IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
WAN = "urn:schemas-upnp-org:service:WANIPConnection:1"
FOUND = f"HTTP/1.1 200 OK\r\nST: {IGD}\r\nLocation: http://{HOST}:5000/root.xml\r\n\r\n"
DESCRIPTION = f"""<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/other</controlURL></service>
<service><serviceType>{WAN}</serviceType><controlURL>/ctl</controlURL></service></serviceList></device></root>"""


def test_a_device_is_found_only_at_the_address_that_answers() -> None:
    assert upnp.location(FOUND.encode(), HOST) == f"http://{HOST}:5000/root.xml"
    assert upnp.location(FOUND.encode(), "10.0.0.1") is None
    for url in ("https://127.0.0.1/", "http://evil.example/", "http://a@127.0.0.1/", "http://[::1", "file:///etc", ""):
        assert upnp.own_url(url, HOST) is None


def test_the_service_is_found_in_a_description() -> None:
    found = upnp.service(DESCRIPTION.encode(), f"http://{HOST}:5000/root.xml", HOST)
    assert found == upnp.Service(f"http://{HOST}:5000/ctl", WAN)
    elsewhere = DESCRIPTION.replace("/ctl", "http://10.0.0.9/ctl")
    assert upnp.service(elsewhere.encode(), f"http://{HOST}:5000/root.xml", HOST) is None


@pytest.mark.parametrize(
    "raw",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<!<!--DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"<a><b></a>",
        b"",
        b"<a/>" + bytes(10),
        b"<a>" + b"x" * upnp.BODY_BYTES_MAX + b"</a>",
        "<?xml version='1.0' encoding='utf-16'?><a/>".encode("utf-16"),
    ],
    ids=["entities", "hidden entities", "unclosed", "empty", "zeros", "giant", "utf-16"],
)
def test_xml_that_no_router_needs_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        upnp.service(raw, "http://127.0.0.1/", HOST)


def test_a_fault_says_its_code() -> None:
    fault = b"<s:Envelope xmlns:s='x'><s:Body><e><errorCode>718</errorCode></e></s:Body></s:Envelope>"
    with pytest.raises(upnp.SoapFault, match="718"):
        upnp.result(fault, "AddPortMapping")
    with pytest.raises(Malformed):
        upnp.result(b"<a/>", "AddPortMapping")


def test_arguments_are_escaped() -> None:
    _, body = upnp.call(WAN, "AddPortMapping", NewPortMappingDescription="<&>")
    assert b"<NewPortMappingDescription>&lt;&amp;&gt;</NewPortMappingDescription>" in body


# ---- routes

TABLE = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""


def test_the_default_gateway_is_the_one_of_least_metric() -> None:
    assert gateway(TABLE) == "10.0.0.1"
    assert gateway(TABLE.splitlines()[0]) is None
    assert gateway("x\na b c d e f g h\nz\t00000000\t01\t3\t0\t0\t0\t00000000") is None


# ---- a router on this machine

Answer = Callable[[bytes], list[bytes]]


@asynccontextmanager
async def router(answer: Answer) -> AsyncIterator[tuple[Router, list[bytes]]]:
    """One that answers each datagram with what `answer` says; and what it was asked."""
    asked: list[bytes] = []
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((HOST, 0))

        async def serve() -> None:
            while True:
                raw, at = await sock.recvfrom(2000)
                asked.append(raw)
                for reply in answer(raw):
                    await sock.sendto(reply, at)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            port = sock.getsockname()[1]
            yield Router(HOST, HOST, NONCE, pcp_port=port, ssdp_port=port), asked
            nursery.cancel_scope.cancel()


async def test_each_format_maps_a_port() -> None:
    async with router(lambda raw: [pcp_reply(raw, port=4005)]) as (at, _):
        assert await by_pcp(at, 4001, 4001, 3600) == Granted(4005, 3600, "203.0.113.9")
    async with router(lambda raw: [pmp_reply(raw, port=4005)]) as (at, _):
        assert await by_nat_pmp(at, 4001, 4001, 3600) == Granted(4005, 3600)


async def test_what_is_no_answer_is_passed_over_and_a_flood_ends() -> None:
    async with router(lambda raw: [b"\x02\x01noise", pcp_reply(raw)]) as (at, _):
        assert (await by_pcp(at, 4001, 4001, 3600)).port == 4001
    async with router(lambda raw: [b"\x02\x01noise"] * (asking.DATAGRAMS_MAX + 1)) as (at, asked):
        with pytest.raises(NoMapping, match="no answer"):
            await by_pcp(at, 4001, 4001, 3600)
        assert len(asked) <= asking.TRIES


@pytest.mark.parametrize("raw", [b"", b"\x02\x81\x00\x00cut short", b"\x00\x82\x00\x02" + bytes(12)])
async def test_a_router_that_answers_nonsense_makes_no_mapping(raw: bytes) -> None:
    async with router(lambda _: [raw]) as (at, _):
        for ask in (by_pcp, by_nat_pmp):
            with pytest.raises(NoMapping):
                await ask(at, 4001, 4001, 3600)


async def http(stream: trio.SocketStream, replies: Callable[[bytes], bytes]) -> None:
    """One request and one answer."""
    raw = b""
    while b"\r\n\r\n" not in raw or (raw.startswith(b"POST") and b":Envelope>" not in raw):
        more = await stream.receive_some()
        if not more:
            return
        raw += more
    try:
        await stream.send_all(replies(raw))
    except trio.BrokenResourceError:
        return
    await stream.aclose()


@asynccontextmanager
async def device(replies: Callable[[bytes], bytes]) -> AsyncIterator[Router]:
    """A gateway device whose HTTP half is `replies`."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: http(stream, replies), 0)
        port = listeners[0].socket.getsockname()[1]
        found = FOUND.replace("5000", str(port)).encode()
        async with router(lambda _: [b"garbage", FOUND.replace(HOST, "10.9.9.9").encode(), found]) as (at, _):
            yield at
        nursery.cancel_scope.cancel()


def ok(body: str, status: str = "200 OK") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


def fault(code: int) -> bytes:
    """A SOAP fault."""
    return ok(f"<e><errorCode>{code}</errorCode></e>", "500 Internal Server Error")


def igd(conflicts: int, calls: list[str]) -> Callable[[bytes], bytes]:
    """A device that says of so many ports that they are taken, and makes only mappings without an end."""

    def replies(raw: bytes) -> bytes:
        nonlocal conflicts
        if raw.startswith(b"GET"):
            return ok(DESCRIPTION)
        action = raw.partition(b"#")[2].partition(b'"')[0].decode()
        calls.append(action)
        if action == "GetExternalIPAddress":
            return ok(f"<{action}Response><NewExternalIPAddress>203.0.113.9</NewExternalIPAddress></{action}Response>")
        if action == "AddPortMapping" and conflicts:
            conflicts -= 1
            return fault(upnp.CONFLICT)
        if action == "AddPortMapping" and b"<NewLeaseDuration>0<" not in raw:
            return fault(upnp.ONLY_PERMANENT)
        return ok(f"<{action}Response/>")

    return replies


async def test_upnp_maps_the_next_free_port_for_good_if_need_be_and_removes_it() -> None:
    calls: list[str] = []
    with trio.fail_after(60):
        async with device(igd(2, calls)) as at:
            granted = await by_upnp(at, 4001, 4001, 3600)
            assert granted == Granted(4203, 3600, "203.0.113.9")
            assert await by_upnp(at, 4001, 4203, 0) == Granted(4203, 0)
    assert calls == ["GetExternalIPAddress", *["AddPortMapping"] * 4, "DeletePortMapping"]


@pytest.mark.parametrize(
    "reply",
    [
        ok("<root/>"),
        ok(DESCRIPTION.replace("/ctl", "http://10.0.0.9/ctl")),
        ok("", "302 Found\r\nLocation: http://10.0.0.9/"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"<a>" * 60_000,
        b"\x00\x01\x02",
        b"",
    ],
    ids=["no service", "service elsewhere", "redirected", "endless", "no HTTP", "closed"],
)
async def test_a_device_that_plays_games_makes_no_mapping(reply: bytes) -> None:
    with trio.fail_after(60):
        async with device(lambda _: reply) as at:
            with pytest.raises(NoMapping):
                await by_upnp(at, 4001, 4001, 3600)


# ---- the service


class Script:
    """A means of asking, under the test's hand."""

    def __init__(self, *granted: Granted | None) -> None:
        self.granted = list(granted)
        self.asked: list[tuple[float, int, int, int]] = []

    async def ask(self, router: Router, port: int, outside: int, lifetime_s: int) -> Granted:
        """The next answer; None refuses."""
        self.asked.append((round(trio.current_time()), port, outside, lifetime_s))
        await trio.lowlevel.checkpoint()
        said = self.granted.pop(0) if self.granted else None
        if said is None:
            raise NoMapping("no")
        return said


def virtually(main: Callable[[], Awaitable[object]], *, clock: object, instruments: list[Any]) -> object:
    """Under a clock that jumps."""
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """The only means there is."""
    found = Script()
    monkeypatch.setattr(mapping, "MEANS", {"pcp": found.ask})
    return found


def home(ip: str = "10.0.0.2") -> list[Endpoint]:
    """Behind a router."""
    return [Endpoint(HOST, 4001), Endpoint(ip, 4001)]


@pytest.mark.trio(run=virtually)
async def test_a_mapping_is_renewed_at_half_its_time_and_removed_at_the_end(script: Script) -> None:
    script.granted = [Granted(4005, 600), Granted(4005, 99_999), Granted(4005, 1), Granted(4005, 0)]
    async with open_mapping(home, means=["pcp"], find=lambda ip: Router("10.0.0.1", ip)) as opened:
        await trio.sleep(300 + 1800 + 10)
        assert opened.port == 4005
    began = script.asked[0][0]
    assert [(at - began, *rest) for at, *rest in script.asked] == [
        (0, 4001, 4001, 3600),
        (300, 4001, 4005, 3600),
        (2100, 4001, 4005, 3600),
        (2110, 4001, 4005, 0),
    ]


@pytest.mark.trio(run=virtually)
async def test_a_router_that_refuses_is_asked_less_and_less(script: Script) -> None:
    async with open_mapping(home, means=["pcp"], find=lambda ip: Router("10.0.0.1", ip)) as opened:
        await trio.sleep(1000)
        assert opened.port is None
        assert opened.view()["why_not"] == "pcp: no"
    began = script.asked[0][0]
    assert [at - began for at, *_ in script.asked] == [0, 60, 180, 420, 900]


@pytest.mark.trio(run=virtually)
async def test_another_address_means_another_router(script: Script) -> None:
    script.granted = [Granted(4005, 3600), Granted(4006, 3600), Granted(4006, 0)]
    ips, found = ["10.0.0.2"], []

    def find(ip: str) -> Router:
        found.append(ip)
        return Router("10.0.0.1", ip)

    async with open_mapping(lambda: home(ips[0]), means=["pcp"], find=find) as opened:
        await trio.sleep(10)
        ips[0] = "192.168.1.2"
        await trio.sleep(10)
        assert opened.port == 4006
    assert found == ["10.0.0.2", "192.168.1.2"]


@pytest.mark.parametrize("listening", [[], [Endpoint("203.0.113.1", 4001)], [Endpoint("fd00::1", 4001)]])
@pytest.mark.trio(run=virtually)
async def test_who_is_behind_no_ipv4_router_asks_none(script: Script, listening: list[Endpoint]) -> None:
    async with open_mapping(lambda: listening, means=["pcp"], find=lambda ip: Router("10.0.0.1", ip)) as opened:
        await trio.sleep(100)
        assert opened.port is None
    assert script.asked == []
