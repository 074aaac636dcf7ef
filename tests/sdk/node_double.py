"""A small HTTP server that speaks a node's API over real sockets, with the jobs that a test scripts.

It runs in a thread of its own on a free port of 127.0.0.1, so that both clients are tested against it as they are
used: from trio, from asyncio and blocking.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a token of the tests"
JOB_ID = "ab" * 32

Json = dict[str, Any]
Reply = tuple[int, Json | bytes]


def job_view(**changes: Any) -> Json:
    """A settled, accepted text job, with changes."""
    juror = {"verdict": "accept", "distances": {"margin": 0.25}}
    return {
        "id": JOB_ID,
        "kind": "text.generate",
        "model": "bytegpt",
        "state": "settled",
        "verdict": "accept",
        "lane": "tolerant",
        "worker": "12D3KooWworker",
        "jury": [{"peer": f"12D3KooWjuror{at}", **juror} for at in range(3)],
        "thresholds": {"margin": 1.0},
        "output": {"text": "hello"},
        "cost_micro": 1300,
        "attempts": [{"worker": "12D3KooWworker", "verdict": "accept", "reason": ""}],
        "error": None,
        "seconds": 1.5,
    } | changes


def event(seq: int, kind: str, **fields: Any) -> bytes:
    """One event as the node writes it."""
    data = json.dumps({"seq": seq, "at_ms": 1_000 + seq, "type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\nid: {seq}\ndata: {data}\n\n".encode()


WHOLE_LIFE = [
    event(0, "queued"),
    event(1, "matched", worker="12D3KooWworker"),
    event(2, "running", done=1, total=2),
    event(3, "running", text="hel\u2028lo"),
    event(4, "auditing"),
    event(5, "settled", verdict="accept"),
]


@dataclass
class NodeDouble:
    """What the server answers, and what it was asked.

    Attributes:
        replies: by method and path; wins over everything else.
        view: of the job `JOB_ID`.
        streams: for each connection to its events in turn, the chunks to write; the last is used again. A
            `threading.Event` among the chunks holds the connection open until it is set.
        asked: (method, path, headers, body) of each request.
    """

    url: str = ""
    replies: dict[tuple[str, str], Reply] = field(default_factory=dict)
    view: Json = field(default_factory=job_view)
    streams: list[list[bytes | threading.Event]] = field(default_factory=lambda: [list(WHOLE_LIFE)])
    receipt: bytes | None = b"receipt"
    output: bytes | None = b"output"
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    until_closed: threading.Event = field(default_factory=threading.Event)
    connections: int = 0

    def requests(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        """Headers and bodies of all requests for a path."""
        return [(headers, body) for _, asked, headers, body in self.asked if asked == path]

    def answer(self, method: str, path: str) -> Reply:
        """The reply to anything but an event stream."""
        if (method, path) in self.replies:
            return self.replies[method, path]
        known: dict[tuple[str, str], Callable[[], Reply]] = {
            ("POST", "/api/v1/jobs"): lambda: (202, self.view | {"state": "queued", "verdict": None, "output": None}),
            ("GET", "/api/v1/jobs"): lambda: (200, {"jobs": [self.view], "more": 0}),
            ("GET", f"/api/v1/jobs/{JOB_ID}"): lambda: (200, self.view),
            ("POST", f"/api/v1/jobs/{JOB_ID}/cancel"): lambda: (200, self.view | {"state": "cancelled"}),
            ("GET", f"/api/v1/jobs/{JOB_ID}/receipt"): lambda: _document(self.receipt),
            ("GET", f"/api/v1/jobs/{JOB_ID}/output"): lambda: _document(self.output),
        }
        return known[method, path]() if (method, path) in known else problem(404, "not_found", path)


def problem(status: int, code: str, message: str = "said so", known: list[str] | None = None) -> Reply:
    """An error as the node reports it."""
    return status, {"error": {"code": code, "message": message} | ({"known": known} if known else {})}


def _document(raw: bytes | None) -> Reply:
    return problem(404, "not_found") if raw is None else (200, raw)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: NodeDouble

    def log_message(self, format: str, *args: object) -> None:
        """Tests read `asked` instead."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _serve(self, body: bytes) -> None:
        double = self.double
        double.asked.append((self.command, self.path, dict(self.headers), body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._reply(problem(401, "unauthorized", "wrong token"))
        elif self.path.endswith("/events") and ("GET", self.path) not in double.replies:
            self._stream()
        else:
            self._reply(double.answer(self.command, self.path))

    def _reply(self, reply: Reply) -> None:
        status, content = reply
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self) -> None:
        double = self.double
        chunks = double.streams[min(double.connections, len(double.streams) - 1)]
        double.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for chunk in chunks:
            if isinstance(chunk, threading.Event):
                chunk.wait(30)
            else:
                self.wfile.write(chunk)
                self.wfile.flush()
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


@contextmanager
def serve() -> Iterator[NodeDouble]:
    """A running double on a free port; its listener and open streams end with the scope."""
    double = NodeDouble()
    handler = type("Handler", (_Handler,), {"double": double})
    with _Server(("127.0.0.1", 0), handler) as server:
        double.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield double
        finally:
            double.until_closed.set()
            server.shutdown()
            thread.join()
