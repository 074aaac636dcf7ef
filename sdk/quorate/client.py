"""The asynchronous client: runs under asyncio and under trio. `quorate.sync` is its blocking twin."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from quorate import _calls
from quorate._calls import Call
from quorate._events import EventParser, Resume
from quorate._home import discover
from quorate.errors import JobTimeout, NodeUnreachable, NotFound
from quorate.kinds import Request
from quorate.outputs import Output
from quorate.receipt import Receipt
from quorate.results import (
    BatchResult,
    Result,
    check_batch_receipts,
    check_ended_well,
    check_receipt,
    conclude,
    conclude_batch,
    typed,
    typed_batch,
)
from quorate.views import Audit, BatchView, Event, JobView, Ledger, Model, Node, Peer, Ranked

if TYPE_CHECKING:
    import httpx

    from quorate.sync import SyncClient

O = TypeVar("O", bound=Output)  # noqa: E741 # the conventional letter for an output type
T = TypeVar("T")

CONNECT_S = 5.0
REPLY_S = 30.0
RECONNECTS = 8


class Client:
    """A connection to one node. Use it as `async with Client() as client`, or call `aclose`.

    Args:
        url: the node's address, e.g. `http://127.0.0.1:8400`; found in the home folder if None.
        token: bearer token; found in the home folder if None and `url` is the address found there.
        home: the node's home folder; `$QUORATE_HOME` or `~/.quorate` if None.
        reconnects: how often in a row a broken event stream is resumed without a new event.

    Raises:
        NodeUnreachable: no node has left its address there.
        Unauthorized: its token file cannot be read.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        home: str | os.PathLike[str] | None = None,
        *,
        reconnects: int = RECONNECTS,
    ) -> None:
        self.endpoint = discover(url, token, home)
        self._reconnects = reconnects
        self._http: httpx.AsyncClient | None = None
        self._streams: set[EventStream] = set()

    @classmethod
    def sync(
        cls,
        url: str | None = None,
        token: str | None = None,
        home: str | os.PathLike[str] | None = None,
        *,
        reconnects: int = RECONNECTS,
    ) -> SyncClient:
        """The blocking twin, with the same methods."""
        from quorate.sync import SyncClient

        return SyncClient(url, token, home, reconnects=reconnects)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; event streams still open end."""
        for stream in list(self._streams):
            await stream.aclose()
        if self._http is not None:
            await self._http.aclose()

    @property
    def http(self) -> httpx.AsyncClient:
        """The HTTP client, made when it is first needed; proxies in the environment are not used."""
        if self._http is None:
            import httpx

            self._http = httpx.AsyncClient(
                base_url=self.endpoint.url,
                headers=self.endpoint.headers(),
                timeout=httpx.Timeout(REPLY_S, connect=CONNECT_S),
                trust_env=False,
            )
        return self._http

    async def _do(self, call: Call[T]) -> T:
        import httpx

        try:
            headers = {"Content-Type": "application/json"} if call.body else {}
            reply = await self.http.request(call.method, call.path, content=call.body, headers=headers)
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            raise NodeUnreachable(f"no answer from {self.endpoint.url}: {exc or type(exc).__name__}") from exc
        return call.read(reply.status_code, reply.content)

    async def _maybe(self, call: Call[T]) -> T | None:
        try:
            return await self._do(call)
        except NotFound:
            return None

    async def submit(
        self,
        request: Request[O],
        *,
        policy: str = "quorum:3",
        lane: str | None = None,
        seed: int | None = None,
        budget_micro: int | None = None,
        timeout_s: float | None = None,
        retries: int = 2,
        calibration: str | None = None,
    ) -> Job[O]:
        """Submit a job; returns as soon as the node has accepted it.

        Args:
            request: a `Text`, `Image` or `Embed`.
            policy: "quorum:3" (three jurors check it), "escalate" (larger juries and disputes after dissent) or "none"
                (nobody does).
            lane: "tolerant" or "exact"; the node's default if None.
            seed: 0..2**64-1; drawn by the node if None.
            budget_micro: most that may be paid for all attempts together, in micro-credits.
            timeout_s: seconds after which the node gives the job up.
            retries: further workers to try where one fails or is rejected.
            calibration: hash in hexadecimal, or its beginning, of the calibration record to judge by; the node's
                first choice if None.

        Raises:
            BadRequest: unknown model, field or value; `known` lists what the node knows.
            NoProvider, InsufficientCredit: it cannot be run.
            NodeUnreachable, Unauthorized, NodeBusy, NodeFault: the node.
        """
        options = {"policy": policy, "lane": lane, "seed": seed, "budget_micro": budget_micro}
        call = _calls.submit(request, **options, timeout_s=timeout_s, retries=retries, calibration=calibration)
        return Job(self, await self._do(call), policy)

    async def submit_batch(
        self,
        requests: Sequence[Request[O]],
        *,
        policy: str = "sample:auto",
        lane: str | None = None,
        seeds: Sequence[int] | None = None,
        budget_micro: int | None = None,
        timeout_s: float | None = None,
        retries: int = 2,
    ) -> Batch[O]:
        """Submit many jobs of one kind and model, of which a few, picked by chance, are audited.

        Args:
            requests: 1 to 256.
            policy: "sample:0.1" (a tenth, at least one, goes before a jury of three) or "sample:auto" (as few as keep
                a worker honest).
            seeds: one for each request; drawn by the node if None.
            lane, budget_micro, timeout_s, retries: as in `submit`, of the whole batch.

        Raises:
            BadRequest: as `submit`, or so few audits that cheating would pay; the message names the rate needed.
            NodeUnreachable, Unauthorized, NodeBusy, NodeFault: the node.
        """
        options = {"policy": policy, "lane": lane, "budget_micro": budget_micro, "timeout_s": timeout_s}
        call = _calls.submit_batch(requests, seeds, **options, retries=retries)
        return Batch(self, await self._do(call))

    async def batch(self, batch_id: str) -> Batch[Output]:
        """A batch that was submitted before, by its id. Raises: NotFound."""
        return Batch(self, await self._do(_calls.batch(batch_id)))

    async def batches(self) -> list[BatchView]:
        """The node's batches, without their answers."""
        return await self._do(_calls.BATCHES)

    async def job(self, job_id: str) -> Job[Output]:
        """A job that was submitted before, by its id. Raises: NotFound."""
        return Job(self, await self._do(_calls.job(job_id)), None)

    async def jobs(self) -> list[JobView]:
        """The node's jobs."""
        return await self._do(_calls.JOBS)

    async def node(self) -> Node:
        """The node itself."""
        return await self._do(_calls.NODE)

    async def models(self) -> list[Model]:
        """Models on offer."""
        return await self._do(_calls.MODELS)

    async def peers(self) -> list[Peer]:
        """Peers that the node knows."""
        return await self._do(_calls.PEERS)

    async def ranking(self) -> list[Ranked]:
        """Peers in the eyes of the node, best first, with reasons."""
        return await self._do(_calls.RANKING)

    async def ledger(self) -> Ledger:
        """Balance and last entries."""
        return await self._do(_calls.LEDGER)

    async def ledger_audit(self) -> Audit:
        """Audit the node's ledger from its first entry."""
        return await self._do(_calls.LEDGER_AUDIT)


class Job(Generic[O]):
    """A submitted job; `view` is its state as last heard."""

    def __init__(self, client: Client, view: JobView, policy: str | None) -> None:
        self._client = client
        self._policy = policy
        self.view = view

    @property
    def id(self) -> str:
        """The job's id, in hex."""
        return self.view.id

    async def refresh(self) -> JobView:
        """Ask the node for the present state."""
        self.view = await self._client._do(_calls.job(self.id))
        return self.view

    def events(self) -> EventStream:
        """The job's events from its first to its last; a broken connection is resumed where it broke."""
        return EventStream(self._client, _calls.events_path(self.id))

    async def cancel(self) -> JobView:
        """Cancel the job; one that has ended stays as it is."""
        self.view = await self._client._do(_calls.cancel(self.id))
        return self.view

    async def receipt(self) -> Receipt | None:
        """The receipt; None if there is none (yet)."""
        raw = await self._client._maybe(_calls.receipt(self.id))
        return None if raw is None else Receipt(raw)

    async def evidence(self) -> bytes | None:
        """What convicts the worker whose answer was rejected (`quorate evidence verify`); None if none was."""
        return await self._client._maybe(_calls.evidence(self.id))

    async def output(self) -> bytes | None:
        """The canonical bytes of the answer; None if there is none (yet)."""
        return await self._client._maybe(_calls.output(self.id))

    async def result(
        self, *, allow_unaudited: bool | None = None, timeout_s: float | None = None, verify: bool = False
    ) -> Result[O]:
        """Wait for the end and return the answer.

        Args:
            allow_unaudited: return an answer that no quorum vouches for instead of raising; if None, only for a job
                that was submitted with policy "none".
            timeout_s: longest wait, in seconds; the job goes on at the node after it.
            verify: verify the receipt offline before returning, bound to the answer and its verdict.

        Raises:
            VerificationFailed: the jury rejected the answer.
            Unaudited: no quorum.
            NoProvider, InsufficientCredit, JobTimeout, JobCancelled, JobFailed: no answer.
            InvalidReceipt: only with `verify`.
            NodeUnreachable, NodeFault: the node.
        """
        import anyio

        allowed = self._policy == "none" if allow_unaudited is None else allow_unaudited
        with anyio.move_on_after(timeout_s) as scope:
            await _followed(self)
            check_ended_well(self.view, allow_unaudited=allowed)
            receipt = await self.receipt()
            output_raw = await self.output()
            evidence = await self.evidence() if len(self.view.attempts) > 1 else None
        if scope.cancelled_caught:
            raise JobTimeout(f"job {self.id[:16]} has not ended after {timeout_s:g} s", code="timeout", job=self.view)
        result = conclude(self.view, receipt, output_raw, evidence)
        if verify:
            await anyio.to_thread.run_sync(check_receipt, result)
        return typed(result)


class Batch(Generic[O]):
    """A submitted batch; `view` is its state as last heard."""

    def __init__(self, client: Client, view: BatchView) -> None:
        self._client = client
        self.view = view

    @property
    def id(self) -> str:
        """The batch's id, in hex."""
        return self.view.id

    async def refresh(self) -> BatchView:
        """Ask the node for the present state."""
        self.view = await self._client._do(_calls.batch(self.id))
        return self.view

    def events(self) -> EventStream:
        """The batch's events; `data["index"]` says of which job."""
        return EventStream(self._client, _calls.batch_events_path(self.id))

    async def cancel(self) -> BatchView:
        """Cancel the batch; one that has ended stays as it is."""
        self.view = await self._client._do(_calls.cancel_batch(self.id))
        return self.view

    async def evidence(self) -> bytes | None:
        """What convicts the worker of a rejected answer (`quorate evidence verify`); None if none was rejected."""
        return await self._client._maybe(_calls.batch_evidence(self.id))

    async def result(
        self, *, allow_unaudited: bool = False, timeout_s: float | None = None, verify: bool = False
    ) -> BatchResult[O]:
        """Wait for the end and return all answers, each with what may be said of it.

        Args:
            allow_unaudited: return the answers of a batch that its juries came to no verdict on instead of raising.
            timeout_s: longest wait, in seconds; the batch goes on at the node after it.
            verify: verify the receipts of the audited answers offline before returning.

        Raises:
            VerificationFailed: a jury rejected an answer: none of the batch counts.
            Unaudited, NoProvider, InsufficientCredit, JobTimeout, JobCancelled, JobFailed: no result.
            InvalidReceipt: only with `verify`.
            NodeUnreachable, NodeFault: the node.
        """
        import anyio

        with anyio.move_on_after(timeout_s) as scope:
            await _followed(self)
            check_ended_well(self.view, allow_unaudited=allow_unaudited)
            audited = [item.index for item in self.view.items if item.audited]
            receipts = {i: Receipt(await self._client._do(_calls.batch_receipt(self.id, i))) for i in audited}
            wanted = audited if verify else []
            outputs = {i: await self._client._do(_calls.batch_output(self.id, i)) for i in wanted}
        if scope.cancelled_caught:
            message = f"batch {self.id[:16]} has not ended after {timeout_s:g} s"
            raise JobTimeout(message, code="timeout", job=self.view)
        result = conclude_batch(self.view, receipts)
        if verify:
            await anyio.to_thread.run_sync(check_batch_receipts, result, outputs)
        return typed_batch(result)


async def _followed(work: Job[O] | Batch[O]) -> None:
    """Wait until the last event; work that has ended while its events could not be had counts too."""
    try:
        async with work.events() as events:
            async for _ in events:
                pass
    except NodeUnreachable:
        if not (await work.refresh()).final:
            raise
    else:
        await work.refresh()


class EventStream:
    """Events of one job or batch. Iterate over it; leave it early with `aclose` or by `async with`."""

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._path = path
        self._resume = Resume(client._reconnects)
        self._ready: deque[Event] = deque()
        self._closed = False
        self._drop()

    def _drop(self) -> None:
        self._parser = EventParser()
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while not (self._closed or self._resume.ended):
            if not self._ready:
                await self._more()
            elif self._resume.accept(event := self._ready.popleft()):
                if event.final:
                    await self.aclose()
                return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop listening; the job goes on."""
        self._closed = True
        await self._disconnect()

    async def _disconnect(self) -> None:
        import anyio

        chunks, response = self._chunks, self._response
        self._drop()
        self._client._streams.discard(self)
        with anyio.CancelScope(shield=True):  # closing does not wait for the node, and must not be left half done
            if response is not None:
                await response.aclose()
            if chunks is not None:
                await _finish(chunks)

    async def _more(self) -> None:
        """Read one chunk, connecting first where necessary."""
        import anyio
        import httpx

        try:
            if self._chunks is None:
                self._chunks = await self._connect()
            chunk = await anext(self._chunks, None)
        except httpx.TransportError as exc:
            idle = isinstance(exc, httpx.ReadTimeout) and self._chunks is not None
            reason = str(exc) or type(exc).__name__
            chunk = None
        else:
            idle, reason = False, "it ended before the job did"
        if chunk is not None:
            self._ready.extend(self._parser.feed(chunk))
            return
        await self._disconnect()
        await anyio.sleep(0 if idle else self._resume.pause_s(reason))

    async def _connect(self) -> AsyncIterator[bytes]:
        request = self._client.http.build_request("GET", self._path, headers=self._resume.headers())
        self._response = await self._client.http.send(request, stream=True)
        self._client._streams.add(self)
        if self._response.status_code != 200:
            content = await self._response.aread()
            status = self._response.status_code
            await self._disconnect()
            raise _calls.error_of(status, content)
        return self._response.aiter_raw()


async def _finish(chunks: AsyncIterator[bytes]) -> None:
    """Run the iterator of a closed response to its end.

    httpx nests five asynchronous generators, and closing the outer one leaves the others to the garbage collector,
    of which trio complains. Reading from the closed connection ends all of them at once.
    """
    import httpx

    with suppress(httpx.HTTPError, httpx.StreamError):
        while await anext(chunks, None) is not None:
            pass
