"""What tests of batches share: bodies, waiting, workers that cheat on part of a batch, frames that are changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar, cast
from unittest.mock import patch

from node.jobs import Job, Request
from node.market.batch_messages import (
    BATCH,
)
from node.market.finder import Finder, NotEnough, Offered
from node.node import Node
from recommend.rank import Choice
from sim.world import SimNode
from tests.sim.market_world import (
    Alter,
    InlinePool,
)
from wire import codec
from wire.codec import Wire
from wire.errors import Malformed
from wire.job import EmbedInput, Expected, JobSpec, Output, Trace
from wire.peer import PeerId
from workloads.executor import Event

T = TypeVar("T", bound=Wire)


def decoded(kind: type[T], frame: bytes) -> T | None:
    """The frame, if it is one of this kind."""
    try:
        return codec.decode(kind, frame)
    except Malformed:
        return None


async def reached(app: Node, job: Job, state: str) -> None:
    """Wait for an event of this type, or for the end."""
    following = cast(AsyncGenerator[dict[str, Any], None], app.batches.follow(job))
    async with aclosing(following) as events:
        async for event in events:
            if event["type"] == state:
                return


def batch(jobs: int = 8, **changes: Any) -> dict[str, Any]:
    """A batch of short embeddings."""
    body = {
        "kind": "embed.text",
        "model": "ngram-embed",
        "jobs": [{"input": {"texts": [f"text {index}", "another"]}, "seed": 1} for index in range(jobs)],
        "policy": "sample:auto",
        "timeout_s": 120.0,
        "retries": 0,
    }
    return {**body, **changes}


async def finished(app: Node, body: dict[str, Any]) -> Job:
    """Submit a batch and wait for its end."""
    return await ended(app, await app.submit_batch(body))


async def ended(app: Node, job: Job) -> Job:
    """Wait for the end of a batch."""
    async for _ in app.batches.follow(job):
        pass
    return job


def seen(job: Job) -> str:
    """A batch for a failure message."""
    tried = [(attempt["verdict"], attempt["reason"]) for attempt in job.attempts]
    return f"{job.state}, {job.verdict}, {job.error}, {tried}"


class PartCheat:
    """A pool that cheats on some jobs of a batch, by the number in their text."""

    def __init__(self, wrong: Callable[[int], bool]) -> None:
        self._wrong = wrong
        self._pools = InlinePool(""), InlinePool("random-embedding")

    async def run(self, spec: JobSpec, on_event: Callable[[Event], None]) -> tuple[Output, Trace]:
        return await self._pools[self._wrong(number_of(spec))].run(spec, on_event)

    async def recheck(self, spec: JobSpec, *rest: Any, **more: Any) -> Expected:
        return await self._pools[0].recheck(spec, *rest, **more)


def number_of(spec: JobSpec) -> int:
    """Which job of `batch` this is."""
    given = spec.input()
    assert isinstance(given, EmbedInput)
    return int(given.texts[0].removeprefix("text "))


def cheat_on(node: SimNode, wrong: Callable[[int], bool]) -> None:
    """Let a node cheat on some jobs from now on."""
    object.__setattr__(node.app.context, "pool", PartCheat(wrong))


@contextmanager
def only(worker: PeerId, jurors: Sequence[PeerId]) -> Iterator[None]:
    """The requester asks this worker and no other, whatever it has come to think of it."""

    async def enough(self: Finder, request: Request, tried: set[PeerId]) -> Offered:
        if worker in tried:
            raise NotEnough("tried")
        price = 1000 * len(request.each_input)
        return Offered([Choice(worker, 1.0, 1.0, "the only one")], {worker: price}, dict.fromkeys(sorted(jurors), 1))

    with patch.object(Finder, "enough", enough):
        yield


def forget(node: SimNode) -> None:
    """Make a node forget what audits told it."""
    node.app.context.records._known.clear()


def changing(kind: type[T], change: Callable[[SimNode, T], Any]) -> Alter:
    """Changes the first frame of this kind that a worker sends."""
    done = False

    def alter(node: SimNode, protocol: str, frame: bytes) -> bytes:
        nonlocal done
        message = decoded(kind, frame) if protocol == BATCH.name and not done else None
        if message is None:
            return frame
        done = True
        return codec.encode(change(node, message))

    return alter
