"""Frames of a call channel: one channel frame carries a batch of them (docs/spec/rpc.md, "Frames").

A frame is kind and flags (1 byte), request id (4), payload length (4), payload. `split` cuts a batch without copying
and refuses whatever no correct peer sends; what a frame means is for `caller` and `server`.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from wire.errors import Malformed

OPEN, BEGIN, MORE, CLOSE, ERROR, CANCEL, CREDIT = range(1, 8)
KIND = 0x0F
LAST = 0x80
"""On BEGIN: with this message its sender has said all."""
ZIPPED = 0x40
"""On BEGIN and MORE: the chunk is compressed (raw deflate, RFC 1951)."""

CHUNK_BYTES = 64 << 10
"""Most bytes of a message in one frame, before compression."""

BATCH_BYTES_MAX = 512 << 10
"""Longest channel frame."""

MESSAGE_BYTES_MAX = (4 << 20) + (64 << 10)
"""Longest message: 4 MiB of tensors and 64 KiB around them."""

NAME_BYTES_MAX = 64
REASON_BYTES_MAX = 500
RETRY_MS_MAX = 3_600_000
DEADLINE_MS_MAX = 24 * 3_600_000

_HEAD = struct.Struct(">BII")
_BEGIN = struct.Struct(">BIII")
_OPEN = struct.Struct(">BIII")
_U32 = struct.Struct(">I")
HEAD_BYTES = _HEAD.size

_FLAGS = {OPEN: 0, BEGIN: LAST | ZIPPED, MORE: ZIPPED, CLOSE: 0, ERROR: 0, CANCEL: 0, CREDIT: 0}


class Frame(NamedTuple):
    """One frame; `payload` is a view on the batch it came in."""

    kind: int
    flags: int
    id: int
    payload: memoryview


class Refusal(NamedTuple):
    """The payload of an ERROR frame; `retry_ms` is 0 where trying again cannot help."""

    code: str
    reason: str
    retry_ms: int = 0


def split(batch: bytes) -> list[Frame]:
    """The frames of a batch.

    Raises:
        Malformed: too long, empty, cut off, an unknown kind or flag, id 0, or a payload of a length that its kind
            cannot have.
    """
    size = len(batch)
    if not 0 < size <= BATCH_BYTES_MAX:
        raise Malformed(f"a batch of {size} bytes")
    view, at = memoryview(batch), 0
    frames: list[Frame] = []
    while at < size:
        start = at + HEAD_BYTES
        if start > size:
            raise Malformed("a frame cut off in its head")
        first, number, length = _HEAD.unpack_from(batch, at)
        at = start + length
        if at > size:
            raise Malformed("a frame cut off")
        kind, flags = first & KIND, first & ~KIND
        if flags & ~_FLAGS.get(kind, -1) or kind not in _FLAGS or number == 0:
            raise Malformed(f"frame 0x{first:02x} of request {number}")
        payload = view[start:at]
        if not _fits(kind, length):
            raise Malformed(f"{length} bytes in a frame of kind {kind}")
        frames.append(Frame(kind, flags, number, payload))
    return frames


def _fits(kind: int, length: int) -> bool:
    if kind == MORE:
        return 1 <= length <= CHUNK_BYTES
    if kind == BEGIN:
        return 4 <= length <= 4 + CHUNK_BYTES
    if kind == OPEN:
        return 4 < length <= 4 + NAME_BYTES_MAX
    if kind == CREDIT:
        return length == 4
    if kind == ERROR:
        return 5 < length <= 5 + NAME_BYTES_MAX + REASON_BYTES_MAX
    return length == 0


# ---- writing


def open_(number: int, name: bytes, remaining_ms: int) -> bytes:
    """A request for a method, with the milliseconds that are left for it."""
    return _OPEN.pack(OPEN, number, 4 + len(name), remaining_ms) + name


def begin_head(flags: int, number: int, total: int, chunk: int) -> bytes:
    """What stands before the first chunk (of `chunk` bytes as sent) of a message of `total` bytes."""
    return _BEGIN.pack(BEGIN | flags, number, 4 + chunk, total)


def more_head(flags: int, number: int, chunk: int) -> bytes:
    """What stands before every further chunk."""
    return _HEAD.pack(MORE | flags, number, chunk)


def close(number: int) -> bytes:
    """No further message of ours; for a stream that ends without one."""
    return _HEAD.pack(CLOSE, number, 0)


def cancel(number: int) -> bytes:
    """The caller has gone."""
    return _HEAD.pack(CANCEL, number, 0)


def credit(number: int, messages: int) -> bytes:
    """So many messages were taken, in their order."""
    return _HEAD.pack(CREDIT, number, 4) + _U32.pack(messages)


def error(number: int, refusal: Refusal) -> bytes:
    """The request has failed; texts are cut to what a frame may hold."""
    code = cut(refusal.code, NAME_BYTES_MAX) or b"failed"
    reason = cut(refusal.reason, REASON_BYTES_MAX)
    retry_ms = max(0, min(refusal.retry_ms, RETRY_MS_MAX))
    payload = _U32.pack(retry_ms) + bytes([len(code)]) + code + reason
    return _HEAD.pack(ERROR, number, len(payload)) + payload


def cut(text: str, bytes_max: int) -> bytes:
    """UTF-8 of at most so many bytes, ending with a whole character."""
    return text.encode(errors="replace")[:bytes_max].decode(errors="ignore").encode()


# ---- reading payloads


def read_open(payload: memoryview) -> tuple[str, int]:
    """Method name and remaining milliseconds.

    Raises:
        Malformed: not UTF-8, or a deadline past `DEADLINE_MS_MAX`.
    """
    (remaining_ms,) = _U32.unpack_from(payload)
    if remaining_ms > DEADLINE_MS_MAX:
        raise Malformed(f"a deadline in {remaining_ms} ms")
    return _text(payload[4:]), remaining_ms


def read_begin(payload: memoryview) -> tuple[int, memoryview]:
    """Length of the whole message and its first chunk."""
    return _U32.unpack_from(payload)[0], payload[4:]


def read_credit(payload: memoryview) -> int:
    """How many messages were taken.

    Raises:
        Malformed: none.
    """
    messages: int = _U32.unpack(payload)[0]
    if not messages:
        raise Malformed("a credit of nothing")
    return messages


def read_error(payload: memoryview) -> Refusal:
    """What an ERROR frame says.

    Raises:
        Malformed: lengths that do not add up, a wait past `RETRY_MS_MAX`, or not UTF-8.
    """
    (retry_ms,) = _U32.unpack_from(payload)
    size = payload[4]
    code, reason = payload[5 : 5 + size], payload[5 + size :]
    if not 0 < size <= NAME_BYTES_MAX or len(code) != size or len(reason) > REASON_BYTES_MAX or retry_ms > RETRY_MS_MAX:
        raise Malformed("an error frame that does not add up")
    return Refusal(_text(code), _text(reason), retry_ms)


def _text(raw: memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as exc:
        raise Malformed(f"not UTF-8: {exc}") from exc


# ---- compression of one chunk


def deflate(chunk: bytes | memoryview) -> bytes | None:
    """The chunk compressed at level 1; None unless it shrinks by an eighth."""
    squeezer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = squeezer.compress(chunk) + squeezer.flush()
    return packed if len(packed) <= len(chunk) * 7 // 8 else None


def inflate(packed: memoryview, bytes_max: int) -> bytes:
    """The chunk that was compressed.

    Raises:
        Malformed: not deflate, anything behind its end, nothing in it, or more than `bytes_max` bytes, of which no more
            than one too many is ever made.
    """
    opener = zlib.decompressobj(-15)
    try:
        chunk = opener.decompress(packed, bytes_max + 1)
    except zlib.error as exc:
        raise Malformed(f"not deflate: {exc}") from exc
    if not 0 < len(chunk) <= bytes_max or not opener.eof or opener.unused_data:
        raise Malformed("a compressed chunk that does not fit")
    return chunk
