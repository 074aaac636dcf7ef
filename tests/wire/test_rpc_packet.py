"""Messages with tensors: they come back as views, or nothing is made of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.rpc_vectors import ARRAYS, BODY, Example, vectors
from wire import codec
from wire.errors import LocalError, Malformed
from wire.rpc import packet
from wire.rpc.frames import MESSAGE_BYTES_MAX
from wire.rpc.packet import DTYPES


def whole(*arrays: Any) -> bytearray:
    """A message as it is received."""
    return bytearray(b"".join(packet.encode(BODY, arrays)))


def test_the_vectors_are_those_that_this_code_writes() -> None:
    path = Path(__file__).parents[1] / "vectors" / "rpc-v1.json"
    assert json.loads(path.read_text()) == vectors()


@given(st.text(max_size=200), st.integers(-(2**40), 2**40))
def test_a_struct_comes_back(text: str, number: int) -> None:
    (raw,) = packet.encode(Example(text, number))
    got = packet.decode(Example, bytes(raw))
    assert (got.body, got.tensors) == (Example(text, number), ())


SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@given(st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), min_size=1, max_size=4), st.integers(0, 99))
def test_tensors_come_back_as_views(kinds: list[tuple[str, tuple[int, ...]]], seed: int) -> None:
    generator = np.random.Generator(np.random.Philox(seed))
    arrays = []
    for dtype, shape in kinds:
        raw = generator.bytes(int(np.prod(shape, initial=1)) * np.dtype(dtype).itemsize)
        array = np.frombuffer(raw, dtype="u1" if dtype == "?" else "<" + dtype).reshape(shape)
        arrays.append(array % 2 == 1 if dtype == "?" else array)
    raw = whole(*arrays)
    got = packet.decode(Example, raw)
    assert got.body == BODY
    assert [(t.dtype, t.shape, t.tobytes()) for t in got.tensors] == [(a.dtype, a.shape, a.tobytes()) for a in arrays]
    assert b"".join(packet.encode(got.body, got.tensors)) == raw
    for tensor in got.tensors:
        assert not tensor.flags.writeable
        assert not tensor.flags.owndata


def test_nothing_is_copied_on_either_side() -> None:
    array = np.arange(1000, dtype="<f4")
    assert any(np.shares_memory(np.frombuffer(part, "u1"), array) for part in packet.encode(BODY, [array])[1:])
    raw = whole(array)
    (tensor,) = packet.decode(Example, raw).tensors
    assert np.shares_memory(tensor, np.frombuffer(raw, "u1"))


def test_byte_order_and_strides_do_not_show() -> None:
    plain = np.arange(6, dtype="<i4").reshape(2, 3)
    for other in (plain.astype(">i4"), np.asfortranarray(plain)):
        assert whole(other) == whole(plain)


def forged(at: int, value: bytes, *arrays: Any) -> bytearray:
    """A message with some bytes of its table replaced; the table stands behind 5 bytes and the struct."""
    raw = whole(*arrays)
    start = 5 + len(codec.encode(BODY)) + at
    raw[start : start + len(value)] = value
    return raw


GOOD = ARRAYS[0]
BAD = {
    "empty": b"",
    "too many tensors": bytes([17]) + bytes(40),
    "head cut off": b"\1\0",
    "struct longer than the message": b"\1\xff\xff\xff\xff" + bytes(20),
    "no struct": b"\0\xc1",
    "another struct": b"\0" + codec.encode(["a"]),
    "unknown dtype": forged(0, bytes([len(DTYPES)]), GOOD),
    "too many dimensions": forged(1, b"\x09", GOOD),
    "a shape past all memory": forged(2, b"\xff\xff\xff\xff", GOOD),
    "an empty shape past all memory": forged(
        1, b"\x03" + struct.pack(">III", 2**32 - 1, 0, 2**32 - 1) + b"\0" * 3, GOOD
    ),
    "one item more": forged(2, struct.pack(">I", 4), GOOD),
    "one item less": forged(2, struct.pack(">I", 2), GOOD),
    "bytes behind": whole(GOOD) + b"\0",
    "a byte missing": whole(GOOD)[:-1],
    "padding that is not zero": whole(GOOD, GOOD).replace(GOOD.tobytes() + b"\0", GOOD.tobytes() + b"\1"),
    "a truth value of 2": whole(np.array([True, False]))[:-1] + b"\2",
    "a table cut off": whole(GOOD)[: 5 + len(codec.encode(BODY)) + 1],
}


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_does_not_add_up_is_refused(name: str) -> None:
    assert BAD[name] != whole(GOOD)
    with pytest.raises(Malformed):
        packet.decode(Example, bytes(BAD[name]))


@settings(max_examples=300)
@given(st.integers(0, 80), st.integers(0, 255))
def test_a_changed_byte_gives_another_message_or_none(at: int, value: int) -> None:
    raw = whole(GOOD, np.array([[True]]))
    raw[at % len(raw)] = value
    try:
        got = packet.decode(Example, raw)
    except Malformed:
        return
    assert b"".join(packet.encode(got.body, got.tensors)) == raw


def test_what_cannot_be_sent_is_the_senders_own_fault() -> None:
    with pytest.raises(LocalError):
        packet.encode(BODY, [np.zeros(MESSAGE_BYTES_MAX, dtype="u1")])
    with pytest.raises(LocalError):
        packet.encode(BODY, [np.zeros((2**40, 0))])
    with pytest.raises(LocalError):
        packet.encode(Example("x" * MESSAGE_BYTES_MAX, 1))
    with pytest.raises(LocalError):
        packet.encode(BODY, [GOOD] * 17)
    with pytest.raises(LocalError):
        packet.encode(BODY, [np.zeros((1,) * 9)])
    with pytest.raises(TypeError):
        packet.encode(BODY, [np.array(["text"])])
