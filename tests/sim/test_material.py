"""Long answers travel as blobs: to the requester and to its jurors, and to nobody else; nothing false is believed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import trio

from node.market.material import FETCHES_PER_PEER_MAX, MATERIAL_BYTES_MAX, Answered, Fetcher, Inline, Named, Shelf
from node.market.messages import AUDIT, HIRE, AuditAsk, Delivered
from node.rpc.blobs import Blob, of_bytes, serve_blobs
from sim.world import SimNode, run, world
from tests.sim.batch_world import batch, decoded
from tests.sim.batch_world import finished as batch_finished
from tests.sim.market_world import IMAGE, check_books, finished, market
from tests.sim.tap import Frame
from wire import codec
from wire.errors import Busy, Malformed, Refused, RemoteError
from wire.job import Output, Trace
from wire.peer import PeerId
from wire.rpc.blob import PROTOCOL as BLOBS
from wire.tensor import Tensor

LONG = Answered(Output({"x": Tensor("u1", [300_000], bytes(300_000))}), Trace({}))
RAW = codec.encode(LONG)
SHA256 = hashlib.sha256(RAW).digest()


@contextmanager
def all_named() -> Iterator[None]:
    """Everything is long."""
    with patch("node.market.material.INLINE_BYTES_MAX", 100):
        yield


def test_a_job_whose_answer_is_long_is_checked_and_paid() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(12, log=log) as w:
            job = await finished(w.nodes[0].app, IMAGE)
            assert (job.state, job.verdict) == ("settled", "accept"), (job.error, job.attempts)
            await check_books(w, honest=True)
            assert [len(node.app.context.shelf) for node in w.nodes] == [0] * 6, "nothing is kept"

    with all_named():
        run(main, 12)
    named = [m.answer for f in log if f.sent and f.protocol == HIRE.name and (m := decoded(Delivered, f.data))]
    asked = [m.answer for f in log if f.sent and f.protocol == AUDIT.name and (m := decoded(AuditAsk, f.data))]
    assert len(named) == 1
    assert len(asked) >= 3
    assert {type(each) for each in [*named, *asked]} == {Named}
    assert len([f for f in log if f.sent and f.protocol == BLOBS and len(f.data) == 40]) == 1 + len(asked)


def test_a_batch_whose_answers_are_long_is_checked_and_paid() -> None:
    async def main() -> None:
        async with market(13) as w:
            job = await batch_finished(w.nodes[0].app, batch(6))
            assert (job.state, job.verdict) == ("settled", "accept"), (job.error, job.attempts)
            await check_books(w, honest=True)
            assert [len(node.app.context.shelf) for node in w.nodes] == [0] * 6

    with all_named():
        run(main, 13)


def test_a_juror_that_is_asked_by_a_stranger_fetches_nothing() -> None:
    log: list[Frame] = []

    async def main() -> None:
        async with market(14, log=log) as w:
            job = await finished(w.nodes[0].app, IMAGE)
            assert job.verdict == "accept", (job.error, job.attempts)
            asks = [
                (f.peer, m) for f in log if f.sent and f.protocol == AUDIT.name and (m := decoded(AuditAsk, f.data))
            ]
            juror, ask = asks[0]
            stranger = next(node for node in w.nodes[1:] if node.peer != juror)
            log.clear()
            with pytest.raises(Refused, match="not the requester"):
                await stranger.app.context.rpc.call(juror, AUDIT, ask, timeout_s=60.0)
            assert not [f for f in log if f.protocol == BLOBS]

    with all_named():
        run(main, 14)


# ---- the shelf and the fetcher alone


def givers(shelf: Shelf) -> Any:
    """A world of two: the first gives what is on the shelf."""

    def build(node: SimNode) -> Any:
        @contextmanager
        def scope() -> Iterator[None]:
            if node.number == 0:
                serve_blobs(node.transport, shelf.find)
            yield

        return _AsyncScope(scope())

    return build


class _AsyncScope:
    """A plain scope where an asynchronous one is wanted."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    async def __aenter__(self) -> Any:
        return self._scope.__enter__()

    async def __aexit__(self, *exc: Any) -> Any:
        return self._scope.__exit__(*exc)


async def test_what_is_lent_is_given_to_whom_it_was_named_while_it_lasts(autojump_clock: object) -> None:
    shelf = Shelf()
    async with world(nodes=3, seed=1, build=givers(shelf)) as w:
        giver, friend, stranger = w.nodes
        with shelf.lend(LONG, [friend.peer]) as carried:
            assert carried == Named(SHA256, len(RAW))
            assert await Fetcher(friend.transport).take(giver.peer, carried, Answered) == LONG
            with pytest.raises(Refused, match="not here"):
                await Fetcher(stranger.transport).take(giver.peer, carried, Answered)
            with shelf.lend(LONG, [stranger.peer, friend.peer]):
                assert await Fetcher(stranger.transport).take(giver.peer, carried, Answered) == LONG
            assert await Fetcher(friend.transport).take(giver.peer, carried, Answered) == LONG
        with pytest.raises(Refused, match="not here"):
            await Fetcher(friend.transport).take(giver.peer, carried, Answered)
        assert len(shelf) == 0


class _Says(Shelf):
    """Gives this, whatever is asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._said = content

    async def find(self, peer: PeerId, sha256: bytes) -> Blob | None:
        return of_bytes(self._said)


@pytest.mark.parametrize(
    ("content", "named", "why"),
    [
        (RAW[:-1] + b"x", Named(SHA256, len(RAW)), "another hash"),
        (RAW[:-1], Named(SHA256, len(RAW)), "another hash"),
        (RAW + b"x", Named(SHA256, len(RAW)), "at most"),
        (RAW, Named(SHA256, len(RAW) + 1), "was to have"),
    ],
    ids=["other bytes", "too short", "too long", "of another length than said"],
)
async def test_a_giver_that_lies_is_caught(content: bytes, named: Named, why: str, autojump_clock: object) -> None:
    async with world(nodes=2, seed=1, build=givers(_Says(content))) as w:
        with pytest.raises(RemoteError, match=why):
            await Fetcher(w.nodes[1].transport).take(w.nodes[0].peer, named, Answered)


@pytest.mark.parametrize(
    "named", [Named(SHA256, 0), Named(SHA256, -1), Named(SHA256, MATERIAL_BYTES_MAX + 1), Named(SHA256[:-1], 5)]
)
async def test_a_name_out_of_bounds_is_not_fetched(named: Named, autojump_clock: object) -> None:
    async with world(nodes=2, seed=1) as w:
        with pytest.raises(Malformed):
            await Fetcher(w.nodes[1].transport).take(w.nodes[0].peer, named, Answered)


async def test_long_material_does_not_travel_within_a_message(autojump_clock: object) -> None:
    async with world(nodes=2, seed=1) as w:
        with pytest.raises(Malformed, match="within a message"):
            await Fetcher(w.nodes[1].transport).take(w.nodes[0].peer, Inline(RAW), Answered)


async def test_a_peer_has_us_fetch_so_much_at_once(autojump_clock: object) -> None:
    """Blobs that never come hold their time, and no more of that peer are begun."""

    class Silent(Shelf):
        async def find(self, peer: PeerId, sha256: bytes) -> Blob | None:
            await trio.sleep_forever()
            raise AssertionError("unreachable code")

    async with world(nodes=2, seed=1, build=givers(Silent())) as w:
        fetcher, named = Fetcher(w.nodes[1].transport), Named(SHA256, len(RAW))
        late = 0

        async def one() -> None:
            nonlocal late
            with pytest.raises(trio.TooSlowError):
                await fetcher.take(w.nodes[0].peer, named, Answered)
            late += 1

        async with trio.open_nursery() as nursery:
            for _ in range(FETCHES_PER_PEER_MAX):
                nursery.start_soon(one)
            await trio.sleep(1)
            with pytest.raises(Busy):
                await fetcher.take(w.nodes[0].peer, named, Answered)
        assert late == FETCHES_PER_PEER_MAX
