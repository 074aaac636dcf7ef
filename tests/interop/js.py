"""js-libp2p for tests: installed once by npm, pinned, into the virtual environment's folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

HERE = Path(__file__).parent
INSTALL_S = 300


def installed() -> Path:
    """A folder with the scripts of this one and the packages that they need; skips the test where it cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: interoperation with js-libp2p is not tested here")
    package = (HERE / "package.json").read_text()
    folder = Path(sys.prefix) / "js-interop"
    if not (folder / "done").exists() or (folder / "done").read_text() != package:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "package.json").write_text(package)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install js-libp2p within {INSTALL_S} s")
        if done.returncode != 0:
            pytest.skip(f"npm cannot install js-libp2p here: {done.stderr.strip()[-300:]}")
        (folder / "done").write_text(package)
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


class Script:
    """A running script: JSON lines in, JSON lines out."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._lines = b""
        self._said: list[dict[str, Any]] = []

    async def tell(self, **ask: Any) -> None:
        """Send a line."""
        assert self._process.stdin is not None, "it has one"
        await self._process.stdin.send_all(json.dumps(ask).encode() + b"\n")

    async def heard(self, key: str, value: Any = None) -> dict[str, Any]:
        """The first line that has a key (with this value), of those not handed out yet; others stay."""
        while True:
            for at, line in enumerate(self._said):
                if key in line and value in (None, line[key]):
                    return self._said.pop(at)
            await self._read()

    async def _read(self) -> None:
        assert self._process.stdout is not None, "it has one"
        more = await self._process.stdout.receive_some()
        assert more, "the script ended"
        *lines, self._lines = (self._lines + more).split(b"\n")
        self._said += [json.loads(line) for line in lines]


def _here(*argv: str) -> list[str]:
    return list(argv)


@asynccontextmanager
async def running(script: str, *args: str, within: Callable[..., list[str]] = _here) -> AsyncIterator[Script]:
    """A script of this folder, until the scope ends.

    Args:
        within: makes a command run elsewhere, such as in a namespace.
    """
    folder = installed()
    node = shutil.which("node")
    assert node is not None, "it is installed"
    process = await trio.lowlevel.open_process(
        within(node, "--no-warnings", str(folder / script), *args),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Script(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
