"""Ed25519 by whole numbers (RFC 8032, section 5.1), to make keys and signatures with parts of small order."""

from __future__ import annotations

import hashlib
from random import Random

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def _add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def _times(n: int, point: Point) -> Point:
    total = NEUTRAL
    while n:
        total = _add(total, point) if n & 1 else total
        point, n = _add(point, point), n >> 1
    return total


def _at(y: int) -> Point | None:
    """The point with an even x at `y`, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if (x * x - square) % P == 0 else x * ROOT % P
    return (min(x, P - x) if min(x, P - x) % 2 == 0 else P - min(x, P - x), y) if (x * x - square) % P == 0 else None


def _encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _of_order_8() -> Point:
    points = (_times(ORDER, point) for y in range(2, 100) if (point := _at(y)) is not None)
    return next(point for point in points if _times(4, point) != NEUTRAL)


BASE = _at(4 * pow(5, -1, P) % P)
assert BASE is not None, "it is on the curve"


def _signed(secret: int, key: Point, nonce: int, point: Point, message: bytes) -> tuple[bytes, bytes, bytes]:
    hashed = hashlib.sha512(_encoded(point) + _encoded(key) + message).digest()
    s = (nonce + int.from_bytes(hashed, "little") * secret) % ORDER
    return _encoded(key), message, _encoded(point) + s.to_bytes(32, "little")


def cases(random: Random, rounds: int = 6) -> list[tuple[bytes, bytes, bytes]]:
    """Author, message, signature: honest, and with a key or nonce that has a part of small order or is nothing else."""
    assert BASE is not None, "it is on the curve"
    small, found = _of_order_8(), []
    for _ in range(rounds):
        secret, nonce, message = random.randrange(ORDER), random.randrange(ORDER), random.randbytes(32)
        key, point = _times(secret, BASE), _times(nonce, BASE)
        for torsion in range(8):
            part = _times(torsion, small)
            found += [
                _signed(secret, _add(key, part), nonce, point, message),
                _signed(secret, key, nonce, _add(point, part), message),
                _signed(secret, _add(key, part), nonce, _add(point, part), message),
                _signed(0, part, nonce, point, message),
                _signed(secret, key, 0, part, message),
            ]
        author, _, signature = _signed(secret, key, nonce, point, message)
        larger = int.from_bytes(signature[32:], "little") + ORDER
        found.append((author, message, signature[:32] + larger.to_bytes(32, "little")))
    for y in range(19):  # each has a second spelling, y + p
        found += [((y + P | sign << 255).to_bytes(32, "little"), b"", bytes(64)) for sign in (0, 1)]
    return found
