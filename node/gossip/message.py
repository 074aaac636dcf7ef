"""Signed messages: only those that their author signed, and numbered, exist (`StrictSign`).

    signature = Ed25519("libp2p-pubsub:" || protobuf(from, data, seqno, topic))
    id        = from || seqno

The author is an Ed25519 key, which its peer id holds; a key beside it must be the same.
Source: github.com/libp2p/specs, pubsub/README.md, "Message Signing" and "Message Identification".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.gossip.params import DATA_BYTES_MAX
from node.gossip.rpc import Unsigned, decode_message, encode_message
from node.reach import protobuf
from wire.envelope import Signer
from wire.errors import Malformed
from wire.peer import PeerId, from_multihash, to_multihash

PREFIX = b"libp2p-pubsub:"
SEQNO_BYTES = 8

Verify = Callable[[PeerId, bytes, bytes], bool]
"""Whether (author, message, signature) belong together; `wire.envelope.verify`."""


@dataclass(frozen=True)
class Message:
    """A message whose form is right; `verified` says whether its author signed it."""

    author: PeerId
    topic: str
    data: bytes
    seqno: int
    signature: bytes

    @property
    def id(self) -> bytes:
        """46 bytes; two messages of one author with one number are one message."""
        return to_multihash(self.author) + self.seqno.to_bytes(SEQNO_BYTES, "big")

    @property
    def _unsigned(self) -> Unsigned:
        return Unsigned(to_multihash(self.author), self.data, self.seqno.to_bytes(SEQNO_BYTES, "big"), self.topic)

    def verified(self, verify: Verify) -> bool:
        """Whether the signature holds."""
        return verify(self.author, signed_bytes(self._unsigned), self.signature)

    def encode(self) -> bytes:
        """As it travels inside an RPC."""
        return encode_message(self._unsigned, self.signature)

    @staticmethod
    def decode(raw: bytes) -> Message:
        """Read one message of an RPC; the signature is not looked at yet.

        Raises:
            Malformed: unsigned, unnumbered, empty, too long, of no Ed25519 author, or with the key of another.
        """
        message, signature, key = decode_message(raw)
        author = from_multihash(message.source)
        if key and key != protobuf.encode([(1, 1), (2, author)]):
            raise Malformed("a message with the key of somebody else")
        if len(signature) != 64 or len(message.seqno) != SEQNO_BYTES:
            raise Malformed("a message without signature or number")
        if not 0 < len(message.data) <= DATA_BYTES_MAX:
            raise Malformed(f"a message of {len(message.data)} bytes, 1 to {DATA_BYTES_MAX} allowed")
        return Message(author, message.topic, message.data, int.from_bytes(message.seqno, "big"), signature)


def signed_bytes(message: Unsigned) -> bytes:
    """What the author signs."""
    return PREFIX + protobuf.encode(message.fields())


def sign(signer: Signer, topic: str, data: bytes, seqno: int) -> Message:
    """A message of our own."""
    assert 0 < len(data) <= DATA_BYTES_MAX, "digests only"
    unsigned = Unsigned(to_multihash(signer.peer), data, seqno.to_bytes(SEQNO_BYTES, "big"), topic)
    return Message(signer.peer, topic, data, seqno, signer.sign(signed_bytes(unsigned)))
