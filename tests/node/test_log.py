"""The log of a node whose standard error has gone."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
import structlog

from node import log


@pytest.fixture
def unconfigured() -> Iterator[None]:
    """What other tests log to is not what this one leaves behind."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("unconfigured")
def test_what_is_logged_to_a_closed_stream_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure("info", as_json=True)
    log.get().info("before")
    assert '"event": "before"' in stream.getvalue()
    stream.close()
    log.get().info("after")
