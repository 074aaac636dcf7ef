"""The Transport seam on the simulated network: one per life of a node."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from sim.channel import Item, Pipe, SimChannel
from sim.network import SimNetwork
from wire.admission import Admission
from wire.errors import Unreachable
from wire.limits import ADDRESSES_PER_PEER_MAX, CHANNELS_PER_PEER_MAX
from wire.peer import PeerId, short, to_text
from wire.serving import Blame, Bug, run_handler
from wire.transport import Channel, Handler

CONNECT_S = 5.0
"""Virtual seconds after which an `open` that got no answer fails."""


class Directory:
    """Which node answers at which address, and which life of it."""

    def __init__(self) -> None:
        self.alive: dict[int, SimTransport] = {}
        self.number: dict[PeerId, int] = {}


def address_of(number: int, peer: PeerId) -> str:
    """The multiaddr of a simulated node."""
    return f"/memory/{number}/p2p/{to_text(peer)}"


class SimTransport:
    """See `wire.transport.Transport`; handlers run in `nursery`, the node's own."""

    def __init__(
        self,
        network: SimNetwork,
        directory: Directory,
        peer: PeerId,
        nursery: trio.Nursery,
        *,
        blame: Blame,
        on_bug: Bug | None = None,
    ) -> None:
        self._network = network
        self._directory = directory
        self._peer = peer
        self._number = directory.number[peer]
        self._nursery = nursery
        self._blame = blame
        self._on_bug = on_bug
        self._handlers: dict[str, Handler] = {}
        self._known: dict[PeerId, list[str]] = {}
        self._admission = Admission[SimChannel](lambda channel: channel.ended is not None)
        directory.alive[self._number] = self

    @property
    def peer(self) -> PeerId:
        return self._peer

    def addresses(self) -> list[str]:
        return [address_of(self._number, self._peer)]

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        merged = dict.fromkeys([*addresses, *self._known.get(peer, [])])
        self._known[peer] = list(merged)[:ADDRESSES_PER_PEER_MAX]

    def connected(self) -> list[PeerId]:
        """Peers with which a connection stands."""
        numbers = {number: peer for peer, number in self._directory.number.items()}
        return [numbers[number] for number in self._network.neighbours(self._number)]

    def serve(self, protocol: str, handler: Handler) -> None:
        self._handlers[protocol] = handler

    # ---- opening

    async def open(self, peer: PeerId, protocol: str) -> Channel:
        await trio.lowlevel.checkpoint()
        target = self._route(peer)
        connected = self._network.is_connected(self._number, target)
        channel = self._pair(peer, target)
        hello = Item("open", partial(self._knock, target, channel, protocol))
        self._network.transmit(channel.out, hello, extra_delays=0 if connected else 2)
        try:
            with trio.fail_after(CONNECT_S):
                await channel.opened.wait()
        except trio.TooSlowError:
            self._network.reset(channel, "no answer")
            raise Unreachable(f"{short(peer)}: no answer within {CONNECT_S:g} s") from None
        except trio.Cancelled:
            self._network.reset(channel, "abandoned")
            raise
        if channel.refused is not None:
            raise Unreachable(f"{short(peer)} {channel.refused}")
        return channel

    def _route(self, peer: PeerId) -> int:
        if self._directory.alive.get(self._number) is not self:
            raise Unreachable("the transport is closed")
        if peer == self._peer:
            raise Unreachable("a node opens no channel to itself")
        target = self._directory.number.get(peer)
        if target is None or not (
            address_of(target, peer) in self._known.get(peer, ()) or self._network.is_connected(self._number, target)
        ):
            raise Unreachable(f"{short(peer)}: no address known")
        return target

    def _pair(self, peer: PeerId, target: int) -> SimChannel:
        channel = self._network.next_channel()
        here = SimChannel(self._network, peer, Pipe(self._number, target, channel))
        here.join(SimChannel(self._network, self._peer, Pipe(target, self._number, channel)))
        return here

    def _knock(self, target: int, channel: SimChannel, protocol: str) -> None:
        """The request to open has reached the other node."""
        host = self._directory.alive.get(target)
        handler = host.handler(protocol) if host is not None else None
        if host is None or handler is None:
            reason = "refused the connection" if host is None else f"does not serve {protocol}"
            refuse = Item("refuse", partial(_answer, self._network, channel, reason))
            self._network.transmit(channel.other.out, refuse)
            return
        self._network.establish(channel)
        self._network.transmit(channel.other.out, Item("accept", partial(_answer, self._network, channel, None)))
        host.welcome(channel.other, handler)

    # ---- serving

    def handler(self, protocol: str) -> Handler | None:
        """What serves `protocol` here."""
        return self._handlers.get(protocol)

    def welcome(self, channel: SimChannel, handler: Handler) -> None:
        """Run a handler for a channel opened to us, unless that peer has too many."""
        if not self._admission.admit(channel.peer, channel):
            refuse = partial(self._network.reset, channel, f"more than {CHANNELS_PER_PEER_MAX} channels")
            self._network.transmit(channel.out, Item("reset", refuse))
            return
        self._nursery.start_soon(self._run_inbound, channel, handler)

    async def _run_inbound(self, channel: SimChannel, handler: Handler) -> None:
        try:
            await run_handler(handler, channel, blame=self._blame, on_bug=self._on_bug)
        finally:
            self._admission.done(channel.peer, channel)
            await channel.aclose()

    # ---- closing

    def crash(self) -> None:
        """End every channel at once."""
        if self._directory.alive.get(self._number) is self:
            del self._directory.alive[self._number]
            self._network.crash(self._number)


def _answer(network: SimNetwork, channel: SimChannel, refusal: str | None) -> None:
    channel.refused = refusal
    channel.opened.set()
    if refusal is not None:
        network.reset(channel, refusal)
