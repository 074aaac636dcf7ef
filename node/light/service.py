"""Answers light peers: has their jobs run as this node's own, within what each is allowed, and hands over the results.

A job goes on when its light peer goes away; asked again by the same name it is the same job. Whoever is not admitted
gets a refusal and nothing else. Each stream takes one frame and holds nothing but a place in the job's list of events,
so a slow reader holds up only itself; `STREAMS_MAX` bounds them. Protocol: docs/spec/light.md.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol

import trio

from node.intake import Refused as NotServed
from node.jobs import Board, Job
from node.light.allowances import Allowances, LightJob
from node.light.messages import (
    PART_BYTES_MAX,
    REASON_CHARS_MAX,
    Cancel,
    Done,
    Event,
    Follow,
    Hello,
    Offered,
    Part,
    Refused,
    Reply,
    Request,
    Submit,
    Taken,
    Welcome,
    decode_request,
    refused,
)
from wire import codec
from wire.errors import Busy, ChannelClosed, LocalError, Malformed, StorageError
from wire.peer import PeerId, to_text
from wire.transport import Channel
from workloads.executor import ModelInfo

FOR_BROWSERS = re.compile(r"/(ws|wss|webrtc|webrtc-direct)(/|$)")
"""Addresses that a browser can dial."""

MODELS_MAX = 100
WORN_OUT = "this invitation has ended, was used by another, or is not of this node; ask for a new one"
REQUEST_S = 10.0
"""Seconds until the one frame of a stream must have come."""

STREAMS_MAX = 8
"""Streams of one light peer at once."""

TIMEOUT_S_MAX = 600
FIELDS = ("kind", "model", "input", "lane", "policy", "seed", "budget_micro", "timeout_s")
POLICIES = tuple(f"quorum:{size}" for size in (3, 5, 7))
"""What can be checked from one receipt; without a jury there is nothing to check, and a ladder costs many juries."""


class Jobs(Protocol):
    """What the node does for its own user, done for a light peer."""

    @property
    def board(self) -> Board:
        """All jobs."""
        ...

    def known_models(self) -> Sequence[ModelInfo]:
        """What can be named in a job."""
        ...

    async def submit(self, body: Any) -> Job:
        """Check a request and start on it; raises `LocalError` or `Busy`."""
        ...


class LightService:
    """Serves `/quorate/light/1`; see above."""

    def __init__(
        self,
        jobs: Jobs,
        allowances: Allowances,
        nursery: trio.Nursery,
        *,
        on_fault: Callable[[StorageError], None],
    ) -> None:
        self._jobs = jobs
        self.allowances = allowances
        self._nursery = nursery
        self._on_fault = on_fault
        self._streams: Counter[PeerId] = Counter()
        self._submitting = trio.Lock()
        for job_id in allowances.under_way():
            self._watch(job_id)

    async def serve(self, channel: Channel) -> None:
        """One stream.

        Raises:
            Malformed: no request, or more than one frame.
        """
        peer = channel.peer
        self._streams[peer] += 1
        try:
            if self._streams[peer] > STREAMS_MAX:
                await channel.send(codec.encode(refused("busy", f"{STREAMS_MAX} streams of yours are open", 1.0)))
                return
            frame = b""
            with trio.move_on_after(REQUEST_S):
                frame = await channel.receive()
            if frame:
                await self._answer(channel, frame)
        finally:
            self._streams[peer] -= 1
            if not self._streams[peer]:
                del self._streams[peer]

    async def _answer(self, channel: Channel, frame: bytes) -> None:
        try:
            request = decode_request(frame)
        except Malformed as exc:
            await channel.send(codec.encode(refused("malformed", str(exc))))
            raise

        async def reply(message: Reply) -> None:
            await channel.send(codec.encode(message))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, channel, nursery.cancel_scope)
            try:
                await self._carry_out(channel.peer, request, reply)
            except Busy as exc:
                await reply(refused("busy", str(exc), exc.retry_s))
            except NotServed as exc:
                await reply(refused(exc.code, str(exc)))
            except LocalError as exc:
                await reply(refused("failed", str(exc)))
            nursery.cancel_scope.cancel()

    async def _carry_out(self, peer: PeerId, request: Request, reply: Callable[[Reply], Awaitable[None]]) -> None:
        """Answer a request; whatever is raised on the way is a refusal."""
        if isinstance(request, Hello):
            return await reply(self._welcome(peer, request))
        if not self.allowances.admits(peer):
            return await reply(_stranger())
        found = await self._submit(peer, request) if isinstance(request, Submit) else self._found(peer, request.ask)
        job = self._jobs.board.get(found.id)
        await reply(Taken(found.charged_micro))
        if isinstance(request, Cancel):
            return self._jobs.board.cancel(job)
        after = request.after if isinstance(request, Follow) else -1
        async with aclosing(self._jobs.board.follow(job, after)) as events:
            async for event in events:
                await reply(Event(event["seq"], json.dumps(event, separators=(",", ":"))))
        for name, raw in (("output", job.output), ("receipt", job.receipt)):
            for at in range(0, len(raw or b""), PART_BYTES_MAX):
                await reply(Part(name, (raw or b"")[at : at + PART_BYTES_MAX]))  # type: ignore[arg-type]  # one of two
        error = job.error or {"code": "", "message": ""}
        return await reply(Done(job.state, job.cost_micro, error["code"], error["message"][:REASON_CHARS_MAX]))

    def _welcome(self, peer: PeerId, hello: Hello) -> Reply:
        shown = hello.invitation is not None and self.allowances.redeem(peer, hello.invitation)
        if not (shown or self.allowances.admits(peer)):
            return _stranger() if hello.invitation is None else refused("invitation", WORN_OUT)
        offered = [Offered(model.name, model.cid, model.kind, list(model.lanes)) for model in self._jobs.known_models()]
        limits = self.allowances.limits
        return Welcome(offered[:MODELS_MAX], limits.jobs_max, limits.credit_micro, self.allowances.left_micro(peer))

    def _found(self, peer: PeerId, ask: bytes) -> LightJob:
        found = self.allowances.find(peer, ask)
        if found is None:
            raise NotServed("not_found", "this node knows no such job of yours", status=404)
        return found

    async def _submit(self, peer: PeerId, request: Submit) -> LightJob:
        """Start on a job, or find it where it was asked for before."""
        async with self._submitting:  # what is left is read and charged in one go
            found = self.allowances.find(peer, request.ask)
            if found is not None:
                return found
            body = _body(request.body)
            self.allowances.check_room(peer)
            left = self.allowances.left_micro(peer)
            budget = min(left, body.get("budget_micro", left))
            if budget <= 0:
                raise NotServed("credit", "what you may spend here today is spent; come back tomorrow (UTC)")
            job = await self._jobs.submit({**body, "budget_micro": budget})
            try:
                self.allowances.taken(peer, request.ask, job.id, budget)
            except LocalError:
                self._jobs.board.cancel(job)
                raise
        self._watch(job.id)
        return LightJob(job.id, budget)

    def _watch(self, job_id: str) -> None:
        """Correct what a job was charged when it ends, whoever is there to see it."""

        async def watch() -> None:
            board, cost_micro = self._jobs.board, 0
            with suppress(LocalError):  # its history may have been moved away
                job = board.get(job_id)
                async for _ in board.follow(job, job.next_seq):
                    pass
                cost_micro = job.cost_micro
            try:
                self.allowances.ended(job_id, cost_micro)
            except StorageError as exc:  # it stays charged what it might have cost
                self._on_fault(exc)

        self._nursery.start_soon(watch)

    # ---- what the API shows

    def invite(self, secret: bytes, ends_ms: int, addresses: Sequence[str]) -> dict[str, Any]:
        """A new invitation, and what to paste into a browser: an address of this node with the invitation behind it.

        Args:
            secret: `INVITATION_BYTES` that nobody can guess.
            addresses: of this node.
        """
        self.allowances.invite(secret, ends_ms)
        shown = base64.urlsafe_b64encode(secret).decode().rstrip("=")
        doors = [address for address in addresses if FOR_BROWSERS.search(address)]
        return {"invitation": shown, "ends_ms": ends_ms, "join": [f"{address}~{shown}" for address in doors]}

    def view(self) -> dict[str, Any]:
        """Who is let in, and what each may still spend today."""
        limits, peers = self.allowances.limits, self.allowances.peers()
        return {
            "jobs_max": limits.jobs_max,
            "credit_micro": limits.credit_micro,
            "peers": [{"peer": to_text(peer), "left_micro": self.allowances.left_micro(peer)} for peer in peers],
        }


def _stranger() -> Refused:
    return refused("not_allowed", "this node does not know you; its owner can invite you (quorate light invite)")


async def _until_gone(channel: Channel, scope: trio.CancelScope) -> None:
    """Nobody need be told once nobody is there.

    Raises:
        Malformed: a second frame.
    """
    try:
        await channel.receive()
    except ChannelClosed:
        scope.cancel()
    else:
        raise Malformed("a second frame")


def _body(text: str) -> dict[str, Any]:
    """A submission with the fields and policies that light peers may use.

    Raises:
        NotServed: not so.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise NotServed("bad_request", f"the body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise NotServed("bad_request", "the body must be a JSON object", list(FIELDS))
    unknown = sorted(set(body) - set(FIELDS))
    if unknown:
        raise NotServed("unknown_field", f"unknown field {unknown[0]!r}", list(FIELDS))
    if body.setdefault("policy", POLICIES[0]) not in POLICIES:
        raise NotServed("bad_request", f"policy {body['policy']!r} is not for light peers", list(POLICIES))
    for name, most in (("budget_micro", 2**53), ("timeout_s", TIMEOUT_S_MAX)):
        value = body.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            raise NotServed("bad_request", f"{name} must be a whole number from 1 to {most}")
    return body
