"""Real node processes on loopback, shared by the tests of this folder that leave them as they found them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node.swarm import Swarm, six

MODELS = ("bytes-gpt", "digits-ddim", "ngram-embed")


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """Six honest nodes, started, that have found one another's models."""
    swarm = six()
    try:
        swarm.start_all()
        for member in swarm.members:
            swarm.await_providers(member, dict.fromkeys(MODELS, 5))
        yield swarm
    finally:
        killed = swarm.stop()
    assert killed == [], "each node stops within five seconds of SIGTERM"
