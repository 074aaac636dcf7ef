"""As much of Protocol Buffers as circuit relay and DCUtR need: unsigned varints and byte strings by field. Sans-IO.

    field = varint(number << 3 | type) || value;  type 0: varint, type 2: varint length || bytes

Unknown fields are skipped, as the format wants; other types, truncation and numbers past 64 bits are refused.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wire.errors import Malformed

Value = int | bytes
FIELDS_MAX = 256
VARINT_BYTES_MAX = 10


def encode_varint(number: int) -> bytes:
    """An unsigned number, seven bits a byte, lowest first."""
    assert 0 <= number < 1 << 64, "an unsigned 64-bit number"
    raw = bytearray()
    while number >= 0x80:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)
    return bytes(raw)


def decode_varint(raw: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """The number at `at` and where the next byte is; None if it is not complete.

    Raises:
        Malformed: more than 64 bits.
    """
    number = 0
    for place in range(VARINT_BYTES_MAX):
        if at + place >= len(raw):
            return None
        number |= (raw[at + place] & 0x7F) << 7 * place
        if raw[at + place] < 0x80:
            if number >> 64:
                break
            return number, at + place + 1
    raise Malformed("a number of more than 64 bits")


def encode(fields: Iterable[tuple[int, Value]]) -> bytes:
    """A message with these fields, in this order."""
    raw = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            raw += encode_varint(number << 3) + encode_varint(value)
        else:
            raw += encode_varint(number << 3 | 2) + encode_varint(len(value)) + value
    return bytes(raw)


def decode(raw: bytes, *, fields_max: int = FIELDS_MAX) -> dict[int, list[Value]]:
    """The values of each of at most `fields_max` fields, in the order in which they came.

    Raises:
        Malformed: not such a message.
    """
    fields: dict[int, list[Value]] = {}
    for count, (number, value) in enumerate(_fields(raw)):
        if count >= fields_max:
            raise Malformed("too many fields")
        fields.setdefault(number, []).append(value)
    return fields


def _fields(raw: bytes) -> Iterator[tuple[int, Value]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        value, at = _varint(raw, at)
        if tag & 7 == 2:
            at, length = at + value, value
            if at > len(raw):
                raise Malformed("a field is cut off")
            yield tag >> 3, raw[at - length : at]
        elif tag & 7 == 0:
            yield tag >> 3, value
        else:
            raise Malformed(f"a field of type {tag & 7}")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    if at < len(raw) and raw[at] < 0x80:  # nearly all of them
        return raw[at], at + 1
    found = decode_varint(raw, at)
    if found is None:
        raise Malformed("a number is cut off")
    return found


def number(fields: dict[int, list[Value]], field: int) -> int | None:
    """The last value of a field of numbers, or None.

    Raises:
        Malformed: it holds bytes.
    """
    values = fields.get(field)
    if not values:
        return None
    if not isinstance(values[-1], int):
        raise Malformed(f"field {field} is not a number")
    return values[-1]


def strings(fields: dict[int, list[Value]], field: int) -> list[bytes]:
    """All values of a field of bytes.

    Raises:
        Malformed: one is a number.
    """
    values = fields.get(field)
    if not values:
        return []
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != len(values):
        raise Malformed(f"field {field} does not hold bytes")
    return found


class Delimited:
    """Messages of a stream, each after its length as a varint; holds at most one of `bytes_max` bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._raw = bytearray()

    def feed(self, data: bytes) -> None:
        """Bytes that arrived."""
        self._raw += data

    def next(self) -> bytes | None:
        """The next message, or None if it is not complete.

        Raises:
            Malformed: longer than allowed.
        """
        head = decode_varint(self._raw, 0)
        if head is None:
            return None
        length, at = head
        if length > self._bytes_max:
            raise Malformed(f"a message of {length} bytes, at most {self._bytes_max} allowed")
        if len(self._raw) < at + length:
            return None
        message = bytes(self._raw[at : at + length])
        del self._raw[: at + length]  # moves nothing, however much has arrived behind it
        return message

    def rest(self) -> bytes:
        """What arrived behind the last message; it is not kept here any longer."""
        rest = bytes(self._raw)
        self._raw.clear()
        return rest


def delimit(message: bytes) -> bytes:
    """A message behind its length."""
    return encode_varint(len(message)) + message
