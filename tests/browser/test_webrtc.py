"""The page and a node that nobody can dial: by WebRTC over its relay's WebSocket, and by the relay where that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from node.light.messages import PROTOCOL
from node.light.service import LightService
from node.reach.quota import Limits
from node.reach.service import open_reach
from node.transport_libp2p import Libp2pTransport, open_transport
from node.webrtc.service import open_webrtc
from tests.browser.chromium import PATIENCE_S
from tests.browser.test_page import FAR_MS, SECRET, SHOWN, Double, _fail, browsing, double
from tests.sdk.receipts import ACCEPTED, ANSWER

__all__ = ["double"]


@asynccontextmanager
async def _behind_a_relay(double: Double, *, webrtc: bool) -> AsyncIterator[None]:
    """The double listens nowhere and has a reservation; `double.invitation` leads through the relay's WebSocket."""
    async with AsyncExitStack() as stack:

        async def node(seed: bytes, listen: list[str], relays: list[str], limits: Limits | None) -> Libp2pTransport:
            transport = await stack.enter_async_context(
                open_transport(seed * 32, listen=listen, blame=double.blamed.append)
            )
            reach = open_reach(transport, relays=relays, limits=limits, blame=double.blamed.append)
            await stack.enter_async_context(reach)
            if webrtc and relays:
                await stack.enter_async_context(open_webrtc(transport))
            return transport

        relay = await node(b"r", ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws"], [], Limits())
        by_tcp = next(address for address in relay.addresses() if "/ws" not in address)
        by_web = next(address for address in relay.addresses() if "/ws" in address)
        hidden = await node(b"b", [], [by_tcp], None)
        with trio.fail_after(PATIENCE_S):
            while not hidden.addresses():  # noqa: ASYNC110 - a reservation is no event
                await trio.sleep(0.02)
        (address,) = hidden.addresses()
        nursery = await stack.enter_async_context(trio.open_nursery())
        service = LightService(double.market, double.allowances, nursery, on_fault=_fail)
        hidden.serve(PROTOCOL, service.serve)
        through = by_web + address[address.index("/p2p-circuit") :]
        (double.invitation,) = service.invite(SECRET, FAR_MS, [through])["join"]
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("webrtc", "path"), [(True, "WebRTC"), (False, "WebSocket through a relay")], ids=["WebRTC", "no WebRTC"]
)
async def test_a_node_behind_a_relay_is_reached(double: Double, tmp_path: Path, webrtc: bool, path: str) -> None:
    large: Any = ANSWER + bytes(600_000)
    async with _behind_a_relay(double, webrtc=webrtc), browsing(tmp_path) as (page, url):
        await page.go(f"{url}#{double.invitation}")
        await page.until("!document.getElementById('asking').hidden")
        assert await page.text("status") == f"connected by {path}"
        await page.press("ask-button")
        double.market.finish(await double.asked(), output=large, receipt=ACCEPTED)
        assert await page.until(SHOWN) == "answer", "all of it came, and is another answer"
        assert page.complaints() == []
    assert double.blamed == []
