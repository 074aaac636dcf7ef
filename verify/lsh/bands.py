"""An index that finds near codes without comparing all: items that agree in a whole band are candidates.

Bounded in memory (`capacity`) and in work per query (`candidates_max`), whoever fills it. Follows Indyk and
Motwani (1998); Leskovec, Rajaraman and Ullman, "Mining of massive datasets", ch. 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import comb

from wire.errors import Busy, LocalError

BITS_MAX = 1 << 16


@dataclass(frozen=True)
class Found:
    """What a query found.

    Attributes:
        near: (key, distance), ascending by distance, then in order of insertion.
        truncated: there were more candidates than were looked at; something near may be missing.
    """

    near: tuple[tuple[bytes, int], ...]
    truncated: bool


class BandedIndex:
    """Keys by code, where a code is `bits` bits in `bands` contiguous bands as equal as can be.

    Distances count the lanes (`lane_bits` consecutive bits) that differ: 1 for Hamming
    distance, 32 for MinHash signatures.

    Args:
        bits: of a code, in bytes little-endian: bit k is bit k % 8 of byte k // 8.
        bands: more find more and cost more; everything nearer than `bands` lanes is found.
        lane_bits: divides bits; bands end where lanes end.
        capacity: the most keys that are held.
        candidates_max: the most candidates that one query compares.

    Raises:
        LocalError: parameters that contradict one another.
    """

    def __init__(
        self, bits: int, bands: int, *, lane_bits: int = 1, capacity: int = 1 << 20, candidates_max: int = 1 << 12
    ) -> None:
        if not 1 <= bits <= BITS_MAX or bits % 8 or lane_bits < 1 or bits % lane_bits:
            raise LocalError(f"{bits} bits in lanes of {lane_bits}")
        if not 1 <= bands <= bits // lane_bits or capacity < 1 or candidates_max < 1:
            raise LocalError(f"{bands} bands, capacity {capacity}, {candidates_max} candidates")
        lanes = bits // lane_bits
        edges = [band * lanes // bands * lane_bits for band in range(bands + 1)]
        self._slices = [(low, (1 << high - low) - 1) for low, high in pairwise(edges)]
        self._bits, self._lane_bits = bits, lane_bits
        self._capacity, self._candidates_max = capacity, candidates_max
        self._codes: dict[bytes, int] = {}
        self._buckets: list[dict[int, dict[bytes, None]]] = [{} for _ in range(bands)]

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, key: bytes, code: bytes) -> None:
        """Hold `key` under `code`; a key that is held gets the new code.

        Raises:
            LocalError: a code of another length. Busy: full; `remove` something first.
        """
        value = self._value(code)
        if key in self._codes:
            self.remove(key)
        elif len(self._codes) >= self._capacity:
            raise Busy(retry_s=0.0, what=f"{self._capacity} keys are held")
        self._codes[key] = value
        for bucket, (low, mask) in zip(self._buckets, self._slices, strict=True):
            bucket.setdefault(value >> low & mask, {})[key] = None

    def remove(self, key: bytes) -> None:
        """Forget `key`; nothing happens if it is not held."""
        value = self._codes.pop(key, None)
        if value is None:
            return
        for bucket, (low, mask) in zip(self._buckets, self._slices, strict=True):
            held = bucket[value >> low & mask]
            del held[key]
            if not held:
                del bucket[value >> low & mask]

    def query(self, code: bytes, radius: int) -> Found:
        """Keys at most `radius` lanes away that share a band with `code`.

        Raises:
            LocalError: a code of another length.
        """
        value = self._value(code)
        seen: dict[bytes, int] = {}
        for bucket, (low, mask) in zip(self._buckets, self._slices, strict=True):
            for key in bucket.get(value >> low & mask, ()):
                if key not in seen:
                    if len(seen) == self._candidates_max:
                        return Found(_sorted(seen, radius), True)
                    seen[key] = self._distance(self._codes[key] ^ value)
        return Found(_sorted(seen, radius), False)

    def _value(self, code: bytes) -> int:
        if len(code) * 8 != self._bits:
            raise LocalError(f"a code of {len(code)} bytes, {self._bits // 8} expected")
        return int.from_bytes(code, "little")

    def _distance(self, difference: int) -> int:
        if self._lane_bits == 1:
            return difference.bit_count()
        mask = (1 << self._lane_bits) - 1
        return sum(bool(difference >> low & mask) for low in range(0, self._bits, self._lane_bits))


def recall(lanes: int, bands: int, distance: int) -> float:
    """The probability that two codes share a band, if the lanes that differ are a uniform draw: 0..1.

    By inclusion and exclusion over the bands that stay whole; 1 wherever distance < bands. The bands must be equal.

    Raises:
        LocalError: bands that do not divide lanes, or a distance that is none.
    """
    if lanes < 1 or bands < 1 or lanes % bands or not 0 <= distance <= lanes:
        raise LocalError(f"{lanes} lanes, {bands} bands, distance {distance}")
    width = lanes // bands
    whole = sum(
        (1 if kept % 2 else -1) * comb(bands, kept) * comb(lanes - kept * width, distance)
        for kept in range(1, bands + 1)
    )
    return whole / comb(lanes, distance)


def _sorted(seen: dict[bytes, int], radius: int) -> tuple[tuple[bytes, int], ...]:
    near = [(key, distance) for key, distance in seen.items() if distance <= radius]
    return tuple(sorted(near, key=lambda item: item[1]))
