"""Serves the page for light peers: built files out of memory, to browsers, under a policy that lets nothing else in.

An origin of its own, apart from the local API: it knows no token and no node. The page's scripts and styles are its own
files; it may open WebSockets, to whichever node its user names, and ask nothing else of anybody.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from wire.errors import LocalError

PAGE = Path(__file__).parents[2] / "sdk/browser/dist/page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src ws: wss:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}


def build(folder: Path = PAGE) -> Starlette:
    """The application; its files are read now.

    Raises:
        LocalError: the page was not built.
    """
    if not (folder / "index.html").exists():
        raise LocalError("the page is not built: run `make browser`, which needs node and npm")
    files = {f"/{path.name}": path.read_bytes() for path in folder.iterdir() if path.suffix in KINDS}
    routes = [Route(name, _sender(name, raw)) for name, raw in files.items()]
    return Starlette(routes=[Route("/", _sender("/index.html", files["/index.html"])), *routes])


def _sender(name: str, raw: bytes) -> Callable[[Request], Awaitable[Response]]:
    kind = f"{KINDS[Path(name).suffix]}; charset=utf-8"

    async def send(request: Request) -> Response:
        return Response(raw, headers={**HEADERS, "Content-Type": kind})

    return send


async def serve_page(port: int, listening: Callable[[str], None]) -> None:
    """Serve the page on 127.0.0.1 until cancelled.

    Args:
        port: 0 takes any free one.
        listening: told its URL.

    Raises:
        LocalError: the page was not built, or the port is taken.
    """
    app = build()
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as exc:
        listener.close()
        raise LocalError(f"port {port}: {exc}") from exc
    listening(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.5
    await serve(app, config)  # type: ignore[arg-type]  # Starlette is ASGI 3
