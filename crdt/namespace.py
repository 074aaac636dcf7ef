"""What a namespace holds and who may write there: rules that every replica of it must share.

Whether an operation is valid follows from these rules and from its ancestors alone, never from the order of
arrival; that is what lets replicas which hold the same operations agree. `rules` names the rules by hash, and
replicas exchange operations only if it is equal.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from crdt.limits import AUTHOR_BYTES_MAX, AUTHOR_OPS_MAX
from crdt.op import MapDelete, MapSet, Op
from wire import codec
from wire.codec import Wire
from wire.errors import LocalError
from wire.hashing import digest
from wire.peer import PeerId, to_text

Kind = Literal["map", "set"]
Policy = Literal["open", "author-keyed"]

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")


class Namespace(Wire, frozen=True):
    """The rules of one namespace.

    Attributes:
        name: up to 32 of `a-z0-9._-`, beginning with a letter.
        kind: `map` (last writer wins) or `set` (observed remove).
        policy: `open`: anyone writes anything. `author-keyed`: a map key must begin with the text of the author's
            peer id and a slash; in a set, only the peer that added an element can take its own add back.
        ops_max, bytes_max: the longest chain of operations (number, bytes) of one author.
    """

    name: str
    kind: Kind
    policy: Policy = "open"
    ops_max: int = AUTHOR_OPS_MAX
    bytes_max: int = AUTHOR_BYTES_MAX

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise LocalError(f"not a namespace name: {self.name!r}")

    @property
    def rules(self) -> bytes:
        """32-byte hash of the rules."""
        return digest("crdt.namespace", codec.encode(self))

    def fault(self, author: PeerId, op: Op) -> str | None:
        """Why this operation can never belong here, or None."""
        if op.namespace != self.name:
            return f"operation of namespace {op.namespace!r} in {self.name!r}"
        if op.seq > self.ops_max:
            return f"operation {op.seq} of its author, at most {self.ops_max} allowed"
        is_map = isinstance(op.change, MapSet | MapDelete)
        if is_map != (self.kind == "map"):
            return f"{type(op.change).__name__} in a {self.kind}"
        if self.policy == "author-keyed" and isinstance(op.change, MapSet | MapDelete):
            return None if op.change.key.startswith(_prefix(author)) else "key of another author"
        return None


@lru_cache(maxsize=4096)
def _prefix(author: PeerId) -> str:
    return to_text(author) + "/"


def author_key(author: PeerId, subject: str) -> str:
    """The key under which `author` may write about `subject` in an author-keyed map."""
    return _prefix(author) + subject
