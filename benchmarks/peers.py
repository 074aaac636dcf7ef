"""Other people's packages to measure against, each in an environment of its own under the cache folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class PeerMissing(Exception):
    """The package could not be installed or run here; the message says why."""


def python_with(name: str, requirement: str, *, needs: Sequence[str] | None = None) -> Path:
    """The interpreter of an environment that holds `requirement`; made once and kept.

    Args:
        needs: what to install beside it, instead of everything that it asks for.

    Raises:
        PeerMissing: it cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quorate-bench" / name
    interpreter = cache / "bin/python"
    marker = cache / requirement
    if not marker.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(cache)])
        pip = [str(interpreter), "-m", "pip", "install", "--quiet"]
        if needs is None:
            _run([*pip, requirement])
        else:
            _run([*pip, "--no-deps", requirement])
            _run([*pip, *needs])
        marker.touch()
    return interpreter


def ask(interpreter: Path, program: str, *arguments: str) -> Any:
    """Run `program` there; returns the JSON that it prints.

    Raises:
        PeerMissing: it fails.
    """
    return json.loads(_run([str(interpreter), "-c", program, *arguments]))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PeerMissing(str(exc)) from exc
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise PeerMissing(lines[-1])
    return done.stdout
