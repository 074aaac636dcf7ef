"""Answers on their way: within a message while they are short, as a blob named by its hash when they are long.

Whole trajectories go to every juror. As blobs they neither take the credit of calls nor stand before them, they are
fetched only once the rest of the message has been checked, and no byte of them is believed before the whole has the
hash that was signed for or asked for. Format: docs/spec/market.md, "Material".
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import trio

from node.rpc.blobs import Blob, fetch_blob, of_bytes
from wire import codec
from wire.codec import Wire
from wire.errors import Busy, Malformed, RemoteError
from wire.job import Output, Trace
from wire.peer import PeerId
from wire.transport import Transport

INLINE_BYTES_MAX = 256 << 10
"""Longer material goes as a blob: as much as a stream of calls may have under way."""

MATERIAL_BYTES_MAX = 4 << 20
"""Longest material that is taken."""

FETCH_S = 20.0
"""Seconds for one blob."""

FETCHES_MAX = 16
FETCHES_PER_PEER_MAX = 4
"""Blobs fetched at once, in all and from one peer."""

T = TypeVar("T", bound=Wire)


class Inline(Wire, frozen=True, tag="inline"):
    """The encoding itself."""

    content: bytes


class Named(Wire, frozen=True, tag="named"):
    """A blob that whoever sent this gives to whom it was sent: its SHA-256 and length in bytes."""

    sha256: bytes
    size: int


Carried = Inline | Named


class Answered(Wire, frozen=True):
    """What a worker committed to."""

    output: Output
    trace: Trace


class Shelf:
    """What this node gives as blobs now, and to whom; `find` is served by `node.rpc.blobs`."""

    def __init__(self) -> None:
        self._content: dict[bytes, bytes] = {}
        self._lent: dict[bytes, Counter[PeerId]] = {}

    def __len__(self) -> int:
        return len(self._content)

    @contextmanager
    def lend(self, material: Wire, peers: Sequence[PeerId]) -> Iterator[Carried]:
        """What to send these peers; while the scope lasts they may fetch it, if it is long."""
        raw = codec.encode(material)
        if len(raw) <= INLINE_BYTES_MAX:
            yield Inline(raw)
            return
        sha256 = hashlib.sha256(raw).digest()
        self._content.setdefault(sha256, raw)
        lent = self._lent.setdefault(sha256, Counter())
        lent.update(peers)
        try:
            yield Named(sha256, len(raw))
        finally:
            lent.subtract(peers)
            if not +lent:
                self._content.pop(sha256, None)
                self._lent.pop(sha256, None)

    async def find(self, peer: PeerId, sha256: bytes) -> Blob | None:
        """See `node.rpc.blobs.Find`."""
        if self._lent.get(sha256, Counter())[peer] <= 0:
            return None
        return of_bytes(self._content[sha256])


class Fetcher:
    """Takes material from peers, so much at once."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._busy: Counter[PeerId] = Counter()

    async def take(self, peer: PeerId, carried: Carried, kind: type[T]) -> T:
        """What a peer sent, fetched if it was named; the caller bounds the time of all, `FETCH_S` that of a blob.

        Raises:
            Malformed: too long, or not of this kind.
            RemoteError: the peer does not give what it named, or gives something else.
            Busy: enough is being fetched. TransportError: the connection. trio.TooSlowError: it took too long.
        """
        if isinstance(carried, Inline):
            if len(carried.content) > INLINE_BYTES_MAX:
                raise Malformed(f"{len(carried.content)} bytes within a message")
            return codec.decode(kind, carried.content)
        if len(carried.sha256) != hashlib.sha256().digest_size or not 0 < carried.size <= MATERIAL_BYTES_MAX:
            raise Malformed(f"a blob of {carried.size} bytes")
        if self._busy.total() >= FETCHES_MAX or self._busy[peer] >= FETCHES_PER_PEER_MAX:
            raise Busy(1.0, "fetching enough already")
        self._busy[peer] += 1
        try:
            with trio.fail_after(FETCH_S):
                return codec.decode(kind, await self._fetch(peer, carried), bytes_max=MATERIAL_BYTES_MAX)
        finally:
            self._busy[peer] -= 1
            self._busy += Counter()  # forget peers at zero

    async def _fetch(self, peer: PeerId, named: Named) -> bytes:
        while True:
            raw = bytearray()

            async def keep(chunk: bytes, into: bytearray = raw) -> None:
                into += chunk

            try:
                size = await fetch_blob(self._transport, peer, named.sha256, keep, bytes_max=named.size)
            except Busy as exc:
                await trio.sleep(exc.retry_s)
                continue
            if size != named.size:
                raise RemoteError(peer, f"a blob of {size} bytes that was to have {named.size}", penalty=0.2)
            return bytes(raw)
