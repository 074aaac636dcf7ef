"""What the how-to page shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "replay-a-simulation.md").read_text()


def test_the_example_runs() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("b'hello' ")


def test_the_printed_replay_is_of_the_form_it_has() -> None:
    (command,) = re.findall(r"^    python -m (sim 31 --scenario gossip) --nodes", PAGE, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    shown = re.findall(r"^    ((?:scenario|events|trace|ok).*)$", PAGE, re.MULTILINE)
    strip = re.compile(r"[0-9a-f]{64}|[0-9.]+")
    assert [strip.sub("*", line) for line in done.stdout.splitlines()] == [strip.sub("*", line) for line in shown]
