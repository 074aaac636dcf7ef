"""Writes `tests/vectors/crdt-op-v1.json`: operations that must pass, and operations with one fault each.

python -m tests.crdt.op_vectors
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crdt.limits import DOTS_MAX, ELEMENT_BYTES_MAX, KEY_BYTES_MAX, PARENTS_MAX
from crdt.op import parse
from tests.crdt.helpers import Key
from wire import codec
from wire.envelope import Envelope

PATH = Path(__file__).parents[1] / "vectors" / "crdt-op-v1.json"
SIGNER = Key("vector author")
STAMP = 1_800_000_000_000 << 16
A, B, C = (bytes([letter]) * 32 for letter in b"abc")
SET = ["map.set", "key", b"value"]


def body(change: list[Any] = SET, **fields: Any) -> list[Any]:
    """The fields of an operation, as plain values."""
    op = {"version": 1, "namespace": "notes", "seq": 1, "previous": None, "parents": [], "stamp": STAMP} | fields
    return [*op.values(), change]


def seal(raw: bytes, *, domain: str = "crdt.op") -> bytes:
    """Sign any body."""
    unsigned = Envelope(domain, SIGNER.peer, raw, b"")
    return codec.encode(Envelope(domain, SIGNER.peer, raw, SIGNER.sign(unsigned.id)))


def accepted() -> dict[str, bytes]:
    """Raw operations that are well formed and signed."""
    bodies = {
        "map set, first of its author": body(),
        "map set, empty value": body(["map.set", "k", b""]),
        "map delete": body(["map.delete", "key"]),
        "set add": body(["set.add", b"element"]),
        "set remove of two dots": body(["set.remove", b"element", [A, B]]),
        "second of its author": body(seq=2, previous=A, stamp=STAMP + 1),
        "joins two other heads": body(seq=3, previous=C, parents=[A, B], stamp=STAMP + 0xFFFF),
        "longest key in bytes": body(["map.set", "é" * (KEY_BYTES_MAX // 2), b""]),
        "most parents": body(parents=[bytes([n]) * 32 for n in range(PARENTS_MAX)]),
    }
    return {name: seal(codec.encode(fields)) for name, fields in bodies.items()}


def refused() -> dict[str, tuple[str, bytes]]:
    """Raw operations with one fault each, and words that the refusal must contain."""
    bodies: dict[str, tuple[str, list[Any]]] = {
        "version 2": ("int", body(version=2)),
        "number 0": ("int", body(seq=0)),
        "second without a previous one": ("first operation", body(seq=2)),
        "first with a previous one": ("first operation", body(previous=A)),
        "parents not ascending": ("ascending", body(parents=[B, A])),
        "parent named twice": ("ascending", body(parents=[A, A])),
        "previous one among the parents": ("previous", body(seq=2, previous=A, parents=[A])),
        "one parent too many": ("length", body(parents=[bytes([n]) * 32 for n in range(PARENTS_MAX + 1)])),
        "parent of 31 bytes": ("length", body(parents=[A[:31]])),
        "negative stamp": ("int", body(stamp=-1)),
        "stamp past 63 bits": ("int", body(stamp=1 << 63)),
        "unknown change": ("Invalid value", body(["map.clear"])),
        "change with a field too many": ("length", body([*SET, 0])),
        "operation with a field too many": ("length", [*body(), 0]),
        "empty key": ("length", body(["map.set", "", b""])),
        "key too long in bytes": ("key longer", body(["map.set", "é" * (KEY_BYTES_MAX // 2 + 1), b""])),
        "element too long": ("length", body(["set.add", bytes(ELEMENT_BYTES_MAX + 1)])),
        "no dots": ("length", body(["set.remove", b"element", []])),
        "dots not ascending": ("dots", body(["set.remove", b"element", [B, A]])),
        "too many dots": ("length", body(["set.remove", b"e", [n.to_bytes(32, "big") for n in range(DOTS_MAX + 1)]])),
        "namespace too long": ("length", body(namespace="n" * 33)),
    }
    good, plain = seal(codec.encode(body())), codec.encode(body())
    return {name: (why, seal(codec.encode(fields))) for name, (why, fields) in bodies.items()} | {
        "signature of another": ("signature", good[:-1] + bytes([good[-1] ^ 1])),
        "another domain": ("not an envelope", seal(plain, domain="job")),
        "byte after the end": ("trailing", good + b"\x00"),
        "cut short": ("truncated", good[:-1]),
        "body in a longer encoding": ("canonical", seal(b"\xdc\x00\x07" + plain[1:])),
        "nothing": ("truncated", b""),
    }


def document() -> dict[str, Any]:
    """The whole file."""

    passes = [{"name": name, "hex": raw.hex(), "id": parse(raw).verify().id.hex()} for name, raw in accepted().items()]
    fails = [{"name": name, "hex": raw.hex(), "refused": why} for name, (why, raw) in refused().items()]
    return {"format": "crdt-op-v1", "author": SIGNER.peer.hex(), "vectors": passes + fails}


if __name__ == "__main__":
    PATH.write_text(json.dumps(document(), indent=1) + "\n")
