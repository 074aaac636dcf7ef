"""Signed, hash-linked operations.

An operation is named by the hash of its author and exact bytes, signature excluded. It names its `parents`, the
heads its author knew, and `previous`, the author's own last operation: the ids commit to the whole history, so
two replicas with equal heads hold equal sets of operations whatever liars do. An author that signs two different
operations of one number has forked its chain; both are simply operations with different ids.

Source: Kleppmann, "Making CRDTs Byzantine Fault Tolerant" (PaPoC 2022), sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from crdt.hlc import STAMP_MAX
from crdt.limits import DOTS_MAX, ELEMENT_BYTES_MAX, KEY_BYTES_MAX, OP_BYTES_MAX, PARENTS_MAX, VALUE_BYTES_MAX
from wire import codec
from wire.codec import Wire
from wire.envelope import Envelope, Signer, seal, verify
from wire.errors import Malformed
from wire.peer import PeerId

DOMAIN = "crdt.op"

OpId = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX)]
Element = Annotated[bytes, Meta(max_length=ELEMENT_BYTES_MAX)]
Name = Annotated[str, Meta(min_length=1, max_length=32)]


class MapSet(Wire, frozen=True, tag="map.set"):
    """Give `key` the value `value`."""

    key: Key
    value: Annotated[bytes, Meta(max_length=VALUE_BYTES_MAX)]


class MapDelete(Wire, frozen=True, tag="map.delete"):
    """Take `key` away."""

    key: Key


class SetAdd(Wire, frozen=True, tag="set.add"):
    """Add `element`; the operation's id is the dot of this add."""

    element: Element


class SetRemove(Wire, frozen=True, tag="set.remove"):
    """Undo the adds of `element` whose ids are `dots` (ascending): those that the author has observed."""

    element: Element
    dots: Annotated[list[OpId], Meta(min_length=1, max_length=DOTS_MAX)]


Change = MapSet | MapDelete | SetAdd | SetRemove


class Op(Wire, frozen=True):
    """One operation.

    Attributes:
        version: 1.
        namespace: where it belongs.
        seq: number of this operation on its author's chain in the namespace, from 1.
        previous: id of the author's operation number `seq - 1`; None for the first.
        parents: ids of the other heads at the author, ascending.
        stamp: hybrid logical time, later than that of every dependency.
        change: what it does.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    namespace: Name
    seq: Annotated[int, Meta(ge=1, le=1 << 53)]
    previous: OpId | None
    parents: Annotated[list[OpId], Meta(max_length=PARENTS_MAX)]
    stamp: Annotated[int, Meta(ge=0, le=STAMP_MAX)]
    change: Change

    @property
    def dependencies(self) -> list[bytes]:
        """Ids of everything that must be known before this operation."""
        return self.parents if self.previous is None else [self.previous, *self.parents]


@dataclass(frozen=True, slots=True)
class SignedOp:
    """An operation whose signature holds; `raw` is its envelope as it travels, `id` its 32-byte name."""

    id: bytes
    author: PeerId
    op: Op
    raw: bytes


@dataclass(frozen=True, slots=True)
class UnverifiedOp:
    """An operation that decodes, whose signature nobody has checked yet."""

    id: bytes
    envelope: Envelope
    op: Op
    raw: bytes

    def verify(self) -> SignedOp:
        """Check the signature.

        Raises:
            Malformed: it does not verify.
        """
        if not verify(self.envelope.author, self.id, self.envelope.signature):
            raise Malformed("signature does not verify")
        return self.trust()

    def trust(self) -> SignedOp:
        """Take the signature as checked: for operations read back from our own disk."""
        return SignedOp(self.id, self.envelope.author, self.op, self.raw)


def parse(raw: bytes) -> UnverifiedOp:
    """Decode a signed operation as it travels.

    Raises:
        Malformed: too long, not canonical, of another domain or version, or against a limit.
    """
    envelope = codec.decode(Envelope, raw, bytes_max=OP_BYTES_MAX)
    if envelope.domain != DOMAIN or len(envelope.author) != 32 or len(envelope.signature) != 64:
        raise Malformed("not an envelope of an operation")
    op = codec.decode(Op, envelope.body, bytes_max=OP_BYTES_MAX)
    _check(op)
    return UnverifiedOp(envelope.id, envelope, op, raw)


def sign(signer: Signer, op: Op) -> SignedOp:
    """Sign an operation.

    Raises:
        Malformed: it breaks a limit, so no replica would take it.
    """
    envelope = seal(signer, DOMAIN, op)
    return parse(codec.encode(envelope)).trust()


def _check(op: Op) -> None:
    """Refuse what the types cannot say: order, uniqueness, and keys counted in bytes."""
    if (op.previous is None) != (op.seq == 1):
        raise Malformed("only the first operation of an author has no previous one")
    if not _ascending(op.parents) or op.previous in op.parents:
        raise Malformed("parents must be ascending, distinct, and without the previous operation")
    if isinstance(op.change, SetRemove) and not _ascending(op.change.dots):
        raise Malformed("dots must be ascending and distinct")
    if isinstance(op.change, MapSet | MapDelete) and len(op.change.key.encode()) > KEY_BYTES_MAX:
        raise Malformed(f"key longer than {KEY_BYTES_MAX} bytes")


def _ascending(ids: list[bytes]) -> bool:
    return all(left < right for left, right in pairwise(ids))
