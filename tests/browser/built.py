"""The browser client, built: npm installs what its lock names, once, and esbuild bundles it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parents[2] / "sdk/browser"
INSTALL_S = 300


@cache
def _refusal() -> str:
    """Why it cannot be built here; empty once it is."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not installed: the browser client is not tested here"
    stamp, lock = SOURCES / "node_modules/.installed", (SOURCES / "package-lock.json").read_text()
    if not stamp.exists() or stamp.read_text() != lock:
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        except subprocess.TimeoutExpired:
            return f"npm did not install what the browser client needs within {INSTALL_S} s"
        if done.returncode != 0:
            return f"npm cannot install what the browser client needs: {done.stderr.strip()[-300:]}"
        stamp.write_text(lock)
    subprocess.run(["node", "build.mjs"], cwd=SOURCES, check=True)
    return ""


def built() -> Path:
    """The folder of what was built; skips the test where that cannot be."""
    if reason := _refusal():
        pytest.skip(reason)
    return SOURCES / "dist"


def told(tool: str, lines: Iterable[str]) -> list[Any]:
    """What one of the tools says to each line."""
    command = ["node", str(built() / "tools" / f"{tool}.mjs")]
    given = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
