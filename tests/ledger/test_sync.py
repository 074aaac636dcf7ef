"""A peer that serves nonsense is named; nothing of it is kept. Too much at once is refused politely."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from ledger.entry import Entry, sign_entry
from ledger.fork import ForkProof, SignedHeader
from ledger.group import QUEUE_MAX, GroupCommit
from ledger.sync import FETCH, PAGE_ENTRIES_MAX, Fetch, Page
from ledger.writer import Request, Result
from tests.ledger.parties import LATER_MS, NOW_MS, Key, calls_of, job_id, ledger_of, net, plain_offer
from wire import codec
from wire.errors import Busy, LocalError, Refused, RemoteError, Unreachable
from wire.peer import PeerId

AUTHOR, LIAR = Key(1), Key(2)


def chain(count: int, time_ms: int = NOW_MS) -> list[Entry]:
    entries: list[Entry] = []
    for height in range(count):
        body = plain_offer(job_id(height), Key(9).peer, 1, 0, 1, LATER_MS * 2)
        entries.append(sign_entry(AUTHOR, height, entries[-1].id if entries else bytes(32), body, time_ms))
    return entries


GOOD = chain(3)


def no_proof() -> ForkProof:
    header = SignedHeader(GOOD[0].header, GOOD[0].signature)
    return ForkProof(header, header)


LIES: dict[str, tuple[Page, str]] = {
    "a claim with nothing behind it": (Page([], 3, []), "empty"),
    "a page that starts elsewhere": (Page(GOOD[1:], 3, []), "other entries"),
    "a page with a hole": (Page([GOOD[0], GOOD[2]], 3, []), "other entries"),
    "another author's entries": (
        Page([sign_entry(LIAR, 0, bytes(32), GOOD[0].body, NOW_MS)], 1, []),
        "other entries",
    ),
    "a forged signature": (Page([replace(GOOD[0], signature=bytes(64))], 1, []), "signature"),
    "an invented body": (Page([replace(GOOD[0], body=GOOD[1].body)], 1, []), "body_hash"),
    "entries from the future": (Page(chain(1, NOW_MS + 600_000), 1, []), "future"),
    "a proof that proves nothing": (Page([], 0, [no_proof()]), "proves nothing"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_server_is_named_and_nothing_is_kept(tmp_path: Path, lie: str) -> None:
    page, match = LIES[lie]

    async def serve(peer: PeerId, fetch: Fetch) -> Page:
        return page

    async with net() as on, ledger_of(tmp_path, 3, on) as reader, calls_of(LIAR, on) as liar:
        liar.serve(FETCH, serve)
        with pytest.raises(RemoteError, match=match) as caught:
            await reader.pull(LIAR.peer, AUTHOR.peer)
        assert caught.value.peer == LIAR.peer
        assert (reader.head(AUTHOR.peer), reader.forkers()) == (0, frozenset())


async def test_what_was_valid_before_a_bad_entry_is_kept(tmp_path: Path) -> None:
    async def serve(peer: PeerId, fetch: Fetch) -> Page:
        return Page([*GOOD[:2], replace(GOOD[2], signature=bytes(64))][fetch.from_height :], 3, [])

    async with net() as on, ledger_of(tmp_path, 3, on) as reader, calls_of(LIAR, on) as liar:
        liar.serve(FETCH, serve)
        for _ in range(2):
            with pytest.raises(RemoteError, match="signature at height 2"):
                await reader.pull(LIAR.peer, AUTHOR.peer)
            assert reader.head(AUTHOR.peer) == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        codec.encode(Fetch(AUTHOR.peer, 0, PAGE_ENTRIES_MAX + 1)),
        codec.encode(Fetch(AUTHOR.peer, -1, 1)),
        codec.encode(Fetch(PeerId(b"short"), 0, 1)),
    ],
)
async def test_a_malformed_request_is_refused_and_its_sender_blamed(tmp_path: Path, raw: bytes) -> None:
    async with net() as on, ledger_of(tmp_path, 3, on) as server, calls_of(LIAR, on) as liar:
        link = liar._link(server.peer, 5.0)
        with pytest.raises(Refused, match="malformed"):
            await link.exchange(FETCH.name.encode(), [b"\0", raw], zipping=False, timeout_s=5.0)
        assert [error.peer for error in on.blamed] == [LIAR.peer]


async def test_a_ledger_that_calls_nobody_and_a_peer_without_a_ledger_say_so(tmp_path: Path) -> None:
    async with net() as on, ledger_of(tmp_path, 3) as alone, ledger_of(tmp_path, 4, on) as connected:
        with pytest.raises(LocalError, match="calls nobody"):
            await alone.pull(AUTHOR.peer, AUTHOR.peer)
        with pytest.raises(Unreachable):
            await connected.pull(AUTHOR.peer, AUTHOR.peer)


def _answering(gate: trio.Event) -> Callable[[list[Request]], Awaitable[list[Result]]]:
    async def commit(requests: list[Request]) -> list[Result]:
        await gate.wait()
        return [() for _ in requests]

    return commit


async def test_a_full_queue_is_busy_and_what_waits_is_answered_when_the_ledger_stops() -> None:
    gate, outcomes = trio.Event(), list[str]()
    group = GroupCommit(_answering(gate))

    async def submit() -> None:
        try:
            await group.submit(Request(()))
            outcomes.append("done")
        except Busy as exc:
            outcomes.append(f"busy {exc.retry_s}")
        except LocalError as exc:
            outcomes.append(str(exc))

    async with trio.open_nursery() as callers:
        for _ in range(QUEUE_MAX + 1):
            callers.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == ["busy 0.5"]
        with trio.CancelScope() as scope:
            scope.cancel()
            await group.run()
        with trio.fail_after(5):
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(set(outcomes)) == ["busy 0.5", "the ledger is closed"]
    await submit()
    assert outcomes[-1] == "the ledger is closed"


async def test_waiting_appends_share_commits() -> None:
    sizes: list[int] = []

    async def commit(requests: list[Request]) -> list[Result]:
        sizes.append(len(requests))
        return [() for _ in requests]

    group = GroupCommit(commit)
    async with trio.open_nursery() as nursery:
        for _ in range(600):
            nursery.start_soon(group.submit, Request(()))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(group.run)
        await trio.testing.wait_all_tasks_blocked()
        group.close()
    assert sizes == [256, 256, 88]
