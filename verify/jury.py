"""Who judges: a draw that neither requester nor worker could choose, proportional to integer weights.

The beacon needs the worker's root and the requester's secret, each fixed before the other was known. Peers are
ordered by -log2(u)/weight, which is exponential with rate `weight`, so a peer comes first with a probability
proportional to its weight (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006). All
arithmetic is on integers, so that every platform draws the same jury. Format: docs/spec/receipt.md, "Draw order".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from wire import codec
from wire.errors import Malformed
from wire.hashing import digest
from wire.job import JobSpec, PoolMember
from wire.limits import JURY_MAX, JURY_POOL_MAX
from wire.peer import PeerId

WEIGHT_MAX = 2**32 - 1
SECRET_BYTES = 32
_FRACTION_BITS = 48


def pool_of(weights: Mapping[PeerId, int]) -> list[PoolMember]:
    """The canonical pool: peers ascending, with integer weights 1..2**32-1."""
    return [PoolMember(peer, weights[peer]) for peer in sorted(weights)]


def pool_hash(pool: Sequence[PoolMember]) -> bytes:
    """What `JobSpec.pool` fixes before any work is done."""
    return digest("pool", codec.encode(list(pool)))


def check_pool(spec: JobSpec, pool: Sequence[PoolMember]) -> None:
    """Check a pool against the job.

    Raises:
        Malformed: too many members, not strictly ascending, a weight out of range, or not the pool of the spec.
    """
    if len(pool) > JURY_POOL_MAX:
        raise Malformed(f"a pool of {len(pool)}, at most {JURY_POOL_MAX} allowed")
    if any(len(member.peer) != 32 or not 1 <= member.weight <= WEIGHT_MAX for member in pool):
        raise Malformed("a pool member's identity or weight is out of range")
    if any(a.peer >= b.peer for a, b in pairwise(pool)):
        raise Malformed("pool members do not ascend")
    if pool_hash(pool) != spec.pool:
        raise Malformed("not the pool that the spec fixed")


def check_size(size: int) -> None:
    """Raises: Malformed unless the jury is empty, or odd and within the limit."""
    if size != 0 and not (size % 2 == 1 and 1 <= size <= JURY_MAX):
        raise Malformed(f"a jury of {size}: 0 or an odd number up to {JURY_MAX} expected")


def beacon_hash(secret: bytes) -> bytes:
    """What `JobSpec.beacon_hash` fixes, from the requester's 32 secret bytes."""
    return digest("beacon.secret", secret)


def check_secret(spec: JobSpec, secret: bytes) -> None:
    """Raises: Malformed if `secret` is not the one whose hash the spec fixed."""
    if len(secret) != SECRET_BYTES or beacon_hash(secret) != spec.beacon_hash:
        raise Malformed("not the beacon secret that the spec fixed")


def beacon(job: bytes, root: bytes, secret: bytes) -> bytes:
    """The 32 bytes that decide the draw; computable only once the worker committed and the secret is out."""
    return digest("beacon", job, root, secret)


def log2_fixed(x: int) -> int:
    """log2 of `x` (1 <= x < 2**64), rounded down step by step, with 48 fractional bits, by repeated squaring."""
    assert 1 <= x < 1 << 64, "the argument has 64 bits"
    whole = x.bit_length() - 1
    mantissa = x << (63 - whole)
    fraction = 0
    for _ in range(_FRACTION_BITS):
        mantissa = mantissa * mantissa >> 63
        fraction <<= 1
        if mantissa >> 64:
            mantissa >>= 1
            fraction |= 1
    return (whole << _FRACTION_BITS) | fraction


def cost(beacon_value: bytes, member: PoolMember) -> Fraction:
    """The exact cost of one peer: the lowest is drawn first."""
    ticket = int.from_bytes(digest("draw", beacon_value, member.peer)[:8], "big")
    return Fraction((64 << _FRACTION_BITS) - log2_fixed(ticket | 1), member.weight)


def draw_order(beacon_value: bytes, pool: Sequence[PoolMember], exclude: frozenset[PeerId]) -> list[PeerId]:
    """All eligible peers, first drawn first.

    Args:
        beacon_value: 32 bytes from `beacon`.
        pool: the members; see `check_pool`.
        exclude: the requester and the worker.
    """
    eligible = [member for member in pool if member.peer not in exclude]
    return [member.peer for member in sorted(eligible, key=lambda m: (cost(beacon_value, m), m.peer))]


def jury_hash(jury: Sequence[PeerId]) -> bytes:
    """What a statement says about its jury: these peers, in draw order."""
    return digest("jury", codec.encode(list(jury)))
