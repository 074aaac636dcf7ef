"""The blocking client: the same methods as `quorate.client`, without `await`. One thread at a time."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from quorate import _calls
from quorate._calls import Call
from quorate._events import EventParser, Resume
from quorate._home import discover
from quorate.client import CONNECT_S, RECONNECTS, REPLY_S
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

O = TypeVar("O", bound=Output)  # noqa: E741 # the conventional letter for an output type
T = TypeVar("T")

LOOK_UP_S = 2.0


class SyncClient:
    """A connection to one node. Use it as `with Client.sync() as client`, or call `close`; see `Client`."""

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
        self._http: httpx.Client | None = None
        self._streams: set[SyncEventStream] = set()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; event streams still open end."""
        for stream in list(self._streams):
            stream.close()
        if self._http is not None:
            self._http.close()

    @property
    def http(self) -> httpx.Client:
        """The HTTP client, made when it is first needed; proxies in the environment are not used."""
        if self._http is None:
            import httpx

            self._http = httpx.Client(
                base_url=self.endpoint.url,
                headers=self.endpoint.headers(),
                timeout=httpx.Timeout(REPLY_S, connect=CONNECT_S),
                trust_env=False,
            )
        return self._http

    def _do(self, call: Call[T]) -> T:
        import httpx

        try:
            headers = {"Content-Type": "application/json"} if call.body else {}
            reply = self.http.request(call.method, call.path, content=call.body, headers=headers)
        except (httpx.TransportError, httpx.InvalidURL) as exc:
            raise NodeUnreachable(f"no answer from {self.endpoint.url}: {exc or type(exc).__name__}") from exc
        return call.read(reply.status_code, reply.content)

    def _maybe(self, call: Call[T]) -> T | None:
        try:
            return self._do(call)
        except NotFound:
            return None

    def submit(
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
    ) -> SyncJob[O]:
        """Submit a job; see `Client.submit`."""
        options = {"policy": policy, "lane": lane, "seed": seed, "budget_micro": budget_micro}
        call = _calls.submit(request, **options, timeout_s=timeout_s, retries=retries, calibration=calibration)
        return SyncJob(self, self._do(call), policy)

    def submit_batch(
        self,
        requests: Sequence[Request[O]],
        *,
        policy: str = "sample:auto",
        lane: str | None = None,
        seeds: Sequence[int] | None = None,
        budget_micro: int | None = None,
        timeout_s: float | None = None,
        retries: int = 2,
    ) -> SyncBatch[O]:
        """Submit many jobs of which a few are audited; see `Client.submit_batch`."""
        options = {"policy": policy, "lane": lane, "budget_micro": budget_micro, "timeout_s": timeout_s}
        return SyncBatch(self, self._do(_calls.submit_batch(requests, seeds, **options, retries=retries)))

    def batch(self, batch_id: str) -> SyncBatch[Output]:
        """A batch that was submitted before, by its id. Raises: NotFound."""
        return SyncBatch(self, self._do(_calls.batch(batch_id)))

    def batches(self) -> list[BatchView]:
        """The node's batches, without their answers."""
        return self._do(_calls.BATCHES)

    def job(self, job_id: str) -> SyncJob[Output]:
        """A job that was submitted before, by its id. Raises: NotFound."""
        return SyncJob(self, self._do(_calls.job(job_id)), None)

    def jobs(self) -> list[JobView]:
        """The node's jobs."""
        return self._do(_calls.JOBS)

    def node(self) -> Node:
        """The node itself."""
        return self._do(_calls.NODE)

    def models(self) -> list[Model]:
        """Models on offer."""
        return self._do(_calls.MODELS)

    def peers(self) -> list[Peer]:
        """Peers that the node knows."""
        return self._do(_calls.PEERS)

    def ranking(self) -> list[Ranked]:
        """Peers in the eyes of the node, best first, with reasons."""
        return self._do(_calls.RANKING)

    def ledger(self) -> Ledger:
        """Balance and last entries."""
        return self._do(_calls.LEDGER)

    def ledger_audit(self) -> Audit:
        """Audit the node's ledger from its first entry."""
        return self._do(_calls.LEDGER_AUDIT)


class SyncJob(Generic[O]):
    """A submitted job; see `Job`."""

    def __init__(self, client: SyncClient, view: JobView, policy: str | None) -> None:
        self._client = client
        self._policy = policy
        self.view = view

    @property
    def id(self) -> str:
        """The job's id, in hex."""
        return self.view.id

    def refresh(self) -> JobView:
        """Ask the node for the present state."""
        self.view = self._client._do(_calls.job(self.id))
        return self.view

    def events(self, *, timeout_s: float | None = None) -> SyncEventStream:
        """The job's events from its first to its last; raises `JobTimeout` if they take longer than `timeout_s`."""
        return SyncEventStream(self._client, _calls.events_path(self.id), f"job {self.id[:16]}", timeout_s)

    def cancel(self) -> JobView:
        """Cancel the job; one that has ended stays as it is."""
        self.view = self._client._do(_calls.cancel(self.id))
        return self.view

    def receipt(self) -> Receipt | None:
        """The receipt; None if there is none (yet)."""
        raw = self._client._maybe(_calls.receipt(self.id))
        return None if raw is None else Receipt(raw)

    def evidence(self) -> bytes | None:
        """What convicts the worker whose answer was rejected (`quorate evidence verify`); None if none was."""
        return self._client._maybe(_calls.evidence(self.id))

    def output(self) -> bytes | None:
        """The canonical bytes of the answer; None if there is none (yet)."""
        return self._client._maybe(_calls.output(self.id))

    def result(
        self, *, allow_unaudited: bool | None = None, timeout_s: float | None = None, verify: bool = False
    ) -> Result[O]:
        """Wait for the end and return the answer; see `Job.result`."""
        allowed = self._policy == "none" if allow_unaudited is None else allow_unaudited
        _follow(self, timeout_s)
        check_ended_well(self.view, allow_unaudited=allowed)
        receipt, output_raw = self.receipt(), self.output()
        evidence = self.evidence() if len(self.view.attempts) > 1 else None
        result = conclude(self.view, receipt, output_raw, evidence)
        if verify:
            check_receipt(result)
        return typed(result)


class SyncBatch(Generic[O]):
    """A submitted batch; see `Batch`."""

    def __init__(self, client: SyncClient, view: BatchView) -> None:
        self._client = client
        self.view = view

    @property
    def id(self) -> str:
        """The batch's id, in hex."""
        return self.view.id

    def refresh(self) -> BatchView:
        """Ask the node for the present state."""
        self.view = self._client._do(_calls.batch(self.id))
        return self.view

    def events(self, *, timeout_s: float | None = None) -> SyncEventStream:
        """The batch's events; raises `JobTimeout` if they take longer than `timeout_s`."""
        return SyncEventStream(self._client, _calls.batch_events_path(self.id), f"batch {self.id[:16]}", timeout_s)

    def cancel(self) -> BatchView:
        """Cancel the batch; one that has ended stays as it is."""
        self.view = self._client._do(_calls.cancel_batch(self.id))
        return self.view

    def evidence(self) -> bytes | None:
        """What convicts the worker of a rejected answer (`quorate evidence verify`); None if none was rejected."""
        return self._client._maybe(_calls.batch_evidence(self.id))

    def result(
        self, *, allow_unaudited: bool = False, timeout_s: float | None = None, verify: bool = False
    ) -> BatchResult[O]:
        """Wait for the end and return all answers; see `Batch.result`."""
        _follow(self, timeout_s)
        check_ended_well(self.view, allow_unaudited=allow_unaudited)
        audited = [item.index for item in self.view.items if item.audited]
        receipts = {index: Receipt(self._client._do(_calls.batch_receipt(self.id, index))) for index in audited}
        result = conclude_batch(self.view, receipts)
        if verify:
            outputs = {index: self._client._do(_calls.batch_output(self.id, index)) for index in audited}
            check_batch_receipts(result, outputs)
        return typed_batch(result)


def _follow(work: SyncJob[O] | SyncBatch[O], timeout_s: float | None) -> None:
    """Wait until the last event; work that has ended while its events could not be had counts too."""
    try:
        with work.events(timeout_s=timeout_s) as events:
            for _ in events:
                pass
    except JobTimeout as exc:
        exc.job = work.view
        raise
    except NodeUnreachable:
        if not work.refresh().final:
            raise
    else:
        work.refresh()


class SyncEventStream:
    """Events of one job or batch. Iterate over it; leave it early with `close` or by `with`."""

    def __init__(self, client: SyncClient, path: str, name: str, timeout_s: float | None) -> None:
        self._client = client
        self._path = path
        self._name = name
        self._resume = Resume(client._reconnects)
        self._ready: deque[Event] = deque()
        self._timeout_s = timeout_s
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._closed = False
        self._drop()

    def _drop(self) -> None:
        self._parser = EventParser()
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

    def __enter__(self) -> SyncEventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> SyncEventStream:
        return self

    def __next__(self) -> Event:
        while not (self._closed or self._resume.ended):
            if not self._ready:
                self._more()
            elif self._resume.accept(event := self._ready.popleft()):
                if event.final:
                    self.close()
                return event
        raise StopIteration

    def close(self) -> None:
        """Stop listening; the job goes on."""
        self._closed = True
        self._disconnect()

    def _disconnect(self) -> None:
        response = self._response
        self._drop()
        self._client._streams.discard(self)
        if response is not None:
            response.close()

    def _left_s(self) -> float:
        """Seconds until the deadline, at most `REPLY_S`. Raises: JobTimeout if there are none."""
        if self._deadline_s is None:
            return REPLY_S
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            self.close()
            raise JobTimeout(f"{self._name} has not ended after {self._timeout_s:g} s", code="timeout")
        return min(left_s, REPLY_S)

    def _more(self) -> None:
        """Read one chunk, connecting first where necessary."""
        import httpx

        try:
            if self._chunks is None:
                self._chunks = self._connect()
            chunk = next(self._chunks, None)
        except httpx.TransportError as exc:
            idle = isinstance(exc, httpx.ReadTimeout) and self._chunks is not None
            reason = str(exc) or type(exc).__name__
            chunk = None
        else:
            idle, reason = False, "it ended before the job did"
        self._left_s()
        if chunk is not None:
            self._ready.extend(self._parser.feed(chunk))
            return
        self._disconnect()
        time.sleep(0 if idle else min(self._resume.pause_s(reason), self._left_s()))

    def _connect(self) -> Iterator[bytes]:
        timeout = _timeout(self._left_s(), bounded=self._deadline_s is not None)
        request = self._client.http.build_request("GET", self._path, headers=self._resume.headers(), timeout=timeout)
        self._response = self._client.http.send(request, stream=True)
        self._client._streams.add(self)
        if self._response.status_code != 200:
            content = self._response.read()
            status = self._response.status_code
            self._disconnect()
            raise _calls.error_of(status, content)
        return self._response.iter_raw()


def _timeout(left_s: float, *, bounded: bool) -> httpx.Timeout:
    """Waits of one connection; a bounded stream looks up every `LOOK_UP_S`, and so ends at most that late."""
    import httpx

    read_s = min(left_s, LOOK_UP_S) if bounded else left_s
    return httpx.Timeout(read_s, connect=min(CONNECT_S, left_s))
