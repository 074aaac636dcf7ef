"""A node's network half as a process: our real transport, told over standard input what to do.

One JSON object a line in each direction. It says `{"peer": ..., "addresses": [...]}` when it is ready, answers each
`{"do": ..., ...}` with `{"ok": ...}` or `{"error": ...}`, in order, and ends when its input does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import trio

from dht.service import Dht, open_dht
from node import log
from node.doors.mdns import open_mdns
from node.node import now_ms
from node.reach.quota import Limits
from node.reach.service import Reach, open_reach
from node.relay_directory import RelayDirectory
from node.rpc.node import open_rpc
from node.transport_libp2p import Libp2pTransport, open_transport
from node.webrtc.service import WebRtc, open_webrtc
from wire.errors import RemoteError, TransportError
from wire.identity import Identity
from wire.peer import PeerId, from_text, to_text
from wire.transport import Channel

ECHO = "/quorate/lab/echo/1"


NEIGHBOURS: dict[str, list[str]] = {}
"""Peers that were found by multicast DNS."""


async def _echo(channel: Channel) -> None:
    while True:
        await channel.send(await channel.receive())


class Probe:
    """The commands, one method each."""

    def __init__(self, transport: Libp2pTransport, reach: Reach, dht: Dht | None) -> None:
        self._transport = transport
        self._reach = reach
        self._dht = dht
        self.rtc: WebRtc | None = None
        self._kept: Channel | None = None

    async def learn(self, peer: str, addresses: list[str]) -> None:
        """Where a peer may be dialled."""
        self._transport.learn(from_text(peer), addresses)

    async def find(self, peer: str, seconds_max: float) -> list[str]:
        """Where a peer says that it may be dialled, from the DHT, as soon as that is through a relay; learned, too."""
        assert self._dht is not None
        with trio.fail_after(seconds_max):
            while True:
                found = await self._dht.find_peer(from_text(peer))
                if any("p2p-circuit" in address for address in found):
                    self._transport.learn(from_text(peer), found)
                    return found
                await trio.sleep(0.1)

    async def addresses(self) -> list[str]:
        """What we advertise."""
        return self._transport.addresses()

    async def drop(self, peer: str) -> None:
        """Close the connections with a peer."""
        await self._reach.ways.drop(from_text(peer))

    async def until_neighbours(self, count: int, seconds_max: float) -> dict[str, list[str]]:
        """Wait until so many peers were found by multicast DNS; which."""
        await self._wait(seconds_max, lambda: len(NEIGHBOURS) >= count)
        return NEIGHBOURS

    async def view(self) -> dict[str, Any]:
        """What is known of how we are reached."""
        return self._reach.view()

    async def until(self, seconds_max: float, **wanted: Any) -> float:
        """Wait until the view has these values (`True` stands for any that is not empty); the seconds that it took."""
        return await self._wait(seconds_max, lambda: all(_fits(self._reach.view()[key], wanted[key]) for key in wanted))

    async def until_settled(self, relays: int, seconds_max: float) -> None:
        """Wait until our addresses were checked by all relays, and either one was proven or all let us in."""

        def settled() -> bool:
            view = self._reach.view()
            known = view["nat"] != "unknown" and view["peers_direct"] >= relays
            judged = [claim["reached"] + claim["failed"] >= relays for claim in view["claims"]]
            return known and bool(judged) and all(judged) and bool(view["proven"] or len(view["relays"]) >= relays)

        await self._wait(seconds_max, settled)

    async def until_relays(self, count: int, seconds_max: float) -> float:
        """Wait until so many relays let us in; the seconds that it took."""
        return await self._wait(seconds_max, lambda: len(self._reach.view()["relays"]) == count)

    async def until_holds(self, relay: str, seconds_max: float) -> float:
        """Wait until this relay lets us in; the seconds that it took."""
        return await self._wait(seconds_max, lambda: relay in self._reach.view()["relays"])

    async def until_direct(self, peer: str, seconds_max: float) -> float:
        """Wait for a direct connection with a peer; the seconds that it took."""
        return await self._wait(seconds_max, lambda: self._path(peer) in ("direct", "both"))

    async def until_udp(self, peer: str, seconds_max: float) -> float:
        """Wait for a WebRTC connection with a peer; the seconds that it took."""
        return await self._wait(seconds_max, lambda: bool(self._reach.ways.over_udp(from_text(peer))))

    async def until_tried(self, peer: str, seconds_max: float) -> float:
        """Wait until a WebRTC connection was tried in vain and none with a peer is being tried; the seconds."""
        rtc = self.rtc
        assert rtc is not None
        return await self._wait(seconds_max, lambda: rtc.failed > 0 and not rtc.under_way(from_text(peer)))

    async def until_decided(self, peer: str, seconds_max: float) -> str:
        """Wait until a direct connection stands, or WebRTC was tried in vain; which."""
        rtc, ways, other = self.rtc, self._reach.ways, from_text(peer)
        assert rtc is not None
        await self._wait(seconds_max, lambda: bool(ways.direct(other)) or (rtc.failed > 0 and not rtc.under_way(other)))
        return "UDP" if ways.over_udp(other) else "TCP" if ways.direct(other) else "relayed"

    async def until_path(self, peer: str, path: str, seconds_max: float) -> float:
        """Wait until the ways to a peer are `direct`, `relayed`, `both` or `none`; the seconds that it took."""
        return await self._wait(seconds_max, lambda: self._path(peer) == path)

    async def path(self, peer: str) -> str:
        """The ways to a peer now."""
        return self._path(peer)

    def _path(self, peer: str) -> str:
        ways, other = self._reach.ways, from_text(peer)
        direct, relayed = bool(ways.direct(other)), bool(ways.relayed(other))
        return {(True, True): "both", (True, False): "direct", (False, True): "relayed"}.get((direct, relayed), "none")

    async def _wait(self, seconds_max: float, holds: Callable[[], bool]) -> float:
        began = trio.current_time()
        with trio.fail_after(seconds_max):
            while not holds():  # noqa: ASYNC110 - the library has no event for what changes here
                await trio.sleep(0.02)
        return trio.current_time() - began

    async def bulk(self, peer: str, megabytes: int, seconds_max: float) -> float:
        """Send frames of 1 MB and get each back; the seconds that it took."""
        began = trio.current_time()
        with trio.fail_after(seconds_max):
            channel = await self._transport.open(from_text(peer), ECHO)
            try:
                for number in range(megabytes):
                    frame = bytes([number]) * 1_000_000
                    await channel.send(frame)
                    if await channel.receive() != frame:
                        raise AssertionError("the echo is another frame")
            finally:
                await channel.aclose()
        return trio.current_time() - began

    async def echo(self, peer: str, seconds_max: float) -> float:
        """Open a channel, send one frame, get it back; the seconds that it took."""
        began = trio.current_time()
        with trio.fail_after(seconds_max):
            channel = await self._transport.open(from_text(peer), ECHO)
            try:
                await _there_and_back(channel)
            finally:
                await channel.aclose()
        return trio.current_time() - began

    async def keep(self, peer: str, seconds_max: float) -> None:
        """Open a channel and keep it open for `again`."""
        with trio.fail_after(seconds_max):
            self._kept = await self._transport.open(from_text(peer), ECHO)
            await _there_and_back(self._kept)

    async def again(self, seconds_max: float) -> None:
        """One more frame over the channel that was kept."""
        assert self._kept is not None
        with trio.fail_after(seconds_max):
            await _there_and_back(self._kept)

    async def let_go(self) -> None:
        """Close the channel that was kept."""
        assert self._kept is not None
        await self._kept.aclose()


async def _there_and_back(channel: Channel) -> None:
    await channel.send(b"there and back")
    if await channel.receive() != b"there and back":
        raise AssertionError("the echo is another frame")


def _fits(value: Any, wanted: Any) -> bool:
    return bool(value) if wanted is True else bool(value == wanted)


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


async def _obey(probe: Probe, line: str) -> None:
    order = json.loads(line)
    method: Callable[..., Awaitable[Any]] = getattr(probe, order.pop("do"))
    try:
        _say(ok=await method(**order))
    except trio.TooSlowError:
        _say(error="too slow")
    except (TransportError, RemoteError) as exc:
        _say(error=str(exc))


async def main(config: dict[str, Any]) -> None:
    """Run until the input ends."""
    limits = Limits(**config["relay"]) if "relay" in config else None
    identity = Identity(config["seed"].encode())
    async with (
        open_transport(identity, listen=config["listen"], blame=_blame) as transport,
        open_reach(
            transport,
            relays=config.get("relays", ()),
            limits=limits,
            map_port=config.get("map_port", ()),
            blame=_blame,
        ) as reach,
        AsyncExitStack() as stack,
    ):
        transport.serve(ECHO, _echo)
        if config.get("mdns"):

            async def found(peer: PeerId, addresses: list[str]) -> None:
                transport.learn(peer, addresses)
                NEIGHBOURS[to_text(peer)] = addresses

            await stack.enter_async_context(open_mdns(transport.peer, transport.listening, found))
        rtc = None
        if config.get("webrtc"):
            rtc = await stack.enter_async_context(open_webrtc(transport))
            reach.over_udp = rtc.upgrade
        dht = None
        if "bootstrap" in config:
            dht = await stack.enter_async_context(_joined(identity, transport, reach, config["bootstrap"]))
        _say(peer=to_text(transport.peer), addresses=transport.addresses())
        probe = Probe(transport, reach, dht)
        probe.rtc = rtc
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            await _obey(probe, line)


@asynccontextmanager
async def _joined(
    identity: Identity, transport: Libp2pTransport, reach: Reach, bootstrap: list[str]
) -> AsyncIterator[Dht]:
    """A DHT, and relays found in it: all that a node with no setting but `bootstrap` has."""
    seeds = [from_text(address.rpartition("/p2p/")[2]) for address in bootstrap]
    for seed, address in zip(seeds, bootstrap, strict=True):
        transport.learn(seed, [address])
    async with (
        open_rpc(transport, blame=_blame) as rpc,
        open_dht(transport, rpc, identity, now_ms, None, seeds, blame=_blame) as dht,
    ):
        reach.discover(RelayDirectory(dht, None), Random(identity.peer))
        await dht.bootstrap()
        yield dht


def _blame(exc: RemoteError) -> None:
    print(f"blamed: {exc}", file=sys.stderr)


if __name__ == "__main__":
    log.configure("info", as_json=True)  # to standard error: standard output is for answers
    trio.run(main, json.loads(sys.argv[1]))
