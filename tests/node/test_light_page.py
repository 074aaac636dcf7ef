"""The server of the page: its files and nothing else, under one policy, and a word where there is no page."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from node.light.page import HEADERS, build
from wire.errors import LocalError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Stands for what was built."""
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "page.js").write_text("1")
    (tmp_path / "notes.txt").write_text("not for browsers")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/", 200, "text/html; charset=utf-8"),
        ("/index.html", 200, "text/html; charset=utf-8"),
        ("/page.js", 200, "text/javascript; charset=utf-8"),
        ("/notes.txt", 404, None),
        ("/../page.py", 404, None),
        ("/%2e%2e/index.html", 404, None),
    ],
)
async def test_files_of_the_page_and_no_others(folder: Path, path: str, status: int, kind: str | None) -> None:
    transport = httpx.ASGITransport(app=build(folder))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        got = await client.get(path)
        assert got.status_code == status
        if kind is not None:
            assert got.headers["content-type"] == kind
            assert {name: got.headers[name] for name in HEADERS} == HEADERS
        assert (await client.post(path)).status_code in (404, 405)


def test_the_policy_lets_in_no_script_from_elsewhere_and_none_inline() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "*" not in policy


def test_without_a_build_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="make browser"):
        build(tmp_path)
