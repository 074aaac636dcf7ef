"""Chromium, driven over a pipe by its DevTools protocol: no port, no driver, a profile that ends with the test."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

PATIENCE_S = 180
"""Seconds for whatever a page is waited for: far beyond what it takes, for a machine that does much else."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers; the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing leaves this machine
)

UNTIL = """new Promise((resolve) => {
  const check = () => { const found = (() => %s)(); if (found) { watch.disconnect(); resolve(found); } };
  const watch = new MutationObserver(check);
  watch.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  check();
})"""


class Devtools:
    """The protocol: commands with answers, and events, as JSON with a zero byte behind each."""

    def __init__(self, reading: trio.lowlevel.FdStream, writing: trio.lowlevel.FdStream) -> None:
        self._reading, self._writing = reading, writing
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}
        self.events: list[dict[str, Any]] = []

    async def read(self) -> None:
        """Take what comes until the browser ends."""
        held = b""
        async for piece in self._reading:
            *whole, held = (held + piece).split(b"\0")
            for raw in whole:
                message = json.loads(raw)
                if message.get("id") in self._waiting:
                    done, answers = self._waiting.pop(message["id"])
                    answers.append(message)
                    done.set()
                else:
                    self.events.append(message)

    async def command(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command, and its result."""
        number, done = next(self._ids), trio.Event()
        answers: list[dict[str, Any]] = []
        self._waiting[number] = done, answers
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        await self._writing.send_all(json.dumps(message).encode() + b"\0")
        with trio.fail_after(PATIENCE_S):
            await done.wait()
        assert "error" not in answers[0], f"{method}: {answers[0].get('error')}"
        result: dict[str, Any] = answers[0]["result"]
        return result


class Page:
    """One tab."""

    def __init__(self, devtools: Devtools, session: str) -> None:
        self._devtools, self._session = devtools, session

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to this tab."""
        return await self._devtools.command(method, self._session, **params)

    async def run(self, expression: str) -> Any:
        """The value of an expression, of a promise once it is settled."""
        said = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, expression: str) -> Any:
        """The value of an expression once it is true; looked at whenever the page changes."""
        return await self.run(UNTIL % expression)

    async def go(self, url: str) -> None:
        """Open a page, or the same one anew."""
        await self.command("Page.navigate", url="about:blank")
        await self.command("Page.navigate", url=url)
        await self.run("new Promise((go) => document.readyState === 'complete' ? go() : addEventListener('load', go))")

    async def text(self, element: str) -> str:
        """What an element says."""
        return str(await self.run(f"document.getElementById({element!r}).textContent"))

    async def fill(self, **fields: str) -> None:
        """Type into fields."""
        for name, value in fields.items():
            await self.run(f"document.getElementById({name!r}).value = {json.dumps(value)}")

    async def press(self, element: str) -> None:
        """Click."""
        await self.run(f"document.getElementById({element!r}).click()")

    async def give(self, element: str, *files: Path) -> None:
        """Choose files."""
        root = await self.command("DOM.getDocument")
        node = await self.command("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=f"#{element}")
        await self.command("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(file) for file in files])

    async def look(self, file: Path, *, width: int, dark: bool) -> None:
        """A picture of the whole page."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.command("Emulation.setEmulatedMedia", features=scheme)
        shot = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await trio.Path(file).write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the browser complained of: errors that nothing caught, and whatever the page's policy refused."""
        found = []
        for event in self._devtools.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"])[:500])
            elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
        return found


def _program() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("chromium is not installed: the page for light peers is not tested here")
    return found


@asynccontextmanager
async def open_page(profile: Path) -> AsyncIterator[Page]:
    """A tab of a browser of its own, until the scope ends; skips the test where there is no Chromium."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", _program(), *FLAGS]
    process = await trio.lowlevel.open_process(
        [*command, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    reading, writing = trio.lowlevel.FdStream(ours_in), trio.lowlevel.FdStream(ours_out)
    devtools = Devtools(reading, writing)
    try:
        async with reading, writing, trio.open_nursery() as nursery:
            nursery.start_soon(devtools.read)
            target = await devtools.command("Target.createTarget", url="about:blank")
            attached = await devtools.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            page = Page(devtools, attached["sessionId"])
            for domain in ("Page", "Runtime", "Log", "DOM"):
                await page.command(f"{domain}.enable")
            yield page
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
