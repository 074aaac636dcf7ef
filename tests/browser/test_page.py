"""The page in a real browser, with a node that does as a test likes: it believes no receipt, and survives the node."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from node.jobs import Board
from node.light.allowances import Allowances, Limits
from node.light.messages import PROTOCOL
from node.light.page import serve_page
from node.light.service import LightService
from node.transport_libp2p import open_transport
from tests.browser.built import built
from tests.browser.chromium import PATIENCE_S, Page, open_page
from tests.contract.light_market import Market
from tests.sdk.receipts import ACCEPTED, ANSWER
from wire.errors import RemoteError
from wire.identity import Identity
from wire.peer import to_text

ED25519 = Identity.from_seed(b"b" * 32).peer
SECRET = b"s" * 32
FAR_MS = 1 << 50
SHOWN = "!document.getElementById('verdict').hidden && document.getElementById('verdict').dataset.fault"


@dataclass
class Double:
    """A node without a network behind it; `up` serves light peers until the scope ends."""

    home: Path
    market: Market
    allowances: Allowances
    address: str = "/ip4/127.0.0.1/tcp/0/ws"
    blamed: list[RemoteError] = field(default_factory=list)
    invitation: str = ""

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """The same node each time, at the same address."""
        async with (
            open_transport(b"b" * 32, listen=[self.address.split("/p2p/")[0]], blame=self.blamed.append) as transport,
            trio.open_nursery() as nursery,
        ):
            service = LightService(self.market, self.allowances, nursery, on_fault=_fail)
            transport.serve(PROTOCOL, service.serve)
            (self.address,) = transport.addresses()
            if not self.invitation:
                (self.invitation,) = service.invite(SECRET, FAR_MS, [self.address])["join"]
            yield
            nursery.cancel_scope.cancel()

    async def asked(self, count: int = 1) -> Any:
        """The newest job, once there are that many."""
        with trio.fail_after(PATIENCE_S):
            while len(self.market.jobs) < count:  # noqa: ASYNC110 - it comes from another process
                await trio.sleep(0.02)
        return self.market.jobs[-1]


def _fail(exc: Exception) -> None:
    raise exc


@pytest.fixture
def double(tmp_path: Path) -> Any:
    """Lets nobody in without an invitation."""
    board = Board(tmp_path / "jobs.db", lambda: 0, open_max=9, on_fault=_fail)
    allowances = Allowances(tmp_path / "light.db", Limits(2, 100_000, 4), [], lambda: 0)
    yield Double(tmp_path, Market(board), allowances)
    allowances.close()
    board.close()


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[tuple[Page, str]]:
    """A browser, and where the page is."""
    built()
    urls: list[str] = []
    async with trio.open_nursery() as nursery, open_page(profile / "profile") as page:
        nursery.start_soon(serve_page, 0, urls.append)
        while not urls:
            await trio.lowlevel.checkpoint()
        yield page, urls[0]
        nursery.cancel_scope.cancel()


async def _join(page: Page, url: str, double: Double) -> None:
    await page.go(url)
    await page.fill(door=double.invitation)
    await page.press("join-button")
    await page.until("!document.getElementById('asking').hidden")


async def test_a_receipt_of_another_question_is_not_believed(double: Double, tmp_path: Path) -> None:
    async with double.up(), browsing(tmp_path) as (page, url):
        await _join(page, url, double)
        assert await page.text("status") == "connected by WebSocket"
        await page.press("ask-button")
        double.market.finish(await double.asked(), output=ANSWER, receipt=ACCEPTED)
        assert await page.until(SHOWN) == "asked"
        assert "do not believe" in await page.text("verdict-words")
        states = await page.run("[...document.querySelectorAll('#checks li')].map((line) => line.dataset.state)")
        assert states == ["good"] * 7 + ["bad", "unknown"]
        assert page.complaints() == []
    assert double.blamed == []


async def test_a_tampered_receipt_is_shown_as_invalid(double: Double, tmp_path: Path) -> None:
    tampered = ACCEPTED[:-1] + bytes([ACCEPTED[-1] ^ 1])
    async with double.up(), browsing(tmp_path) as (page, url):
        await _join(page, url, double)
        await page.press("ask-button")
        double.market.finish(await double.asked(), output=ANSWER, receipt=tampered)
        assert await page.until(SHOWN) == "certificate.signature"
        bad = await page.run("document.querySelector('#checks li[data-state=bad]').dataset.check")
        assert bad == "certificate"


async def test_the_node_may_go_and_come_back(double: Double, tmp_path: Path) -> None:
    async with browsing(tmp_path) as (page, url):
        async with double.up():
            await _join(page, url, double)
            await page.press("ask-button")
            job = await double.asked()
            await page.until("document.getElementById('steps-done').children.length > 0")
        await page.until("document.getElementById('waiting').textContent.includes('The node is gone')")
        double.market.finish(job, output=ANSWER, receipt=ACCEPTED)
        async with double.up():
            assert await page.until(SHOWN) == "asked"
            assert not await page.run("!document.getElementById('waiting').hidden")
    assert len(double.market.jobs) == 1, "it asked for the same job again"


async def test_a_page_that_is_opened_again_is_the_same_peer_and_finds_its_job(double: Double, tmp_path: Path) -> None:
    async with double.up(), browsing(tmp_path) as (page, url):
        await _join(page, url, double)
        await page.press("ask-button")
        job = await double.asked()
        me = await page.text("me")
        await page.go(url)
        await page.until("document.getElementById('steps-done').children.length > 0")
        assert await page.text("me") == me
        double.market.finish(job, output=ANSWER, receipt=ACCEPTED)
        assert await page.until(SHOWN) == "asked"
    assert len(double.market.jobs) == 1
    assert [peer for peer in double.allowances.peers() if peer] != []


@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        (lambda double: "nonsense", "peer id"),
        (lambda double: double.address.replace("/ws", ""), "WebSocket"),
        (lambda double: double.invitation[:-1], "not whole"),
        (lambda double: double.address, "quorate light invite"),
        (lambda double: f"{double.address}~{'A' * 43}", "new one"),
    ],
    ids=["nonsense", "no door for browsers", "cut off", "no invitation", "another invitation"],
)
async def test_what_goes_wrong_is_said_with_what_to_do(
    double: Double, tmp_path: Path, pasted: Callable[[Double], str], said: str
) -> None:
    async with double.up(), browsing(tmp_path) as (page, url):
        await page.go(url)
        await page.fill(door=pasted(double))
        await page.press("join-button")
        words = await page.until("document.getElementById('error').textContent")
        assert said in words
        assert await page.run("document.getElementById('asking').hidden")


async def test_a_node_that_is_not_there_is_said(double: Double, tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        double.address = f"/ip4/127.0.0.1/tcp/{held.getsockname()[1]}/ws/p2p/{to_text(ED25519)}"
        async with browsing(tmp_path) as (page, url):
            await page.go(url)
            await page.fill(door=double.address)
            await page.press("join-button")
            assert "No connection with the node" in await page.until("document.getElementById('error').textContent")


async def test_what_the_node_refuses_is_said(double: Double, tmp_path: Path) -> None:
    async with double.up(), browsing(tmp_path) as (page, url):
        await _join(page, url, double)
        await page.press("ask-button")
        job = await double.asked()
        double.market.board.update(job, "failed", error={"code": "no_providers", "message": "nobody has it"})
        assert "Nobody offers this model now" in await page.until("document.getElementById('error').textContent")
        assert await page.run("document.getElementById('verdict').hidden")


async def test_files_are_checked_without_a_node(tmp_path: Path) -> None:
    good, bad, answer = tmp_path / "good", tmp_path / "bad", tmp_path / "answer"
    good.write_bytes(ACCEPTED)
    bad.write_bytes(ACCEPTED[:500] + b"x" + ACCEPTED[501:])
    answer.write_bytes(ANSWER)
    async with browsing(tmp_path) as (page, url):
        await page.go(url)
        await page.give("file-receipt", good)
        assert "3 of 3 jurors accepted" in await page.until(
            "!document.getElementById('verdict').hidden && document.getElementById('verdict-words').textContent"
        )
        assert await page.run("document.querySelectorAll('#checks li').length") == 6
        await page.give("file-output", answer)
        await page.until("document.querySelectorAll('#checks li[data-state=good]').length === 7")
        await page.give("file-receipt", bad)
        await page.until("document.getElementById('verdict').dataset.state === 'bad'")
        assert page.complaints() == []


async def test_the_page_lets_nothing_else_in(tmp_path: Path) -> None:
    async with browsing(tmp_path) as (page, url):
        await page.go(url)
        blocked = """new Promise((resolve) => {
          document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
          %s
        })"""
        made = "const made = document.createElement(%r); made.%s; document.body.append(made)"
        attempts = {
            "connect-src": "fetch('https://example.org/').catch(() => undefined)",
            "img-src": "new Image().src = 'https://example.org/x.png'",
            "style-src-elem": made % ("style", "append('a{}')"),
        }
        for directive, attempt in attempts.items():
            assert await page.run(blocked % attempt) == directive
        script = made % ("script", "src = 'https://example.org/x.js'")
        refused = f"(() => {{ try {{ {script} }} catch (error) {{ return error.name }} }})()"
        assert await page.run(refused) == "TypeError", "no script but those that the page names"


def test_the_page_is_as_it_was_built() -> None:
    names = {path.name for path in (built() / "page").iterdir()}
    assert names == {"index.html", "page.js", "style.css", "icon.svg"}
    markup = (built() / "page/index.html").read_text()
    assert [word for word in ("<style", "style=", "<script>", "javascript:", "http:", "https:") if word in markup] == []
