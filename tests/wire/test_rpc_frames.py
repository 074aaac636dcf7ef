"""Frames of a call channel: what is written is read, whatever else arrives is refused by one typed error."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import Malformed
from wire.rpc import frames
from wire.rpc.frames import BATCH_BYTES_MAX, BEGIN, CHUNK_BYTES, ERROR, LAST, MORE, OPEN, Refusal, split

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rpc-v1.json").read_text())

IDS = st.integers(1, 2**32 - 1)
ONE = st.one_of(
    st.builds(frames.open_, IDS, st.text(min_size=1, max_size=16).map(str.encode), st.integers(0, 86_400_000)),
    st.builds(frames.close, IDS),
    st.builds(frames.cancel, IDS),
    st.builds(frames.credit, IDS, st.integers(1, 2**32 - 1)),
    st.builds(frames.error, IDS, st.builds(Refusal, st.text(), st.text(max_size=700), st.integers(-5, 10**9))),
    st.builds(lambda n, raw: frames.begin_head(LAST, n, len(raw), len(raw)) + raw, IDS, st.binary(max_size=300)),
    st.builds(lambda n, raw: frames.more_head(0, n, len(raw)) + raw, IDS, st.binary(min_size=1, max_size=300)),
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_vector(vector: dict[str, Any]) -> None:
    """Each vector is a batch and what a reader finds in it, or the reason to refuse it."""
    if isinstance(vector["expect"], str):
        with pytest.raises(Malformed, match=vector["expect"]):
            split(bytes.fromhex(vector["hex"]))
    else:
        found = [[f.kind, f.flags, f.id, f.payload.hex()] for f in split(bytes.fromhex(vector["hex"]))]
        assert found == vector["expect"]


@given(st.lists(ONE, min_size=1, max_size=12))
def test_a_batch_comes_apart_as_it_was_put_together(batch: list[bytes]) -> None:
    whole = b"".join(batch)
    again, at = [], 0
    for frame in split(whole):
        size = frames.HEAD_BYTES + len(frame.payload)
        assert (frame.kind | frame.flags, frame.id) == (whole[at], int.from_bytes(whole[at + 1 : at + 5], "big"))
        again.append(whole[at : at + size])
        at += size
    assert again == batch


@given(st.lists(ONE, min_size=1, max_size=5), st.data())
def test_a_batch_cut_anywhere_but_between_frames_is_refused(batch: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(batch)
    ends = {sum(map(len, batch[:n])) for n in range(len(batch) + 1)} - {0}
    at = data.draw(st.integers(0, len(whole)))
    if at in ends:
        assert len(split(whole[:at])) <= len(batch)
    else:
        with pytest.raises(Malformed):
            split(whole[:at])


@settings(max_examples=300)
@given(st.binary(max_size=120))
def test_any_bytes_are_frames_or_malformed(raw: bytes) -> None:
    try:
        found = split(raw)
    except Malformed:
        return
    assert sum(frames.HEAD_BYTES + len(frame.payload) for frame in found) == len(raw)


@given(st.text(max_size=90), st.text(max_size=900), st.integers(0, 4_000_000))
def test_a_refusal_comes_back_cut_to_its_bounds(code: str, reason: str, retry_ms: int) -> None:
    (frame,) = split(frames.error(7, Refusal(code, reason, retry_ms)))
    got = frames.read_error(frame.payload)
    assert frame.kind == ERROR
    assert got.code == (frames.cut(code, frames.NAME_BYTES_MAX).decode() or "failed")
    assert got.reason == frames.cut(reason, frames.REASON_BYTES_MAX).decode()
    assert got.retry_ms == min(retry_ms, frames.RETRY_MS_MAX)


@pytest.mark.parametrize(
    "frame",
    [
        bytes([OPEN]) + bytes(4) + b"\0\0\0\6" + bytes(6),
        bytes([0]) + b"\0\0\0\1" + bytes(4),
        bytes([9]) + b"\0\0\0\1" + bytes(4),
        bytes([OPEN | LAST]) + b"\0\0\0\1\0\0\0\6" + bytes(6),
        bytes([BEGIN | 0x10]) + b"\0\0\0\1\0\0\0\5" + bytes(5),
        bytes([MORE]) + b"\0\0\0\1\0\0\0\0",
        bytes([MORE]) + b"\0\0\0\1" + (CHUNK_BYTES + 1).to_bytes(4, "big") + bytes(CHUNK_BYTES + 1),
        bytes([MORE]) + b"\0\0\0\1\xff\xff\xff\xff" + bytes(9),
        bytes(BATCH_BYTES_MAX + 1),
        b"",
    ],
    ids=["id 0", "kind 0", "kind 9", "flag", "flag 2", "empty chunk", "long chunk", "giant", "long batch", "empty"],
)
def test_a_forged_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(Malformed):
        split(frame)


def test_payloads_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(Malformed, match="deadline"):
        frames.read_open(memoryview(b"\xff\xff\xff\xffname"))
    with pytest.raises(Malformed, match="UTF-8"):
        frames.read_open(memoryview(b"\0\0\0\1\xff\xff"))
    with pytest.raises(Malformed, match="nothing"):
        frames.read_credit(memoryview(bytes(4)))
    with pytest.raises(Malformed, match="add up"):
        frames.read_error(memoryview(b"\0\0\0\0\x09code"))
    with pytest.raises(Malformed, match="add up"):
        frames.read_error(memoryview(b"\xff\0\0\0\x04code"))


# ---- compression


@given(st.binary(min_size=1, max_size=40), st.integers(1, 2000))
def test_a_chunk_comes_back(pattern: bytes, times: int) -> None:
    chunk = (pattern * times)[:CHUNK_BYTES]
    packed = frames.deflate(chunk)
    if packed is not None:
        assert len(packed) <= len(chunk) * 7 // 8
        assert frames.inflate(memoryview(packed), CHUNK_BYTES) == chunk


def test_a_decompression_bomb_is_never_blown_up() -> None:
    """64 MB in 64 KB: refused after one byte more than a chunk may have."""
    bomb = zlib.compress(bytes(64 << 20), 9, -15)
    assert len(bomb) < CHUNK_BYTES + 4096
    with pytest.raises(Malformed):
        frames.inflate(memoryview(bomb), CHUNK_BYTES)


@pytest.mark.parametrize("packed", [b"", b"\xff" * 9, zlib.compress(b"", 1, -15), zlib.compress(b"x", 1, -15) + b"y"])
def test_what_is_not_one_compressed_chunk_is_refused(packed: bytes) -> None:
    with pytest.raises(Malformed):
        frames.inflate(memoryview(packed), CHUNK_BYTES)
