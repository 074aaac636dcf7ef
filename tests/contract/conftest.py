"""The fillings of the Transport seam, one fixture: each contract test runs on all of them.

`libp2p` (our own fast path) and `stock` (py-libp2p's session and muxer) run on loopback under the real clock, `sim`
under a virtual clock that jumps; in `mixed` a dialler on the fast path meets a stock listener; in `relay` neither
of two nodes can be dialled, and all goes through a circuit. `websocket` is the fast path inside of a WebSocket;
over `webrtc` the two have a WebRTC connection and none of TCP (for the seam itself and cancellation: each test
starts a process).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import trio
import trio.testing

from node.reach.quota import Limits
from node.reach.service import open_reach
from node.transport_libp2p import Libp2pTransport, open_transport
from sim.world import world
from tests.contract.webrtc import over_webrtc
from wire.errors import RemoteError
from wire.peer import PeerId
from wire.transport import Transport


class NetTransport(Transport, Protocol):
    """The seam, and what both fillings tell besides."""

    def connected(self) -> list[PeerId]: ...


@dataclass
class Pair:
    """Two transports that know each other's addresses; `bob` serves, `alice` opens.

    Args:
        blamed: what bob's handlers blamed on others.
        bugs: what bob's handlers raised otherwise.
        between: peers to which both are connected, only to reach each other.
    """

    alice: NetTransport
    bob: NetTransport
    blamed: list[RemoteError] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)
    between: list[PeerId] = field(default_factory=list)


FILLINGS = ("sim", "libp2p", "stock", "mixed", "relay", "websocket")
OVER_WEBRTC = ("test_transport_contract", "test_cancellation_contract")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each contract test on each filling."""
    if "filling" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition(".")[2]
        metafunc.parametrize("filling", [*FILLINGS, *(["webrtc"] if module in OVER_WEBRTC else [])], indirect=True)


@pytest.fixture
def filling(request: pytest.FixtureRequest) -> str:
    """Which filling of the seam a test runs on."""
    return str(request.param)


def _run_virtually(main: Callable[[], Awaitable[object]], *, clock: object, instruments: list[Any]) -> object:
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on the simulated network run under its virtual clock."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("filling") == "sim":
            item.add_marker(pytest.mark.trio(run=_run_virtually))


@pytest.fixture
async def pair(filling: str) -> AsyncIterator[Pair]:
    """Alice and Bob on either network."""
    bugs: list[Exception] = []
    if filling == "sim":
        async with world(nodes=2, seed=1, on_bug=bugs.append) as w:
            yield Pair(w.nodes[0].transport, w.nodes[1].transport, w.nodes[1].blamed, bugs)
        return
    blamed: list[RemoteError] = []
    if filling == "relay":
        async with _through_a_relay(blamed, bugs) as joined:
            yield joined
        return
    listen = ["/ip4/127.0.0.1/tcp/0/ws"] if filling == "websocket" else ["/ip4/127.0.0.1/tcp/0"]
    bob_fast = filling not in ("stock", "mixed")
    async with (
        open_transport(b"a" * 32, listen=[], blame=blamed.append, fast_path=filling != "stock") as alice,
        open_transport(b"b" * 32, listen=listen, blame=blamed.append, on_bug=bugs.append, fast_path=bob_fast) as bob,
    ):
        alice.learn(bob.peer, bob.addresses())
        async with AsyncExitStack() as stack:
            if filling == "webrtc":
                await stack.enter_async_context(over_webrtc(alice, bob))
            yield Pair(alice, bob, blamed, bugs)


@asynccontextmanager
async def _through_a_relay(blamed: list[RemoteError], bugs: list[Exception]) -> AsyncIterator[Pair]:
    """Neither listens; bob holds a reservation."""
    async with AsyncExitStack() as stack:

        async def node(seed: bytes, listen: list[str], relays: list[str], limits: Limits | None) -> Libp2pTransport:
            transport = await stack.enter_async_context(
                open_transport(seed * 32, listen=listen, blame=blamed.append, on_bug=bugs.append)
            )
            reach = open_reach(transport, relays=relays, limits=limits, blame=blamed.append)
            await stack.enter_async_context(reach)
            return transport

        relay = await node(b"r", ["/ip4/127.0.0.1/tcp/0"], [], Limits())
        bob = await node(b"b", [], relay.addresses(), None)
        alice = await node(b"a", [], [], None)
        await _eventually(lambda: bool(bob.addresses()), within_s=60.0)
        alice.learn(bob.peer, bob.addresses())
        yield Pair(alice, bob, blamed, bugs, [relay.peer])


async def _eventually(predicate: Callable[[], bool], *, within_s: float = 5.0) -> None:
    with trio.fail_after(within_s):
        while not predicate():  # noqa: ASYNC110 - the seam has no event for what happens at the other side
            await trio.sleep(0.01)


@pytest.fixture
def eventually() -> Callable[..., object]:
    """Wait until a predicate holds, at most five seconds."""
    return _eventually
