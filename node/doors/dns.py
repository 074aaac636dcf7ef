"""The part of DNS messages that finding peers by multicast needs: questions, PTR and TXT records. Sans-IO.

Everything read is bounded: a message by `MESSAGE_BYTES_MAX`, its entries by `ENTRIES_MAX`, a name by 255 bytes and by
pointers that lead strictly backwards, so none is followed for ever. Records of other types are passed over.
Source: RFC 1035, section 4; RFC 6762, section 18; github.com/libp2p/specs, discovery/mdns.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.errors import Malformed

MESSAGE_BYTES_MAX = 9000
ENTRIES_MAX = 64
NAME_BYTES_MAX = 255
TXT_BYTES_MAX = 255

PTR, TXT, ANY = 12, 16, 255
IN = 1
RESPONSE = 0x8000
AUTHORITATIVE = 0x0400


@dataclass(frozen=True)
class Message:
    """What a message says.

    Args:
        asked: names whose PTR records are wanted.
        pointers: name and target of each PTR record. texts: name and strings of each TXT record.
    """

    response: bool
    asked: tuple[str, ...] = ()
    pointers: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, tuple[bytes, ...]], ...] = ()


def query(name: str) -> bytes:
    """A question for the PTR records of a name."""
    return _header(0, 1, 0, 0) + _name(name) + PTR.to_bytes(2, "big") + IN.to_bytes(2, "big")


def answer(name: str, target: str, texts: list[bytes], ttl_s: int) -> bytes:
    """A PTR record from `name` to `target`, and the strings of `target` as a TXT record besides."""
    assert all(len(text) <= TXT_BYTES_MAX for text in texts), "a string of a TXT record is short"
    rdata = b"".join(bytes([len(text)]) + text for text in texts)
    raw = _header(RESPONSE | AUTHORITATIVE, 0, 1, 1) + _record(name, PTR, ttl_s, _name(target))
    return raw + _record(target, TXT, ttl_s, rdata or b"\0")


def _header(flags: int, questions: int, answers: int, additional: int) -> bytes:
    return b"".join(part.to_bytes(2, "big") for part in (0, flags, questions, answers, 0, additional))


def _name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".")]
    assert all(0 < len(label) < 64 for label in labels), "a label has 1 to 63 bytes"
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _record(name: str, kind: int, ttl_s: int, rdata: bytes) -> bytes:
    head = _name(name) + kind.to_bytes(2, "big") + IN.to_bytes(2, "big")
    return head + ttl_s.to_bytes(4, "big") + len(rdata).to_bytes(2, "big") + rdata


def parse(raw: bytes) -> Message:
    """Read a message.

    Raises:
        Malformed: it is none, or larger than anybody needs.
    """
    if not 12 <= len(raw) <= MESSAGE_BYTES_MAX:
        raise Malformed("no DNS message has this length")
    flags, questions, *counts = (int.from_bytes(raw[at : at + 2], "big") for at in range(2, 12, 2))
    if questions + sum(counts) > ENTRIES_MAX or flags & 0x7800:
        raise Malformed("more entries than anybody needs, or no query")
    at, asked = 12, []
    for _ in range(questions):
        name, at = _read_name(raw, at)
        kind, at = _number(raw, at, 2)
        at += 2  # the class, whose top bit asks for an answer to the asker alone
        if kind in (PTR, ANY):
            asked.append(name)
    pointers, texts = [], []
    for _ in range(sum(counts)):
        name, at = _read_name(raw, at)
        kind, at = _number(raw, at, 2)
        size, at = _number(raw, at + 6, 2)
        if at + size > len(raw):
            raise Malformed("a record is cut short")
        if kind == PTR:
            pointers.append((name, _read_name(raw, at)[0]))
        elif kind == TXT:
            texts.append((name, _strings(raw[at : at + size])))
        at += size
    return Message(bool(flags & RESPONSE), tuple(asked), tuple(pointers), tuple(texts))


def _number(raw: bytes, at: int, size: int) -> tuple[int, int]:
    if at + size > len(raw):
        raise Malformed("a DNS message is cut short")
    return int.from_bytes(raw[at : at + size], "big"), at + size


def _read_name(raw: bytes, at: int) -> tuple[str, int]:
    """A name, in lower case, and where what follows it begins."""
    labels: list[bytes] = []
    size, end, least = 0, -1, at
    while True:
        length, at = _number(raw, at, 1)
        if length >= 0xC0:
            low, at = _number(raw, at, 1)
            end = at if end < 0 else end
            at = (length & 0x3F) << 8 | low
            if at >= least:
                raise Malformed("a name points forwards")
            least = at
        elif length >= 0x40:
            raise Malformed("no such label")
        elif length == 0:
            return b".".join(labels).decode("ascii", "replace").lower(), end if end >= 0 else at
        else:
            size += length + 1
            if size > NAME_BYTES_MAX or at + length > len(raw):
                raise Malformed("a name is too long, or cut short")
            labels.append(raw[at : at + length])
            at += length


def _strings(rdata: bytes) -> tuple[bytes, ...]:
    found, at = [], 0
    while at < len(rdata):
        end = at + 1 + rdata[at]
        if end > len(rdata):
            raise Malformed("a string of a TXT record is cut short")
        found.append(rdata[at + 1 : end])
        at = end
    return tuple(found)
