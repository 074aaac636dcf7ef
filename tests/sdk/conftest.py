"""The double of a node, and a way to run one scenario with each client."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from quorate import Client
from tests.sdk.node_double import TOKEN, NodeDouble, serve

Scenario = Callable[[Any], Awaitable[Any]]
Run = Callable[[Scenario], Any]


@pytest.fixture
def node() -> Iterator[NodeDouble]:
    with serve() as double:
        yield double


async def settle(value: Any) -> Any:
    """What a call returned: the blocking client returns values, the asynchronous one awaitables."""
    return await value if inspect.isawaitable(value) else value


async def collect(stream: Any) -> list[Any]:
    """All events of a stream of either client."""
    return [event async for event in stream] if hasattr(stream, "__anext__") else list(stream)


@pytest.fixture(params=["trio", "asyncio", "blocking"])
def run(request: pytest.FixtureRequest, node: NodeDouble) -> Run:
    """Runs a scenario with a client of the double: asynchronous under trio, under asyncio, or blocking."""
    flavour: str = request.param

    async def with_client(scenario: Scenario) -> Any:
        if flavour == "blocking":
            with Client.sync(node.url, TOKEN, reconnects=1) as blocking:
                return await scenario(blocking)
        async with Client(node.url, TOKEN, reconnects=1) as client:
            return await scenario(client)

    return lambda scenario: anyio.run(with_client, scenario, backend="asyncio" if flavour == "blocking" else flavour)
