"""Fuzz targets that read Protocol Buffers: valid messages with a few fields replaced, dropped, repeated or nested anew.

A message is a list of fields; a field of bytes that is itself a message may be opened on the way. One case in five is
changed byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from node.gossip.message import Message, sign
from node.gossip.rpc import Ihave, Prune, Rpc, Subscription
from node.reach import protobuf
from node.reach.protobuf import Value, encode_varint
from tests.fuzz.targets import TARGETS, Target
from tests.verify.world import names, person
from wire.errors import Malformed

NUMBERS = [0, 1, 2, 127, 128, 255, 300, 2**31, 2**32, 2**63, 2**64 - 1]
LENGTHS = [0, 1, 31, 32, 38, 64, 128, 129, 300, 4096, 4097]

Fields = list[tuple[int, Value]]


def _fields(raw: bytes) -> Fields:
    return [(number, value) for number, values in protobuf.decode(raw).items() for value in values]


class Protobufs:
    """Cases made of these messages."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self._messages = messages

    def case(self, random: Random) -> bytes:
        raw = random.choice(self._messages)
        for _ in range(random.choice([0, 1, 1, 2, 4])):
            raw = self._bytewise(raw, random) if random.random() < 0.2 else self._mutated(raw, random, 4)
        return raw

    def _bytewise(self, raw: bytes, random: Random) -> bytes:
        at = random.randrange(len(raw) + 1)
        how = random.randrange(4)
        if how == 0:
            return raw[:at]
        if how == 1:
            return raw[:at] + encode_varint(random.choice(NUMBERS)) + raw[at:]
        return raw[:at] + bytes([random.randrange(256)]) + raw[at + how - 2 :]

    def _mutated(self, raw: bytes, random: Random, depth: int) -> bytes:
        try:
            fields = _fields(raw)
        except Malformed:
            return self._bytewise(raw, random)
        if not fields:
            return protobuf.encode([(random.randrange(1, 9), self._value(random))])
        at = random.randrange(len(fields))
        number, value = fields[at]
        if isinstance(value, bytes) and value and depth and random.random() < 0.6:
            fields[at] = number, self._mutated(value, random, depth - 1)
            return protobuf.encode(fields)
        how = random.randrange(5)
        if how == 0:
            del fields[at]
        elif how == 1:
            fields[at:at] = [fields[at]] * random.choice([1, 2, 20, 200])
        elif how == 2:
            fields[at] = random.randrange(1, 9), value
        elif how == 3:
            fields[at] = number, self._value(random)
        else:
            fields.append((number, random.choice(self._messages)))
        return protobuf.encode(fields)

    def _value(self, random: Random) -> Value:
        if random.random() < 0.4:
            return random.choice(NUMBERS)
        return random.randbytes(1) * random.choice(LENGTHS)


def _target(name: str, messages: Callable[[], Sequence[bytes]], run: Callable[[bytes], object]) -> None:
    @cache
    def cases() -> Protobufs:
        return Protobufs(messages())

    TARGETS[name] = Target(name, run, cases)


PEOPLE = [person(name) for name in names(3).values()]


def _messages() -> list[bytes]:
    keys = [protobuf.encode([(6, protobuf.encode([(1, 1), (2, each.peer)]))]) for each in PEOPLE]
    made = [sign(each, "/quorate/heads/1", b"digest" * 9, at).encode() for at, each in enumerate(PEOPLE)]
    return made + [raw + key for raw, key in zip(made, keys, strict=True)]


def _rpcs() -> list[bytes]:
    message = _messages()[0]
    control = ((Ihave("t", (b"one" * 9, b"two" * 9)),), (b"three" * 9,), ("t", "u"), (Prune("t", 60), Prune("u")))
    hello = Rpc(tuple(Subscription(bool(at % 2), f"/topic/{at}") for at in range(4)))
    return [hello.encode(), Rpc(publish=(message, message)).encode(), Rpc((), (message,), *control).encode()]


def _message(raw: bytes) -> None:
    message = Message.decode(raw)
    assert Message.decode(message.encode()) == message
    assert len(message.id) == 46


def _rpc(raw: bytes) -> None:
    rpc = Rpc.decode(raw)
    assert Rpc.decode(rpc.encode()) == rpc


_target("gossip message", _messages, _message)
_target("gossip RPC", _rpcs, _rpc)
