"""Writes `tests/vectors/light-v1.json`: frames of light peers and nodes. `python -m tests.node.light_vectors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.light.messages import Cancel, Done, Event, Follow, Hello, Offered, Part, Submit, Taken, Welcome, refused
from wire import codec
from wire.codec import Wire

PATH = Path(__file__).parents[1] / "vectors/light-v1.json"
ASK = bytes(range(16))
BODY = '{"kind":"text.generate","model":"bytes-gpt","input":{"prompt":"é"},"seed":7}'
MODEL = Offered("bytes-gpt", "bafkreidtrhwabx4fh4p2ghe5h3obene46epecvkzkkug67h7cde7dwhwhu", "text.generate", ["exact"])

REQUESTS: dict[str, Wire | bytes] = {
    "hello": Hello(None),
    "hello with an invitation": Hello(bytes(32)),
    "submit": Submit(ASK, BODY),
    "follow from the first event": Follow(ASK, -1),
    "follow from a later one": Follow(ASK, 300),
    "cancel": Cancel(ASK),
    "an invitation of 31 bytes": Hello(bytes(31)),
    "an ask of 15 bytes": Cancel(ASK[:15]),
    "a reply": Taken(1),
    "nothing": b"",
    "a field more": b"\x93" + codec.encode(Hello(None))[1:] + b"\xc0",
    "a byte behind it": codec.encode(Hello(None)) + b"\x00",
}
REPLIES: dict[str, Wire | bytes] = {
    "welcome": Welcome([MODEL], 2, 100_000, 93_100),
    "taken": Taken(20_000),
    "event": Event(3, '{"seq":3,"at_ms":5,"type":"running","text":"a"}'),
    "part of the output": Part("output", b"\x81\x00"),
    "part of the receipt": Part("receipt", bytes(300)),
    "done": Done("settled", 7680, "", ""),
    "done, and failed": Done("failed", 0, "no_providers", "nobody offers this model"),
    "refused": refused("busy", "2 jobs of yours are under way", 2.0),
    "refused for good": refused("not_allowed", "this node does not know you"),
    "a request": Hello(None),
    "part of something else": codec.encode(["part", "trace", b""]),
    "a reason that is no text": codec.encode(["refused", "busy", b"", 0.0]),
    "seconds as a whole number": codec.encode(["refused", "busy", "", 2]),
}


def frame(message: Wire | bytes) -> bytes:
    """As it is sent."""
    return message if isinstance(message, bytes) else codec.encode(message)


def fields(message: Wire) -> list[Any]:
    """Tag and fields, bytes in hex."""
    return [message.__struct_config__.tag, *(_plain(getattr(message, name)) for name in message.__struct_fields__)]


def _plain(value: Any) -> Any:
    if isinstance(value, Offered):
        return [value.name, value.cid, value.kind, value.lanes]
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.hex() if isinstance(value, bytes) else value


def good(cases: Mapping[str, Wire | bytes]) -> list[bytes]:
    """The frames of those that are what they should be."""
    names = {vector["name"] for vector in load() if vector["expect"] != "malformed"}
    return [frame(message) for name, message in cases.items() if name in names]


def load() -> list[dict[str, Any]]:
    """All vectors."""
    vectors: list[dict[str, Any]] = json.loads(PATH.read_text())["vectors"]
    return vectors


def make() -> dict[str, Any]:
    """All vectors, made anew; `expect` is what the frame says, or "malformed" for whoever reads it."""
    bad = {*list(REQUESTS)[6:], *list(REPLIES)[9:]}
    return {
        "about": "frames of /quorate/light/1 (docs/spec/light.md); from says who sends them; bytes are in hex",
        "vectors": [
            {
                "name": name,
                "from": sender,
                "hex": frame(message).hex(),
                "expect": "malformed" if name in bad or isinstance(message, bytes) else fields(message),
            }
            for sender, cases in (("light peer", REQUESTS), ("node", REPLIES))
            for name, message in cases.items()
        ],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")
