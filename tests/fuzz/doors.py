"""Targets that read what comes from the local network: answers of routers, and what devices say of themselves."""

from __future__ import annotations

import struct

from node.doors import dns, pcp, routes, upnp
from node.doors.mdns import SERVICE, told
from tests.fuzz.streams import Conversations, stream_target
from wire.errors import Malformed
from wire.identity import Identity
from wire.limits import ADDRESSES_PER_PEER_MAX
from wire.peer import to_text

ME, PEER = Identity(b"m" * 32).peer, to_text(Identity(b"o" * 32).peer).encode()
NONCE = bytes(range(12))
MAPPED = struct.pack(">BBBBII12x", 2, 0x81, 0, 0, 3600, 7) + pcp.PCP_MAP.pack(NONCE, 6, 4001, 4002, bytes(16))
IGD = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
WAN = "urn:schemas-upnp-org:service:WANIPConnection:1"
FOUND = f"HTTP/1.1 200 OK\r\nST: {IGD}\r\nLocation: http://10.0.0.1:5000/root.xml\r\n\r\n".encode()
DESCRIBED = (
    '<?xml version="1.0"?>|<root xmlns="urn:schemas-upnp-org:device-1-0">|<device>|<serviceList>|<service>|'
    f"<serviceType>{WAN}</serviceType>|<controlURL>/ctl</controlURL>|</service>|</serviceList>|</device>|</root>"
).encode()
RETURNED = (
    b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">|<s:Body>|'
    b'<u:GetExternalIPAddressResponse xmlns:u="x">|'
    b"<NewExternalIPAddress>203.0.113.9</NewExternalIPAddress>|</u:GetExternalIPAddressResponse>|</s:Body>|</s:Envelope>"
)
TABLE = b"Iface Destination Gateway Flags RefCnt Use Metric Mask\n|eth0 00000000 0100000A 0003 0 0 100 00000000\n"


@stream_target("PCP answer", lambda: Conversations([MAPPED[:24], MAPPED[24:40], MAPPED[40:]]), pcp.Refused)
def _read_pcp(raw: bytes) -> None:
    granted = pcp.pcp_answer(raw, NONCE, 4001)
    assert granted is None or 0 <= granted.port <= 65535


@stream_target(
    "NAT-PMP answer", lambda: Conversations([pcp.PMP_MAPPED.pack(0, 130, 0, 7, 4001, 4002, 3600)]), pcp.Refused
)
def _read_pmp(raw: bytes) -> None:
    granted = pcp.pmp_answer(raw, 4001)
    assert granted is None or 0 <= granted.port <= 65535


@stream_target("SSDP answer", lambda: Conversations(FOUND.splitlines(keepends=True)))
def _read_ssdp(raw: bytes) -> None:
    found = upnp.location(raw, "10.0.0.1")
    if found is None:
        raise Malformed("no device of the sender's")
    assert "10.0.0.1" in found


@stream_target("UPnP description", lambda: Conversations(DESCRIBED.split(b"|")))
def _read_description(raw: bytes) -> None:
    found = upnp.service(raw, "http://10.0.0.1:5000/root.xml", "10.0.0.1")
    assert found is None or found.url.startswith("http://")


@stream_target("SOAP answer", lambda: Conversations(RETURNED.split(b"|")), upnp.SoapFault)
def _read_soap(raw: bytes) -> None:
    told = upnp.result(raw, "GetExternalIPAddress")
    assert all(len(value) <= 256 for value in told.values())


@stream_target("route table", lambda: Conversations(TABLE.split(b"|")))
def _read_routes(raw: bytes) -> None:
    if routes.gateway(raw.decode("latin-1")) is None:
        raise Malformed("no gateway")


@stream_target(
    "mDNS answer",
    lambda: Conversations(
        _cut(dns.answer(SERVICE, f"abc.{SERVICE}", [b"dnsaddr=/ip4/10.0.0.3/tcp/4001/p2p/" + PEER], 120)),
        _cut(dns.query(SERVICE)),
    ),
)
def _read_mdns(raw: bytes) -> None:
    for peer, addresses in told(raw, "10.0.0.3", ME).items():
        assert peer != ME
        assert 0 < len(addresses) <= ADDRESSES_PER_PEER_MAX


def _cut(raw: bytes) -> list[bytes]:
    return [raw[at : at + 12] for at in range(0, len(raw), 12)]
