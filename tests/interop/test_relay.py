"""Circuit relay v2 with js-libp2p in each role: the relay between us, our guest, and the caller of our guests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from node.reach.quota import Limits
from node.reach.service import Reach, open_reach
from node.transport_libp2p import Libp2pTransport, open_transport
from tests.interop.js import Script, running
from wire.errors import ChannelClosed, RemoteError, Unreachable
from wire.peer import PeerId, from_text, to_text
from wire.transport import Channel

ECHO = "/quorate/interop/echo/1"
LIMIT_S = 120.0
INSTALL_S = 300.0
FRAME = bytes(range(256)) * 64


def nobody(error: RemoteError) -> None:
    """No test here expects blame."""
    raise AssertionError(str(error))


async def echo(channel: Channel) -> None:
    """Answer every frame with itself."""
    while True:
        try:
            await channel.send(await channel.receive())
        except ChannelClosed:
            return


@asynccontextmanager
async def ours(
    letter: bytes, *, relays: list[str] | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[Libp2pTransport, Reach]]:
    """A node of ours that echoes."""
    async with (
        open_transport(letter * 32, blame=nobody) as transport,
        open_reach(transport, relays=relays or [], limits=limits, blame=nobody) as reach,
    ):
        transport.serve(ECHO, echo)
        yield transport, reach


@asynccontextmanager
async def js(**options: object) -> AsyncIterator[tuple[Script, PeerId, list[str]]]:
    """A js-libp2p node that echoes; it, who it is, and where it listens."""
    async with running("relay.mjs", ECHO, json.dumps(options)) as script:
        hello = await script.heard("peer")
        yield script, from_text(hello["peer"]), hello["addresses"]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something of which neither side tells."""
    while not holds():  # noqa: ASYNC110 - the library has no event for it
        await trio.sleep(0.01)


def circuits(addresses: list[str]) -> list[str]:
    """Those that lead through a relay."""
    return [address for address in addresses if "/p2p-circuit" in address]


async def there_and_back(caller: Libp2pTransport, peer: PeerId, addresses: list[str]) -> None:
    """A frame to a peer that is known by these addresses alone."""
    caller.learn(peer, addresses)
    channel = await caller.open(peer, ECHO)
    await channel.send(FRAME)
    assert await channel.receive() == FRAME
    assert channel.peer == peer
    await channel.aclose()


async def test_our_guest_and_our_caller_meet_at_its_relay() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            js(relay=True) as (_, relay, addresses),
            ours(b"g", relays=addresses) as (guest, guest_reach),
            ours(b"c") as (caller, caller_reach),
        ):
            await until(lambda: relay in guest_reach.circuits.held)
            await there_and_back(caller, guest.peer, circuits(guest.addresses()))
            assert (caller_reach.ways.direct(guest.peer), len(caller_reach.ways.relayed(guest.peer))) == ([], 1)


async def test_its_caller_reaches_our_guest_at_its_relay() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            js(relay=True) as (_, relay, addresses),
            js(listen=[]) as (caller, _, _),
            ours(b"g", relays=addresses) as (guest, reach),
        ):
            await until(lambda: relay in reach.circuits.held)
            await caller.tell(call=circuits(guest.addresses())[0], size=50_000)
            assert await caller.heard("called") == {"called": to_text(guest.peer), "missing": 0, "relayed": True}


async def test_its_guest_and_its_caller_meet_at_our_relay() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with ours(b"r", limits=Limits()) as (relay, reach):
            through = f"{relay.addresses()[0]}/p2p-circuit"
            async with js(listen=[through]) as (_, guest, addresses), js(listen=[]) as (caller, _, _):
                assert circuits(addresses)
                await caller.tell(call=circuits(addresses)[0], size=300_000)
                assert await caller.heard("called") == {"called": to_text(guest), "missing": 0, "relayed": True}
                assert reach.relay is not None
                assert reach.relay.bytes_passed > 600_000


async def test_our_caller_reaches_its_guest_at_our_relay() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with ours(b"r", limits=Limits()) as (relay, _):
            through = f"{relay.addresses()[0]}/p2p-circuit"
            async with js(listen=[through]) as (_, guest, addresses), ours(b"c") as (caller, reach):
                await there_and_back(caller, guest, circuits(addresses))
                assert (reach.ways.direct(guest), len(reach.ways.relayed(guest))) == ([], 1)


async def test_its_caller_reaches_our_guest_at_our_relay() -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with (
            ours(b"r", limits=Limits()) as (relay, _),
            ours(b"g", relays=relay.addresses()) as (guest, reach),
            js(listen=[]) as (caller, _, _),
        ):
            await until(lambda: relay.peer in reach.circuits.held)
            await caller.tell(call=circuits(guest.addresses())[0], size=50_000)
            assert await caller.heard("called") == {"called": to_text(guest.peer), "missing": 0, "relayed": True}


@pytest.mark.parametrize("at", ["ours", "its"])
async def test_who_has_no_reservation_is_not_reached(at: str) -> None:
    with trio.fail_after(INSTALL_S + LIMIT_S):
        async with ours(b"c") as (caller, _), ours(b"s") as (stranger, _), js(relay=True) as (script, _, addresses):
            if at == "its":
                caller.learn(stranger.peer, [f"{addresses[0]}/p2p-circuit/p2p/{to_text(stranger.peer)}"])
                with pytest.raises(Unreachable, match="no reservation"):
                    await caller.open(stranger.peer, ECHO)
                return
            async with ours(b"r", limits=Limits()) as (relay, _):
                await script.tell(call=f"{relay.addresses()[0]}/p2p-circuit/p2p/{to_text(stranger.peer)}", size=1)
                assert "NO_RESERVATION" in (await script.heard("refused"))["why"]
