"""RPCs of gossipsub, as bytes. Sans-IO; every length and count is bounded before anything is kept.

Messages inside an RPC stay bytes (`Rpc.publish`): each is decoded on its own, so that one bad message is charged to the
peer without losing the rest. Peer exchange in PRUNE and signed peer records are ignored.
Source: github.com/libp2p/specs, pubsub/README.md and pubsub/gossipsub/gossipsub-v1.0.md, v1.1.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from node.gossip.params import (
    CONTROLS_MAX,
    ID_BYTES_MAX,
    IDS_MAX,
    MESSAGE_BYTES_MAX,
    PUBLISH_MAX,
    SUBSCRIPTIONS_MAX,
    TOPIC_BYTES_MAX,
)
from node.reach import protobuf
from node.reach.protobuf import Value, number, strings
from wire.errors import Malformed

Fields = list[tuple[int, Value]]


@dataclass(frozen=True)
class Subscription:
    """A peer joins or leaves a topic."""

    subscribe: bool
    topic: str


@dataclass(frozen=True)
class Ihave:
    """Ids of messages that the sender holds."""

    topic: str
    ids: tuple[bytes, ...]


@dataclass(frozen=True)
class Prune:
    """The sender leaves our mesh link; `backoff_s` is None where it names no time."""

    topic: str
    backoff_s: int | None = None


@dataclass(frozen=True)
class Rpc:
    """All that one RPC says."""

    subscriptions: tuple[Subscription, ...] = ()
    publish: tuple[bytes, ...] = ()
    ihave: tuple[Ihave, ...] = ()
    iwant: tuple[bytes, ...] = ()
    graft: tuple[str, ...] = ()
    prune: tuple[Prune, ...] = ()

    def encode(self) -> bytes:
        """Without a length in front."""
        fields: Fields = [
            (1, protobuf.encode([(1, int(each.subscribe)), (2, each.topic.encode())])) for each in self.subscriptions
        ]
        fields += [(2, message) for message in self.publish]
        control: Fields = [(1, protobuf.encode([(1, each.topic.encode()), *_ids(2, each.ids)])) for each in self.ihave]
        if self.iwant:
            control.append((2, protobuf.encode(_ids(1, self.iwant))))
        control += [(3, protobuf.encode([(1, topic.encode())])) for topic in self.graft]
        control += [(4, _encode_prune(each)) for each in self.prune]
        if control:
            fields.append((3, protobuf.encode(control)))
        return protobuf.encode(fields)

    @staticmethod
    def decode(raw: bytes) -> Rpc:
        """Read an RPC without its length; unknown fields are skipped.

        Raises:
            Malformed: not an RPC, or more of something than is allowed.
        """
        fields = protobuf.decode(raw, fields_max=PUBLISH_MAX + SUBSCRIPTIONS_MAX + 8)
        subscriptions = strings(fields, 1)
        publish = strings(fields, 2)
        if len(subscriptions) > SUBSCRIPTIONS_MAX or len(publish) > PUBLISH_MAX:
            raise Malformed("an RPC with too many subscriptions or messages")
        control: dict[int, list[Value]] = {}
        for part in strings(fields, 3):  # the format lets a message come in parts
            for field, values in protobuf.decode(part, fields_max=4 * CONTROLS_MAX).items():
                control.setdefault(field, []).extend(values)
        ihave = tuple(_decode_ihave(each) for each in _few(control, 1))
        iwant = tuple(identity for each in _few(control, 2) for identity in _decode_ids(_wide(each), 1))
        if sum(len(each.ids) for each in ihave) + len(iwant) > IDS_MAX:
            raise Malformed("an RPC with too many message ids")
        return Rpc(
            tuple(_decode_subscription(each) for each in subscriptions),
            tuple(publish),
            ihave,
            iwant,
            tuple(_topic(protobuf.decode(each), 1) for each in _few(control, 3)),
            tuple(_decode_prune(each) for each in _few(control, 4)),
        )


@dataclass(frozen=True)
class Unsigned:
    """What the signature of a message covers. `source` is the libp2p peer id of the author, in bytes."""

    source: bytes
    data: bytes
    seqno: bytes
    topic: str

    def fields(self) -> Fields:
        """In the order in which they are signed."""
        return [(1, self.source), (2, self.data), (3, self.seqno), (4, self.topic.encode())]


def encode_message(message: Unsigned, signature: bytes) -> bytes:
    """A signed message; the key is left out, because the peer id of an Ed25519 author holds it."""
    return protobuf.encode([*message.fields(), (5, signature)])


def decode_message(raw: bytes) -> tuple[Unsigned, bytes, bytes]:
    """A message, its signature, and the key that came with it, which may be empty.

    Raises:
        Malformed: not a message with exactly one topic, or one of its parts is missing or too long.
    """
    if len(raw) > MESSAGE_BYTES_MAX:
        raise Malformed(f"a message of {len(raw)} bytes, at most {MESSAGE_BYTES_MAX} allowed")
    fields = protobuf.decode(raw, fields_max=16)
    topics = strings(fields, 4)
    if len(topics) != 1:
        raise Malformed("a message of no topic, or of several")
    source, data, seqno, signature, key = (_last(fields, field) for field in (1, 2, 3, 5, 6))
    return Unsigned(source, data, seqno, _topic(fields, 4)), signature, key


def _ids(field: int, ids: Sequence[bytes]) -> Fields:
    return [(field, identity) for identity in ids]


def _encode_prune(prune: Prune) -> bytes:
    fields: Fields = [(1, prune.topic.encode())]
    if prune.backoff_s is not None:
        fields.append((3, prune.backoff_s))
    return protobuf.encode(fields)


def _last(fields: dict[int, list[Value]], field: int) -> bytes:
    found = strings(fields, field)
    return found[-1] if found else b""


def _few(control: dict[int, list[Value]], field: int) -> list[bytes]:
    found = strings(control, field)
    if len(found) > CONTROLS_MAX:
        raise Malformed("an RPC with too many control messages of one kind")
    return found


def _wide(raw: bytes) -> dict[int, list[Value]]:
    return protobuf.decode(raw, fields_max=IDS_MAX + 8)


def _topic(fields: dict[int, list[Value]], field: int) -> str:
    raw = _last(fields, field)
    if not 0 < len(raw) <= TOPIC_BYTES_MAX:
        raise Malformed(f"a topic of {len(raw)} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise Malformed("a topic that is not UTF-8") from exc


def _decode_ids(fields: dict[int, list[Value]], field: int) -> tuple[bytes, ...]:
    ids = tuple(strings(fields, field))
    if any(not 0 < len(identity) <= ID_BYTES_MAX for identity in ids):
        raise Malformed("a message id that is empty or goes on and on")
    return ids


def _decode_subscription(raw: bytes) -> Subscription:
    fields = protobuf.decode(raw)
    return Subscription(bool(number(fields, 1)), _topic(fields, 2))


def _decode_ihave(raw: bytes) -> Ihave:
    fields = _wide(raw)
    return Ihave(_topic(fields, 1), _decode_ids(fields, 2))


def _decode_prune(raw: bytes) -> Prune:
    fields = protobuf.decode(raw)
    return Prune(_topic(fields, 1), number(fields, 3))
