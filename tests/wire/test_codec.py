"""One value, one encoding: whatever else arrives is refused, within bounds, before objects are built."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import codec
from wire.codec import Wire
from wire.errors import Malformed
from wire.limits import DEPTH_MAX, FRAME_BYTES_MAX

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "codec.json").read_text())


class Inner(Wire, frozen=True):
    name: str
    weights: dict[str, float]


class Outer(Wire, frozen=True):
    count: int
    flag: bool
    maybe: bytes | None
    items: list[Inner]
    table: dict[str, bytes]


class Nest(Wire, frozen=True):
    inside: list[Nest]


INNERS = st.builds(Inner, st.text(max_size=8), st.dictionaries(st.text(max_size=4), st.floats(), max_size=3))
OUTERS = st.builds(
    Outer,
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.none() | st.binary(max_size=300),
    st.lists(INNERS, max_size=3),
    st.dictionaries(st.text(max_size=4), st.binary(max_size=4), max_size=3),
)


def _refused(kind: type[Any], raw: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        codec.decode(kind, raw)
    return str(caught.value)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vector(vector: dict[str, Any]) -> None:
    """Bytes of an `Outer`; each refused one names its one reason."""
    raw = bytes.fromhex(vector["hex"])
    if "refused" in vector:
        assert vector["refused"] in _refused(Outer, raw)
    else:
        assert codec.encode(codec.decode(Outer, raw)) == raw
        assert msgspec.to_builtins(codec.decode(Outer, raw), str_keys=True) == vector["value"]


@settings(max_examples=60)
@given(OUTERS)
def test_what_is_encoded_decodes_to_the_same_bytes(value: Outer) -> None:
    raw = codec.encode(value)
    again = codec.decode(Outer, raw)
    assert codec.encode(again) == raw
    if "nan" not in repr(value):  # a NaN does not equal itself
        assert again == value


@settings(max_examples=60)
@given(OUTERS, st.data())
def test_mutated_bytes_are_refused_or_are_themselves_canonical(value: Outer, data: st.DataObject) -> None:
    raw = bytearray(codec.encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                raw[at] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[at:]
                raw = raw or bytearray(b"\xc0")
            case _:
                raw.insert(at, data.draw(st.integers(0, 255)))
    try:
        decoded = codec.decode(Outer, bytes(raw))
    except Malformed:
        return
    assert codec.encode(decoded) == raw


@settings(max_examples=60)
@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_canonical(raw: bytes) -> None:
    for kind in (Outer, Inner, Nest):
        try:
            decoded = codec.decode(kind, raw)
        except Malformed:
            continue
        assert codec.encode(decoded) == raw


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False), max_size=5))
def test_the_order_of_insertion_does_not_show(weights: dict[str, float]) -> None:
    turned = dict(reversed(weights.items()))
    assert codec.encode(Inner("", weights)) == codec.encode(Inner("", turned))


def test_a_nan_has_one_spelling() -> None:
    """NaNs with a payload or a sign are other bytes; the value that Python makes of them may not replace them."""
    plain = codec.encode(Inner("", {"x": math.nan}))
    assert codec.encode(codec.decode(Inner, plain)) == plain
    for bits in (0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001):
        raw = plain[:-8] + bits.to_bytes(8, "big")
        decoded = codec.decode(Inner, raw)
        assert codec.encode(decoded) == raw


def test_a_bool_is_no_integer_and_an_integer_no_float() -> None:
    assert "not a Outer" in _refused(Outer, b"\x95\xc3\xc2\xc0\x90\x80")
    assert "not the canonical" in _refused(Inner, b"\x92\xa0\x81\xa1x\x01")


@pytest.mark.parametrize(
    "bomb",
    [b"\x91" * 10_000, b"\x81\xa0" * 10_000, b"\xdc\x00\x01" * 10_000, b"\xdf\x00\x00\x00\x01\xa0" * 10_000],
    ids=["arrays", "maps", "long arrays", "long maps"],
)
def test_a_depth_bomb_is_refused(bomb: bytes) -> None:
    assert "deeper" in _refused(Nest, bomb)


def test_nesting_up_to_the_limit_is_allowed() -> None:
    """Each struct is an array in an array; `DEPTH_MAX` counts them with the outermost item."""

    def nested(levels: int) -> bytes:
        value = Nest([])
        for _ in range(levels):
            value = Nest([value])
        return codec.encode(value)

    fits = (DEPTH_MAX - 1) // 2 - 1
    codec.decode(Nest, nested(fits))
    assert "deeper" in _refused(Nest, nested(fits + 1))


@pytest.mark.parametrize(
    "raw",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"],
    ids=["array", "map", "bytes", "text"],
)
def test_an_announced_giant_is_refused_without_being_built(raw: bytes) -> None:
    assert "truncated" in _refused(Outer, raw)


def test_frames_past_the_limit_are_refused() -> None:
    assert str(FRAME_BYTES_MAX) in _refused(Outer, bytes(FRAME_BYTES_MAX + 1))
    with pytest.raises(Malformed, match="at most 4 allowed"):
        codec.decode(Outer, bytes(5), bytes_max=4)


def test_an_integer_past_64_bits_cannot_be_encoded() -> None:
    with pytest.raises(OverflowError):
        codec.encode(Outer(2**64, False, None, [], {}))


def test_only_text_can_be_a_key() -> None:
    """Deterministic order is defined for text keys alone, so a struct with others fails at its first use."""
    with pytest.raises(TypeError, match="str keys"):
        codec.encode({1: b""})


def test_a_float_is_always_eight_bytes() -> None:
    assert codec.encode(1.5) == b"\xcb" + struct.pack(">d", 1.5)
