"""Writes `tests/vectors/gossip-v1.json`: `python -m tests.node.gossip_vectors`."""

from __future__ import annotations

import json

from node.gossip.message import sign
from node.gossip.rpc import Ihave, Prune, Rpc, Subscription
from node.reach import protobuf
from tests.repo.project import ROOT
from wire.errors import Malformed
from wire.identity import Identity

ALICE = Identity.from_seed(b"a" * 32)


def messages() -> list[dict[str, str]]:
    """Signed messages, and what is wrong with others."""
    good = sign(ALICE, "/quorate/heads/1", b"a digest", 7)
    raw = good.encode()
    key = protobuf.encode([(6, protobuf.encode([(1, 1), (2, ALICE.peer)]))])
    rows = [
        ("good", raw, good.id.hex()),
        ("with the author's key beside it", raw + key, good.id.hex()),
        ("with a field that we do not know", raw + protobuf.encode([(15, b"?")]), good.id.hex()),
        ("another body under the signature", raw.replace(b"a digest", b"A digest"), "not signed"),
        ("two topics", raw + protobuf.encode([(4, b"/other")]), "refused"),
        ("no signature", raw[:-66], "refused"),
        ("somebody else's key", raw + protobuf.encode([(6, protobuf.encode([(1, 1), (2, bytes(32))]))]), "refused"),
        ("cut off", raw[:-1], "refused"),
    ]
    return [{"name": name, "hex": body.hex(), "expect": expect} for name, body, expect in rows]


def rpcs() -> list[dict[str, str]]:
    """RPCs, and what they say."""
    rows = {
        "hello": Rpc(
            (Subscription(True, "/quorate/heads/1"), Subscription(False, "t")),
        ).encode(),
        "a message": Rpc(publish=(b"message",)).encode(),
        "control": Rpc(
            (), (), (Ihave("t", (b"one", b"two")),), (b"three",), ("t",), (Prune("u", 60), Prune("v"))
        ).encode(),
        "a topic too long": Rpc(graft=("t" * 129,)).encode(),
        "cut off": Rpc(publish=(b"message",)).encode()[:-1],
    }
    rows["peer exchange is skipped"] = protobuf.encode(
        [(3, protobuf.encode([(4, protobuf.encode([(1, b"t"), (2, protobuf.encode([(1, b"peer")])), (3, 9)]))]))]
    )
    return [{"name": name, "hex": raw.hex(), "expect": _says(raw)} for name, raw in rows.items()]


def _says(raw: bytes) -> str:
    try:
        return str(Rpc.decode(raw))
    except Malformed:
        return "refused"


def main() -> None:
    """Write the file."""
    about = "Gossip messages with their id, and RPCs without their length with what they say; docs/spec/gossip.md."
    text = json.dumps({"about": about, "messages": messages(), "rpcs": rpcs()}, indent=1)
    (ROOT / "tests/vectors/gossip-v1.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
