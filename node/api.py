"""The local HTTP API: FastAPI on hypercorn's trio worker, 127.0.0.1 only, one bearer token.

The token stands in `<home>/api.token` (0600) and the address in `<home>/api.json`. Requests for another Host
are refused (DNS rebinding), and so is any without the token. Reference: docs/reference/api.md.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from hypercorn.config import Config
from hypercorn.trio import serve

from node import intake
from node.api_network import network_routes
from node.batches import batch_view, output_of, receipt_of
from node.jobs import Board, Job
from node.light.messages import INVITATION_BYTES
from node.light.service import LightService
from node.views import job_view
from wire.errors import Busy, LocalError, StorageError

if TYPE_CHECKING:
    from node.node import Node

KEEPALIVE_S = 10.0
BODY_BYTES_MAX = 256 << 10
BATCH_BODY_BYTES_MAX = 4 << 20
TOKEN_CHARS_MIN = 32
INVITATION_HOURS = 30 * 24
INVITATION_HOURS_MAX = 366 * 24


def _error(status: int, code: str, message: str, known: list[str] | None = None) -> JSONResponse:
    error: dict[str, Any] = {"code": code, "message": message}
    if known:
        error["known"] = known
    return JSONResponse({"error": error}, status_code=status)


def build(node: Node, token: str) -> FastAPI:
    """The application over one node."""
    app = FastAPI(title="Quorate node", docs_url=None, redoc_url=None)
    _guard(app, token)
    _node_routes(app, node)
    _job_routes(app, node)
    _batch_routes(app, node)
    _ledger_routes(app, node)
    _light_routes(app, node)
    network_routes(app, node)
    return app


def _guard(app: FastAPI, token: str) -> None:
    @app.middleware("http")
    async def check(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        if host not in ("127.0.0.1", "localhost"):
            return _error(400, "bad_request", "the Host header must be 127.0.0.1 or localhost")
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return _error(401, "unauthorized", "send 'Authorization: Bearer <token>'; the token is in api.token")
        most = BATCH_BODY_BYTES_MAX if request.url.path == "/api/v1/batches" else BODY_BYTES_MAX
        if int(request.headers.get("content-length", "0") or 0) > most:
            return _error(413, "bad_request", f"body longer than {most} bytes")
        return await follow(request)

    @app.exception_handler(intake.Refused)
    async def refused(_: Request, exc: intake.Refused) -> JSONResponse:
        return _error(exc.status, exc.code, exc.message, exc.known)

    @app.exception_handler(Busy)
    async def busy(_: Request, exc: Busy) -> JSONResponse:
        response = _error(503, "busy", str(exc))
        response.headers["Retry-After"] = str(max(1, round(exc.retry_s)))
        return response

    @app.exception_handler(StorageError)
    async def storage(_: Request, exc: StorageError) -> JSONResponse:
        return _error(507, "storage", str(exc))

    @app.exception_handler(LocalError)
    async def local(_: Request, exc: LocalError) -> JSONResponse:
        return _error(400, "bad_request", str(exc))

    @app.exception_handler(404)
    async def missing(request: Request, _: Exception) -> JSONResponse:
        return _error(404, "not_found", f"nothing at {request.url.path}")


def _node_routes(app: FastAPI, node: Node) -> None:
    @app.get("/api/v1/node")
    async def about() -> dict[str, Any]:
        return node.about()

    @app.get("/api/v1/models")
    async def models() -> dict[str, Any]:
        return {"models": await node.model_list()}

    @app.get("/api/v1/peers")
    async def peers() -> dict[str, Any]:
        return {"peers": node.peer_list()}

    @app.post("/api/v1/peers/{peer}/ping")
    async def ping(peer: str, count: int = 4) -> dict[str, Any]:
        return {"peer": peer, **asdict(await node.ping(peer, count))}

    @app.get("/api/v1/ranking")
    async def ranking() -> dict[str, Any]:
        return {"ranking": node.ranking()}


def _found(board: Board, job_id: str) -> Job:
    try:
        return board.get(job_id)
    except LocalError as exc:
        raise intake.Refused("not_found", str(exc), status=404) from exc


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError as exc:
        raise intake.Refused("bad_request", f"the body is not JSON: {exc}") from exc


def _events(board: Board, job: Job, request: Request) -> Response:
    last = request.headers.get("last-event-id", "-1")
    if not last.lstrip("-").isdigit():
        raise intake.Refused("bad_request", f"Last-Event-ID {last!r} is not a number")
    return StreamingResponse(_sse(board, job, int(last)), media_type="text/event-stream")


def _download(raw: bytes | None, what: str) -> Response:
    if raw is None:
        raise intake.Refused("not_found", f"there is no {what} (yet)", status=404)
    return Response(raw, media_type="application/octet-stream")


def _job_routes(app: FastAPI, node: Node) -> None:
    def found(job_id: str) -> Job:
        return _found(node.board, job_id)

    @app.post("/api/v1/jobs")
    async def submit(request: Request) -> Response:
        return JSONResponse(job_view(await node.submit(await _body(request))), status_code=202)

    @app.get("/api/v1/jobs")
    async def jobs() -> dict[str, Any]:
        return {"jobs": [job_view(job) for job in node.board.all()]}

    @app.get("/api/v1/jobs/{job_id}")
    async def one(job_id: str) -> dict[str, Any]:
        return job_view(found(job_id))

    @app.post("/api/v1/jobs/{job_id}/cancel")
    async def cancel(job_id: str) -> dict[str, Any]:
        job = found(job_id)
        node.board.cancel(job)
        return job_view(job)

    @app.get("/api/v1/jobs/{job_id}/events")
    async def events(job_id: str, request: Request) -> Response:
        return _events(node.board, found(job_id), request)

    @app.get("/api/v1/jobs/{job_id}/receipt")
    async def receipt(job_id: str) -> Response:
        return _download(found(job_id).receipt, f"receipt of job {job_id}")

    @app.get("/api/v1/jobs/{job_id}/evidence")
    async def evidence(job_id: str) -> Response:
        return _download(found(job_id).evidence, f"evidence of job {job_id}")

    @app.get("/api/v1/jobs/{job_id}/output")
    async def output(job_id: str) -> Response:
        return _download(found(job_id).output, f"output of job {job_id}")


def _batch_routes(app: FastAPI, node: Node) -> None:
    def found(batch_id: str) -> Job:
        return _found(node.batches, batch_id)

    @app.post("/api/v1/batches")
    async def submit(request: Request) -> Response:
        return JSONResponse(batch_view(await node.submit_batch(await _body(request))), status_code=202)

    @app.get("/api/v1/batches")
    async def batches() -> dict[str, Any]:
        return {"batches": [batch_view(batch, outputs=False) for batch in node.batches.all()]}

    @app.get("/api/v1/batches/{batch_id}")
    async def one(batch_id: str) -> dict[str, Any]:
        return batch_view(found(batch_id))

    @app.post("/api/v1/batches/{batch_id}/cancel")
    async def cancel(batch_id: str) -> dict[str, Any]:
        batch = found(batch_id)
        node.batches.cancel(batch)
        return batch_view(batch)

    @app.get("/api/v1/batches/{batch_id}/events")
    async def events(batch_id: str, request: Request) -> Response:
        return _events(node.batches, found(batch_id), request)

    @app.get("/api/v1/batches/{batch_id}/evidence")
    async def evidence(batch_id: str) -> Response:
        return _download(found(batch_id).evidence, f"evidence of batch {batch_id}")

    @app.get("/api/v1/batches/{batch_id}/items/{index}/receipt")
    async def receipt(batch_id: str, index: int) -> Response:
        return _download(receipt_of(found(batch_id), index), f"receipt of job {index} of batch {batch_id}")

    @app.get("/api/v1/batches/{batch_id}/items/{index}/output")
    async def output(batch_id: str, index: int) -> Response:
        return _download(output_of(found(batch_id), index), f"output of job {index} of batch {batch_id}")


async def _sse(board: Board, job: Job, after: int) -> AsyncIterator[str]:
    async for event in board.follow(job, after):
        data = json.dumps(event, separators=(",", ":"))
        yield f"event: {event['type']}\nid: {event['seq']}\ndata: {data}\n\n"


def _ledger_routes(app: FastAPI, node: Node) -> None:
    @app.get("/api/v1/ledger")
    async def ledger() -> dict[str, Any]:
        return await node.ledger_view()

    @app.post("/api/v1/ledger/audit")
    async def audit() -> dict[str, Any]:
        return await node.ledger_audit()


def _light_routes(app: FastAPI, node: Node) -> None:
    def light() -> LightService:
        if node.light is None:
            raise intake.Refused("light_off", "this node serves no light peers; start it with the setting light = true")
        return node.light

    @app.get("/api/v1/light")
    async def view() -> dict[str, Any]:
        return light().view()

    @app.post("/api/v1/light/invitations")
    async def invite(hours: int = INVITATION_HOURS) -> dict[str, Any]:
        if not 1 <= hours <= INVITATION_HOURS_MAX:
            raise intake.Refused("bad_request", f"hours must be from 1 to {INVITATION_HOURS_MAX}, not {hours}")
        context = node.context
        secret, ends_ms = secrets.token_bytes(INVITATION_BYTES), context.now_ms() + hours * 3_600_000
        return light().invite(secret, ends_ms, context.transport.addresses())


def token_file(home: Path) -> str:
    """The API token of this home; made on first use, and again where the file holds none (a crash while writing it).

    Raises:
        StorageError: its file cannot be read or written.
    """
    path = home / "api.token"
    try:
        if path.exists() and len(token := path.read_text().strip()) >= TOKEN_CHARS_MIN:
            return token
        path.unlink(missing_ok=True)
        token = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
    except (OSError, ValueError) as exc:
        raise StorageError(f"{path}: {exc}") from exc
    return token


@asynccontextmanager
async def open_api(node: Node, home: Path, port: int) -> AsyncIterator[str]:
    """Serve the API while the block runs; yields its URL.

    Raises:
        LocalError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()  # whoever reads api.json below can connect at once, and waits until the server accepts
    except OSError as exc:
        listener.close()
        raise LocalError(f"api_port {port}: {exc}") from exc
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.5
    stop = trio.Event()
    app = build(node, token_file(home))
    (home / "api.json").write_text(json.dumps({"url": url, "token_file": str(home / "api.token"), "pid": os.getpid()}))
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]  # FastAPI is ASGI 3

        nursery.start_soon(run)
        try:
            yield url
        finally:
            stop.set()
            (home / "api.json").unlink(missing_ok=True)
            nursery.cancel_scope.deadline = trio.current_time() + 1.0
