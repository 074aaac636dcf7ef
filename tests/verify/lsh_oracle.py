"""The definitions of docs/spec/lsh.md in plain Python, one item at a time: what both backends are held to."""

from __future__ import annotations

from math import cos, pi, sin

M64, M32 = (1 << 64) - 1, (1 << 32) - 1


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & M64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & M64
    return z ^ (z >> 31)


def distance(a: list[int], b: list[int]) -> int:
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


def byte_shingles(text: bytes, width: int) -> list[int]:
    if len(text) < width:
        return [int.from_bytes(text, "little") | len(text) << 56] if text else []
    return [int.from_bytes(text[i : i + width], "little") | width << 56 for i in range(len(text) - width + 1)]


def word_shingles(text: bytes) -> list[int]:
    found = []
    for word in bytes(octet if octet > 0x20 else 0x20 for octet in text).split(b" "):
        value = 0
        for octet in word:
            value = (value * 0x9E3779B97F4A7C15 + octet + 1) & M64
        found += [value] * bool(word)
    return found


def minhash(values: list[int], factors: list[int], terms: list[int]) -> list[int]:
    short = [mix(value) >> 32 for value in values]
    maps = zip(factors, terms, strict=True)
    return [min([a * x + b & M32 for x in short], default=M32) for a, b in maps]


def simhash(values: list[int]) -> int:
    mixed = [mix(value) for value in values]
    return sum((2 * sum(z >> place & 1 for z in mixed) > len(mixed)) << place for place in range(64))


def _window(x: float) -> float:
    if x == 0:
        return 1.0
    return sin(pi * x) * sin(pi * x / 3) * 3 / (pi * x) ** 2 if abs(x) < 3 else 0.0


def weights(length: int, side: int) -> list[list[int]]:
    """The integer weights of pHash along an axis, before rows are made to sum to 0."""
    reduced, scale = 4 * side, length / (4 * side)
    widen = max(scale, 1.0)
    rows = []
    for k in range(side):
        row = [0.0] * length
        for u in range(reduced):
            center = (u + 0.5) * scale
            low, high = max(int(center - 3 * widen + 0.5), 0), min(int(center + 3 * widen + 0.5), length)
            taps = [_window((x - center + 0.5) / widen) for x in range(low, high)]
            for x, tap in enumerate(taps, low):
                row[x] += cos(pi * k * (2 * u + 1) / (2 * reduced)) * tap / sum(taps)
        rows.append([round(value * 65536) for value in row])
    return rows


def phash(grey: list[list[int]], side: int) -> list[bool]:
    """Bits of a grey picture, given exactly, row by row."""
    down, across = weights(len(grey), side), weights(len(grey[0]), side)
    for row in (*down[1:], *across[1:]):
        excess = sum(row)
        order = sorted(range(len(row)), key=lambda x: (-abs(row[x]), x))
        units, rest = divmod(abs(excess), len(row))
        sign = 1 if excess > 0 else -1
        for place, x in enumerate(order):
            row[x] -= sign * (units + (place < rest))
    reduced = [[sum(w * grey[y][x] for y, w in enumerate(row)) for x in range(len(grey[0]))] for row in down]
    found = [sum(w * value for w, value in zip(row, line, strict=True)) for line in reduced for row in across]
    low, high = sorted(found)[side * side // 2 - 1 : side * side // 2 + 1]
    return [2 * value > low + high for value in found]
