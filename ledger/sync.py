"""The sync protocol `/quorate/ledger/1`: ask a peer for a page of some author's chain.

Pages overlap the known head by one entry, so a peer that holds another branch shows it at once: two different signed
entries at one height are a fork proof. Whoever serves a chain answers for having checked it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ledger.entry import Entry, InvalidEntry, Peer
from ledger.fork import ForkProof
from ledger.replica import Ingested
from ledger.store import Store
from wire import codec
from wire.codec import Wire
from wire.errors import RemoteError
from wire.peer import PeerId
from wire.rpc.seam import Method

PAGE_ENTRIES_MAX = 256
PAGE_BYTES_MAX = 512 << 10
PAGE_FORKS_MAX = 4
PULL_ENTRIES_MAX = 100_000


class Fetch(Wire, frozen=True, tag="fetch"):
    """Ask for at most `limit` entries of `author`'s chain from `from_height` up."""

    author: Peer
    from_height: Annotated[int, Meta(ge=0, le=2**53)]
    limit: Annotated[int, Meta(ge=0, le=PAGE_ENTRIES_MAX)]


class Page(Wire, frozen=True, tag="page"):
    """Entries in ascending height without holes, how many the server keeps, and fork proofs against the author."""

    entries: Annotated[list[Entry], Meta(max_length=PAGE_ENTRIES_MAX)]
    height: Annotated[int, Meta(ge=0, le=2**53)]
    forks: Annotated[list[ForkProof], Meta(max_length=PAGE_FORKS_MAX)]


FETCH = Method("ledger.fetch", Fetch, Page)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull brought: new entries, the height kept now and the peer's, and a proof if the author forked."""

    added: int
    height: int
    peer_height: int
    fork: ForkProof | None = None


Ask = Callable[[Fetch], Awaitable[Page]]
Ingest = Callable[[list[Entry]], Awaitable[Ingested]]
LearnFork = Callable[[ForkProof], Awaitable[None]]


def make_page(store: Store, fetch: Fetch, height: int) -> Page:
    """The reply to `fetch`, within the page's limits; `height` is how many entries of the author are kept."""
    entries: list[Entry] = []
    size = 0
    for entry in store.entries(fetch.author, fetch.from_height, fetch.limit):
        size += len(codec.encode(entry))
        if size > PAGE_BYTES_MAX:
            break
        entries.append(entry)
    return Page(entries, height, store.forks(fetch.author)[:PAGE_FORKS_MAX])


def check_page(peer: PeerId, fetch: Fetch, page: Page) -> None:
    """Check that a page answers `fetch`.

    Raises:
        RemoteError: other entries than those asked for, or none although the peer claims some.
    """
    if len(page.entries) > fetch.limit:
        raise RemoteError(peer, "a ledger page longer than asked for", penalty=0.2)
    if not page.entries and fetch.limit and page.height > fetch.from_height:
        raise RemoteError(peer, "an empty ledger page below the height that it claims", penalty=0.1)
    for height, entry in enumerate(page.entries, start=fetch.from_height):
        if entry.header.author != fetch.author or entry.header.height != height:
            raise RemoteError(peer, "a ledger page with other entries than asked for", penalty=0.2)


async def pull(
    peer: PeerId, author: PeerId, known: int, ask: Ask, ingest: Ingest, learn: LearnFork, *, entries_max: int
) -> Pulled:
    """Bring the kept part of `author`'s chain up to what `peer` serves.

    Args:
        peer: who is asked, and to blame.
        author: whose chain.
        known: how many of its entries are kept already.
        ask, ingest, learn: one request; verify and keep entries; check and keep a fork proof.
        entries_max: stop after so many entries.

    Raises:
        RemoteError: the peer served something that breaks the rules.
        Unreachable, ChannelClosed: the connection.
    """
    added, height, proof = 0, known, None
    page = await _page(peer, Fetch(author, max(0, known - 1), PAGE_ENTRIES_MAX), ask)
    if 0 < page.height < known:
        page = await _page(peer, Fetch(author, page.height - 1, 1), ask)
    await _learn(peer, page, learn)
    while page.entries:
        try:
            done = await ingest(page.entries)
        except InvalidEntry as exc:
            penalty = 0.1 if exc.code == "future" else 0.5
            raise RemoteError(peer, f"served an invalid ledger entry: {exc}", penalty=penalty) from exc
        added, height, proof = added + done.added, done.height, proof or done.fork
        last = page.entries[-1].header.height + 1
        if proof is not None or last >= page.height or last < height or added >= entries_max:
            break
        page = await _page(peer, Fetch(author, height, PAGE_ENTRIES_MAX), ask)
    return Pulled(added, height, page.height, proof)


async def _page(peer: PeerId, fetch: Fetch, ask: Ask) -> Page:
    page = await ask(fetch)
    check_page(peer, fetch, page)
    return page


async def _learn(peer: PeerId, page: Page, learn: LearnFork) -> None:
    for proof in page.forks:
        try:
            await learn(proof)
        except InvalidEntry as exc:
            raise RemoteError(peer, f"served a fork proof that proves nothing: {exc}", penalty=0.5) from exc
