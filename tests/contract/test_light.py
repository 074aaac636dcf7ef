"""Light peers over every filling of the seam: who is let in, what a job may cost, and nothing lost on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from node.jobs import Board
from node.light import service as light_service
from node.light.allowances import DAY_MS, Allowances, Limits
from node.light.messages import (
    PART_BYTES_MAX,
    PROTOCOL,
    Cancel,
    Done,
    Event,
    Follow,
    Hello,
    Part,
    Refused,
    Reply,
    Submit,
    Taken,
    Welcome,
    decode_reply,
)
from node.light.service import STREAMS_MAX, LightService
from tests.contract.conftest import Pair
from tests.contract.light_market import Market
from wire import codec
from wire.codec import Wire
from wire.errors import ChannelClosed, LocalError, StorageError

LIMITS = Limits(jobs_max=2, credit_micro=10_000, open_max=3)
ASK = b"a" * 16
SECRET = b"s" * 32
BODY = {"kind": "text.generate", "model": "bytes-gpt", "input": {"prompt": "x"}, "seed": 1}
FAR_MS = 1000 * DAY_MS


@dataclass
class Door:
    """Bob serves light peers, Alice is one."""

    pair: Pair
    market: Market
    allowances: Allowances
    service: LightService
    now_ms: list[int]
    faults: list[StorageError]

    @asynccontextmanager
    async def asking(self, request: Wire) -> AsyncIterator[Callable[[], Awaitable[Reply]]]:
        """A stream; what it gives reads the next reply."""
        channel = await self.pair.alice.open(self.pair.bob.peer, PROTOCOL)
        await channel.send(codec.encode(request))

        async def reply() -> Reply:
            return decode_reply(await channel.receive())

        try:
            yield reply
        finally:
            await channel.aclose()

    async def first(self, request: Wire) -> Reply:
        """The first reply to a request."""
        async with self.asking(request) as reply:
            return await reply()

    async def all(self, request: Wire) -> list[Reply]:
        """All replies, to the end of the stream."""
        found: list[Reply] = []
        async with self.asking(request) as reply:
            while True:
                try:
                    found.append(await reply())
                except ChannelClosed:
                    return found


def submit(ask: bytes = ASK, **change: Any) -> Submit:
    return Submit(ask, json.dumps({**BODY, **change}))


@pytest.fixture
async def door(pair: Pair, tmp_path: Path) -> AsyncIterator[Door]:
    """Alice has been let in."""
    now_ms, faults = [5 * DAY_MS], list[StorageError]()
    market = Market(Board(tmp_path / "jobs.db", lambda: now_ms[0], open_max=9, on_fault=faults.append))
    allowances = Allowances(tmp_path / "light.db", LIMITS, [pair.alice.peer], lambda: now_ms[0])
    async with trio.open_nursery() as nursery:
        service = LightService(market, allowances, nursery, on_fault=faults.append)
        pair.bob.serve(PROTOCOL, service.serve)
        yield Door(pair, market, allowances, service, now_ms, faults)
        nursery.cancel_scope.cancel()
    allowances.close()
    market.board.close()


async def test_a_job_is_followed_to_its_answer_and_receipt(door: Door) -> None:
    large = bytes(range(256)) * ((PART_BYTES_MAX + 5000) // 256)
    async with door.asking(submit()) as reply:
        assert await reply() == Taken(10_000)
        queued = await reply()
        assert isinstance(queued, Event)
        assert json.loads(queued.body)["type"] == "queued"
        (job,) = door.market.jobs
        door.market.board.update(job, "running")
        running = await reply()
        assert isinstance(running, Event)
        assert json.loads(running.body)["type"] == "running"
        door.market.finish(job, output=large)
        parts: dict[str, bytes] = {}
        while not isinstance(last := await reply(), Done):
            if isinstance(last, Part):
                parts[last.of] = parts.get(last.of, b"") + last.data
    assert parts == {"output": large, "receipt": b"receipt"}
    assert last == Done("settled", 700, "", "")
    assert door.pair.blamed == []


async def test_a_stranger_gets_a_refusal_and_nothing_else(door: Door) -> None:
    door.allowances._listed = frozenset()
    for request in (Hello(None), submit(), Follow(ASK, -1), Cancel(ASK)):
        (said,) = await door.all(request)
        assert isinstance(said, Refused)
        assert said.code == "not_allowed"
    assert door.market.jobs == []


async def test_an_invitation_lets_in_the_first_who_shows_it(door: Door) -> None:
    door.allowances._listed = frozenset()
    door.allowances.invite(SECRET, FAR_MS)
    said = await door.first(Hello(SECRET))
    assert isinstance(said, Welcome)
    assert (said.jobs_max, said.credit_micro, said.left_micro) == (2, 10_000, 10_000)
    assert {"bytes-gpt", "digits-ddim"} <= {model.name for model in said.models}
    assert isinstance(await door.first(Hello(None)), Welcome), "it need not be shown again"
    assert not door.allowances.redeem(door.pair.bob.peer, SECRET), "it lets in nobody else"
    assert door.allowances.peers() == [door.pair.alice.peer]


async def test_an_invitation_ends(door: Door) -> None:
    door.allowances._listed = frozenset()
    door.allowances.invite(SECRET, door.now_ms[0] + 1000)
    assert isinstance(await door.first(Hello(SECRET)), Welcome)
    door.now_ms[0] += 1000
    said = await door.first(Hello(SECRET))
    assert isinstance(said, Refused)
    assert said.code == "invitation"


async def test_an_unknown_invitation_is_refused(door: Door) -> None:
    door.allowances._listed = frozenset()
    said = await door.first(Hello(SECRET))
    assert isinstance(said, Refused)
    assert said.code == "invitation"


async def test_asked_twice_it_is_one_job(door: Door) -> None:
    assert await door.first(submit()) == Taken(10_000)
    assert await door.first(submit()) == Taken(10_000)
    (job,) = door.market.jobs
    door.market.finish(job)
    replies = await door.all(Follow(ASK, 0))
    assert [type(each) for each in replies] == [Taken, Event, Part, Part, Done], "what was seen is not told again"


async def test_a_job_of_another_is_not_found(door: Door) -> None:
    door.allowances.taken(door.pair.bob.peer, ASK, "theirs", 5)
    for request in (Follow(ASK, -1), Cancel(ASK)):
        said = await door.first(request)
        assert isinstance(said, Refused)
        assert said.code == "not_found"


async def test_a_job_is_charged_what_it_may_cost_and_then_what_it_did(door: Door, eventually: Any) -> None:
    assert await door.first(submit(budget_micro=4000)) == Taken(4000)
    assert door.market.bodies[0]["budget_micro"] == 4000
    assert door.allowances.left_micro(door.pair.alice.peer) == 6000
    door.market.finish(door.market.jobs[0])
    await eventually(lambda: door.allowances.left_micro(door.pair.alice.peer) == 9300)
    assert await door.first(submit(b"b" * 16)) == Taken(9300), "what is left is the budget where none is named"


async def test_what_is_spent_comes_back_with_the_next_day(door: Door) -> None:
    assert await door.first(submit()) == Taken(10_000)
    said = await door.first(submit(b"b" * 16))
    assert isinstance(said, Refused)
    assert said.code == "credit"
    door.now_ms[0] += DAY_MS
    assert await door.first(submit(b"b" * 16)) == Taken(10_000)


async def test_jobs_at_once_are_bounded_for_each_and_for_all(door: Door) -> None:
    for ask in (b"a" * 16, b"b" * 16):
        assert await door.first(submit(ask, budget_micro=1)) == Taken(1)
    said = await door.first(submit(b"c" * 16, budget_micro=1))
    assert isinstance(said, Refused)
    assert (said.code, said.retry_s > 0) == ("busy", True)
    door.allowances.taken(door.pair.bob.peer, ASK, "theirs", 5)
    door.market.finish(door.market.jobs[0])
    door.allowances.ended(door.market.jobs[0].id, 1)
    door.allowances.taken(door.pair.bob.peer, b"b" * 16, "theirs too", 5)
    said = await door.first(submit(b"c" * 16, budget_micro=1))
    assert isinstance(said, Refused)
    assert "light peers" in said.reason
    assert len(door.market.jobs) == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"policy": "none"}, "bad_request"),
        ({"policy": "escalate"}, "bad_request"),
        ({"retries": 5}, "unknown_field"),
        ({"budget_micro": 0}, "bad_request"),
        ({"budget_micro": True}, "bad_request"),
        ({"timeout_s": 3600}, "bad_request"),
        ({"model": "gpt-9"}, "unknown_model"),
    ],
)
async def test_what_light_peers_may_not_ask_is_refused(door: Door, change: dict[str, Any], code: str) -> None:
    said = await door.first(submit(**change))
    assert isinstance(said, Refused)
    assert said.code == code
    assert (door.market.jobs, door.allowances.left_micro(door.pair.alice.peer)) == ([], 10_000)


@pytest.mark.parametrize("body", ["", "[]", "[" * 50_000, "nonsense"])
async def test_a_body_that_is_no_job_is_refused(door: Door, body: str) -> None:
    said = await door.first(Submit(ASK, body))
    assert isinstance(said, Refused)
    assert said.code == "bad_request"


@pytest.mark.parametrize(
    "frame", [b"\x90", codec.encode(Hello(b"short")), codec.encode(Cancel(b"short")), codec.encode(Taken(5))]
)
async def test_what_is_no_request_is_blamed(door: Door, frame: bytes, eventually: Any) -> None:
    channel = await door.pair.alice.open(door.pair.bob.peer, PROTOCOL)
    await channel.send(frame)
    said = decode_reply(await channel.receive())
    assert isinstance(said, Refused)
    assert said.code == "malformed"
    await eventually(lambda: len(door.pair.blamed) == 1)
    await channel.aclose()


async def test_a_second_frame_is_blamed(door: Door, eventually: Any) -> None:
    channel = await door.pair.alice.open(door.pair.bob.peer, PROTOCOL)
    await channel.send(codec.encode(submit()))
    assert decode_reply(await channel.receive()) == Taken(10_000)
    await channel.send(codec.encode(submit()))
    await eventually(lambda: len(door.pair.blamed) == 1)
    await channel.aclose()


async def test_streams_of_one_peer_are_bounded(door: Door, eventually: Any) -> None:
    await door.first(submit())
    await eventually(lambda: not door.service._streams)  # until the node has seen the end of that one
    async with trio.open_nursery() as nursery:
        full = trio.Event()
        holding: list[Reply] = []

        async def hold() -> None:
            async with door.asking(Follow(ASK, -1)) as reply:
                holding.append(await reply())
                if len(holding) == STREAMS_MAX:
                    full.set()
                await trio.sleep_forever()

        for _ in range(STREAMS_MAX):
            nursery.start_soon(hold)
        await full.wait()
        said = await door.first(Hello(None))
        assert isinstance(said, Refused)
        assert said.code == "busy"
        nursery.cancel_scope.cancel()


async def test_a_job_goes_on_when_its_peer_goes_away(door: Door, eventually: Any) -> None:
    await door.first(submit(budget_micro=4000))
    door.market.finish(door.market.jobs[0])
    await eventually(lambda: door.allowances.under_way() == [])
    assert (await door.all(Follow(ASK, -1)))[-1] == Done("settled", 700, "", "")


async def test_a_job_that_fails_says_why(door: Door) -> None:
    async with door.asking(submit()) as reply:
        assert isinstance(await reply(), Taken)
        door.market.board.update(door.market.jobs[0], "failed", error={"code": "no_providers", "message": "nobody"})
        while not isinstance(last := await reply(), Done):
            assert isinstance(last, Event)
    assert last == Done("failed", 0, "no_providers", "nobody")


async def test_a_job_is_cancelled_by_its_name(door: Door) -> None:
    await door.first(submit())
    scope = door.market.board._scopes[door.market.jobs[0].id]
    assert await door.all(Cancel(ASK)) == [Taken(10_000)]
    assert scope.cancel_called


async def test_a_stream_that_asks_nothing_is_closed(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light_service, "REQUEST_S", 0.05)
    channel = await door.pair.alice.open(door.pair.bob.peer, PROTOCOL)
    with pytest.raises(ChannelClosed):
        await channel.receive()
    assert door.pair.blamed == []


async def test_after_a_restart_jobs_of_before_are_corrected(door: Door, tmp_path: Path, eventually: Any) -> None:
    await door.first(submit(budget_micro=4000))
    door.market.finish(door.market.jobs[0])
    await eventually(lambda: door.allowances.under_way() == [])
    door.allowances.taken(door.pair.alice.peer, b"b" * 16, door.market.jobs[0].id, 3000)
    door.allowances.taken(door.pair.alice.peer, b"c" * 16, "a job of a lost history", 3000)
    async with trio.open_nursery() as nursery:
        LightService(door.market, door.allowances, nursery, on_fault=door.faults.append)
    assert door.allowances.under_way() == []
    assert door.faults == []


def test_invitations_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.light.allowances.INVITATIONS_MAX", 2)
    now_ms = [0]
    allowances = Allowances(tmp_path / "light.db", LIMITS, [], lambda: now_ms[0])
    allowances.invite(b"1" * 32, 10)
    allowances.invite(b"2" * 32, 10)
    with pytest.raises(LocalError, match="2 invitations"):
        allowances.invite(b"3" * 32, 10)
    now_ms[0] = 10
    allowances.invite(b"3" * 32, 20)
    allowances.close()


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "light.db").write_bytes(b"x" * 4096)
    with pytest.raises(StorageError, match=r"light\.db"):
        Allowances(tmp_path / "light.db", LIMITS, [], lambda: 0)
