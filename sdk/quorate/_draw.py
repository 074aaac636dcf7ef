"""The order in which a jury is drawn: weighted rendezvous in integers (docs/spec/receipt.md, Draw order)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from quorate._canonical import digest

FRACTION_BITS = 48


def log2_fixed(x: int) -> int:
    """floor(log2 x) to `FRACTION_BITS` fractional bits, for 1 <= x < 2**64."""
    whole = x.bit_length() - 1
    mantissa = x << (63 - whole)
    fraction = 0
    for _ in range(FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> 63
        fraction <<= 1
        if mantissa >> 64:
            mantissa >>= 1
            fraction |= 1
    return (whole << FRACTION_BITS) + fraction


def draw_order(beacon: bytes, members: Iterable[tuple[bytes, int]]) -> list[bytes]:
    """Peers in draw order.

    Args:
        beacon: 32 bytes.
        members: peers with their weights, at least 1; without requester and worker.
    """
    costs = []
    for peer, weight in members:
        ticket = int.from_bytes(digest("draw", beacon, peer)[:8], "big")
        costs.append((Fraction((64 << FRACTION_BITS) - log2_fixed(ticket | 1), weight), peer))
    return [peer for _, peer in sorted(costs)]
