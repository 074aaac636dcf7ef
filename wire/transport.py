"""The network seam: ordered, framed, bounded duplex channels to authenticated peers.

Two fillings pass the same contract tests: libp2p (`node.transport_libp2p`) and the simulated network
(`sim.network`). Everything above this seam is written once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from wire.peer import PeerId


class Channel(Protocol):
    """An ordered duplex of frames with one authenticated peer.

    Frames arrive whole, in order, at most once. `aclose` queues behind the frames already sent: the other
    side receives all of them before it sees the end. Cancelling a `send` or `receive` leaves the channel
    either untouched or closed, never out of step.
    """

    @property
    def peer(self) -> PeerId:
        """Who is at the other end; proven by the transport's handshake."""
        ...

    async def send(self, frame: bytes) -> None:
        """Send one frame.

        Raises:
            FrameTooLarge: longer than `wire.limits.FRAME_BYTES_MAX`; the channel stays usable.
            ChannelClosed: the channel has ended.
        """
        ...

    async def receive(self) -> bytes:
        """The next frame.

        Raises:
            ChannelClosed: the other side closed, after all of its frames were received, or the connection died.
            FrameTooLarge: the other side announced a frame past the limit; the channel is closed.
        """
        ...

    async def aclose(self) -> None:
        """Close; may be called again. The other side still receives every frame sent before."""
        ...


Handler = Callable[[Channel], Awaitable[None]]


class Transport(Protocol):
    """Opens and serves channels."""

    @property
    def peer(self) -> PeerId:
        """Our own identity."""
        ...

    async def open(self, peer: PeerId, protocol: str) -> Channel:
        """Open a channel; the caller bounds the time.

        Raises:
            Unreachable: no connection, or the peer does not serve `protocol`.
        """
        ...

    def serve(self, protocol: str, handler: Handler) -> None:
        """Run `handler` for each channel that a peer opens on `protocol`; the channel is closed when it returns."""
        ...

    def addresses(self) -> list[str]:
        """Our own dialable addresses, as multiaddr text ending in `/p2p/<peer id>`."""
        ...

    def learn(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Remember where `peer` may be dialled; at most a small number of addresses is kept."""
        ...
