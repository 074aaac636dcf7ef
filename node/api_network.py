"""Routes of the local API that show the network: metrics, and what happens as it happens (docs/reference/api.md)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import trio
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from node import intake

if TYPE_CHECKING:
    from node.node import Node

HEARTBEAT_S = 15.0
"""After so long without an event a comment is sent, so that a reader that has left is noticed."""


def network_routes(app: FastAPI, node: Node) -> None:
    """Add them to `app`."""

    @app.get("/api/v1/metrics")
    async def metrics() -> Response:
        from node.metrics import CONTENT_TYPE, exposition

        return Response(exposition(node), media_type=CONTENT_TYPE)

    @app.get("/api/v1/events")
    async def events(request: Request) -> Response:
        last = request.headers.get("last-event-id", "-1")
        if not last.lstrip("-").isdigit() or len(last) > 18:
            raise intake.Refused("bad_request", f"Last-Event-ID {last[:40]!r} is not a number")
        return StreamingResponse(_sse(node, int(last)), media_type="text/event-stream")


async def _sse(node: Node, after: int) -> AsyncIterator[str]:
    while True:
        news = node.events.news
        for event in node.events.since(after):
            after = event["seq"]
            yield f"event: {event['type']}\nid: {after}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"
        if after < node.events.last:
            continue
        with trio.move_on_after(HEARTBEAT_S) as quiet:
            await news.wait()
        if quiet.cancelled_caught:
            yield ": nothing new\n\n"
