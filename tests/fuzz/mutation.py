"""Structural mutation of MessagePack: valid messages with a few things wrong, or bytes that are wrong altogether.

A message is a tree of plain values. A mutation replaces, drops, repeats or moves one node of it and encodes the tree
again; bytes that are themselves a message (bodies of envelopes, entries) are opened on the way, and an envelope whose
body changed is signed again most of the time, so that what lies behind the signature is reached. A part of the cases is
changed byte by byte. Everything follows from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from wire import codec
from wire.hashing import digest

encode = msgspec.msgpack.Encoder().encode
"""Keeps the order of maps, so that a case can also have them in the wrong one."""

Tree = Any
Path = tuple[Any, ...]
Sign = Callable[[bytes], bytes]
Repair = Callable[[Tree, Random], Tree]

OPEN = None
"""A step of a path: into the message that these bytes are."""

INTS = [0, 1, -1, 2, 31, 32, 33, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1]
INTS += [2**63 - 1, 2**63, 2**64 - 1, -33, -128, -129, -(2**31), -(2**63)]
FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e-300,
    5e-324,
    1e308,
    1.7976931348623157e308,
    float("nan"),
    float("inf"),
    -float("inf"),
]
LENGTHS = [0, 1, 4, 16, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 300]
STRINGS = [
    "",
    "a",
    "accept",
    "reject",
    "abstain",
    "exact",
    "tolerant",
    "\x00",
    "é" * 40,
    "x" * 300,
    "\ud7ff",
    "𐍈",
    "nan",
]
TAGS = [
    0x90,
    0x91,
    0x9F,
    0x80,
    0x81,
    0xC0,
    0xC1,
    0xC2,
    0xC4,
    0xC6,
    0xC7,
    0xCA,
    0xCB,
    0xCC,
    0xCF,
    0xD3,
    0xD4,
    0xD9,
    0xDB,
]
TAGS += [0xDC, 0xDD, 0xDE, 0xDF, 0xE0, 0xFF]
BYTES_MAX = 1 << 16
"""Cases do not grow past this, or they would test nothing but the limit on the length."""


@dataclass(frozen=True)
class Sample:
    """A valid message: as a tree, and the way to each node of it."""

    tree: Tree
    paths: Sequence[Path]


def sample(raw: bytes, *, nodes_max: int = 400) -> Sample:
    """Take a valid message apart; of a very large one only the first nodes are changed."""
    tree = msgspec.msgpack.decode(raw)
    paths: list[Path] = []
    _walk(tree, (), paths, nodes_max)
    return Sample(tree, paths)


def take_apart(messages: Sequence[bytes]) -> list[Sample]:
    """Samples of those messages that are MessagePack at all."""
    found = []
    for raw in messages:
        try:
            found.append(sample(raw))
        except (msgspec.DecodeError, ValueError):
            continue
    return found


def _walk(tree: Tree, path: Path, paths: list[Path], nodes_max: int) -> None:
    if len(paths) >= nodes_max:
        return
    paths.append(path)
    if isinstance(tree, list):
        for index, each in enumerate(tree):
            _walk(each, (*path, index), paths, nodes_max)
    elif isinstance(tree, dict):
        for key, each in tree.items():
            _walk(each, (*path, key), paths, nodes_max)
    elif isinstance(tree, bytes) and (inner := _message(tree)) is not None:
        _walk(inner, (*path, OPEN), paths, nodes_max)


def _message(raw: bytes) -> Tree | None:
    """The message that these bytes are, if they are a list."""
    if len(raw) < 3 or not (0x90 <= raw[0] <= 0x9F or raw[0] == 0xDC):
        return None
    try:
        return msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return None


class Mutator:
    """Makes cases from samples.

    Args:
        samples: valid messages of one kind, or of several.
        signers: by public key, who can sign again.
        repair: changes the tree of a case so that more of it holds, e.g. a hash over another part.
    """

    def __init__(
        self, samples: Sequence[Sample], signers: Mapping[bytes, Sign] | None = None, repair: Repair | None = None
    ) -> None:
        self._samples = samples
        self._signers = signers or {}
        self._repair = repair

    def valid(self) -> list[bytes]:
        """The messages that it starts from."""
        return [encode(each.tree) for each in self._samples]

    def case(self, random: Random) -> bytes:
        """One case; now and then a valid one."""
        chosen = random.choice(self._samples)
        tree = chosen.tree
        for _ in range(random.choice((0, 1, 1, 1, 1, 2, 2, 3))):
            tree = self._changed(tree, random.choice(chosen.paths), random)
        if self._repair is not None and random.random() < 0.7:
            tree = self._repair(tree, random)
        raw = encode(tree)
        return _scribbled(raw, random) if random.random() < 0.2 else raw

    def _changed(self, tree: Tree, path: Path, random: Random) -> Tree:
        if not path:
            return self._other(tree, random)
        step, rest = path[0], path[1:]
        if step is OPEN:
            inner = _message(tree) if isinstance(tree, bytes) else None
            return tree if inner is None else encode(self._changed(inner, rest, random))
        if isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            copy = [*tree]
            copy[step] = self._changed(tree[step], rest, random)
            return self._signed(copy, random) if step == 2 and rest[:1] == (OPEN,) else copy
        if isinstance(tree, dict) and step in tree:
            return {**tree, step: self._changed(tree[step], rest, random)}
        return tree

    def _signed(self, envelope: list[Tree], random: Random) -> list[Tree]:
        """[domain, author, body, signature], with a signature that holds for the new body, most of the time."""
        kinds = (str, bytes, bytes)
        if len(envelope) != 4 or not all(isinstance(part, kind) for part, kind in zip(envelope, kinds, strict=False)):
            return envelope
        sign = self._signers.get(envelope[1])
        if sign is None or random.random() < 0.1:
            return envelope
        return [*envelope[:3], sign(digest("envelope", envelope[0].encode(), envelope[1], envelope[2]))]

    def _other(self, value: Tree, random: Random) -> Tree:
        """Another value in place of this one."""
        dice = random.random()
        if dice < 0.1:
            return _any(random)
        if dice < 0.2:
            return self._borrowed(random)
        if isinstance(value, bool) or value is None:
            return _any(random)
        if isinstance(value, int):
            return random.choice((random.choice(INTS), value + random.choice((1, -1, 2, 256)), -value)) % 2**64
        if isinstance(value, float):
            return random.choice((random.choice(FLOATS), -value, value * 2, value / 3))
        if isinstance(value, bytes):
            return _bytes(value, random)
        if isinstance(value, str):
            return random.choice((random.choice(STRINGS), value[:-1], value + "x", value.upper()))
        return _list(value, random) if isinstance(value, list) else _dict(value, random)

    def _borrowed(self, random: Random) -> Tree:
        """A node of some other message."""
        donor = random.choice(self._samples)
        tree = donor.tree
        for step in random.choice(donor.paths):
            tree = _message(tree) if step is OPEN else tree[step]
        return tree


def _any(random: Random) -> Tree:
    return random.choice(
        (
            None, True, False, random.choice(INTS), random.choice(FLOATS), random.choice(STRINGS), [], {}, [[]],
            [None] * 5, random.randbytes(random.choice(LENGTHS)), {"a": 1.0}, {1: 2}, {"": float("nan")},
            [random.choice(INTS)] * 3,
        )
    )  # fmt: skip


def _bytes(value: bytes, random: Random) -> bytes:
    way = random.randrange(6)
    if way == 0 or not value:
        return random.randbytes(random.choice(LENGTHS))
    if way == 1:
        return value[: random.randrange(len(value))]
    if way == 2:
        return (value + random.randbytes(random.choice((1, 2, 32))))[:BYTES_MAX]
    if way == 3:
        return bytes(len(value))
    if way == 4:
        return b"\xff" * len(value)
    at = random.randrange(len(value))
    return value[:at] + bytes([value[at] ^ (1 << random.randrange(8))]) + value[at + 1 :]


def _list(value: list[Tree], random: Random) -> list[Tree]:
    way = random.randrange(7)
    if way == 0 or not value:
        return [*value, _any(random)]
    at = random.randrange(len(value))
    if way == 1:
        return value[:at] + value[at + 1 :]
    if way == 2:
        return [*value[:at], value[at], *value[at:]]
    if way == 3:
        other = random.randrange(len(value))
        copy = [*value]
        copy[at], copy[other] = copy[other], copy[at]
        return copy
    if way == 4:
        return value[::-1]
    if way == 5:
        return [] if random.random() < 0.5 else [[*value]]
    return (value * random.choice((2, 3, 70)))[:300]


def _dict(value: dict[Tree, Tree], random: Random) -> dict[Tree, Tree]:
    copy = dict(value)
    way = random.randrange(4)
    if way == 0 or not copy:
        copy[random.choice(STRINGS)] = _any(random)
        return dict(sorted(copy.items(), key=lambda item: str(item[0])))
    key = random.choice(list(copy))
    gone = copy.pop(key)
    if way == 1:
        copy[random.choice(STRINGS)] = gone
    elif way == 2:
        copy = {f"{key}{index}": gone for index in range(random.choice((2, 17, 65)))}
    return copy if random.random() < 0.1 else dict(sorted(copy.items(), key=lambda item: str(item[0])))


def _scribbled(raw: bytes, random: Random) -> bytes:
    """The same bytes with a few that are wrong."""
    data = bytearray(raw)
    for _ in range(random.choice((1, 1, 2, 4))):
        if not data:
            return random.randbytes(random.choice(LENGTHS))
        at, way = random.randrange(len(data)), random.randrange(7)
        if way == 0:
            data[at] ^= 1 << random.randrange(8)
        elif way == 1:
            data[at] = random.choice(TAGS)
        elif way == 2:
            del data[at : at + random.choice((1, 2, 9))]
        elif way == 3:
            data[at:at] = random.randbytes(random.choice((1, 2, 5)))
        elif way == 4:
            del data[at:]
        elif way == 5:
            data[at:at] = bytes([random.choice(TAGS), *random.choice((b"\xff\xff\xff\xff", b"\x00\x00", b"\x7f"))])
        else:
            data[at:at] = data[at : at + 64]
    return bytes(data[:BYTES_MAX])


def canonical(raw: bytes, decoded: Tree) -> None:
    """What decodes must be encoded to the same bytes."""
    assert codec.encode(decoded) == raw, "decoded, but does not encode back to the same bytes"
