"""A fresh lab for each test, and probes in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.nat.lab import Lab, obstacle, open_lab
from tests.nat.probes import Probes


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab; all that is built in it is gone afterwards."""
    why = obstacle()
    if why is not None:
        pytest.skip(why)
    with open_lab() as opened:
        yield opened


@pytest.fixture
async def probes(lab: Lab) -> AsyncIterator[Probes]:
    """Starts probes on hosts of the lab."""
    started = Probes()
    try:
        yield started
    finally:
        await started.stop_all()
