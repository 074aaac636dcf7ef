"""Asking an internet gateway device for a port mapping: the texts of SSDP and SOAP. Sans-IO.

What a device sends is a stranger's: bounded before it gets here, taken as XML only without a document type (so without
entities), and followed only to the IP address that it came from.
Source: UPnP Device Architecture 1.1, sections 1.3 and 3; WANIPConnection:2, sections 2.5.16 to 2.5.18.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from wire.errors import Malformed

GROUP, PORT = "239.255.255.250", 1900
BODY_BYTES_MAX = 128 << 10
ANSWER_BYTES_MAX = 4 << 10
SERVICES_MAX = 64
CONFLICT, ONLY_PERMANENT = 718, 725
"""SOAP errors: the port is another host's; only mappings without an end are made."""

TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
)
CONNECTIONS = tuple(f"urn:schemas-upnp-org:service:WAN{kind}" for kind in ("IPConnection:", "PPPConnection:"))


@dataclass(frozen=True)
class Service:
    """Where mappings are asked for."""

    url: str
    kind: str


class SoapFault(Exception):
    """The device says no; `code` is the UPnP error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"UPnP error {code}")
        self.code = code


def search(target: str) -> bytes:
    """An SSDP search."""
    lines = ("M-SEARCH * HTTP/1.1", f"HOST: {GROUP}:{PORT}", 'MAN: "ssdp:discover"', "MX: 1", f"ST: {target}")
    return "\r\n".join((*lines, "", "")).encode()


def location(raw: bytes, sender: str) -> str | None:
    """Where the device that answered a search describes itself; None if it does not say, or points elsewhere."""
    if len(raw) > ANSWER_BYTES_MAX:
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1.1 200"):
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not headers.get("st", "").startswith("urn:schemas-upnp-org:device:InternetGatewayDevice:"):
        return None
    return own_url(headers.get("location", ""), sender)


def own_url(url: str, sender: str) -> str | None:
    """A URL, if it is one of plain HTTP at the sender's own address and not longer than any should be."""
    try:
        parts = urlsplit(url)
        if len(url) > 512 or parts.scheme != "http" or parts.username is not None or parts.port == 0:
            return None
        same = ipaddress.ip_address(parts.hostname or "") == ipaddress.ip_address(sender)
    except ValueError:
        return None
    return url if same else None


def service(raw: bytes, base: str, sender: str) -> Service | None:
    """The service that makes mappings, from a device's description; None if it has none.

    Raises:
        Malformed: not a description.
    """
    found = [each for each in list(_parsed(raw).iter()) if _name(each) == "service"][:SERVICES_MAX]
    for each in found:
        told = {_name(child): (child.text or "").strip() for child in each}
        kind, path = told.get("serviceType", ""), told.get("controlURL", "")
        url = own_url(_joined(base, path), sender)
        if kind.startswith(CONNECTIONS) and kind.rpartition(":")[2] in ("1", "2") and url is not None:
            return Service(url, kind)
    return None


def _joined(base: str, path: str) -> str:
    try:
        return urljoin(base, path)
    except ValueError:
        return ""


def call(kind: str, action: str, **arguments: object) -> tuple[dict[str, str], bytes]:
    """Headers and body of an action."""
    inside = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in arguments.items())
    body = (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{kind}">{inside}</u:{action}></s:Body></s:Envelope>'
    )
    return {"SOAPAction": f'"{kind}#{action}"', "Content-Type": 'text/xml; charset="utf-8"'}, body.encode()


def result(raw: bytes, action: str) -> dict[str, str]:
    """What an action returned.

    Raises:
        SoapFault: the device says no.
        Malformed: something else.
    """
    for each in _parsed(raw).iter():
        if _name(each) == f"{action}Response":
            return {_name(child): (child.text or "").strip()[:256] for child in each}
        if _name(each) == "errorCode":
            code = (each.text or "").strip()
            raise SoapFault(int(code) if code.isascii() and code.isdigit() and len(code) < 6 else 0)
    raise Malformed("neither an answer nor a fault")


def ip_of(text: str) -> str | None:
    """An IPv4 address in its canonical spelling; None for anything else."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        return None


def _parsed(raw: bytes) -> ElementTree.Element:
    if len(raw) > BODY_BYTES_MAX or b"<!" in raw.replace(b"<!--", b"") or b"\x00" in raw:
        raise Malformed("no XML that a router needs")
    try:
        return ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as exc:
        raise Malformed(f"not XML: {exc}") from exc


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
