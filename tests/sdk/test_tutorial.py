"""The programs of the tutorial run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.node_double import NodeDouble, job_view
from tests.sdk.receipts import ACCEPTED, ANSWER
from tests.sdk.test_discovery import make_home

ROOT = Path(__file__).parents[2]
PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tutorial/first-job.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("number", "kind", "output", "says"),
    [
        (0, "text.generate", {"text": "hello"}, "verdict: accept in lane tolerant by 3 jurors"),
        (1, "image.generate", {"image": {"width": 1, "height": 1, "png_base64": ""}}, "wrote seven.png"),
    ],
)
def test_a_program_of_the_tutorial(
    node: NodeDouble, tmp_path: Path, number: int, kind: str, output: dict[str, object], says: str
) -> None:
    model = {"name": "m", "cid": "bafk", "kind": kind}
    node.replies["GET", "/api/v1/models"] = (200, {"models": [model]})
    node.view = job_view(kind=kind, output=output)
    program = PROGRAMS[number]
    node.receipt, node.output = ACCEPTED, ANSWER
    home = make_home(tmp_path, node.url)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"QUORATE_HOME": str(home), "PYTHONPATH": str(ROOT / "sdk"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


def test_both_programs_are_found() -> None:
    assert len(PROGRAMS) == 2
