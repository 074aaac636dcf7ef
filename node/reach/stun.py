"""The one thing of STUN that a relay answers: from where a datagram came (RFC 8489, Binding). Sans-IO.

    request  = 0x0001 || length || magic cookie || transaction id (12 bytes) || attributes
    response = 0x0101 || length || magic cookie || transaction id || XOR-MAPPED-ADDRESS

Attributes of a request are skipped; nothing else is answered. An answer is at most 24 bytes longer than its request,
and each address is answered a few times a second only, so that nobody is flooded in another's name.
Source: RFC 8489, sections 5, 6.3.1 and 14.2.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

COOKIE = 0x2112A442
HEADER_BYTES = 20
REQUEST_BYTES_MAX = 548
"""What fits into the smallest datagram that every path carries (section 6.1)."""

BINDING_REQUEST, BINDING_SUCCESS = 0x0001, 0x0101
XOR_MAPPED_ADDRESS = 0x0020

BURST, PER_S = 20.0, 5.0
"""Answers to one address: at once, and then a second."""

ALL_BURST, ALL_PER_S = 2000.0, 1000.0
ADDRESSES_MAX = 4096


def transaction(datagram: bytes) -> bytes | None:
    """The transaction id of a Binding request; None for anything else."""
    if not HEADER_BYTES <= len(datagram) <= REQUEST_BYTES_MAX or len(datagram) % 4:
        return None
    kind, length = int.from_bytes(datagram[:2], "big"), int.from_bytes(datagram[2:4], "big")
    if kind != BINDING_REQUEST or length != len(datagram) - HEADER_BYTES:
        return None
    return datagram[8:HEADER_BYTES] if int.from_bytes(datagram[4:8], "big") == COOKIE else None


def response(transaction_id: bytes, ip: str, port: int) -> bytes:
    """The answer: the request came from `ip` and `port`."""
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    mask = COOKIE.to_bytes(4, "big") + transaction_id
    hidden = bytes(one ^ other for one, other in zip(address.packed, mask, strict=False))
    value = bytes([0, 1 if address.version == 4 else 2]) + (port ^ COOKIE >> 16).to_bytes(2, "big") + hidden
    attribute = XOR_MAPPED_ADDRESS.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    head = BINDING_SUCCESS.to_bytes(2, "big") + len(attribute).to_bytes(2, "big") + mask
    return head + attribute


class Bucket:
    """So many at once, and then so many a second."""

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._left, self._at = burst, now

    def take(self, now: float) -> bool:
        """Whether one more is allowed now."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Answerer:
    """Answers datagrams within bounds; `now` is any monotonic clock in seconds."""

    def __init__(self, now: float) -> None:
        self._all = Bucket(ALL_BURST, ALL_PER_S, now)
        self._of: OrderedDict[str, Bucket] = OrderedDict()
        self.answered = self.refused = 0

    def answer(self, datagram: bytes, ip: str, port: int, now: float) -> bytes | None:
        """The answer to a datagram from there, if it gets one."""
        transaction_id = transaction(datagram)
        if transaction_id is None:
            return None
        if not self._bucket(ip, now).take(now) or not self._all.take(now):
            self.refused += 1
            return None
        self.answered += 1
        return response(transaction_id, ip, port)

    def _bucket(self, ip: str, now: float) -> Bucket:
        bucket = self._of.get(ip)
        if bucket is None:
            if len(self._of) >= ADDRESSES_MAX:
                self._of.popitem(last=False)
            bucket = self._of[ip] = Bucket(BURST, PER_S, now)
        self._of.move_to_end(ip)
        return bucket
