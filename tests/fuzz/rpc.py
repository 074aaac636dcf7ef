"""The targets of the call channel, whose frames are not MessagePack: batches, both cores, messages, chunks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from tests.fuzz.targets import TARGETS, Target
from tests.wire.rpc_vectors import ARRAYS, BODY, Example
from wire.errors import Malformed
from wire.peer import PeerId
from wire.rpc import blob, frames, packet
from wire.rpc.caller import Caller
from wire.rpc.frames import CHUNK_BYTES, LAST, ZIPPED, Refusal
from wire.rpc.server import Server
from wire.rpc.share import POOL_BYTES

EDGES = (0, 1, 2, 3, 4, 64, 255, 65_535, 65_536, 65_537, 1 << 20, 4_259_840, 4_259_841, 2**31, 2**32 - 1)


class Pieces:
    """Cases made of pieces in a row: some are dropped, repeated, swapped, or get another number or another byte."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    def case(self, random: Random) -> bytes:
        """One case; now and then a valid one."""
        start = random.randrange(len(self._pieces))
        chosen = list(self._pieces[start : start + random.choice((1, 2, 3, 8))])
        for _ in range(random.choice((0, 0, 1, 1, 1, 2, 3))):
            at = random.randrange(len(chosen))
            dice = random.random()
            if dice < 0.15:
                chosen.insert(at, random.choice(self._pieces))
            elif dice < 0.3 and len(chosen) > 1:
                del chosen[at]
            elif dice < 0.4:
                chosen.append(chosen.pop(at))
            elif dice < 0.5:
                chosen[at] = chosen[at][: random.randrange(len(chosen[at]) + 1)]
            else:
                chosen[at] = _scribbled(chosen[at], random)
        return b"".join(chosen)


def _scribbled(piece: bytes, random: Random) -> bytes:
    """Another byte, or another number of four bytes, somewhere near the front."""
    changed = bytearray(piece)
    at = (
        min(random.randrange(24), max(len(piece) - 1, 0))
        if random.random() < 0.7
        else random.randrange(len(piece) or 1)
    )
    if random.random() < 0.5:
        changed[at : at + 1] = bytes([random.choice((0, 1, 2, 0x40, 0x80, 0xFF, random.randrange(256)))])
    else:
        changed[at : at + 4] = random.choice(EDGES).to_bytes(4, "big")
    return bytes(changed)


def _message(number: int, raw: bytes, flags: int = 0) -> list[bytes]:
    head, rest = raw[: len(raw) // 2], raw[len(raw) // 2 :]
    return [
        frames.begin_head(flags, number, len(raw), len(head)) + head,
        frames.more_head(0, number, len(rest)) + rest,
    ]


def _zipped(number: int, raw: bytes) -> bytes:
    packed = frames.deflate(raw)
    assert packed is not None
    return frames.begin_head(LAST | ZIPPED, number, len(raw), len(packed)) + packed


def _to_server() -> list[bytes]:
    raw = b"".join(packet.encode(BODY, ARRAYS))
    return [
        frames.open_(1, b"one", 500),
        *_message(1, raw, LAST),
        frames.open_(2, b"many", 500),
        *_message(2, bytes(300)),
        *_message(2, bytes(60_000)),
        frames.close(2),
        frames.open_(3, b"one", 0),
        _zipped(3, bytes(9000)),
        frames.cancel(3),
        frames.open_(4, b"other", 9),
        frames.credit(2, 1),
    ]


def _to_caller() -> list[bytes]:
    return [
        *_message(1, b"".join(packet.encode(BODY)), LAST),
        *_message(2, bytes(300)),
        frames.credit(2, 1),
        *_message(2, bytes(60_000)),
        frames.close(2),
        _zipped(3, bytes(9000)),
        frames.error(4, Refusal("busy", "too many", 1000)),
        frames.error(5, Refusal("refused", "no")),
    ]


def _register(name: str, run: Callable[[bytes], object], pieces: Callable[[], Sequence[bytes]]) -> None:
    TARGETS[name] = Target(name, run, lambda: Pieces(pieces()), (Malformed,))


def _batch(raw: bytes) -> None:
    found = frames.split(raw)
    assert sum(frames.HEAD_BYTES + len(frame.payload) for frame in found) == len(raw)


def _server(raw: bytes) -> None:
    server = Server({"one": True, "many": False})
    try:
        server.receive(raw, 0.0)
    finally:
        assert server.held[2] <= sum(POOL_BYTES)
    while server.next_batch()[0] is not None:
        pass
    server.lost()
    assert server.held == (0, 0, 0)


def _caller(raw: bytes) -> None:
    caller = Caller(PeerId(bytes(32)))
    for number in range(1, 6):
        caller.start(b"one", 5.0, 0.0)
        caller.post(number, [b"x"], last=number != 2)
    caller.next_batch(0.0)
    try:
        caller.receive(raw)
    finally:
        assert caller.held[2] <= sum(POOL_BYTES)
    caller.lost()
    assert len(caller) == 0
    assert caller.held == (0, 0, 0)


def _packet(raw: bytes) -> None:
    got = packet.decode(Example, raw)
    assert b"".join(packet.encode(got.body, got.tensors)) == raw


def _chunk(raw: bytes) -> None:
    assert 0 < len(frames.inflate(memoryview(raw), CHUNK_BYTES)) <= CHUNK_BYTES


def _packets() -> list[bytes]:
    more = [np.zeros((2, 0, 3)), np.array(1.5), np.arange(7, dtype="i2")]
    return [b"".join(packet.encode(BODY, arrays)) for arrays in ([], ARRAYS, more, [*more, *ARRAYS])]


def _chunks() -> list[bytes]:
    raws = (bytes(9000), b"quorate " * 900, bytes(1 << 20), bytes(range(256)) * 9)
    return [zlib.compress(raw, level, -15) for raw in raws for level in (1, 9)]


_register("call frames", _batch, lambda: [*_to_server(), *_to_caller()])
_register("call frames at the server", _server, _to_server)
_register("call frames at the caller", _caller, _to_caller)
_register("call message with tensors", _packet, _packets)
_register("call chunk, compressed", _chunk, _chunks)


def _blob(raw: bytes) -> None:
    given = blob.read_given(raw)
    assert given == blob.read_given(blob.give(given) if isinstance(given, int) else blob.refuse(given))


_register("blob, its answer", _blob, lambda: [blob.give(5), blob.refuse("not here"), blob.give(1 << 40)])
