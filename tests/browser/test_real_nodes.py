"""The page among real nodes: it joins one by WebSocket, has a text and a picture made, and checks both receipts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.light.page import PAGE
from node.swarm import Member, Swarm, six
from tests.browser.built import built
from tests.browser.chromium import Page
from tests.browser.test_page import browsing

VALID = "!document.getElementById('verdict').hidden && document.getElementById('verdict').dataset.state"


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Six nodes; the first has a door for browsers."""
    assert built() / "page" == PAGE
    swarm = six()
    host = swarm.members[0]
    host.home.mkdir(mode=0o700)
    (host.home / "config.toml").write_text("light = true\n")
    host.options += ["--listen", "/ip4/127.0.0.1/tcp/0/ws"]
    try:
        swarm.start_all()
        swarm.await_providers(host, {"bytes-gpt": 5, "digits-ddim": 5})
        yield swarm
    finally:
        swarm.stop()


def _light(member: Member, *command: str) -> subprocess.CompletedProcess[str]:
    """One of the commands of `quorate light`."""
    line = [sys.executable, "-m", "node", "light", *command, "--home", str(member.home)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def _invitation(swarm: Swarm) -> str:
    made = _light(swarm.members[0], "invite", "--hours", "1")
    assert (made.returncode, made.stderr) == (0, "")
    (join,) = made.stdout.splitlines()
    return join


def test_a_node_without_the_setting_makes_no_invitations(swarm: Swarm) -> None:
    refused = _light(swarm.members[1], "invite")
    assert refused.returncode == 1
    assert "light = true" in refused.stderr


async def _checked(page: Page) -> None:
    """The page found the receipt valid, about its own question, and a jury that accepted."""
    assert await page.until(VALID) == "good", await page.text("checks")
    assert "3 of 3 jurors accepted it" in await page.text("verdict-words")
    assert await page.run("document.querySelectorAll('#checks li[data-state=good]').length") == 9
    assert await page.run("document.querySelectorAll('#jurors tr').length") == 3
    assert await page.text("answer-state") == "checked"


async def test_a_text_and_a_picture_are_made_and_checked(swarm: Swarm, tmp_path: Path) -> None:
    invitation = await trio.to_thread.run_sync(_invitation, swarm)
    async with browsing(tmp_path) as (page, url):
        await page.go(f"{url}#{invitation}")
        await page.until("!document.getElementById('asking').hidden")
        assert await page.run("location.hash") == "", "the invitation is not left in the address"
        await page.look(tmp_path / "joined.png", width=1000, dark=False)
        assert (await page.text("left")).startswith("100,000 of 100,000")
        await page.press("ask-button")
        await _checked(page)
        assert await page.text("text") != ""
        cost = await page.run("document.querySelector('[data-step=cost]').textContent.replace(/\\D/g, '')")
        left = f"{100_000 - int(cost):,} of 100,000"
        await page.until(f"document.getElementById('left').textContent.startsWith({left!r})")
        for width, dark in ((1000, False), (1000, True), (390, False), (390, True)):
            await page.look(tmp_path / f"text-{width}-{'dark' if dark else 'light'}.png", width=width, dark=dark)
            fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            assert await page.run(fits), f"it is wider than {width} pixels"
        await page.run("document.querySelector('input[value=\"image.generate\"]').click()")
        await page.press("ask-button")
        await page.until("!document.getElementById('picture').hidden")
        await _checked(page)
        shades = """(() => { const canvas = document.getElementById('picture');
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return new Set(data).size; })()"""
        assert await page.run(shades) > 10, "a picture is drawn"
        await page.until(f"!document.getElementById('left').textContent.startsWith({left!r})")
        await page.look(tmp_path / "picture-390-dark.png", width=390, dark=True)
        assert page.complaints() == []
        listed = await trio.to_thread.run_sync(_light, swarm.members[0], "ls")
        assert listed.stdout == f"{await page.text('me')}  {await page.text('left')}\n"
