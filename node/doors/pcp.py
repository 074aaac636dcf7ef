"""Requests for a port mapping in two binary formats: PCP (RFC 6887) and its forerunner NAT-PMP (RFC 6886). Sans-IO.

Only TCP over IPv4. Whatever answers is a stranger: an answer counts only if it is one to what was asked (PCP: with our
nonce), and what it grants is a hint and no proof.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from wire.errors import Malformed

PORT = 5351
LIFETIME_S = 3600
"""Seconds asked for."""

ANSWER_BYTES_MAX = 1100
"""The longest answer in either format (RFC 6887, section 7)."""

TCP = 6
PCP_HEAD = struct.Struct(">BBBBII12s")
PCP_MAP = struct.Struct(">12sB3xHH16s")
PMP_ASK = struct.Struct(">BBxxHHI")
PMP_MAPPED = struct.Struct(">BBHIHHI")
PMP_ADDRESS = struct.Struct(">BBHI4s")
UNSUPPORTED_VERSION = 1


@dataclass(frozen=True)
class Granted:
    """What a router says it does.

    Args:
        port: outside.
        lifetime_s: until it ends unless renewed; 0 if it was removed.
        ip: the address outside that it claims; None if it does not say.
    """

    port: int
    lifetime_s: int
    ip: str | None = None


class Refused(Exception):
    """The router speaks the format and says no; `result` is its code."""

    def __init__(self, result: int) -> None:
        super().__init__(f"result {result}")
        self.result = result


def pcp_ask(nonce: bytes, own_ip: str, port: int, outside: int, lifetime_s: int) -> bytes:
    """A PCP MAP request.

    Args:
        nonce: 12 bytes, the same as long as a mapping is renewed.
        own_ip: the IPv4 address that the request is sent from.
        port: inside. outside: the port wished for. lifetime_s: 0 removes the mapping.
    """
    assert len(nonce) == 12, "a nonce has 12 bytes"
    head = struct.pack(">BBHI16s", 2, 1, 0, lifetime_s, _mapped(own_ip))
    return head + PCP_MAP.pack(nonce, TCP, port, outside, _mapped("0.0.0.0"))


def pcp_answer(raw: bytes, nonce: bytes, port: int) -> Granted | None:
    """What an answer grants; None if it is not one to our request.

    Raises:
        Refused: the router says no, or knows NAT-PMP only (`UNSUPPORTED_VERSION`).
        Malformed: too short or too long for what it says it is.
    """
    if not 4 <= len(raw) <= ANSWER_BYTES_MAX:
        raise Malformed("no PCP answer has this length")
    version, opcode, _, result = raw[:4]
    if version == 0 and opcode & 0x80:  # RFC 6886, section 9: what NAT-PMP says to a version that it does not know
        raise Refused(UNSUPPORTED_VERSION)
    if version != 2 or opcode != 0x81:
        return None
    if result == UNSUPPORTED_VERSION:
        raise Refused(result)
    if len(raw) < PCP_HEAD.size + PCP_MAP.size:
        raise Malformed("a PCP answer is cut short")
    lifetime_s = PCP_HEAD.unpack_from(raw)[4]
    said, protocol, inside, outside, ip = PCP_MAP.unpack_from(raw, PCP_HEAD.size)
    if (said, protocol, inside) != (nonce, TCP, port):
        return None
    if result:
        raise Refused(result)
    at = ipaddress.IPv6Address(ip).ipv4_mapped
    return Granted(outside, lifetime_s, str(at) if at is not None else None)


def pmp_ask(port: int, outside: int, lifetime_s: int) -> bytes:
    """A NAT-PMP mapping request; `lifetime_s` 0 removes the mapping."""
    return PMP_ASK.pack(0, 2, port, outside if lifetime_s else 0, lifetime_s)


def pmp_answer(raw: bytes, port: int) -> Granted | None:
    """What an answer grants; None if it is not one to our request.

    Raises:
        Refused: the router says no.
        Malformed: too short or too long for what it says it is.
    """
    if not 4 <= len(raw) <= ANSWER_BYTES_MAX:
        raise Malformed("no NAT-PMP answer has this length")
    if raw[0] != 0 or raw[1] != 130:
        return None
    result = int.from_bytes(raw[2:4], "big")
    if result:
        raise Refused(result)
    if len(raw) < PMP_MAPPED.size:
        raise Malformed("a NAT-PMP answer is cut short")
    _, _, _, _, inside, outside, lifetime_s = PMP_MAPPED.unpack_from(raw)
    return Granted(outside, lifetime_s) if inside == port else None


def _mapped(ip: str) -> bytes:
    return bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(ip).packed
